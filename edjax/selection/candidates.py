"""Who may be chosen: rows with finite features, and where strategies are compared the same rows for all of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edjax.data.features import SCORES, Features, not_a_score
from edjax.data.stream import Stream
from edjax.keep.errors import DataError
from edjax.kernels import Method
from edjax.selection.options import Options
from edjax.selection.strategies import scores_of


def columns_of(chosen: Method, options: Options) -> tuple[str, ...]:
    """The scores that a strategy reads with these options."""
    return tuple(dict.fromkeys((*scores_of(chosen), *options.columns())))


def finite(features: Features, columns: Sequence[str]) -> np.ndarray:
    """Which rows have a finite embedding and these scores finite, (n,) bool.

    Raises:
      DataError: a score that the features do not hold.
    """
    x = features.embeddings
    found = x.finite.copy() if isinstance(x, Stream) else np.isfinite(x).all(axis=1)
    for name in columns:
        if name not in features.scores:
            if wrong := not_a_score(features, name):
                raise wrong
            held = ", ".join(features.scores) or "none"
            remedy = "score with --max-new-tokens above 0" if name in SCORES else "join it with --scores FILE"
            raise DataError(f"the features hold no score {name!r} (found: {held}); {remedy}")
        found &= np.isfinite(features.scores[name])
    return found


def valid(
    features: Features,
    columns: Sequence[str],
    drop_invalid: bool,
    given: np.ndarray,
    candidates: np.ndarray | None = None,
) -> tuple[np.ndarray, list[str]]:
    """Rows that are looked at, and notes on those that are not.

    Random is held to it too: strategies are compared on the same candidates.

    Args:
      columns: the scores that are read.
      given: rows that have labels; they are no candidates, and stay where their own features are finite.
      candidates: (n,) bool, the rows that all strategies of a comparison can use; None: nothing is compared.

    Raises:
      DataError: rows that are not finite, unless `drop_invalid`.
    """
    own = finite(features, columns)
    notes = []
    if len(bad := np.flatnonzero(~own)):
        said = f"{len(bad)} {'row has' if len(bad) == 1 else 'rows have'} NaN or infinite features"
        said += f" ({names(features, bad)})"
        if not drop_invalid:
            raise DataError(f"{said}; mend them, or --allow invalid to leave them out (drop_invalid in a variant)")
        notes.append(f"{said}: left out")
    if candidates is None:
        return np.flatnonzero(own), notes
    labelled = np.zeros(len(own), bool)
    labelled[given] = True
    if len(out := np.flatnonzero(own & ~candidates & ~labelled)):
        rows = "1 row that another strategy" if len(out) == 1 else f"{len(out)} rows that another strategy"
        notes.append(f"{rows} of this comparison cannot use ({names(features, out)}): left out for all")
    return np.flatnonzero(own & (candidates | labelled)), notes


def names(features: Features, rows: np.ndarray) -> str:
    """The first ids of some rows."""
    return ", ".join(features.ids[i] for i in rows[:5]) + (", ..." if len(rows) > 5 else "")
