"""E3's twin: how much more do quotas and coverage save when classes are of unlike size, for a learner in closed form?

    python -m benchmarks.evidence.twin              # minutes; after benchmarks.evidence.control, for its features
    python -m benchmarks.evidence.twin --data DIR   # where pool.parquet lies

Rows of four sets of the pool together, a class each of their labels: CLINC150's and BANKING77's intents, the templates
of T0 with short prompts, and the questions of ARC and OpenBookQA, whose three tasks are large, for a long tail needs a
head. Of every class a third is held out, at most 6 rows. Of the rest 2,000 are the candidates, of every class 1 and
beyond that in proportion to rank^-s; which class has which rank is drawn with the seed among those that have the rows.

The learner is the control's probe and the same for all arms. Its score is macro accuracy over classes, in which all
count alike; beside it stands accuracy with the classes weighted as the candidates are, where balance has less to win.
Savings, intervals (over seeds: each its own rows, ranks and draws) and the null are the control's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np

from benchmarks.evidence.control import sets
from benchmarks.evidence.control.learners import learned, linear
from benchmarks.evidence.control.splits import BUDGETS, gathered, split
from benchmarks.harness import runner
from edjax.data.features import Features
from edjax.data.pool import read_pool
from edjax.selection.choose import Chooser
from edjax.selection.groups import apportion
from edjax.selection.options import Options
from edjax.selection.prepared import take

TOGETHER = ("clinc150", "banking77", "t0", "choice")
POWERS = (0.0, 0.5, 1.0, 1.5)
CANDIDATES, MOST_HELD, SEEDS = 2_000, 6, 10
HOW, RIDGE = "l2", 0.1
WEIGHTS = ("macro", "as the candidates")


class Arm(NamedTuple):
    """group: the column of quotas, "clusters" for as many k-means clusters as there are classes."""

    name: str
    strategy: str
    normalise: str = "l2"
    group: str | None = None


ARMS = (
    Arm("random", "random"),
    Arm("random in class quotas", "random", group="class"),
    Arm("random in cluster quotas", "random", "whiten", "clusters"),
    Arm("facility_location in cluster quotas", "facility_location", "whiten", "clusters"),
    Arm("facility_location, whiten", "facility_location", "whiten"),
    Arm("facility_location, l2", "facility_location"),
    Arm("k_center, whiten", "k_center", "whiten"),
    Arm("d_optimal, whiten", "d_optimal", "whiten"),
)


def sizes(capacity: np.ndarray, power: float, total: int, seed: int) -> np.ndarray:
    """(c,) candidates of each class with the sum `total`: 1, and of the rest a share ~ rank^-power.

    Ranks are given out from the largest size down, each to a class drawn among those that have so many rows, or, where
    none has, among the largest; what that one lacks goes to the others in proportion.
    """
    rng = np.random.Generator(np.random.PCG64([seed, 1]))
    classes = len(capacity)
    share = np.arange(1, classes + 1, dtype=float) ** -power
    wanted = 1 + apportion(np.full(classes, total), share, total - classes)
    rank, left = np.zeros(classes, np.int64), np.ones(classes, bool)
    for place, size in enumerate(wanted):
        able = np.flatnonzero(left & (capacity >= min(size, capacity[left].max())))
        rank[place] = rng.choice(able)
        left[rank[place]] = False
    found = np.zeros(classes, np.int64)
    found[rank] = 1 + apportion(capacity[rank] - 1, share, total - classes)
    return found


def drawn(y: np.ndarray, power: float, total: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(candidates in a seeded order, held out)."""
    free, held = split(y, seed, MOST_HELD)
    rng = np.random.Generator(np.random.PCG64([seed, 2]))
    free = rng.permutation(free)
    keep = sizes(np.bincount(y[free]), power, total, seed)
    place = np.zeros(len(free), np.int64)  # of each row among its class's
    for label in range(len(keep)):
        mine = np.flatnonzero(y[free] == label)
        place[mine] = np.arange(len(mine))
    return free[place < keep[y[free]]], held


def effective(count: np.ndarray) -> float:
    """How many classes of equal size have the entropy of these."""
    p = count[count > 0] / count.sum()
    return float(np.exp(-(p * np.log(p)).sum()))


