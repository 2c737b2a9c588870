"""From the scores of all cells to curves, savings with intervals, and a verdict in words.

All intervals are percentile bootstraps over evaluation rows, drawn once and shared by every cell, so that two
strategies are always compared on the same rows (a paired bootstrap). Seeds of one strategy and budget are averaged
before rows are drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

DRAWS = 2000
INTERVAL = "95 % bootstrap over evaluation rows, seeds averaged"


class Cell(NamedTuple):
    """The primary metric of one finetuned model on every evaluation row (NaN where a row has none)."""

    strategy: str
    budget: int
    seed: int
    values: np.ndarray


def analyse(
    cells: list[Cell], base: np.ndarray, *, higher_is_better: bool, baseline: str = "random", seed: int = 0
) -> dict[str, Any]:
    """Curves, differences from the baseline and savings.

    Args:
      cells: all of them, each with the same rows in the same order.
      base: the metric of the model before finetuning, on these rows.

    Returns:
      {"curves", "differences", "savings"} as `edjax.report.schema` describes them.
    """
    means: dict[tuple[str, int], np.ndarray] = {}
    counts: dict[tuple[str, int], int] = {}
    for key in dict.fromkeys((c.strategy, c.budget) for c in cells):
        same = [c.values for c in cells if (c.strategy, c.budget) == key]
        means[key], counts[key] = np.mean(same, axis=0), len(same)
    rows = np.flatnonzero(np.isfinite(base) & np.isfinite(np.asarray(list(means.values()))).all(axis=0))
    if not len(rows):
        return {"curves": {}, "differences": [], "savings": []}
    rng = np.random.Generator(np.random.PCG64(seed))
    weights = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=DRAWS) / len(rows)
    point = {k: float(v[rows].mean()) for k, v in means.items()}
    drawn = {k: weights @ v[rows] for k, v in means.items()}
    strategies = list(dict.fromkeys(k[0] for k in means))
    curves = {
        s: [
            {"budget": b, "mean": point[s, b], **_interval(drawn[s, b]), "n": counts[s, b]}
            for b in sorted(b for t, b in means if t == s)
        ]
        for s in strategies
    }
    differences = [
        {"strategy": s, "budget": b, "mean": point[s, b] - point[baseline, b]}
        | _interval(drawn[s, b] - drawn[baseline, b])
        for s, b in sorted(means)
        if s != baseline and (baseline, b) in means
    ]
    base_point, base_drawn = float(base[rows].mean()), weights @ base[rows]
    savings = []
    if any(s == baseline for s in strategies):
        largest = max(b for s, b in means if s == baseline)
        sign = 1.0 if higher_is_better else -1.0
        for s in strategies:
            if s == baseline:
                continue
            budgets = sorted(b for t, b in means if t == s)
            needed = labels_needed(
                [0, *budgets],
                [sign * base_point, *(sign * point[s, b] for b in budgets)],
                sign * point[baseline, largest],
            )
            draws = [
                labels_needed(
                    [0, *budgets],
                    [sign * base_drawn[i], *(sign * drawn[s, b][i] for b in budgets)],
                    sign * drawn[baseline, largest][i],
                )
                for i in range(DRAWS)
            ]
            savings.append(_saving(s, needed, draws, largest))
    return {"curves": curves, "differences": differences, "savings": savings}


def labels_needed(budgets: list[int], quality: list[float], target: float) -> float | None:
    """The smallest budget whose quality reaches the target, by linear interpolation of the running best.

    None where no budget reaches it. `quality` is larger for better.
    """
    best = np.maximum.accumulate(quality)
    if best[-1] < target:
        return None
    at = int(np.argmax(best >= target))
    if at == 0:
        return float(budgets[0])
    low, high = best[at - 1], best[at]
    return float(budgets[at - 1] + (target - low) / (high - low) * (budgets[at] - budgets[at - 1]))


def _saving(strategy: str, needed: float | None, draws: list[float | None], largest: int) -> dict[str, Any]:
    # A draw that never reaches the target needs more than the largest budget: it counts as a saving below zero.
    shares = np.asarray([-np.inf if d is None else 1 - d / largest for d in draws])
    low, high = np.quantile(shares, [0.025, 0.975], method="nearest")
    reached = float(np.mean(np.isfinite(shares)))
    if needed == 0:
        low = high = -np.inf
        note = f"{largest} random labels did no better than the model before finetuning: nothing to save"
    elif needed is None:
        note = f"did not reach random's score at {largest} labels within its budgets"
    else:
        note = f"reached it in {reached:.0%} of the bootstrap draws"
    return {
        "strategy": strategy,
        "budget_needed": needed,
        "share_saved": None if not needed else 1 - needed / largest,
        "low": float(low) if np.isfinite(low) else None,
        "high": float(high) if np.isfinite(high) else None,
        "note": note,
    }


def _interval(draws: np.ndarray) -> dict[str, float]:
    low, high = np.quantile(draws, [0.025, 0.975])
    return {"low": float(low), "high": float(high)}


def verdict(
    savings: list[dict[str, Any]],
    differences: list[dict[str, Any]],
    curves: Mapping[str, Any],
    metric: str,
    higher_is_better: bool,
    baseline: str = "random",
) -> str:
    """One sentence: which strategy saved how many labels, and how sure that is; or that none did."""
    points = curves.get(baseline)
    if not points:
        return f"No cell of {baseline} was run, so there is nothing to compare with."
    if not savings:
        return f"Only {baseline} was run, so nothing can be said about saving labels."
    largest, metric = points[-1]["budget"], metric.replace("_", " ")
    if any(s["budget_needed"] == 0 for s in savings):
        return (
            f"Finetuning on {largest} random labels did not improve {metric} over the model before it, "
            "so there is nothing to save labels on."
        )
    saved = [s for s in savings if s["share_saved"] is not None and s["share_saved"] > 0.005]
    if not saved:
        at = [d for d in differences if d["budget"] == largest]
        best = max(at, key=lambda d: d["mean"] if higher_is_better else -d["mean"], default=None)
        tail = ""
        if best:
            tail = f"; nearest came {best['strategy']}, {best['mean']:+.3f} from it at the same budget"
        return (
            f"No strategy reached random's {metric} at {largest} labels with fewer labels{tail}: "
            "on this pool, with this model, choosing did not save labels."
        )
    best = max(saved, key=lambda s: s["share_saved"])
    if best["low"] is not None and best["low"] > 0:
        sure = f"95 % interval {best['low']:.0%} to {best['high']:.0%}"
    else:
        sure = "though the 95 % interval includes no saving at all"
    chance = f", the best of {len(savings)} strategies" if len(savings) > 1 else ""
    return (
        f"{best['strategy']} reached random's {metric} at {largest} labels with about "
        f"{best['budget_needed']:.0f} labels: {best['share_saved']:.0%} saved ({sure}{chance})."
    )
