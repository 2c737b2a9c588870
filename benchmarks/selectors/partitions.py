"""What a choice in parts loses: the value of GreeDi's picks beside greedy's on the whole pool, and the seconds of both.

    python -m benchmarks.selectors.partitions                           # 20,000 generated rows: minutes on two cores
    python -m benchmarks.selectors.partitions --features features       # a directory of `edjax score`

A row of the result: strategy, parts, budget, `share` (value over that of one part) and seconds. Values are in float64:
facility location's F, D-optimal's log-determinant, and one over k-center's radius. All see l2-normalised
rows. Beside them the picks of `random`, for scale.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click
import numpy as np

from benchmarks.harness import runner
from benchmarks.harness.data import mixture
from edjax.data.features import Features, read_features
from edjax.selection.choose import select
from edjax.selection.prepared import prepare

N, D, BUDGET, PARTS, BLOCK = 20_000, 64, 500, (1, 2, 4, 8, 16, 32, 64), 2048
BANDWIDTH, RIDGE = 0.25, 1e-2


def nearest(x: np.ndarray, picks: np.ndarray) -> np.ndarray:
    """(n,) float64, the squared distance of each row to the nearest pick."""
    x, chosen = x.astype(np.float64), x[picks].astype(np.float64)
    found = [
        np.square(some).sum(axis=1) + (np.square(chosen).sum(axis=1)[:, None] - 2 * chosen @ some.T).min(axis=0)
        for some in (x[i : i + BLOCK] for i in range(0, len(x), BLOCK))
    ]
    return np.maximum(np.concatenate(found), 0)


def coverage(x: np.ndarray, picks: np.ndarray) -> float:
    """Facility location's F."""
    spread = np.square(x.astype(np.float64) - x.mean(axis=0, dtype=np.float64)).sum(axis=1).mean()
    return float(np.exp(-nearest(x, picks) / (BANDWIDTH * 2 * spread)).sum())


def smallness(x: np.ndarray, picks: np.ndarray) -> float:
    """One over k-center's radius."""
    return float(1 / np.sqrt(nearest(x, picks).max()))


def information(x: np.ndarray, picks: np.ndarray) -> float:
    """ln det(I + X_S^T X_S / ridge)."""
    rows = x[picks].astype(np.float64)
    return float(np.linalg.slogdet(np.eye(x.shape[1]) + rows.T @ rows / RIDGE)[1])


VALUES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "facility_location": coverage,
    "k_center": smallness,
    "d_optimal": information,
}


def generated(n: int, d: int) -> Features:
    """Rows around 100 centres."""
    return Features(tuple(f"r{i}" for i in range(n)), mixture(n, d), {}, {}, "generated")


def measured(features: Features, strategy: str, budget: int) -> list[dict[str, float | int | str]]:
    """A row for each number of parts, and one of random's picks."""
    x = np.asarray(prepare(features.embeddings, "l2"))
    worth, rows, whole = VALUES[strategy], [], 0.0
    for parts in PARTS:
        got = select(features, strategy, budget, normalise="l2", partitions=parts)
        value = worth(x, got.indices)
        whole = whole or value
        row = {"strategy": strategy, "parts": parts, "share": value / whole, "seconds": got.seconds}
        rows.append({"job": f"{strategy} in {parts}", "n": len(x), "d": x.shape[1], "budget": budget, **row})
        click.echo(f"{strategy:18} parts {parts:3}  share {row['share']:.4f}  {got.seconds:7.2f} s")
    share = worth(x, select(features, "random", budget).indices) / whole
    click.echo(f"{strategy:18} random     share {share:.4f}")
    return [*rows, {**rows[0], "job": f"{strategy}, random", "parts": 0, "share": share, "seconds": 0.0}]


@click.command()
@click.option("--features", type=click.Path(path_type=Path), help="Of `edjax score`, in place of generated rows.")
@click.option("--rows", default=N, show_default=True)
@click.option("--budget", default=BUDGET, show_default=True)
@click.option("--strategies", default=",".join(VALUES), show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="File to write.")
def main(features: Path | None, rows: int, budget: int, strategies: str, out: Path | None) -> None:
    """Measure and write benchmarks/results/partitions.json."""
    machine = runner.machine()
    found = generated(rows, D) if features is None else read_features(features)
    for strategy in strategies.split(","):
        made = measured(found, strategy, budget)
        runner.write("partitions", made, machine=machine, merge=True, out=out, pool=str(features or "generated"))


if __name__ == "__main__":
    main()
