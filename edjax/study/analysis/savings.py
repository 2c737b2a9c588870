"""What a strategy saves: how far the baseline's learning curve has to be shifted to lie on the strategy's.

    saving = 1 - 2^-d,   d = argmin over d of  sum over budgets b of (strategy(b) - baseline(2^d b))^2

The baseline's curve is its mean over seeds, made monotone, linear in log2 of the labels between its budgets and a
little beyond them with the end slopes. So all budgets count, a strategy that is the baseline saves nothing whatever
the curve looks like, and a saving can be negative. Beside it stands the null: the same of the baseline against itself,
its seeds split in two in every way.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from math import comb
from typing import Any, NamedTuple

import numpy as np

from edjax.study.analysis.seeds import FEW, FEWEST, NULL_FROM
from edjax.study.analysis.shift import Curve, fitted, monotone, reach, shift

STATISTIC = "shift of random's curve along log2 of the labels"
SPLITS = 1000  # at most; beyond that a seeded draw of them


class Arm(NamedTuple):
    """A strategy's cells: (n, b) quality (larger is better) and cost by seed and budget, NaN where there is no cell."""

    budgets: tuple[int, ...]
    quality: np.ndarray
    cost: np.ndarray

    @property
    def seeds(self) -> int:
        """The seeds that every budget has."""
        return int(np.isfinite(self.quality).sum(0).min())

    def curve(self) -> Curve:
        """Means over seeds in order of cost, and what each seed contributes to their errors."""
        there = np.isfinite(self.quality).sum(0)
        quality, cost = np.nanmean(self.quality, 0), np.nanmean(self.cost, 0)
        order = np.argsort(cost, kind="stable")
        errors = np.nan_to_num((self.quality - quality) / there)
        spread = np.nan_to_num((self.cost - cost) / (cost * np.log(2) * there))
        return Curve(np.log2(cost)[order], quality[order], errors[:, order], spread[:, order])


def savings(arms: Mapping[str, Arm], baseline: str, before: float, unit: str) -> list[dict[str, Any]]:
    """Of every other strategy; `before` is the quality of the model before finetuning.

    Returns:
      as `edjax.study.report.schema.Saving`; where no saving can be said, "share_saved" is None and "reason" says why.
    """
    reference = arms[baseline]
    nothing = _unusable(reference, before, baseline, unit)
    nulls: dict[tuple[int, ...], dict[str, Any] | None] = {}
    made = []
    for name, arm in arms.items():
        if name == baseline:
            continue
        shared = tuple(i for i, b in enumerate(reference.budgets) if b in arm.budgets)
        if shared not in nulls:
            nulls[shared] = None if nothing or not shared else null(reference, list(shared), before)
        entry = {
            "strategy": name,
            "budget_needed": None,
            "share_saved": None,
            "low": None,
            "high": None,
            "seeds": arm.seeds,
            "baseline_seeds": reference.seeds,
            "null": nulls[shared],
        }
        reason, note = nothing or ("", "")
        if not nothing:
            found, reason, note = _saving(reference, arm, baseline, unit)
            entry |= found
        made.append(entry | {"reason": reason or None, "note": note})
    return made


def _unusable(reference: Arm, before: float, baseline: str, unit: str) -> tuple[str, str] | None:
    """Why nothing can be saved along this curve: (reason, in words); None where it can."""
    curve = reference.curve()
    first, largest = 2.0 ** curve.x[0], 2.0 ** curve.x[-1]
    if len(reference.budgets) < 2:
        return "budgets", f"{baseline} was run at one budget, and one point is no curve to shift"
    if curve.quality[-1] <= before:
        return "base", f"{largest:,.0f} {unit} of {baseline} did no better than the model before finetuning"
    level = monotone(curve.quality)
    if level[-1] <= level[0] or np.diff(curve.x).min() <= 0:
        return "flat", f"{baseline} does not improve from {first:,.0f} to {largest:,.0f} {unit}: nothing to shift along"
    return None


def _saving(reference: Arm, arm: Arm, baseline: str, unit: str) -> tuple[dict[str, Any], str, str]:
    """The saving of one strategy, why there is none, and a note."""
    theirs, mine = reference.curve(), arm.curve()
    fewest = min(reference.seeds, arm.seeds)
    found = shift(theirs, mine, interval=fewest >= FEWEST)
    d, low, high = (float(v) for v in found)
    largest = 2.0 ** float(theirs.x[-1])
    least, most = (float(end) for end in reach(theirs.x, mine.x))
    if not least < 0 < most:
        return {}, "budgets", f"its budgets are too far from those of {baseline} to be compared"
    if np.isposinf(d):
        much = f"saves more than {100 * (1 - 2.0**-most):.0f} %"
        return {}, "beyond", f"{much}: more than the budgets of {baseline} measure"
    if np.isneginf(d):
        much = f"takes over {2.0**-least:.1f} times as many".replace(".0 ", " ")
        return {}, "reach", f"{much}: more than the budgets of {baseline} measure"
    if fewest >= FEWEST and not (np.isfinite(low) or np.isfinite(high)):
        return {}, "noise", f"every saving that the budgets of {baseline} could measure fits these {unit}"
    notes = []
    if fewest < FEWEST:
        notes.append(f"no interval below {FEWEST} seeds")
    elif fewest < FEW:
        notes.append("few seeds")
    if np.any(np.diff(theirs.quality) < 0):
        notes.append(f"{baseline} turns: level where it does")
    share = {"budget_needed": largest * 2.0**-d, "share_saved": _share(d)}
    ends = {"low": _share(low), "high": _share(high)} if fewest >= FEWEST else {}
    return share | ends, "", "; ".join(notes)


def _share(doublings: float) -> float | None:
    return 1 - 2.0**-doublings if np.isfinite(doublings) else None


def null(reference: Arm, at: list[int], before: float) -> dict[str, Any] | None:
    """What the baseline saves against itself: its seeds split in two in every way, each half once the reference.

    Args:
      at: the budgets (their places) at which a half stands for a strategy.

    Returns:
      {"low", "high"}: the central 95 % of the savings, {"splits", "seeds"}: of how many; None below NULL_FROM seeds,
      and where most halves have no curve to shift along.
    """
    whole = np.isfinite(reference.quality).all(1)
    quality, cost = reference.quality[whole], reference.cost[whole]
    n = len(quality)
    if n < NULL_FROM:
        return None
    drawn = comb(n, n // 2) > SPLITS
    if drawn:
        halves = np.argsort(np.random.Generator(np.random.PCG64(0)).random((SPLITS, n)), 1) < n // 2
    else:
        chosen = itertools.combinations(range(n), n // 2)
        halves = np.asarray([np.isin(np.arange(n), c) for c in chosen])
    if drawn or n % 2:  # of an even number every half is another's rest already
        halves = np.concatenate([halves, ~halves])
    curves = []
    for side in (halves, ~halves):
        share = side / side.sum(1, keepdims=True)
        curves.append((np.log2(share @ cost), share @ quality))
    (x, y), (x_other, y_other) = curves
    y = np.where(np.diff(x, axis=1).min(1, keepdims=True) > 0, y, np.nan)
    level = monotone(np.nan_to_num(y))
    good = (level[:, -1] > level[:, 0]) & (np.nan_to_num(y[:, -1], nan=-np.inf) > before)
    if good.mean() < 0.5:
        return None
    d = fitted(x[good], level[good], x_other[good][:, at], y_other[good][:, at])
    low, high = np.quantile(1 - 2.0**-d, [0.025, 0.975])
    return {"low": float(low), "high": float(high), "splits": int(good.sum()), "seeds": n}
