"""Our selectors against the plain jitted loop and against other packages, on Gaussian-mixture float32 data.

    python -m benchmarks.selectors.selection                             # two jobs and the plain loop: a minute
    python -m benchmarks.selectors.selection --jobs all --peers all      # everything: hours on two cores
    python -m benchmarks.selectors.selection --jobs k_center-20k --peers torch,skmatter

Each job is written as soon as it is done, into the file that is there: a long list can be taken up job by job. The
packages are those of `pip install -e ".[bench]"`; one that is missing is left out and named with the reason. The
picks are compared before a time is reported: as sets, place by place (near-ties swap places under rounding), and by
what they are worth in float64. Every side is given the pool in memory in the form it takes; everything after that,
similarities included, is in its time.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any, NamedTuple

import click
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.harness import runner
from benchmarks.harness.data import mixture
from benchmarks.selectors import peers, plain
from edjax.kernels import d_optimal, facility_location, k_center

SEED = 0
SLOW_S = 15.0
POOLS = 32
PLAIN, SEQUENTIAL = "plain jitted loop", "sequential calls"
K_CENTER = dict.fromkeys(peers.PEERS["k_center"], 15.0)


class Job(NamedTuple):
    """bars: the peers to run, and how many times their seconds ours should take one of; None for no aim. kind: "pool",
    "stack" of pools under vmap, or peak "memory"."""

    select: Callable[..., Any]
    n: int
    d: int
    budget: int
    repeats: int = 5
    bars: dict[str, float | None] = {PLAIN: None}  # noqa: RUF012
    kind: str = "pool"


JOBS: dict[str, Job] = {
    "k_center-20k": Job(k_center, 20_000, 384, 1000, bars={PLAIN: 4.0, **K_CENTER, "numpy": None}),
    "d_optimal-20k": Job(
        d_optimal, 20_000, 384, 1000, bars={PLAIN: 2.0, "bmdal-reg": 8.0, "chen-2018": None, "numpy": None}
    ),
    "facility_location-20k": Job(facility_location, 20_000, 384, 500, bars={"apricot-select": 3.0, "submodlib": 6.0}),
    "k_center-100k": Job(k_center, 100_000, 768, 2000, bars={PLAIN: 8.0, **K_CENTER, "numpy": 5.0}),
    "d_optimal-50k": Job(d_optimal, 50_000, 768, 2000, bars={PLAIN: 3.0}),
    "k_center-stack": Job(k_center, 2_000, 384, 100, bars={SEQUENTIAL: 1.0}, kind="stack"),
    "d_optimal-stack": Job(d_optimal, 2_000, 384, 100, bars={SEQUENTIAL: 1.0}, kind="stack"),
    "facility_location-100k": Job(
        facility_location, 100_000, 768, 1000, repeats=1, bars={"peak_rss_bytes": 3e9}, kind="memory"
    ),
}
QUICK = ["k_center-20k", "d_optimal-20k"]


def job(name: str, wanted: list[str] | tuple[str, ...] = ()) -> dict[str, Any]:
    """Run one job beside the `wanted` peers it has, and compare."""
    what = Job(*JOBS[name])
    facts = {
        "job": name,
        "method": what.select.__name__,
        "n": what.n,
        "d": what.d,
        "budget": what.budget,
        "bars": {who: bar for who, bar in what.bars.items() if bar is not None},
        **runner.stamp(),
    }
    return facts | {"pool": _pool, "stack": _stack, "memory": _memory}[what.kind](what, wanted)


def _pool(what: Job, wanted: list[str] | tuple[str, ...]) -> dict[str, Any]:
    """One pool: ours beside the plain loop and the packages.

    The row's own ratio, same_set and same_place are those of the plain loop.
    """
    method = what.select.__name__
    p = peers.problem(mixture(what.n, what.d, SEED), what.budget)
    names = [who for who in what.bars if who in wanted]
    usable, skipped = peers.usable(method, names)
    timed, failed = measure(_jitted(what, p), {who: partial(peer.run, p) for who, peer in usable.items()}, what.repeats)
    picks = {who: _picks(t.pop("result")) for who, t in timed.items()}
    mine = picks.pop("edjax")
    objective, value = peers.VALUES[method]
    worth = {tuple(sorted(mine.tolist())): value(p, mine)}

    def compare(theirs: np.ndarray) -> dict[str, Any]:
        chosen = tuple(sorted(theirs.tolist()))
        if chosen not in worth:
            worth[chosen] = value(p, theirs)
        return {**_same(mine, theirs), "value": worth[chosen]}

    agree = {who: compare(theirs) for who, theirs in picks.items()}
    return {
        "ratios": _ratios(timed),
        "agree": agree,
        "objective": objective,
        "edjax_value": value(p, mine),
        "timed": timed,
        "skipped": skipped | failed,
        "notes": {who: usable[who].note for who in picks if who in usable and usable[who].note},
        "packages": {who: _versions(usable[who]) for who in picks if who in usable and usable[who].modules},
        **({"ratio": _ratios(timed)[PLAIN], **_same(mine, picks[PLAIN])} if PLAIN in picks else {}),
    }


def _jitted(what: Job, p: peers.Problem) -> dict[str, Callable[[], Any]]:
    """Ours, and the plain jitted loop where the job has one, on the pool as a device array."""
    x = jnp.asarray(p.x)
    if what.select is k_center:
        ours, other = partial(k_center, x, p.budget), partial(plain.k_center, x, budget=p.budget)
    elif what.select is d_optimal:
        ridge = jnp.float32(p.ridge)
        ours = partial(d_optimal, x, p.budget, ridge=ridge)
        other = partial(plain.d_optimal, x, ridge, budget=p.budget)
    else:
        ours, other = partial(what.select, x, p.budget), None
    return {"edjax": ours, **({PLAIN: other} if PLAIN in what.bars and other else {})}


def measure(
    jitted: dict[str, Callable[[], Any]], others: dict[str, Callable[[], peers.Answer]], repeats: int
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """`runner.side_by_side`, where `others` have nothing to compile: one that takes over `SLOW_S` is run once.

    Also the reason of each of `others` that failed, of too little memory for one.
    """
    once, again, failed = {}, {}, {}
    builds: dict[str, list[float]] = {who: [] for who in others}

    def watched(who: str) -> peers.Answer:
        answer = others[who]()
        builds[who] += [] if answer.build_s is None else [answer.build_s]
        return answer

    for who in others:
        f = partial(watched, who)
        try:
            seconds, result = runner.timed(f)
        except Exception as e:
            failed[who] = peers.reason(e)
            continue
        if seconds > SLOW_S:
            once[who] = {"first_call_s": seconds, "runs_s": [seconds], "median_s": seconds, "result": result}
        else:
            again[who] = f
    timed = runner.side_by_side(jitted | again, repeats, SLOW_S) | once
    for who in once | again:
        timed[who].pop("compile_s", None)
        if builds[who]:
            timed[who]["build_s"] = statistics.median(builds[who][-len(timed[who]["runs_s"]) :])
    for t in timed.values():
        t["repeats"] = len(t["runs_s"])
    return {who: timed[who] for who in (*jitted, *others) if who in timed}, failed


def _picks(result: Any) -> np.ndarray:
    """The rows of a Selection, an Answer or a bare array."""
    if isinstance(result, peers.Answer):
        return result.picks
    return np.asarray(getattr(result, "indices", result))


def _same(mine: np.ndarray, theirs: np.ndarray) -> dict[str, int]:
    return {
        "same_set": len(set(mine.tolist()) & set(theirs.tolist())),
        "same_place": sum(a == b for a, b in zip(mine.tolist(), theirs.tolist(), strict=False)),
    }


def _ratios(timed: dict[str, dict[str, Any]]) -> dict[str, float]:
    return {who: t["median_s"] / timed["edjax"]["median_s"] for who, t in timed.items() if who != "edjax"}


def _versions(peer: peers.Peer) -> dict[str, str]:
    owners = packages_distributions()
    return {owner: version(owner) for module in peer.modules for owner in owners.get(module, [])}


def _stack(what: Job, wanted: list[str] | tuple[str, ...]) -> dict[str, Any]:
    """`POOLS` pools at once by vmap, beside one call for each; picks are counted over all pools."""
    pools = jnp.asarray(mixture(POOLS * what.n, what.d, SEED)).reshape(POOLS, what.n, what.d)
    each = jax.block_until_ready(list(pools))
    at_once = jax.jit(jax.vmap(partial(what.select, budget=what.budget)))
    timed = runner.side_by_side(
        {"edjax": partial(at_once, pools), SEQUENTIAL: lambda: [what.select(x, what.budget) for x in each]},
        what.repeats,
    )
    mine = np.asarray(timed["edjax"].pop("result").indices)
    theirs = [_picks(one) for one in timed[SEQUENTIAL].pop("result")]
    pairs = [_same(a, b) for a, b in zip(mine, theirs, strict=True)]
    return {
        "pools": POOLS,
        "ratios": _ratios(timed),
        "agree": {SEQUENTIAL: {**{key: sum(pair[key] for pair in pairs) for key in pairs[0]}, "value": None}},
        "edjax_value": None,
        "timed": timed,
        "skipped": {},
    }


def _memory(what: Job, wanted: list[str] | tuple[str, ...]) -> dict[str, Any]:
    """Peak resident bytes of a process of its own that makes the pool and then selects from it in tiles, once."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "tiled.json"
        peak = runner.peak_rss(
            "benchmarks.selectors.selection:tiled_in_own_process", n=what.n, d=what.d, budget=what.budget, out=str(out)
        )
        found = json.loads(out.read_text())
    seconds = found["seconds"]
    p = peers.problem(mixture(what.n, what.d, SEED), what.budget)
    return {
        "form": "tiled",
        "peak_rss_bytes": peak,
        "rss_before_bytes": found["rss_before_bytes"],
        "ratios": {},
        "agree": {},
        "objective": peers.VALUES["facility_location"][0],
        "edjax_value": peers.coverage(p, np.array(found["picks"])),
        "timed": {"edjax": {"first_call_s": seconds, "runs_s": [seconds], "median_s": seconds, "repeats": 1}},
        "skipped": {},
        "notes": {"edjax": "one run, its compilation counted"},
    }


