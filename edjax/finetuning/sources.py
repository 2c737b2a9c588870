"""Whose the rows are: the sources of a pool, and those that keep all their rows in every batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from edjax.data.groups import groups_of
from edjax.data.pool import Pool
from edjax.keep.errors import UsageError

ONE = "all"  # the source of every row where no column says more


class Sources(NamedTuple):
    """`names` of the g sources, sorted; `of_row` (n,) int32, the number of each row's, from 1, as a batch has it
    (`edjax.lm.batch.Batch`); `keep` (g,) bool, whether all rows of a source are taken."""

    names: tuple[str, ...]
    of_row: np.ndarray
    keep: np.ndarray

    @classmethod
    def of(cls, pool: Pool, column: str | None, keep: str) -> Sources:
        """Of a pool's column; `keep` as `FinetuneConfig.batch_keep_sources`.

        Names in `keep` of which these rows hold none count for nothing: `refuse_unknown` asks that of a whole pool.

        Raises:
          DataError: a column that no row has; a row without a value in it.
        """
        values = (ONE,) * len(pool) if column is None else groups_of(pool, column)
        found, of_row, counts = np.unique(np.asarray(values, object), return_inverse=True, return_counts=True)
        names: list[str] = found.tolist()
        # An even share is n / g; in whole numbers, so that a source of just so many rows is not small by rounding.
        kept = counts * len(names) < len(pool)
        if keep != "small":
            kept = np.isin(names, _named(keep))
        return cls(tuple(names), of_row.reshape(-1).astype(np.int32) + 1, kept)

    def note(self) -> str | None:
        """What a person should know, a sentence; None where there is nothing to say."""
        if len(self.names) == 1:
            return None
        kept = [name for name, is_kept in zip(self.names, self.keep, strict=True) if is_kept]
        said = f"all rows of {_some(kept)} are taken" if kept else "none of them has all its rows taken"
        return f"{len(self.names)} sources: {said}"

    def facts(self) -> dict[str, Any]:
        """For a manifest: by source its rows, and whether all of them are taken."""
        counts = np.bincount(self.of_row, minlength=len(self.names) + 1)[1:]
        return {n: {"rows": int(c), "kept": bool(k)} for n, c, k in zip(self.names, counts, self.keep, strict=True)}


def refuse_unknown(pool: Pool, column: str | None, keep: str) -> None:
    """Hold the names of `keep` against the sources of a whole pool, of which what is trained on is a part.

    Raises:
      DataError: a column that no row has.
      UsageError: a name that is no source.
    """
    values = [ONE] if column is None else pool.column(column)
    names = {str(v) for v in values if v is not None}
    if unknown := sorted(set(_named(keep)) - names):
        raise UsageError(
            f"batch_keep_sources {', '.join(unknown)}: not among the sources of {pool.source}, which are "
            f"{_some(sorted(names))}"
        )


def _named(keep: str) -> list[str]:
    return [] if keep in ("small", "none") else [name.strip() for name in keep.split(",") if name.strip()]


def _some(names: Sequence[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
