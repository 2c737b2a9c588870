"""Scoring a pool against transformers on torch: the same weights, prompts, batch size, dtype, threads and machine.

    python -m benchmarks.model.score                       # 2,000 prompts, SmolLM2, 16 new tokens: 15 minutes
    python -m benchmarks.model.score --jobs idle,estimate
    python -m benchmarks.model.score --quick --out /tmp/score.json    # 12 prompts, a tiny model: to try it

Both sides run in one process and take turns batch by batch, each with its own clock, so that what else the machine does
hits both; a quarter of the rows, sorted by length, has a process. The clocks run from the text of the prompts to the
last score: encoding, the passes, pooling, scores and the decoded texts; loading the model is left out on both sides.
Compiling, which torch does not do, is in `wall_s` and given apart (`compile_s`); `ratio` is torch's seconds over ours
with it, `ratio_without_compiling` without. What both computed is compared.

Jobs: "speed" the above. "batches": 200 prompts in batches of 32 and of 7, and how far any number differs. "idle": the
share of (row, step) places of the decoding that finished rows leave unused until their whole batch is done, at 16 and
at 64 new tokens. "estimate": what `--dry-run` foretold and what it took, with 16 new tokens and with embeddings only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.harness import runner
from edjax.data.features import UNCERTAINTIES, Features

ROWS, NEW, BATCH, TURNS = 2000, 16, 32, 4
POOL = runner.ROOT.parent / "shared" / "data" / "ci_pool.jsonl.gz"
STORIES = runner.ROOT.parent / "shared" / "models" / "stories260k"
JOBS = ("speed", "batches", "idle", "estimate")


def pool_of(settings: dict[str, Any]) -> Any:
    """The first prompts of the pool, or made-up ones."""
    from edjax.data.pool import Pool, read_pool

    n = settings["rows"]
    if settings["pool"]:
        pool = read_pool(settings["pool"])
        return pool.take(range(min(n, len(pool))))
    texts = [f"Say {i % (n - 2)} in words." + " Please." * (i % 5) for i in range(n)]
    records = tuple({"id": f"r{i}", "prompt": t} for i, t in enumerate(texts))
    messages = tuple(({"role": "user", "content": t},) for t in texts)
    return Pool(tuple(r["id"] for r in records), messages, (None,) * n, records, None, "made up")


def model_of(settings: dict[str, Any]) -> Any:
    """The model, loaded."""
    from edjax.lm.load import load

    return load(settings["model"])


class Compiling:
    """Seconds that JAX spends on tracing, lowering and compiling, from now on."""

    def __init__(self) -> None:
        import jax

        self.seconds = 0.0
        jax.monitoring.register_event_duration_secs_listener(self._heard)

    def _heard(self, event: str, duration_secs: float, **_: Any) -> None:
        if event.startswith("/jax/core/compile/"):
            self.seconds += duration_secs


def scored(pool: Any, loaded: Any, **settings: Any) -> tuple[Features, float, float]:
    """(features, wall seconds, seconds of them that went into compiling)."""
    from edjax.scoring import score

    compiling, start = Compiling(), time.perf_counter()
    found = score(pool, loaded.name, loaded=loaded, show_progress=False, **settings)
    return found, time.perf_counter() - start, compiling.seconds


class Baton:
    """Lets one of two threads run at a time, and counts what each spends while it does: [wall s, CPU s]."""

    def __init__(self) -> None:
        self.lock = threading.Condition()
        self.turn, self.left = "edjax", {"edjax", "torch"}
        self.spent = {who: [0.0, 0.0] for who in sorted(self.left)}
        self.since = (0.0, 0.0)

    @contextmanager
    def hold(self, who: str) -> Iterator[None]:
        """From when it is this side's turn until it is done."""
        self._wait(who)
        try:
            yield
        finally:
            self._give(who)
            with self.lock:
                self.left.discard(who)
                self.lock.notify_all()

    def pass_on(self, who: str) -> None:
        """Let the other side do a batch, if it is not done."""
        self._give(who)
        self._wait(who)

    def _wait(self, who: str) -> None:
        with self.lock:
            self.lock.wait_for(lambda: self.turn == who or self.left == {who})
            self.since = (time.perf_counter(), time.process_time())

    def _give(self, who: str) -> None:
        now = (time.perf_counter(), time.process_time())
        with self.lock:
            for i in (0, 1):
                self.spent[who][i] += now[i] - self.since[i]
            self.turn = next(w for w in self.spent if w != who)
            self.lock.notify_all()