def tiled_in_own_process(n: int, d: int, budget: int, out: str) -> None:
    """Select, and write the seconds, the picks and the resident bytes before the call to `out`.

    The peak is counted from that moment, where Linux lets it be: making the pool takes more than its own size.
    """
    x = jax.block_until_ready(jnp.asarray(mixture(n, d, SEED)))
    before = runner.forget_peak()
    start = time.perf_counter()
    picks = np.asarray(facility_location(x, budget, form="tiled").indices)
    found = {"seconds": time.perf_counter() - start, "picks": picks.tolist(), "rss_before_bytes": before}
    Path(out).write_text(json.dumps(found))


def says(row: dict[str, Any]) -> str:
    """A job's row in a line."""
    parts = [f"edjax {row['timed']['edjax']['median_s']:.3f} s"]
    if "peak_rss_bytes" in row:
        parts.append(f"peak {row['peak_rss_bytes'] / 1e9:.2f} GB")
    for who, ratio in row["ratios"].items():
        bar = f" (bar {row['bars'][who]:g})" if who in row["bars"] else ""
        agree = row["agree"][who]
        parts.append(f"{who} {ratio:.1f}x{bar} same {agree['same_set']}, in place {agree['same_place']}")
    parts += [f"{who} left out: {reason}" for who, reason in row["skipped"].items()]
    return f"{row['job']}: " + "; ".join(parts)


