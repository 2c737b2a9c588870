"""What a set is worth, and what one more row would add to it: any method's definition, in float64 on the host."""

from collections.abc import Sequence

import numpy as np

from . import float64
from .ground import Ground, Method


def value(method: Method, ground: Ground, rows: Sequence[int]) -> float:
    """F(S) - F(given) of rows in this order: the sum of the gains that `select` would report of them.

    For the methods whose gains are those of a set function (facility location and its family, D-optimal) the order does
    not matter, unless a quality scales them. Of k-center it is a sum of distances, with an infinite first one where
    nothing is given; of a score, the sum of its values. A row that holds NaN adds nothing.

    Args:
        rows: distinct rows that are not given ones.

    Raises:
        ValueError: a row that there is not, or that is named twice.

    Cost: a pass of the oracle a row.

    >>> from .methods import FacilityLocation
    >>> round(value(FacilityLocation(), Ground({"embedding": np.array([[0.0], [0.0], [9.0]])}), [0, 2]), 3)
    3.0
    """
    taken = _distinct(ground, rows)
    return float(sum(gain(method, ground, taken[:t], row) for t, row in enumerate(taken)))


def gain(method: Method, ground: Ground, rows: Sequence[int], row: int) -> float:
    """What picking `row` gains by the method's definition, `Method.gains`, once `rows` and the given ones are chosen.

    0 for a row that holds NaN.

    Raises: as `value`.

    >>> from .methods import KCenter
    >>> gain(KCenter(), Ground({"embedding": np.array([[0.0], [1.0], [9.0]])}), [1], 2)
    8.0
    """
    *taken, last = _distinct(ground, [*rows, row])
    given = [] if ground.given is None else [int(j) for j in ground.given]
    x = ground.columns.get("embedding") if "embedding" in method.needs else None
    if x is not None and not float64.clean(np.asarray(x)[last : last + 1])[1][0]:
        return 0.0
    found = float(method.gains(ground, list(dict.fromkeys([*given, *taken])))[last])
    return 0.0 if np.isnan(found) else found


def _distinct(ground: Ground, rows: Sequence[int]) -> list[int]:
    """The rows, as integers of the pool's, each named once and none of them given."""
    made = [int(j) for j in rows]
    given = set() if ground.given is None else {int(j) for j in ground.given}
    for place, j in enumerate(made):
        if not 0 <= j < ground.n:
            raise ValueError(f"rows holds row {j}, but the pool has rows 0 to {ground.n - 1}")
        if j in made[:place] or j in given:
            raise ValueError(f"rows holds row {j}, which is {'given' if j in given else 'there twice'}")
    return made