def turn(settings: dict[str, Any]) -> dict[str, Any]:
    """One of the `turns` of "speed": a piece of the pool, sorted by length, by both sides batch about."""
    from benchmarks.model import score_torch
    from edjax.lm.encode import Encoder
    from edjax.scoring import score
    from edjax.scoring.forward import Forward

    pool, loaded = pool_of(settings), model_of(settings)
    encode = Encoder(loaded.tokenizer).prompt
    peer = score_torch.Torch(loaded.directory, settings["threads"])
    order = np.argsort([len(encode(m)) for m in pool.messages], kind="stable")
    rows = np.array_split(order, settings["turns"])[settings["turn"]]
    piece, sizes = pool.take(rows), {"batch_size": settings["batch_size"]}
    found: dict[str, Any] = {"row": rows}

    baton = Baton()

    def ours() -> None:
        with baton.hold("edjax"):
            compiling = Compiling()
            got = score(piece, loaded.name, loaded=loaded, show_progress=False, max_new_tokens=settings["new"], **sizes)
            found["edjax"] = {"compile_s": compiling.seconds, "generated": list(got.facts["generated"])}
            found.update({f"edjax_{k}": v for k, v in ({"embedding": got.embeddings} | got.scores).items()})

    def theirs() -> None:
        with baton.hold("torch"):
            got = peer.score(encode, piece, settings["new"], **sizes, after_batch=lambda: baton.pass_on("torch"))
            found["torch"] = {"generated": got.pop("generated")}
            found.update({f"torch_{k}": v for k, v in got.items()})

    real = Forward.padded

    def padded(self: Forward, *given: Any) -> Any:
        baton.pass_on("edjax")
        return real(self, *given)

    Forward.padded = padded  # type: ignore
    try:
        with ThreadPoolExecutor(2) as threads:
            for side in [threads.submit(ours), threads.submit(theirs)]:
                side.result()
    finally:
        Forward.padded = real  # type: ignore
    for who, (wall_s, cpu_s) in baton.spent.items():
        found[who] |= {"wall_s": wall_s, "cpu_s": cpu_s}
    return found


def batches(settings: dict[str, Any]) -> dict[str, Any]:
    """How far batches of another size, and so other neighbours and paddings, change what is computed."""
    pool, loaded = pool_of({**settings, "rows": min(settings["rows"], 200)}), model_of(settings)
    a, b = (scored(pool, loaded, max_new_tokens=settings["new"], batch_size=n)[0] for n in (settings["batch_size"], 7))
    return {
        "rows": len(pool),
        "same_texts": int((a.facts["generated"] == b.facts["generated"]).sum()),
        "worst_embedding_difference": float(np.abs(np.asarray(a.embeddings) - np.asarray(b.embeddings)).max()),
        "worst_score_difference": {k: float(np.abs(a.scores[k] - b.scores[k]).max()) for k in a.scores},
    }


def idle(settings: dict[str, Any]) -> dict[str, Any]:
    """Places of the decoding that are idle, in ten batches spread over the lengths; see the module's text."""
    from edjax.scoring.job import prepare

    new, size = settings["new"], settings["batch_size"]
    config = {"layer": -1, "pooling": "mean", "max_new_tokens": new, "template": "auto", "max_length": 1024}
    job = prepare(pool_of(settings), model_of(settings), config | {"batch_size": size, "shard_rows": 16 * size}, None)
    every = [b for b in job.layout.batches() if b.stop - b.start == size] or list(job.layout.batches())
    chosen = [every[i] for i in np.unique(np.linspace(0, len(every) - 1, 10).round().astype(int))]
    counts = [got["n_new_tokens"] for _, got in job.forward.stream(job.layout, chosen, job.prompts)]
    used, run = sum(int(c.sum()) for c in counts), sum(int(c.max()) * len(c) for c in counts)
    whole = sum(len(c) for c in counts) * new
    found = {"new": new, "batches": len(counts), "places": run, "idle_share": 1 - used / run}
    return {**found, "stopped_early_share": 1 - run / whole}


