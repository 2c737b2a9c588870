"""Cells in, curves and differences out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from edjax.evaluation.metrics import macro_weights
from edjax.study.analysis.savings import Arm, savings
from edjax.study.analysis.seeds import interval_of_difference, interval_of_mean


class Cell(NamedTuple):
    """The primary metric of one finetuned model on every evaluation row (NaN where a row has none)."""

    strategy: str
    budget: int
    seed: int
    values: np.ndarray
    response_tokens: int | None = None  # of the labels it was trained on


class Score(NamedTuple):
    """The same in one number."""

    strategy: str
    budget: int
    seed: int
    value: float
    response_tokens: int | None = None


def analyse(
    cells: list[Cell],
    base: np.ndarray,
    *,
    higher_is_better: bool,
    baseline: str = "random",
    groups: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Curves, differences from the baseline and savings.

    Args:
      cells: all of them, each with the same rows in the same order.
      base: the metric of the model before finetuning, on these rows.
      groups: what each row belongs to; a cell's score is then the mean over groups of each group's mean (macro).

    Returns:
      {"curves", "differences", "savings"} as `edjax.study.report.schema` describes them, "token_savings", the same
      counted in response tokens, where every cell says how many its labels have, and with `groups` "by_rows": all of
      these by the mean over rows.
    """
    values = np.asarray([c.values for c in cells], float).reshape(len(cells), len(base))
    rows = np.flatnonzero(np.isfinite(base) & np.isfinite(values).all(axis=0))
    if not len(rows) or not cells:
        return {"curves": {}, "differences": [], "savings": []}

    def by(average: Callable[[np.ndarray], Any]) -> dict[str, Any]:
        scores = [
            Score(c.strategy, c.budget, c.seed, float(average(v[rows])), c.response_tokens)
            for c, v in zip(cells, values, strict=True)
        ]
        return compare(scores, float(average(base[rows])), higher_is_better=higher_is_better, baseline=baseline)

    if groups is None:
        return by(np.mean)
    weights = macro_weights([groups[int(i)] for i in rows])
    return by(lambda v: v @ weights) | {"by_rows": by(np.mean)}


def compare(
    scores: Sequence[Score], base: float, *, higher_is_better: bool, baseline: str = "random"
) -> dict[str, Any]:
    """What `analyse` gives, from one number a cell and `base`, that of the model before finetuning."""
    scores = [s for s in scores if np.isfinite(s.value)]
    seen: dict[tuple[str, int], list[Score]] = {}
    for s in scores:
        seen.setdefault((s.strategy, s.budget), []).append(s)
    values = {k: np.asarray([s.value for s in group]) for k, group in seen.items()}
    strategies = list(dict.fromkeys(s.strategy for s in scores))
    found: dict[str, Any] = {
        "curves": {
            s: [
                {"budget": b, "mean": float(v.mean()), **interval_of_mean(v), "n": len(v)}
                for (t, b), v in sorted(values.items())
                if t == s
            ]
            for s in strategies
        },
        "differences": [
            {"strategy": s, "budget": b, "mean": float(v.mean() - values[baseline, b].mean())}
            | interval_of_difference(v, values[baseline, b])
            | {"seeds": len(v), "baseline_seeds": len(values[baseline, b])}
            for (s, b), v in sorted(values.items())
            if s != baseline and (baseline, b) in values
        ],
        "savings": [],
    }
    paid = [s for s in scores if s.budget > 0]  # an adapter of unknown labels has 0 of them
    strategies = list(dict.fromkeys(s.strategy for s in paid))
    if baseline not in strategies:
        return found
    sign = 1.0 if higher_is_better else -1.0

    def saved(unit: str, tokens: bool) -> list[dict[str, Any]]:
        arms = {s: _arm([c for c in paid if c.strategy == s], sign, tokens) for s in strategies}
        return savings(arms, baseline, sign * base, unit)

    found["savings"] = saved("labels", tokens=False)
    if all(s.response_tokens for s in paid):
        found["token_savings"] = saved("response tokens", tokens=True)
    return found


def _arm(scores: list[Score], sign: float, tokens: bool) -> Arm:
    budgets = sorted({s.budget for s in scores})
    turns: Counter[tuple[int, int]] = Counter()
    places = []
    for s in scores:  # two cells of one seed at one budget are two
        places.append((s.seed, turns[s.budget, s.seed]))
        turns[s.budget, s.seed] += 1
    seeds = list(dict.fromkeys(places))
    quality = np.full((len(seeds), len(budgets)), np.nan)
    cost = np.full_like(quality, np.nan)
    for s, place in zip(scores, places, strict=True):
        at = seeds.index(place), budgets.index(s.budget)
        quality[at] = sign * s.value
        cost[at] = float(s.response_tokens or 0) if tokens else float(s.budget)
    return Arm(tuple(budgets), quality, cost)


def values_of(rows: Sequence[Mapping[str, Any]], metric: str) -> np.ndarray:
    """A metric of every row of an evaluation, (n,) float64; NaN where a row has none."""
    return np.asarray([float("nan") if row.get(metric) is None else row[metric] for row in rows], float)
