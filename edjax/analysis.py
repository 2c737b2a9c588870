"""From the scores of all cells to curves, savings with intervals, and a verdict in words.

All intervals are percentile bootstraps over evaluation rows and seeds. Rows are drawn once and shared by every cell, so
that two strategies are always compared on the same rows (a paired bootstrap). Seeds are drawn for each strategy and
budget by themselves, since what a seed decides, the adapter's first weights and the order of the rows, is no common
cause of two strategies' results; a lone seed is itself in every draw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

DRAWS = 2000
INTERVAL = "95 % bootstrap over evaluation rows and seeds"


class Cell(NamedTuple):
    """The primary metric of one finetuned model on every evaluation row (NaN where a row has none)."""

    strategy: str
    budget: int
    seed: int
    values: np.ndarray
    response_tokens: int | None = None  # of the labels it was trained on


def analyse(
    cells: list[Cell], base: np.ndarray, *, higher_is_better: bool, baseline: str = "random", seed: int = 0
) -> dict[str, Any]:
    """Curves, differences from the baseline and savings.

    Args:
      cells: all of them, each with the same rows in the same order.
      base: the metric of the model before finetuning, on these rows.

    Returns:
      {"curves", "differences", "savings"} as `edjax.report.schema` describes them, and "token_savings", the same
      counted in response tokens, where every cell says how many its labels have.
    """
    values: dict[tuple[str, int], np.ndarray] = {}  # (seeds, rows)
    for key in dict.fromkeys((c.strategy, c.budget) for c in cells):
        values[key] = np.asarray([c.values for c in cells if (c.strategy, c.budget) == key])
    rows = np.flatnonzero(np.isfinite(base) & np.isfinite(np.concatenate([*values.values()])).all(axis=0))
    if not len(rows):
        return {"curves": {}, "differences": [], "savings": []}
    rng = np.random.Generator(np.random.PCG64(seed))
    weights = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=DRAWS) / len(rows)
    point = {k: float(v[:, rows].mean()) for k, v in values.items()}
    drawn = {k: ((weights @ v[:, rows].T) * _seeds(rng, len(v))).sum(1) for k, v in values.items()}
    strategies = list(dict.fromkeys(k[0] for k in values))
    curves = {
        s: [
            {"budget": b, "mean": point[s, b], **_interval(drawn[s, b]), "n": len(values[s, b])}
            for b in sorted(b for t, b in values if t == s)
        ]
        for s in strategies
    }
    differences = [
        {"strategy": s, "budget": b, "mean": point[s, b] - point[baseline, b]}
        | _interval(drawn[s, b] - drawn[baseline, b])
        for s, b in sorted(values)
        if s != baseline and (baseline, b) in values
    ]
    base_point, base_drawn = float(base[rows].mean()), weights @ base[rows]
    found = {"curves": curves, "differences": differences, "savings": []}
    if baseline not in strategies:
        return found
    sign = 1.0 if higher_is_better else -1.0
    start = sign * np.append(base_point, base_drawn)
    quality = {k: sign * np.append(point[k], drawn[k]) for k in values}  # what was seen first, then every draw
    found["savings"] = _savings({k: k[1] for k in values}, quality, start, baseline, "labels")
    bought = {k: [c.response_tokens for c in cells if (c.strategy, c.budget) == k] for k in values}
    if all(t is not None for tokens in bought.values() for t in tokens):
        cost = {k: float(np.mean(np.asarray(tokens, float))) for k, tokens in bought.items()}
        found["token_savings"] = _savings(cost, quality, start, baseline, "response tokens")
    return found


def _seeds(rng: np.random.Generator, count: int) -> np.ndarray:
    """(DRAWS, count): the share of each seed in every draw."""
    return rng.multinomial(count, np.full(count, 1 / count), size=DRAWS) / count


def _savings(
    cost: Mapping[tuple[str, int], float],
    quality: Mapping[tuple[str, int], np.ndarray],
    start: np.ndarray,
    baseline: str,
    unit: str,
) -> list[dict[str, Any]]:
    """Of every other strategy: the cost at which it is as good as the baseline at its largest budget."""
    largest = max(k for k in cost if k[0] == baseline)
    made = []
    for strategy in dict.fromkeys(k[0] for k in cost if k[0] != baseline):
        keys = sorted(k for k in cost if k[0] == strategy)
        curve = np.stack([start, *(quality[k] for k in keys)], axis=1)
        axis = [0.0, *(float(cost[k]) for k in keys)]
        needed = [labels_needed(axis, list(c), t) for c, t in zip(curve, quality[largest], strict=True)]
        made.append(_saving(strategy, needed[0], needed[1:], cost[largest], unit))
    return made


def labels_needed(budgets: Sequence[float], quality: Sequence[float], target: float) -> float | None:
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


def _saving(
    strategy: str, needed: float | None, draws: list[float | None], largest: float, unit: str
) -> dict[str, Any]:
    # A draw that never reaches the target needs more than the largest budget: it counts as a saving below zero.
    shares = np.asarray([-np.inf if d is None else 1 - d / largest for d in draws])
    low, high = np.quantile(shares, [0.025, 0.975], method="nearest")
    reached = float(np.mean(np.isfinite(shares)))
    if needed == 0:
        low = high = -np.inf
        note = f"{largest:.0f} random {unit} did no better than the model before finetuning: nothing to save"
    elif needed is None:
        note = f"did not reach random's score at {largest:.0f} {unit} within its budgets"
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
