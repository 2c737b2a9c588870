"""The methods for a target beside what people run in their place, and quotas of clusters against a clock.

    python -m benchmarks.selectors.systems                  # all four jobs: ten minutes on two cores
    python -m benchmarks.selectors.systems --jobs go-mean   # one; the others stay as they are

flqmi-20k: 500 of 20,000 rows for 200 targets beside submodlib's LazyGreedy; similarities are counted, the package's own
and, as somebody who knows better would make them, one product in NumPy. go-mean, go-max: 200 of 20,000 rows for 64
targets beside the loop that its authors' formulas say, in NumPy, in float64 and in float32: the covariance and what it
says of rows and targets are held, and changed by rank one. quotas-100k: `edjax.select` of 1,104 rows inside balanced
quotas of 276 clusters of 100,000 rows, whitening and clustering counted.

Sides are run in turn, three times each, and the least seconds of each compared: other people's work on a machine adds
to a time and never takes from it. The first call, which compiles, is apart. The load is that before a job and after.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import click
import jax.numpy as jnp
import numpy as np

from benchmarks.harness import runner
from benchmarks.harness.data import mixture
from benchmarks.selectors import peers
from edjax.data.features import Features
from edjax.kernels import Go, Ground, flqmi
from edjax.kernels import select as of_ground
from edjax.selection.choose import select

SEED, REPEATS = 0, 3
OURS = "edjax"
QUOTAS = ("random", "facility_location")

Sides = dict[str, Callable[[], np.ndarray]]


def problem(n: int, d: int, targets: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and targets around the same centres."""
    both = mixture(n + targets, d, SEED)
    return both[:n], both[n:]


def flqmi_sides(n: int, d: int, targets: int, budget: int) -> Sides:
    x, z = problem(n, d, targets)
    on_device, asked = jnp.asarray(x), jnp.asarray(z)

    def submodlib(**similarities: Any) -> np.ndarray:
        from submodlib import FacilityLocationVariantMutualInformationFunction as Function

        made = Function(n=n, num_queries=targets, queryDiversityEta=1.0, **similarities)
        return np.array([j for j, _ in made.maximize(budget, optimizer="LazyGreedy", show_progress=False)])

    return {
        OURS: lambda: np.asarray(flqmi(on_device, asked, budget).indices),
        "submodlib": lambda: submodlib(data=x, queryData=z, metric="cosine"),
        "submodlib, NumPy's similarities": lambda: submodlib(query_sijs=cosines(x, z)),
    }


