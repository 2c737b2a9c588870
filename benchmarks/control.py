"""E0, the control: do the selectors save labels for a learner that is fixed and has a closed form?

    python -m benchmarks.control              # scores 4,839 prompts once, then 20 splits: minutes on two cores
    python -m benchmarks.control --data DIR   # where pool.parquet lies

CLINC150 (150 intents) and BANKING77 (77) as they lie in the pool. A split holds a third of each intent's rows out; the
strategies choose among the rest without labels, a ridge probe on the same features learns from what each chose, and
macro accuracy on the rows held out is its score. The probe is the same for all, so that what differs is the choice.

The saving at B labels is horizontal: of random's mean accuracy at B, where the strategy's curve (made monotone, linear
in log2 of the labels) reaches it, by `edjax.analysis.shift` with its interval over splits. Beside it stands the null:
random against itself, the splits cut in two in a seeded thousand ways. The probe's features and ridge were
chosen on splits of their own, by random's accuracy alone (`--tune` prints it).

A saving here is not a saving of finetuning: the probe knows nothing of a label before it has seen it, a language model
half knows what it says.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks import runner
from edjax.analysis.savings import Arm, null
from edjax.analysis.shift import shift
from edjax.features import Features
from edjax.pool import Pool, read_pool
from edjax.select import prepare, select
from edjax.select.prepared import take

SETS = ("clinc150", "banking77")
STRATEGIES = ("k_center", "d_optimal", "facility_location")
NORMALISED = ("l2", "whiten")
BUDGETS = (50, 100, 200, 400, 800)
AT = (200, 400)
SPLITS = 20
HELD_OUT = 1 / 3
LEARNER, RIDGE = "l2", 0.1
MODEL, LAYER, POOLING, TEMPLATE = "smollm2", -1, "mean", "plain"


def intents(pool: Pool, name: str) -> Pool:
    """The rows of a data set, whose responses are its labels."""
    return pool.take([i for i, d in enumerate(pool.column("dataset")) if d == name])


def split(labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(candidates, held out): of every label a third of the rows, at least one and never all, drawn with the seed."""
    rng = np.random.Generator(np.random.PCG64([seed, 0]))
    held = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        held[rows[: min(max(1, round(len(rows) * HELD_OUT)), len(rows) - 1)]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def accuracy(x: np.ndarray, y: np.ndarray, rows: np.ndarray, held: np.ndarray, ridge: float) -> float:
    """Macro accuracy on rows `held` of least squares on one-hot labels of `rows`, with an intercept:

    W = argmin sum_i ||y_i - x_i W||^2 + ridge ||W||^2, by its dual (k, k) system in float64.
    """
    a, b = (np.column_stack([x[r], np.ones(len(r))]).astype(np.float64) for r in (rows, held))
    targets = (y[rows][:, None] == np.arange(y.max() + 1)).astype(np.float64)
    dual = np.linalg.solve(a @ a.T + ridge * np.eye(len(rows)), targets)
    right = (b @ (a.T @ dual)).argmax(1) == y[held]
    return float(np.mean([right[y[held] == label].mean() for label in np.unique(y[held])]))


def arms() -> Iterator[tuple[str, str, str]]:
    """(name, strategy, features)."""
    yield "random", "random", "l2"
    for how in NORMALISED:
        for strategy in STRATEGIES:
            yield f"{strategy}, {how}", strategy, how


def one_split(features: Features, y: np.ndarray, seed: int, budgets: tuple[int, ...]) -> dict[str, list[float]]:
    """The accuracy of every arm at every budget."""
    candidates, held = split(y, seed)
    chosen_from = take(features, candidates)
    x = learned(features, candidates, LEARNER)
    found = {}
    for name, strategy, how in arms():
        order = select(chosen_from, strategy, max(budgets), normalise=how, seed=seed).indices
        found[name] = [accuracy(x, y, candidates[order[:b]], held, RIDGE) for b in budgets]
    return found


def learned(features: Features, candidates: np.ndarray, how: str) -> np.ndarray:
    """The features that the probe sees, prepared by what is known of the candidates."""
    x = np.asarray(features.embeddings)
    if how == "whiten":
        return prepare(x, "whiten", fitted_on=candidates)
    x = x - x[candidates].mean(0, dtype=np.float64).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def saving(values: dict[str, np.ndarray], name: str, budgets: tuple[int, ...], at: int) -> dict[str, Any]:
    """What an arm saves of random's `at` labels; values are (splits, budgets) accuracies."""
    i = budgets.index(at)
    cost = np.broadcast_to(np.asarray(budgets, float), values[name].shape)
    mine = Arm(budgets, values[name], cost).curve()
    random = Arm((at,), values["random"][:, i : i + 1], cost[:, i : i + 1]).curve()
    found = shift(mine, random)
    d, low, high = (float(v) for v in found)

    def share(doublings: float) -> float | None:
        return 1 - 2.0**doublings if np.isfinite(doublings) else None

    return {"share_saved": share(d), "low": share(high), "high": share(low), "seeds": len(values[name])}


def summary(values: dict[str, np.ndarray], budgets: tuple[int, ...]) -> dict[str, Any]:
    """Mean accuracies, and the savings at each of `AT` beside the null there."""
    reference = Arm(budgets, values["random"], np.broadcast_to(np.asarray(budgets, float), values["random"].shape))
    shown = [b for b in AT if b in budgets]
    return {
        "curves": {name: v.mean(0).round(5).tolist() for name, v in values.items()},
        "savings": {
            name: {str(at): saving(values, name, budgets, at) for at in shown} for name in values if name != "random"
        },
        "null": {str(at): null(reference, [budgets.index(at)], 0.0) for at in shown},
    }


def measured(features: Features, labels: list[str], seeds: range, budgets: tuple[int, ...] = BUDGETS) -> dict[str, Any]:
    """All splits of one data set."""
    y = np.unique(labels, return_inverse=True)[1]
    splits = [one_split(features, y, seed, budgets) for seed in seeds]
    values = {name: np.asarray([s[name] for s in splits]) for name in splits[0]}
    cells = {name: v.round(5).tolist() for name, v in values.items()}
    return {"rows": len(y), "labels": int(y.max() + 1), "budgets": list(budgets), **summary(values, budgets)} | {
        "cells": cells
    }


def scored(pool: Pool, out: Path) -> Features:
    from edjax.score import score

    return score(pool, MODEL, out=out, layer=LAYER, pooling=POOLING, max_new_tokens=0, template=TEMPLATE)


def tune(features: Features, labels: list[str]) -> Iterator[str]:
    """Random's accuracy at 200 labels by the probe's settings, on splits that nothing else uses."""
    y = np.unique(labels, return_inverse=True)[1]
    for how in NORMALISED:
        for ridge in (0.01, 0.03, 0.1, 0.3, 1.0, 3.0):
            found = []
            for seed in range(1000, 1004):
                candidates, held = split(y, seed)
                rows = np.random.Generator(np.random.PCG64(seed)).permutation(candidates)[:200]
                found.append(accuracy(learned(features, candidates, how), y, rows, held, ridge))
            yield f"{how}, ridge {ridge}: {np.mean(found):.4f}"


@click.command()
@click.option("--data", type=Path, default=runner.ROOT.parent / "shared" / "data", help="Where pool.parquet lies.")
@click.option("--out", type=Path, default=Path("out/control"), show_default=True, help="Where the features are kept.")
@click.option("--splits", default=SPLITS, show_default=True)
@click.option("--name", default="control", show_default=True, help="Of the results file.")
@click.option("--tune", "tuning", is_flag=True, help="Print how the probe was chosen, and stop.")
def main(data: Path, out: Path, splits: int, name: str, tuning: bool) -> None:
    """Measure, and write benchmarks/results/NAME.json."""
    on, pool, rows = runner.machine(), read_pool(str(data / "pool.parquet")), []
    for each in SETS:
        some = intents(pool, each)
        features, labels = scored(some, out / each), [r or "" for r in some.responses]
        if tuning:
            for said in tune(features, labels):
                click.echo(f"{each}: {said}")
            continue
        rows.append({"job": each, **measured(features, labels, range(splits))})
        for arm, found in rows[-1]["savings"].items():
            click.echo(f"{each}: {arm}: " + ", ".join(f"{at}: {s['share_saved']}" for at, s in found.items()))
    if not tuning:
        settings = {"model": MODEL, "layer": LAYER, "pooling": POOLING, "template": TEMPLATE}
        probe = {"features": LEARNER, "ridge": RIDGE}
        click.echo(runner.write(name, rows, machine=on, settings=settings, probe=probe, splits=splits))


if __name__ == "__main__":
    main()
