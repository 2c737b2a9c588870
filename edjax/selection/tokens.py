"""Budgets of tokens: which rows of an order are bought when each has its own price."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edjax.data.columns import unfit
from edjax.data.features import Features
from edjax.keep.errors import DataError

Ordering = Callable[[int], tuple[np.ndarray, np.ndarray | None]]
_ON = 16


def costs(features: Features, column: str) -> np.ndarray:
    """(n,) float64, the price of each row: a column of the features or, joined to them, of the pool.

    Raises:
      DataError: no such column, or a price that is not a number of 0 or more.
    """
    values = features.facts.get(column, features.scores.get(column))
    if wrong := unfit(features, column) if column in features.arrays else None:
        raise wrong
    if values is None:
        found = ", ".join((*features.facts, *features.scores)) or "none"
        raise DataError(
            f"the features have no column {column!r} with the cost of a row (found: {found}); see --cost-by"
        )
    try:
        price = np.asarray([np.nan if v is None else float(v) for v in values])
    except (TypeError, ValueError):
        raise DataError(f"the column {column!r} holds {values[0]!r}; the cost of a row is a number") from None
    if len(bad := np.flatnonzero(~(np.isfinite(price) & (price >= 0)))):
        raise DataError(
            f"row {features.ids[bad[0]]!r} costs {price[bad[0]]:g} by {column!r} ({len(bad)} such); "
            "a number of 0 or more is needed"
        )
    return price


def affordable(
    order: Ordering, price: np.ndarray, candidates: np.ndarray, budget: float, most: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """The rows of an order that are bought with `budget`, at most `most` of them, and their gains.

    The order is walked; a row is taken where it fits into what is left, and passed over where it does not (first
    fit). Stopping at the first that does not fit would waste up to the price of the dearest row, and dividing gains by
    prices (Leskovec et al. 2007, CELF) would change which rows an objective prefers, and favour short prompts. The walk
    ends when nothing is cheap enough, or at twice the place of the first row that did not fit, plus 16: what comes
    later in a greedy order is worth little. The sum of the prices never exceeds `budget`.

    Args:
      order: gives the first j rows and their gains; a smaller j gives the beginning of a larger one.
      price: (n,) of every row. candidates: rows that the order is of.
    """
    limit = min(most, len(candidates))
    cheapest = float(price[candidates].min()) if limit else np.inf
    fitting = int(np.searchsorted(np.cumsum(np.sort(price[candidates])), budget, side="right"))
    mean = float(price[candidates].mean()) if limit else 0.0
    look = min(len(candidates), fitting + _ON, int(1.25 * budget / mean) + _ON if mean else len(candidates))
    while True:
        picks, gains = order(look) if look else (np.zeros(0, np.int64), None)
        taken: list[int] = []
        left, end = float(budget), len(candidates)
        for at, row in enumerate(picks):
            if at >= end or len(taken) == limit or left < cheapest:
                break
            if price[row] <= left:
                taken.append(at)
                left -= float(price[row])
            else:
                end = min(end, 2 * (at + 1) + _ON)
        else:
            if len(picks) < min(end, len(candidates)) and len(taken) < limit and left >= cheapest:
                look = min(len(candidates), 2 * look)
                continue
        chosen = np.asarray(taken, np.int64)
        return picks[chosen], None if gains is None else gains[chosen]
