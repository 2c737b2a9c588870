"""What choosing costs beside what it is for: wall time of score, select, finetune and evaluate, by size of the pool.

    python -m benchmarks.selectors.overhead                                # an hour on two CPU cores
    python -m benchmarks.selectors.overhead --jobs "stories260k 1000"      # a minute
    python -m benchmarks.selectors.overhead --jobs peers                   # beside transformers, torch, submodlib

A job is a model and a pool's size; a tenth of the pool is bought and trained on for two epochs. Pools are slices of the
real one. Training of more than STEPS updates is timed for so many and scaled; "smollm2 100000" has generated
embeddings to select from, and the score and finetune times of "smollm2 1000" scaled by tokens. Each such number is
marked in the row. `benchmarks.harness.cost` foretells every row from the efficiencies of the others.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.harness import cost, runner
from benchmarks.harness.data import mixture
from edjax.data.features import Features
from edjax.data.pool import Pool, read_pool
from edjax.evaluation import evaluate
from edjax.finetuning import FinetuneConfig, finetune
from edjax.scoring import score
from edjax.selection.choose import select

SHARED = runner.ROOT.parent / "shared"
MODELS = {"smollm2": "smollm2", "stories260k": str(SHARED / "models" / "stories260k")}
SIZES = {"stories260k": (1000, 10000, 96395), "smollm2": (1000, 100000)}
JOBS = (*(f"{m} {n}" for m, sizes in SIZES.items() for n in sizes), "peers")
STRATEGIES = ("mean_entropy", "k_center", "d_optimal", "facility_location")
NEW, EPOCHS, HELD, STEPS, BATCH = 16, 2, 200, 150, 32
CONFIG = {"learning_rate": 5e-4, "max_length": 512, "save_steps": 0, "template": "plain"}


def slices(rows: int) -> tuple[Pool, Pool]:
    """A seeded slice of the pool, and of pool_val."""
    made = []
    for name, count in (("pool", rows), ("pool_val", HELD)):
        pool = read_pool(str(SHARED / "data" / f"{name}.parquet"))
        picked = np.random.Generator(np.random.PCG64(0)).permutation(len(pool))[:count]
        made.append(pool.take(sorted(int(i) for i in picked)))
    return made[0], made[1]


def timed(f: Callable[..., Any], *args: Any, **options: Any) -> tuple[float, Any]:
    start = time.perf_counter()
    done = f(*args, **options)
    return time.perf_counter() - start, done


def selecting(features: Features, budget: int) -> dict[str, dict[str, float]]:
    """By strategy: seconds of the first call, which compiles, and of a second one; one of a minute is not repeated."""
    made = {}
    for s in STRATEGIES:
        first = timed(select, features, s, budget)[0]
        made[s] = {"first_s": first, "again_s": first if first > 60 else timed(select, features, s, budget)[0]}
    return made


def measure(name: str, rows: int) -> dict[str, Any]:
    """All stages of one model and pool, each in this process after the one before it."""
    from edjax.lm.load import load

    pool, held = slices(rows)
    loaded, budget = load(MODELS[name]), rows // 10
    same = {"template": "plain", "max_length": 512, "loaded": loaded, "show_progress": False}
    score_s, features = timed(score, pool, name, max_new_tokens=NEW, batch_size=BATCH, **same)
    picks = selecting(features, budget)
    bought = pool.take(int(i) for i in np.random.Generator(np.random.PCG64(1)).permutation(rows)[:budget])
    size = 4 if name == "smollm2" else 32
    steps = EPOCHS * math.ceil(budget / size)
    until = {"max_steps": STEPS} if steps > STEPS else {"num_train_epochs": EPOCHS}
    config = FinetuneConfig(**CONFIG, **until, per_device_train_batch_size=size)
    with tempfile.TemporaryDirectory() as folder:
        to = {"out": Path(folder) / "adapter", "config": config, "loaded": loaded, "show_progress": False}
        train_s, done = timed(finetune, bought, name, **to)
    eval_s, _ = timed(evaluate, held, name, metrics=["response_loss"], batch_size=16, **same)
    scale = steps / done.steps
    facts = {
        "prompt_tokens": float(np.mean(features.facts["n_prompt_tokens"])),
        "new_tokens": float(np.mean(features.facts["n_new_tokens"])),
        "response_tokens": done.response_tokens / budget,
        "train_batch": size,
        "scaled": {"finetune": f"{done.steps} of {steps} updates timed"} if scale > 1 else {},
    }
    return row(name, rows, budget, facts, {"score": score_s, "finetune": train_s * scale, "evaluate": eval_s}, picks)


def row(name, rows, budget, facts, seconds, picks) -> dict[str, Any]:
    """What the results file holds of a job, shares included."""
    train = seconds["finetune"]
    shares = {
        s: {
            "select_share_of_finetune": t["again_s"] / train,
            "with_compiling": t["first_s"] / train,
            "score_and_select_share": (seconds["score"] + t["first_s"]) / train,
        }
        for s, t in picks.items()
    }
    shape = {"model": name, "n": rows, "budget": budget, "epochs": EPOCHS, "evaluation_rows": HELD}
    return {"job": f"{name} {rows}", **shape, **facts, "seconds": seconds, "select": picks, "shares": shares}


def generated(rows: int, of: dict[str, Any], width: int) -> dict[str, Any]:
    """The same for a pool that is too large to score here: `of` scaled by rows, selection on generated embeddings."""
    x = mixture(rows, width)
    scores = np.random.Generator(np.random.PCG64(0)).random((1, rows), np.float32)
    ids = tuple(str(i) for i in range(rows))
    features = Features(ids, x, {"mean_entropy": scores[0]}, {}, "generated")
    times = rows / of["n"]
    seconds = {k: v * (1 if k == "evaluate" else times) for k, v in of["seconds"].items()}
    note = f"{of['job']} times {times:g}"
    facts = {k: of[k] for k in ("prompt_tokens", "new_tokens", "response_tokens", "train_batch")}
    facts["scaled"] = {"score": note, "finetune": note, "select": "generated embeddings"}
    return row(of["model"], rows, rows // 10, facts, seconds, selecting(features, rows // 10))


def peers(rows: int = 1000, scored: int = 200) -> dict[str, Any]:
    """SmolLM2 on a slice of the pool, by us and by what a person would use: score and select, not finetune."""
    from benchmarks.model.score_torch import Torch
    from benchmarks.selectors.peers import installed, problem, usable
    from edjax.lm.encode import Encoder
    from edjax.lm.load import load
    from edjax.selection.prepared import prepare

    pool, _ = slices(rows)
    few, loaded = pool.take(range(scored)), load(MODELS["smollm2"])
    same = {"template": "plain", "max_length": 512, "loaded": loaded, "show_progress": False}
    ours_s, _ = timed(score, few, "smollm2", max_new_tokens=NEW, batch_size=BATCH, **same)
    peer, encode = Torch(loaded.directory, runner.machine()["cores"]), Encoder(loaded.tokenizer, "plain", 512).prompt
    torch_s, _ = timed(peer.score, encode, few, NEW, BATCH)
    features = score(pool, "smollm2", max_new_tokens=0, batch_size=BATCH, **same)
    x, budget = prepare(np.asarray(features.embeddings)), rows // 10
    selected: dict[str, Any] = {}
    for strategy in STRATEGIES[1:]:
        found, missing = usable(strategy, installed(strategy))
        given = problem(x, budget)
        times = {"edjax": min(timed(select, features, strategy, budget)[0] for _ in range(3))}
        times |= {n: min(timed(p.run, given)[0] for _ in range(2)) for n, p in found.items()}
        selected[strategy] = {"seconds": times, "missing": missing}
    return {
        "job": "peers",
        "model": "smollm2",
        "n": rows,
        "budget": budget,
        "score": {"rows": scored, "edjax": ours_s, "transformers generate": torch_s, "new_tokens": NEW},
        "select": selected,
    }


def ceiling(name: str) -> float:
    """FLOP/s of a float32 product as wide as the model's own, (tokens of a batch, hidden) x (hidden, intermediate)."""
    from edjax.lm.load import load

    c = load(MODELS[name]).model.config
    a, b = jnp.ones((2048, c.hidden_size)), jnp.ones((c.hidden_size, c.intermediate_size))
    f = jax.jit(lambda a, b: a @ b)
    jax.block_until_ready(f(a, b))
    best = min(runner.timed(lambda: f(a, b))[0] for _ in range(20))
    return 2 * a.size * c.intermediate_size / best