def cosines(x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """(n, m) cosines, 0 where they are negative."""
    unit = [a / np.linalg.norm(a, axis=1, keepdims=True) for a in (x, z)]
    return np.maximum(unit[0] @ unit[1].T, 0)


def go_sides(aggregate: str, n: int, d: int, targets: int, budget: int) -> Sides:
    x, z = problem(n, d, targets)
    noise = peers.problem(x, budget).ridge
    method = Go(aggregate=aggregate, noise=noise)
    there = Ground({"embedding": jnp.asarray(x)}, target={"embedding": jnp.asarray(z)})
    loops = {
        f"numpy, {dtype}": partial(go_loop, x.astype(dtype), z.astype(dtype), noise, budget, aggregate)
        for dtype in ("float64", "float32")
    }
    return {OURS: lambda: np.asarray(of_ground(method, there, budget).indices), **loops}


def go_loop(x: np.ndarray, z: np.ndarray, noise: float, budget: int, aggregate: str) -> np.ndarray:
    """GO by updates of rank one, all arrays of the dtype of x: two products with the rows and targets a pick."""
    of: Any = np.mean if aggregate == "mean" else np.max
    noise = x.dtype.type(noise)
    covariance = np.eye(x.shape[1], dtype=x.dtype)
    cross, spread, left = x @ z.T, np.sum(x * x, axis=1), np.sum(z * z, axis=1)
    free, picks = np.ones(len(x), bool), np.empty(budget, np.int64)
    for t in range(budget):
        after = of(left - cross**2 / (noise + spread)[:, None], axis=1)
        picks[t] = j = int(np.where(free, after, np.inf).argmin())
        free[j] = False
        a = covariance @ x[j]
        u, p, g = x @ a, cross[j].copy(), noise + spread[j]
        cross -= np.outer(u, p / g)
        left -= p**2 / g
        spread -= u**2 / g
        covariance -= np.outer(a, a / g)
    return picks


def quota_sides(n: int, d: int, clusters: int, budget: int) -> Sides:
    rows = Features(tuple(map(str, range(n))), mixture(n, d, SEED), {}, {}, "generated")

    def choose(strategy: str) -> np.ndarray:
        return np.asarray(select(rows, strategy, budget, group_by=f"cluster:{clusters}", quotas="balanced").indices)

    return {strategy: partial(choose, strategy) for strategy in QUOTAS}


def variance_left(aggregate: str, n: int, d: int, targets: int, budget: int, picks: np.ndarray) -> float:
    """In float64: the mean or the largest variance of a target's prediction after the picks, with a prior of 1."""
    x, z = (a.astype(np.float64) for a in problem(n, d, targets))
    rows = x[picks]
    information = np.eye(d) + rows.T @ rows / peers.problem(x, budget).ridge
    left = np.sum(z * np.linalg.solve(information, z.T).T, axis=1)
    return float(left.mean() if aggregate == "mean" else left.max())


VALUES: dict[str, Callable[..., float]] = {
    "go-mean": partial(variance_left, "mean"),
    "go-max": partial(variance_left, "max"),
}
SIZES: dict[str, dict[str, int]] = {
    "flqmi-20k": {"n": 20_000, "d": 384, "targets": 200, "budget": 500},
    "go-mean": {"n": 20_000, "d": 384, "targets": 64, "budget": 200},
    "go-max": {"n": 20_000, "d": 384, "targets": 64, "budget": 200},
    "quotas-100k": {"n": 100_000, "d": 200, "clusters": 276, "budget": 1_104},
}
MADE: dict[str, Callable[..., Sides]] = {
    "flqmi-20k": flqmi_sides,
    "go-mean": partial(go_sides, "mean"),
    "go-max": partial(go_sides, "max"),
    "quotas-100k": quota_sides,
}
BARS: dict[str, dict[str, float]] = {  # how many times our seconds another side takes; of quotas: seconds at most
    "flqmi-20k": {"submodlib": 10.0, "submodlib, NumPy's similarities": 10.0},
    "go-mean": {"numpy, float64": 5.0},
    "go-max": {"numpy, float64": 5.0},
    "quotas-100k": {"random": 30.0, "facility_location": 30.0},
}


def job(name: str) -> dict[str, Any]:
    """All sides of a job in turn; which of them cannot run here, and why."""
    shape, stamp = SIZES[name], runner.stamp()
    found: dict[str, dict[str, Any]] = {}
    skipped: dict[str, str] = {}
    sides = MADE[name](**shape)
    for who in sides:
        try:
            seconds, picks = taken(sides[who])
            found[who] = {"first_call_s": seconds, "runs_s": [], "picks": picks}
        except ImportError as e:
            skipped[who] = peers.reason(e)
    for _ in range(REPEATS):
        for who, side in found.items():
            side["runs_s"].append(taken(sides[who])[0])
    picks = {who: side.pop("picks") for who, side in found.items()}
    for side in found.values():
        side["best_s"] = min(side["runs_s"])
    row = {"job": name, **shape, **stamp, "load_after": runner.load(), "timed": found, "skipped": skipped}
    if OURS not in found:
        return {**row, "bars_s": BARS[name]}
    best = {who: side["best_s"] for who, side in found.items()}
    if name in VALUES:
        row["variance_left"] = {who: VALUES[name](**shape, picks=rows) for who, rows in picks.items()}
    mine = picks.pop(OURS).tolist()
    return {
        **row,
        "bars": BARS[name],
        "ratios": {who: best[who] / best[OURS] for who in picks},
        "same_set": {who: len(set(mine) & set(theirs.tolist())) for who, theirs in picks.items()},
        "same_place": {who: int(np.sum(theirs == np.asarray(mine))) for who, theirs in picks.items()},
    }


def taken(f: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    start = time.perf_counter()
    picks = f()
    return time.perf_counter() - start, picks


def says(row: dict[str, Any]) -> str:
    """A job's row in a line."""
    best = ", ".join(f"{who} {side['best_s']:.2f} s" for who, side in row["timed"].items())
    ratios = [
        f"{who} {ratio:.1f}x (same {row['same_set'][who]} of {row['budget']})"
        for who, ratio in row.get("ratios", {}).items()
    ]
    left = [f"{who} left out: {why}" for who, why in row["skipped"].items()]
    load = f"load {row['load'][0]:.1f} to {row['load_after'][0]:.1f}"
    return f"{row['job']}: " + "; ".join([best, *ratios, *left, load])


@click.command()
@click.option("--jobs", default=",".join(SIZES), show_default=True, help="Names, comma-separated.")
@click.option("--name", default="systems-cpu", show_default=True, help="Of the results file.")
def main(jobs: str, name: str) -> None:
    """Measure, and write benchmarks/results/NAME.json after every job, beside the jobs that are there."""
    if unknown := [each for each in jobs.split(",") if each not in SIZES]:
        raise click.BadParameter(f"{unknown[0]!r} is not one of {', '.join(SIZES)}", param_hint="--jobs")
    on = runner.machine()
    for each in jobs.split(","):
        row = job(each)
        path = runner.write(name, [row], merge=True, machine=on, seed=SEED)
        click.echo(f"{says(row)} -> {path}")


if __name__ == "__main__":
    main()
