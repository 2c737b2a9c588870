"""A column whose values count alike: each row's value in it, and means over its values (macro)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edjax.data.pool import Pool
from edjax.evaluation.metrics import macro_weights
from edjax.keep.errors import DataError


def groups_of(pool: Pool, column: str) -> tuple[str, ...]:
    """Each row's value in a column, as text.

    Raises:
      DataError: a column that no row has; a row without a value in it.
    """
    values = pool.column(column)
    without = [i for i, v in zip(pool.ids, values, strict=True) if v is None or v == "" or v != v]
    if without:
        raise DataError(
            f"{pool.source}: row {without[0]!r} has no {column!r} to group by ({len(without)} such); "
            "give every row one, or group by another column"
        )
    return tuple(str(v) for v in values)


def macro_scores(rows: Sequence[dict[str, Any]], groups: Sequence[str], metrics: Sequence[str]) -> dict[str, float]:
    """By metric, the mean over groups of each group's mean, over the rows that have the metric."""
    out = {}
    for name in metrics:
        there = [(row[name], group) for row, group in zip(rows, groups, strict=True) if row.get(name) is not None]
        if there:
            values, named = zip(*there, strict=True)
            out[name] = float(np.asarray(values, float) @ macro_weights(named))
    return out