def foretold(settings: dict[str, Any]) -> dict[str, Any]:
    """What a dry run says."""
    from edjax.scoring import estimate

    sizes = {"max_new_tokens": settings["new"], "batch_size": settings["batch_size"]}
    return estimate(pool_of(settings), settings["model"], **sizes)._asdict()


def took(settings: dict[str, Any]) -> dict[str, Any]:
    """Loading and scoring, in seconds."""
    start = time.perf_counter()
    loaded = model_of(settings)
    load_s = time.perf_counter() - start
    sizes = {"max_new_tokens": settings["new"], "batch_size": settings["batch_size"]}
    _, wall_s, compile_s = scored(pool_of(settings), loaded, **sizes)
    return {"load_s": load_s, "wall_s": wall_s, "compile_s": compile_s}


PARTS = {"turn": turn, "batches": batches, "idle": idle, "foretold": foretold, "took": took}


def part(name: str, settings: dict[str, Any], keep: Path, label: str = "") -> dict[str, Any]:
    """Run one of PARTS in a process of its own, or read what an earlier run kept in `keep`."""
    file = keep / f"{label or name}.json"
    if not file.exists():
        call = f"in_own_process({name!r}, {json.dumps(settings)!r}, {str(file)!r})"
        code = f"from benchmarks.model import score; score.{call}"
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=runner.ROOT, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{name} failed in its own process:\n{done.stderr[-2000:]}")
    found = json.loads(file.read_text())
    if file.with_suffix(".npz").exists():
        found |= dict(np.load(file.with_suffix(".npz")))
    return found


def in_own_process(name: str, settings: str, out: str) -> None:
    """Write what a part finds: arrays to an .npz, the rest to the JSON file, last."""
    found = PARTS[name](json.loads(settings))
    arrays = {k: v for k, v in found.items() if isinstance(v, np.ndarray)}
    rest = {k: v for k, v in found.items() if k not in arrays} | {"peak_rss_bytes": runner._own_peak()}
    if arrays:
        np.savez(Path(out).with_suffix(".npz"), **arrays)  # type: ignore[arg-type]
    Path(out).write_text(json.dumps(rest | {"commit": runner.commit(), "load": runner.load()}))


def speed(settings: dict[str, Any], keep: Path) -> dict[str, Any]:
    """All turns, and how far both sides agree."""
    pieces = [
        part("turn", {**settings, "turn": i, "turns": TURNS}, keep, f"turn-{i}-{settings['new']}")
        for i in settings.get("pieces", range(TURNS))
    ]
    total = {
        who: {k: sum(p[who][k] for p in pieces) for k in ("wall_s", "cpu_s", "compile_s") if k in pieces[0][who]}
        for who in ("edjax", "torch")
    }
    a, b = total["edjax"], total["torch"]
    texts = [(x, y) for p in pieces for x, y in zip(*(p[w]["generated"] for w in ("edjax", "torch")), strict=True)]
    same = np.array([x == y for x, y in texts])

    def worst(name: str, where: Any = slice(None)) -> float:
        gaps = np.concatenate([np.abs(p[f"edjax_{name}"] - p[f"torch_{name}"]) for p in pieces])
        return float(gaps[where].max(initial=0))

    return {
        "ratio": b["wall_s"] / a["wall_s"],
        "ratio_without_compiling": b["wall_s"] / (a["wall_s"] - a["compile_s"]),
        "cpu_ratio": b["cpu_s"] / a["cpu_s"],
        "timed": total,
        "turns": [{w: {k: v for k, v in p[w].items() if k != "generated"} for w in total} for p in pieces],
        "measured_at": sorted({p["commit"] for p in pieces}),
        "agree": {
            "rows": len(same),
            "same_texts": int(same.sum()),
            "worst_embedding_difference": worst("embedding"),
            "worst_score_difference_where_texts_are_the_same": {k: worst(k, same) for k in UNCERTAINTIES},
        },
    }


