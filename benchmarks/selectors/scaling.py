"""How the selectors' time grows with rows n, features d and budget k, each swept with the other two held.

    python -m benchmarks.selectors.scaling            # 1k to 64k rows, 64 to 1024 features, 50 to 2000 picks
    python -m benchmarks.selectors.scaling --quick    # small shapes, under a minute

A point that would by its FLOPs take longer than --cap seconds a run, or by `plan` more than --memory-gb, is written
with the reason and not measured. Exponents are least squares on the logarithms over a sweep's points; small shapes are
mostly overhead, so `tail_exponent` gives the slope of the largest three alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import click
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.harness import runner
from benchmarks.harness.data import mixture
from benchmarks.selectors import plain
from edjax.kernels import Plan, d_optimal, facility_location, k_center, plan

SEED = 0
AXES = ("n", "d", "budget")


class Grid(NamedTuple):
    """The shape that is held, and what each axis runs through in its place."""

    base: dict[str, int]
    sweeps: dict[str, tuple[int, ...]]

    def shapes(self) -> list[dict[str, int]]:
        """Every shape once, each sweep going up."""
        every = [{**self.base, axis: v} for axis in AXES for v in sorted({*self.sweeps[axis], self.base[axis]})]
        return [shape for i, shape in enumerate(every) if shape not in every[:i]]


FULL = Grid(
    {"n": 16_384, "d": 256, "budget": 256},
    {
        "n": tuple(1024 << i for i in range(7)),
        "d": (64, 128, 256, 512, 1024),
        "budget": (50, 100, 256, 500, 1000, 2000),
    },
)
QUICK = Grid(
    {"n": 2048, "d": 64, "budget": 64},
    {"n": (1024, 2048, 4096, 8192), "d": (64, 128, 256), "budget": (64, 128, 256)},
)


@partial(jax.jit, static_argnames="budget")
def random(x: jax.Array, budget: int) -> jax.Array:
    """Uniformly without replacement: the floor under every selector's time."""
    return jax.random.permutation(jax.random.key(SEED), x.shape[0])[:budget]


@partial(jax.jit, static_argnames="budget")
def plain_d_optimal(x: jax.Array, budget: int) -> jax.Array:
    """`plain.d_optimal` with the ridge that is our default."""
    ridge = 0.1 * jnp.mean(jnp.sum((x - x.mean(0)) ** 2, axis=1))
    return plain.d_optimal(x, ridge, budget=budget)


METHODS: dict[str, Callable[[jax.Array, int], Any]] = {
    "k_center": k_center,
    "d_optimal": d_optimal,
    "facility_location resident": lambda x, k: facility_location(x, k, form="resident"),
    "facility_location tiled": lambda x, k: facility_location(x, k, form="tiled"),
    "random": random,
    "k_center, plain loop": lambda x, k: plain.k_center(x, budget=k),
    "d_optimal, plain loop": plain_d_optimal,
}


OURS = ("k_center", "d_optimal", "facility_location")


def planned(method: str, n: int, d: int, budget: int) -> Plan | None:
    """`plan` of the call, or None for what it does not cover."""
    name, _, form = method.partition(" ")
    return plan(name, n, d, budget, form=form or "auto") if name in OURS else None


def work(method: str, n: int, d: int, budget: int) -> float:
    """What the time of a run is foretold by: FLOPs."""
    ours = planned(method, n, d, budget)
    return ours.flops if ours else 2 * n * d * budget


def reason_to_skip(method: str, shape: dict[str, int], before: dict[str, Any] | None, cap_s: float, memory: float):
    """Why this point is not measured, or None. `before`: the longest run of the method at a smaller shape."""
    ours = planned(method, **shape)
    if ours and ours.bytes > memory:
        return f"plan: {ours.bytes / 1e9:.1f} GB, over {memory / 1e9:.0f} GB"
    if before:
        was = work(method, before["n"], before["d"], before["budget"])
        foretold = before["median_s"] * work(method, **shape) / was
        if foretold > cap_s:
            return f"about {foretold:.0f} s a run by its FLOPs, over {cap_s:.0f} s"
    return None