def orders(features: Features, y: np.ndarray, budgets: tuple[int, ...], seed: int) -> Iterator[tuple[str, Any]]:
    """(arm, what it chooses at each budget) among all rows of the features, whose classes y are."""
    known = replace(features, facts={**features.facts, "class": y.astype(str)})
    choosers: dict[Options, Chooser] = {}
    for arm in ARMS:
        group = f"cluster:{len(np.unique(y))}" if arm.group == "clusters" else arm.group
        options = Options(seed=seed, normalise=arm.normalise, group_by=group, quotas="balanced")
        chooser = choosers.setdefault(options, Chooser(known, options))
        yield arm.name, [chosen.indices for chosen in chooser.choose(arm.strategy, budgets)]


def one_draw(
    features: Features, y: np.ndarray, power: float, total: int, seed: int, budgets: tuple[int, ...]
) -> tuple[dict[str, dict[str, list[float]]], np.ndarray]:
    """By weights, arm and budget the accuracy; and how many candidates each class has."""
    candidates, held = drawn(y, power, total, seed)
    x, count = learned(features, candidates, HOW), np.bincount(y[candidates], minlength=y.max() + 1)
    onehot = (y[:, None] == np.arange(y.max() + 1)).astype(np.float64)
    share = {"macro": np.full(len(count), 1 / len(count)), "as the candidates": count / count.sum()}
    each = onehot[held] / onehot[held].sum(0)
    found: dict[str, dict[str, list[float]]] = {weights: {} for weights in WEIGHTS}
    for name, chosen in orders(take(features, candidates), y[candidates], budgets, seed):
        right = []
        for order in chosen:
            rows = candidates[order]
            guessed = linear(x, onehot[rows], rows, held, RIDGE).argmax(1)
            right.append((guessed == y[held]) @ each)  # (classes,) accuracies
        for weights in WEIGHTS:
            found[weights][name] = [float(r @ share[weights]) for r in right]
    return found, count


def measured(
    features: Features, y: np.ndarray, power: float, total: int, seeds: range, budgets: tuple[int, ...] = BUDGETS
) -> dict[str, Any]:
    """All seeds of one power."""
    made = [one_draw(features, y, power, total, seed, budgets) for seed in seeds]
    counts = [count for _, count in made]
    return {
        "power": power,
        "classes": int(y.max() + 1),
        "candidates": total,
        "largest": float(np.mean([c.max() for c in counts])),
        "effective": float(np.mean([effective(c) for c in counts])),
        **{weights: gathered([found[weights] for found, _ in made], budgets) for weights in WEIGHTS},
    }


def together(data: Path, out: Path) -> tuple[Features, np.ndarray]:
    """The rows of all sets as one, and the number of each row's class."""
    pool, parts, classes = read_pool(str(data / "pool.parquet")), [], []
    for name in TOGETHER:
        rows = sets.rows_of(pool, name)
        parts.append(sets.scored(rows.pool, out / name))
        classes += [f"{name}: {label}" for label in rows.labels]
    x = np.concatenate([np.asarray(part.embeddings) for part in parts])
    features = Features(tuple(i for part in parts for i in part.ids), x, {}, {}, "")
    return features, np.unique(classes, return_inverse=True)[1]


@click.command()
@click.option("--data", type=Path, default=runner.ROOT.parent / "shared" / "data", help="Where pool.parquet lies.")
@click.option("--out", type=Path, default=Path("out/control"), show_default=True, help="Where the features are kept.")
@click.option("--seeds", default=SEEDS, show_default=True)
@click.option("--power", "powers", type=float, multiple=True, default=POWERS, show_default=True)
@click.option("--name", default="twin", show_default=True, help="Of the results file.")
def main(data: Path, out: Path, seeds: int, powers: tuple[float, ...], name: str) -> None:
    """Measure, and write benchmarks/results/NAME.json, a power after the other; other powers there stay as they are."""
    on = runner.machine()
    features, y = together(data, out)
    for power in powers:
        row = {"job": f"s = {power:g}", **measured(features, y, power, CANDIDATES, range(seeds))}
        for arm, found in row["macro"]["savings"].items():
            click.echo(f"s = {power:g}: {arm}: " + ", ".join(f"{at}: {s['share_saved']}" for at, s in found.items()))
        probe = {"features": HOW, "ridge": RIDGE}
        click.echo(runner.write(name, [row], merge=True, machine=on, seeds=seeds, probe=probe))


if __name__ == "__main__":
    main()
