"""Embeddings as the diversity strategies see them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np

from edjax.data.columns import Columns
from edjax.data.features import Features
from edjax.data.stream import Spill, Stream
from edjax.keep.errors import UsageError
from edjax.selection import defaults, whitening

PART = 8192  # rows at a time that whitening is fitted on
NORMALISE = ("l2", "whiten", "centre", "none")


@overload
def prepare(
    embeddings: np.ndarray,
    normalise: str = defaults.NORMALISE,
    whiten_dims: int = ...,
    fitted_on: np.ndarray | None = None,
) -> np.ndarray: ...
@overload
def prepare(
    embeddings: Stream, normalise: str = defaults.NORMALISE, whiten_dims: int = ..., fitted_on: np.ndarray | None = None
) -> Spill: ...
@overload
def prepare(
    embeddings: np.ndarray | Stream,
    normalise: str = defaults.NORMALISE,
    whiten_dims: int = ...,
    fitted_on: np.ndarray | None = None,
) -> np.ndarray | Spill: ...
def prepare(
    embeddings: np.ndarray | Stream,
    normalise: str = defaults.NORMALISE,
    whiten_dims: int = defaults.WHITEN_DIMS,
    fitted_on: np.ndarray | None = None,
) -> np.ndarray | Spill:
    """Embeddings as the diversity strategies see them, (n, d) float32; of a stream, the same values in a file.

    "whiten", the default: centred, projected on the first `whiten_dims` principal components (fewer where rows are few,
    see `edjax.selection.whitening.dimensions`), each divided by its standard deviation, then scaled to length 1: (n,
    q). "l2": centred, then each row scaled to length 1 (a row equal to the mean stays 0). "centre": centred only.
    "none": as they are. Hidden states share an offset larger than their spread and a few directions hold most of their
    variance, so without this k-center and D-optimal chase rows of large norm, and with "l2" all designs spend
    themselves on those few directions.

    Args:
      fitted_on: (m,) the rows that mean and components of "whiten" are of; None: all.
    """
    if normalise not in NORMALISE:
        raise UsageError(f"normalise {normalise!r} is not one of {', '.join(NORMALISE)}")
    if isinstance(embeddings, Stream):
        if normalise == "whiten":
            return _whiten_spilled(embeddings, whiten_dims, fitted_on)
        return _prepare_spilled(embeddings.spill(), normalise)
    if normalise == "none" or not len(embeddings):
        return embeddings
    if normalise == "whiten":
        rows = embeddings if fitted_on is None else embeddings[fitted_on]
        parts = [rows[i : i + PART] for i in range(0, len(rows), PART)]
        x = _fitted(parts, len(rows), whiten_dims)(embeddings)
        x /= _lengths(np.linalg.norm(x, axis=1))[:, None]
        return x
    rough, rest = _two_terms(embeddings.mean(axis=0, dtype=np.float64))
    x = embeddings - rough
    x -= rest
    if normalise == "l2":
        x /= _lengths(np.linalg.norm(x, axis=1))[:, None]
    return x


def _fitted(parts: Sequence[np.ndarray] | _Parts, n: int, whiten_dims: int) -> whitening.Whitening:
    """Whitening of rows that can be gone through twice."""
    if not n:
        raise UsageError("nothing to whiten by: there is no row to choose from")
    total = np.sum([part.sum(axis=0, dtype=np.float64) for part in parts], axis=0)
    return whitening.fit(parts, *_two_terms(total / n), n, whiten_dims)


class _Parts:
    """The rows of a file that whitening is fitted on, a part at a time, again and again."""

    def __init__(self, x: Spill, rows: np.ndarray | None):
        self.x, self.kept = x, None if rows is None else np.isin(np.arange(len(x)), rows)

    def __iter__(self) -> Iterator[np.ndarray]:
        for start in range(0, len(self.x), PART):
            rows = self.x[start : start + PART]
            yield rows if self.kept is None else rows[self.kept[start : start + PART]]


def _whiten_spilled(stream: Stream, whiten_dims: int, fitted_on: np.ndarray | None) -> Spill:
    """Whitening of a file into another: a pass for the mean, one for the components, one to write."""
    x = stream.spill()
    if not len(x):
        return x
    whitened = _fitted(_Parts(x, fitted_on), len(x) if fitted_on is None else len(fitted_on), whiten_dims)
    out = Spill((len(x), whitened.axes.shape[1]), stream.scratch)
    for part in x.slices():
        rows = whitened(x[part])
        out[part] = rows / _lengths(np.linalg.norm(rows, axis=1))[:, None]
    return out


def _prepare_spilled(x: Spill, normalise: str) -> Spill:
    """`prepare` in place, a slice at a time: a pass for the mean, one for the norms, one to write."""
    if normalise == "none" or not len(x):
        return x
    total = np.sum([x[part].sum(axis=0, dtype=np.float64) for part in x.slices()], axis=0)
    rough, rest = _two_terms(total / len(x))
    length = np.ones(len(x), np.float32)
    if normalise == "l2":
        length = _lengths(np.concatenate([np.linalg.norm((x[part] - rough) - rest, axis=1) for part in x.slices()]))
    for part in x.slices():
        x[part] = ((x[part] - rough) - rest) / length[part, None]
    return x


def _two_terms(mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A float64 mean as two float32 terms: at an offset of 10,000 times the spread, one alone is too coarse."""
    rough = mean.astype(np.float32)
    return rough, (mean - rough).astype(np.float32)


def _lengths(norms: np.ndarray) -> np.ndarray:
    """What to divide each row by: its norm, or infinity where the row is rounding noise about the mean."""
    return np.where(norms > 1e-6 * max(float(norms.max(initial=0.0)), 1e-30), norms, np.float32(np.inf))


def take(features: Features, rows: np.ndarray) -> Features:
    """The features of these rows alone, in this order; all of them as they are."""
    if len(rows) == len(features):
        return features
    parts = Columns(features.scores, features.facts, features.arrays).take(rows)
    x = features.embeddings
    return Features(
        tuple(features.ids[i] for i in rows),
        x.take(rows) if isinstance(x, Stream) else x[rows],
        parts.scores,
        parts.facts,
        features.digest,
        parts.arrays,
    )