def _chosen(given: str, known: list[str], option: str, **words: list[str]) -> list[str]:
    """A comma-separated option as a list, or the list that a word stands for."""
    if given in words:
        return words[given]
    names = given.split(",")
    if unknown := [name for name in names if name not in known]:
        raise click.BadParameter(f"{unknown[0]!r} is not one of {', '.join([*words, *known])}", param_hint=option)
    return names


@click.command()
@click.option("--jobs", default="quick", show_default=True, help="Names, comma-separated; quick or all.")
@click.option("--peers", "others", default="none", show_default=True, help="Names, comma-separated; none or all.")
@click.option("--name", default="selection-cpu", show_default=True, help="Of the results file.")
def main(jobs: str, others: str, name: str) -> None:
    """Measure, and write benchmarks/results/NAME.json after every job, beside the jobs that are there."""
    known = sorted({who for table in peers.PEERS.values() for who in table})
    wanted = _chosen(others, known, "--peers", none=[], all=known)
    on = runner.machine()
    for each in _chosen(jobs, list(JOBS), "--jobs", quick=QUICK, all=list(JOBS)):
        row = job(each, wanted)
        path = runner.write(name, [row], merge=True, machine=on, seed=SEED)
        click.echo(f"{says(row)} -> {path}")


if __name__ == "__main__":
    main()
