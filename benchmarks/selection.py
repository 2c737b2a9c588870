"""Our selectors against the plain jitted loop on Gaussian-mixture float32 data.

    python -m benchmarks.selection                 # the 20k jobs, about a minute on two cores
    python -m benchmarks.selection --jobs all      # also 100k and 50k, about ten minutes

Picks are compared before a time is reported: as sets, and place by place (near-ties swap places under rounding).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import click
import jax.numpy as jnp
import numpy as np

from benchmarks import plain, runner
from edjax.kernels import d_optimal, k_center

JOBS = {
    "k_center-20k": (k_center, 20_000, 384, 1000, 5),
    "d_optimal-20k": (d_optimal, 20_000, 384, 1000, 5),
    "k_center-100k": (k_center, 100_000, 768, 2000, 3),
    "d_optimal-50k": (d_optimal, 50_000, 768, 2000, 3),
}
SEED = 0


def mixture(n: int, d: int, seed: int = SEED, centres: int = 100) -> np.ndarray:
    """(n, d) float32 rows around `centres` Gaussian centres."""
    rng = np.random.default_rng(seed)
    middle = rng.standard_normal((centres, d)).astype(np.float32)
    return middle[rng.integers(0, centres, n)] + rng.standard_normal((n, d)).astype(np.float32)


def job(name: str) -> dict[str, Any]:
    """Run one job and compare."""
    select, n, d, budget, repeats = JOBS[name]
    x = jnp.asarray(mixture(n, d))
    ours = partial(select, x, budget)
    if select is k_center:
        other = partial(plain.k_center, x, budget=budget)
    else:
        ridge = 0.1 * jnp.mean(jnp.sum((x - x.mean(0)) ** 2, axis=1))
        ours, other = partial(ours, ridge=ridge), partial(plain.d_optimal, x, ridge, budget=budget)
    timed = runner.side_by_side({"edjax": ours, "plain jitted loop": other}, repeats)
    mine, theirs = (
        np.asarray(timed["edjax"].pop("result").indices),
        np.asarray(timed["plain jitted loop"].pop("result")),
    )
    return {
        "job": name,
        "n": n,
        "d": d,
        "budget": budget,
        "same_set": len(set(mine.tolist()) & set(theirs.tolist())),
        "same_place": int((mine == theirs).sum()),
        "ratio": timed["plain jitted loop"]["median_s"] / timed["edjax"]["median_s"],
        "timed": timed,
    }


@click.command()
@click.option("--jobs", default="k_center-20k,d_optimal-20k", show_default=True, help="Names, or all.")
@click.option("--name", default="selection-cpu", show_default=True, help="Of the results file.")
def main(jobs: str, name: str) -> None:
    """Measure and write benchmarks/results/NAME.json."""
    on = runner.machine()
    rows = []
    for each in JOBS if jobs == "all" else jobs.split(","):
        row = job(each)
        rows.append(row)
        times = ", ".join(f"{who} {t['median_s']:.3f} s" for who, t in row["timed"].items())
        click.echo(
            f"{each}: {times}, ratio {row['ratio']:.1f}; picks: {row['same_set']} of {row['budget']} the same, "
            f"{row['same_place']} in the same place"
        )
    click.echo(runner.write(name, rows, machine=on, seed=SEED))


if __name__ == "__main__":
    main()