def foretelling(settings: dict[str, Any], keep: Path, label: str) -> dict[str, Any]:
    """A dry run beside the run."""
    before, after = (part(name, settings, keep, f"{name}-{label}") for name in ("foretold", "took"))
    real = after["load_s"] + after["wall_s"]
    return {
        "foretold": {k: before[k] for k in ("total_s", "load_s", "encode_s", "compile_s", "compute_s", "peak_bytes")},
        "took": {"total_s": real, **{k: after[k] for k in ("load_s", "wall_s", "compile_s", "peak_rss_bytes")}},
        "foretold_over_took": before["total_s"] / real,
    }


def measure(job: str, settings: dict[str, Any], keep: Path) -> dict[str, dict[str, Any]]:
    """The rows of a job, by name."""
    if job == "speed":
        some = settings.get("pieces")
        name = f"speed, quarters {', '.join(map(str, some))}" if some else "speed"
        return {name: speed(settings, keep)}
    if job == "batches":
        return {"batches": part("batches", settings, keep)}
    if job == "idle":
        news = (settings["new"], 4 * settings["new"])
        return {f"idle, {n} new tokens": part("idle", {**settings, "new": n}, keep, f"idle-{n}") for n in news}
    fewer = {**settings, "rows": settings["rows"] // 2, "new": 0}
    both = {f"{s['rows']} rows + {s['new']} tokens": s for s in (settings, fewer)}
    return {f"estimate, {name}": foretelling(s, keep, str(s["new"])) for name, s in both.items()}


@click.command()
@click.option("--jobs", default="all", show_default=True, help=f"Of {', '.join(JOBS)}; or all.")
@click.option("--rows", default=ROWS, show_default=True)
@click.option("--new", default=NEW, show_default=True, help="New tokens a prompt.")
@click.option("--pool", default=POOL, show_default=True, type=click.Path(path_type=Path), help="The prompts.")
@click.option(
    "--keep", type=click.Path(path_type=Path), help="Folder for the parts; those that are there are not redone."
)
@click.option("--pieces", default="", help="Of the speed job: which quarters (0 the shortest rows); all.")
@click.option("--quick", is_flag=True, help="12 prompts, a tiny model: to try the programme.")
@click.option("--out", default=None, type=click.Path(path_type=Path), help="The file; benchmarks/results/score.json.")
def main(
    jobs: str, rows: int, new: int, pool: Path, keep: Path | None, pieces: str, quick: bool, out: Path | None
) -> None:
    """Measure, and write the results after every job."""
    names = list(JOBS) if jobs == "all" else jobs.split(",")
    if unknown := [name for name in names if name not in JOBS]:
        raise click.BadParameter(f"{unknown[0]!r} is not one of all, {', '.join(JOBS)}", param_hint="--jobs")
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    settings = {
        "model": "smollm2",
        "pool": str(pool),
        "rows": rows,
        "new": new,
        "batch_size": BATCH,
        "threads": threads,
    }
    if pieces:
        settings["pieces"] = [int(i) for i in pieces.split(",")]
    on = runner.machine()
    with tempfile.TemporaryDirectory() as folder:
        if quick:
            settings |= {"model": str(STORIES), "pool": "", "rows": 12, "new": 4, "batch_size": 4}
        place = keep or Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        for name in names:
            for job, row in measure(name, settings, place).items():
                row = {"job": job, **row, "settings": {k: v for k, v in settings.items() if k != "pool"}}
                path = runner.write("score", [row], out=out, merge=True, machine=on, peer=_peer_versions())
                click.echo(f"{job}: {json.dumps({k: v for k, v in row.items() if k != 'settings'})} -> {path}")


def _peer_versions() -> dict[str, str]:
    try:
        from benchmarks.model import score_torch
    except ImportError:
        return {}
    return score_torch.versions()


if __name__ == "__main__":
    main()