def predictions(rows: list[dict[str, Any]], ceilings: dict[str, float], bytes_s: float) -> list[dict[str, Any]]:
    """Every measured stage against `benchmarks.harness.cost`, whose efficiencies are the geometric mean of the other
    rows'."""
    from edjax.lm.load import load

    shapes = {m: cost.Model.of(load(MODELS[m]).model.config) for m in ceilings}
    seen = []
    for r in rows:
        job = job_of(r)
        for s in STRATEGIES[1:]:
            plain = cost.seconds(shapes[r["model"]], job, s, machine_of(r, ceilings, bytes_s), FULL)
            took = {**r["seconds"], "select": r["select"][s]["again_s"]}
            seen.append((r["job"], s, {k: plain[k] / took[k] for k in plain}, took))
    made = []
    for job_name, strategy, reached, took in seen:
        others = [e for j, s, e, _ in seen if j != job_name and s == strategy]
        if not others:
            continue
        expected = {k: math.exp(np.mean([math.log(max(e[k], 1e-9)) for e in others])) for k in reached}
        foretold = {k: took[k] * reached[k] / expected[k] for k in reached}
        ratios = {k: foretold[k] / took[k] for k in reached}
        shares = {
            "foretold": foretold["select"] / foretold["finetune"],
            "measured": took["select"] / took["finetune"],
        }
        made.append({"job": job_name, "strategy": strategy, "foretold_over_measured": ratios, "select_share": shares})
    return made


