"""Rows held out, and what a strategy saves over all splits."""

from __future__ import annotations

from typing import Any

import numpy as np

from edjax.study.analysis.savings import Arm, null
from edjax.study.analysis.shift import monotone, shift

BUDGETS = (50, 100, 200, 400, 800)
AT = (200, 400)
HELD_OUT = 1 / 3


def split(labels: np.ndarray, seed: int, most: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(candidates, held out): of every label a third of the rows, at least one, never all, drawn with the seed.

    most: hold no more than so many of a label out.
    """
    rng = np.random.Generator(np.random.PCG64([seed, 0]))
    held = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        share = min(max(1, round(len(rows) * HELD_OUT)), len(rows) - 1)
        held[rows[: share if most is None else min(share, most)]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def saving(values: dict[str, np.ndarray], name: str, budgets: tuple[int, ...], at: int) -> dict[str, Any]:
    """What an arm saves of random's `at` labels; values are (splits, budgets), larger for better.

    None where random there is above what the arm's curve ends level at: it is not reached, however far one goes on.
    """
    i = budgets.index(at)
    cost = np.broadcast_to(np.asarray(budgets, float), values[name].shape)
    mine = Arm(budgets, values[name], cost).curve()
    random = Arm((at,), values["random"][:, i : i + 1], cost[:, i : i + 1]).curve()
    level = monotone(mine.quality)
    if level[-1] <= level[-2] and random.quality[0] > level[-1]:
        return {"share_saved": None, "low": None, "high": None, "seeds": len(values[name])}
    found = shift(mine, random)
    d, low, high = (float(v) for v in found)

    def share(doublings: float) -> float | None:
        return 1 - 2.0**doublings if np.isfinite(doublings) else None

    return {"share_saved": share(d), "low": share(high), "high": share(low), "seeds": len(values[name])}


def summary(values: dict[str, np.ndarray], budgets: tuple[int, ...]) -> dict[str, Any]:
    """Mean scores, and the savings at each of `AT` beside the null there."""
    reference = Arm(budgets, values["random"], np.broadcast_to(np.asarray(budgets, float), values["random"].shape))
    shown = [b for b in AT if b in budgets]
    return {
        "curves": {name: v.mean(0).round(5).tolist() for name, v in values.items()},
        "savings": {
            name: {str(at): saving(values, name, budgets, at) for at in shown} for name in values if name != "random"
        },
        "null": {str(at): null(reference, [budgets.index(at)], 0.0) for at in shown},
    }


def gathered(splits: list[dict[str, list[float]]], budgets: tuple[int, ...]) -> dict[str, Any]:
    """`summary` of what each split gave by arm, and the cells it is of."""
    values = {name: np.asarray([s[name] for s in splits]) for name in splits[0]}
    cells = {name: v.round(5).tolist() for name, v in values.items()}
    return {"budgets": list(budgets), **summary(values, budgets), "cells": cells}
