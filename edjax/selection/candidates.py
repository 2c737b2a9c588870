"""Who may be chosen: rows with finite features, and where strategies are compared the same rows for all of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edjax.data.columns import unfit
from edjax.data.features import SCORES, Features
from edjax.data.stream import Stream
from edjax.keep.errors import DataError
from edjax.kernels import Method
from edjax.selection.options import Options
from edjax.selection.strategies import reads, scores_of

_OF_RESPONSES = ("response_nll", "mean_response_nll", "n_response_tokens")
REMEDIES = dict.fromkeys(SCORES, "score with --max-new-tokens above 0")
REMEDIES |= {name: f"{REMEDIES[name]}, anew if the features are older" for name in ("energy", "grad_norm")}
REMEDIES |= dict.fromkeys(_OF_RESPONSES, "score with --probe response")
REMEDIES["tokens"] = "score with --probe tokens, or join it with --scores FILE"
REMEDIES["trajectory"] = "score with --probe trajectory --checkpoints DIR, or join it with --scores FILE"
REMEDIES["icl_utility"] = "score with --probe icl_utility"


def columns_of(features: Features, chosen: Method, options: Options) -> tuple[str, ...]:
    """The columns that a strategy needs with these options; names of groups and whole numbers, always sound, are none.

    Raises:
      DataError: a column that the features do not hold, or that has not the dimensions that are read.
    """
    counts = {name for name, of in features.facts.items() if of.dtype.kind in "iu"}
    sound = counts.union(chosen.groups).difference(options.columns())
    for name in reads(chosen, features.columns):
        if name not in sound:
            _check(features, name, chosen.dims.get(name))
    for name in options.columns():
        _check(features, name, 1)
    sound |= features.pairs.keys()  # what is not known of a pair is the method's matter
    own = (name for name in scores_of(chosen) if name not in sound)
    return tuple(dict.fromkeys((*own, *options.columns())))


def _check(features: Features, name: str, dims: int | None) -> None:
    if wrong := unfit(features, name, dims):
        raise wrong
    if name not in features.columns:
        kind, held = ("score", features.scores) if dims in (None, 1) else ("column", features.columns)
        remedy = REMEDIES.get(name, "join it with --scores FILE")
        raise DataError(f"the features hold no {kind} {name!r} (found: {', '.join(held) or 'none'}); {remedy}")


def finite(features: Features, columns: Sequence[str]) -> np.ndarray:
    """Which rows have a finite embedding and these columns finite, (n,) bool; of an array, all of a row's numbers."""
    x = features.embeddings
    found = x.finite.copy() if isinstance(x, Stream) else np.isfinite(x).all(axis=1)
    for name in columns:
        values = features.columns[name]
        found &= np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
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
