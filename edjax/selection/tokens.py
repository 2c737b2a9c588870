"""Budgets of tokens and of money: which rows of an order are bought when each has its own price."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, localcontext

import numpy as np

from edjax.data.columns import unfit
from edjax.data.features import Features
from edjax.keep.errors import DataError
from edjax.selection.options import Options

Ordering = Callable[[int], tuple[np.ndarray, np.ndarray | None]]
_ON = 16
_FIRST = 1024  # rows that are looked at before the first is bought
_DIGITS = 60  # sums of decimals of 17 digits each stay exact


def prices(features: Features, asked: Options) -> np.ndarray:
    """(n,) float64, what each row costs, in tokens or in money.

        price_i = cost_per_row + cost_per_token x tokens_i,   or the column `price_by`

    Worked out in decimals, so that 0.5 + 0.001 x 3 is the float nearest to 0.503.

    Raises:
      DataError: as `costs`; a budget of money by which every row is free.
    """
    if asked.budget_tokens is not None:
        return costs(features, asked.cost_by, "--budget-tokens N:COLUMN")
    if asked.price_by is not None:
        price = costs(features, asked.price_by, "--budget-cost AMOUNT:COLUMN")
    else:
        a_row, a_token = _decimal(asked.cost_per_row), _decimal(asked.cost_per_token)
        price = np.full(len(features), asked.cost_per_row, np.float64)
        if asked.cost_per_token:
            values, at = np.unique(
                costs(features, asked.cost_by, "--budget-cost AMOUNT:per_token=0.001 reads --cost-by COLUMN"),
                return_inverse=True,
            )
            with localcontext(prec=_DIGITS):
                price = np.asarray([float(a_row + a_token * _decimal(v)) for v in values], np.float64)[at]
    if len(price) and not price.any():
        raise DataError(
            f"every row costs 0 by {asked.price_by or asked.cost_by!r}, so no budget of money is spent; say "
            "cost_per_row, or another column"
        )
    return price


def spent(price: np.ndarray) -> float:
    """The sum of prices, as decimals add."""
    with localcontext(prec=_DIGITS):
        return float(sum(map(_decimal, price), Decimal(0)))


def _decimal(value: float) -> Decimal:
    return Decimal(repr(float(value)))


def costs(features: Features, column: str, how: str = "--budget-tokens N:COLUMN") -> np.ndarray:
    """(n,) float64, the price of each row: a column of the features or, joined to them, of the pool.

    Raises:
      DataError: no such column, or a price that is not a number of 0 or more.
    """
    values = features.facts.get(column, features.scores.get(column))
    if wrong := unfit(features, column) if column in features.arrays else None:
        raise wrong
    if values is None:
        found = ", ".join((*features.facts, *features.scores)) or "none"
        raise DataError(f"the features have no column {column!r} with the cost of a row (found: {found}): {how}")
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
    ends when nothing is cheap enough, or at twice the place of the first row that did not fit after one was bought,
    plus 16: what comes later in a greedy order is worth little. Before one is bought it ends at the 1024th row, since
    nothing at all is worth less, and an order of every row of a large pool takes long. The sum of the prices never
    exceeds `budget`; it is counted in decimals, since three rows at 0.1 are bought with 0.3, and in floats they are
    not.

    Args:
      order: gives the first j rows and their gains, or all there are; a smaller j gives the beginning of a larger one.
      price: (n,) of every row. candidates: rows that the order is of.
    """
    n = len(candidates)
    limit = min(most, n)
    cheapest = _decimal(price[candidates].min() if limit else np.inf)
    fitting = int(np.searchsorted(np.cumsum(np.sort(price[candidates])), budget, side="right"))
    mean = float(price[candidates].mean()) if limit else 0.0
    look = min(n, fitting + _ON, int(min(n, 1.25 * budget / mean)) + _ON if mean else n)
    while True:
        picks, gains = order(look) if look else (np.zeros(0, np.int64), None)
        taken: list[int] = []
        left, end = _decimal(budget), n
        for at, row in enumerate(picks):
            if at >= end or len(taken) == limit or left < cheapest:
                break
            if (each := _decimal(price[row])) <= left:
                taken.append(at)
                with localcontext(prec=_DIGITS):
                    left -= each
            else:
                end = min(end, 2 * (at + 1) + _ON if taken else _FIRST)
        else:
            if len(picks) == look < min(end, n) and len(taken) < limit and left >= cheapest:
                look = min(n, 2 * look)
                continue
        chosen = np.asarray(taken, np.int64)
        return picks[chosen], None if gains is None else gains[chosen]


def at_most(asked: Options, n: int) -> int:
    """How many of n rows a budget can buy, as far as that shows without the prices: by what every row costs."""
    if asked.budget_cost is None or not asked.cost_per_row:
        return n
    return min(n, int(_decimal(asked.budget_cost) / _decimal(asked.cost_per_row)))