def point(shape: dict[str, int], methods: list[str], repeats: int) -> list[dict[str, Any]]:
    """Measure the methods side by side at one shape: a row each."""
    x = jnp.asarray(mixture(shape["n"], shape["d"], SEED))
    functions = {m: (lambda f=METHODS[m]: f(x, shape["budget"])) for m in methods}
    rows = []
    for method, timed in runner.side_by_side(functions, repeats).items():
        refreshes, ours = getattr(timed.pop("result"), "refreshes", None), planned(method, **shape)
        counts = {} if ours is None else {"plan_flops": ours.flops, "plan_bytes": ours.bytes}
        if refreshes is not None:
            counts["refreshes"] = int(refreshes)
        rows.append({"job": job_name(method, shape), "method": method, **shape, **timed, **counts})
    return rows


def job_name(method: str, shape: dict[str, int]) -> str:
    return f"{method}: {shape['n']} x {shape['d']}, {shape['budget']}"


def on_axis(rows: list[dict[str, Any]], base: dict[str, int], axis: str, method: str) -> list[dict[str, Any]]:
    """The measured rows of a method where all but `axis` is as in `base`, going up."""
    held = [a for a in AXES if a != axis]
    found = [r for r in rows if r["method"] == method and "median_s" in r and all(r[a] == base[a] for a in held)]
    return sorted(found, key=lambda r: r[axis])


def fit(x: list[float], y: list[float]) -> dict[str, Any]:
    """y = c x^a by least squares on logarithms: the exponent a, its standard error, c, and the last three's slope."""
    log_x, log_y = np.log(x), np.log(y)
    design = np.stack([log_x, np.ones(len(x))], axis=1)
    (a, b), *_ = np.linalg.lstsq(design, log_y, rcond=None)
    spread = np.sum((log_x - log_x.mean()) ** 2)
    noise = np.sum((log_y - design @ (a, b)) ** 2) / max(len(x) - 2, 1)
    return {
        "exponent": float(a),
        "standard_error": float(math.sqrt(noise / spread)),
        "c": float(math.exp(b)),
        "points": len(x),
        "tail_exponent": float(np.polyfit(log_x[-3:], log_y[-3:], 1)[0]),
    }


def fits(rows: list[dict[str, Any]], base: dict[str, int]) -> list[dict[str, Any]]:
    """The exponent of each method along each axis that has three points or more."""
    out = []
    for method in METHODS:
        for axis in AXES:
            found = on_axis(rows, base, axis, method)
            if len(found) >= 3:
                got = fit([r[axis] for r in found], [r["median_s"] for r in found])
                out.append({"method": method, "axis": axis, **got})
    return out


def sweep(grid: Grid, repeats: int, cap_s: float, memory: float) -> list[dict[str, Any]]:
    """Measure every shape of the grid. A smaller shape measured before foretells the time of the next."""
    rows: list[dict[str, Any]] = []
    for shape in grid.shapes():
        methods = []
        for method in METHODS:
            smaller = [r for r in rows if r["method"] == method and "median_s" in r]
            smaller = [r for r in smaller if all(r[a] <= shape[a] for a in AXES)]
            before = max(smaller, key=lambda r: r["median_s"], default=None)
            if reason := reason_to_skip(method, shape, before, cap_s, memory):
                rows.append({"job": job_name(method, shape), "method": method, **shape, "skipped": reason})
                click.echo(f"{job_name(method, shape)}: {reason}")
            else:
                methods.append(method)
        new = point(shape, methods, repeats)
        rows += new
        times = ", ".join(f"{r['method']} {r['median_s']:.4f}" for r in new)
        click.echo(f"{shape['n']} x {shape['d']}, {shape['budget']}: {times} s")
    return rows


@click.command()
@click.option("--quick", is_flag=True, help="Small shapes, under a minute.")
@click.option("--repeats", default=3, show_default=True)
@click.option("--cap", default=60.0, show_default=True, help="Seconds a run may be foretold to take.")
@click.option("--memory-gb", default=6.0, show_default=True, help="What a call may need by its plan.")
@click.option("--name", default=None, help="Of the results file; default scaling-DEVICE.")
def main(quick: bool, repeats: int, cap: float, memory_gb: float, name: str | None) -> None:
    """Measure and write benchmarks/results/NAME.json."""
    on, grid = runner.machine(), QUICK if quick else FULL
    rows = sweep(grid, repeats, cap, memory_gb * 1e9)
    exponents = fits(rows, grid.base)
    for row in exponents:
        click.echo(f"{row['method']}: {row['axis']}^{row['exponent']:.2f} +- {row['standard_error']:.2f}")
    name = name or f"scaling-{runner.device_name()}"
    click.echo(runner.write(name, rows, machine=on, seed=SEED, quick=quick, base=grid.base, fits=exponents))


if __name__ == "__main__":
    main()