FULL = dict.fromkeys(cost.ASSUMED, 1.0)


def job_of(r: dict[str, Any]) -> cost.Job:
    names = ("prompt_tokens", "new_tokens", "budget", "response_tokens", "epochs", "evaluation_rows")
    return cost.Job(r["n"], *(r[k] for k in names), score_batch=BATCH)


def machine_of(r: dict[str, Any], ceilings: dict[str, float], bytes_s: float) -> cost.Machine:
    return cost.Machine(ceilings[r["model"]], max(ceilings.values()), bytes_s)


def paper() -> list[dict[str, Any]]:
    """The source paper's job by the cost model: 100,000 prompts, a 7B model in bfloat16, one H100."""
    made = []
    for budget in (10_000, 45_000):
        job = cost.Job(100_000, 256, NEW, budget, 64, EPOCHS, 5000, score_batch=64)
        for s in STRATEGIES:
            took = cost.seconds(cost.LLAMA_2_7B, job, s, cost.H100, cost.ASSUMED)
            made.append({"strategy": s, "budget": budget, "seconds": took, **cost.shares(took)})
    return made


@click.command()
@click.option("--jobs", default=",".join(JOBS), show_default=True)
@click.option("--out", type=Path, help="The results file, else one in benchmarks/results named by the device.")
def main(jobs: str, out: Path | None) -> None:
    """Time the stages and write what came out; jobs of an earlier run are kept."""
    import json

    machine = runner.machine()
    path = out or runner.RESULTS / f"overhead-{runner.device_name()}.json"
    rows = {r["job"]: r for r in json.loads(path.read_text())["rows"]} if path.exists() else {}
    ceilings = {m: ceiling(m) for m in MODELS}
    x = jnp.ones(1 << 26)
    double = jax.jit(lambda v: v + 1)
    jax.block_until_ready(double(x))
    bytes_s = 8 * x.size / min(runner.timed(lambda: double(x))[0] for _ in range(5))
    for job in jobs.split(","):
        name, _, size = job.partition(" ")
        click.echo(f"{job} ...", err=True)
        if job == "peers":
            rows[job] = peers()
        elif job == "smollm2 100000":
            rows[job] = generated(int(size), rows["smollm2 1000"], 576)
        else:
            rows[job] = measure(name, int(size))
        rows[job] = runner.stamp() | rows[job]
        whole = [r for r in rows.values() if r["job"] != "peers"]
        facts = {"ceilings": ceilings, "bytes_s": bytes_s, "paper": paper()}
        facts["predictions"] = predictions(whole, ceilings, bytes_s)
        runner.write(path.stem, list(rows.values()), out=path, machine=machine, **facts)
    click.echo(f"wrote {path}")


if __name__ == "__main__":
    main()
