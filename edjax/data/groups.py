"""A column that says which group a row is of."""

from __future__ import annotations

from edjax.data.pool import Pool
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
