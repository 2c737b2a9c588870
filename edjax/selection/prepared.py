"""Embeddings as the diversity strategies see them: `edjax.kernels.on_host`, over rows in memory and over files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, overload

import numpy as np

from edjax.data.columns import Columns
from edjax.data.features import Features
from edjax.data.stream import Spill, Stream
from edjax.keep.errors import UsageError
from edjax.kernels import on_host
from edjax.kernels.measure import NORMALISE, Preparation
from edjax.selection import defaults

PART = 8192  # rows at a time that whitening is fitted on


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
    see `edjax.kernels.measure.dimensions`), each divided by its standard deviation, then scaled to length 1: (n, q).
    "l2": centred, then each row scaled to length 1 (a row equal to the mean stays 0). "centre": centred only. "none":
    as they are. Hidden states share an offset larger than their spread and a few directions hold most of their
    variance, so without this k-center and D-optimal chase rows of large norm, and with "l2" all designs spend
    themselves on those few directions.

    Args:
      fitted_on: (m,) the rows that mean and components of "whiten" are of; None: all.
    """
    return fitted(embeddings, normalise, whiten_dims, fitted_on).rows


class Prepared(NamedTuple):
    """rows: (n, q) as the strategies see them. by: what made them, which other rows are seen through alike
    (`edjax.kernels.on_host.apply`)."""

    rows: np.ndarray | Spill
    by: Preparation


def fitted(
    embeddings: np.ndarray | Stream, normalise: str, whiten_dims: int, fitted_on: np.ndarray | None = None
) -> Prepared:
    """The rows that `prepare` gives, and the preparation that was fitted on them.

    Raises:
      UsageError: no such way; no row to fit on.
    """
    if normalise not in NORMALISE:
        raise UsageError(f"normalise {normalise!r} is not one of {', '.join(NORMALISE)}")
    if isinstance(embeddings, Stream):
        return _spilled(embeddings, normalise, whiten_dims, fitted_on)
    if normalise == "none" or not len(embeddings):
        return Prepared(embeddings, Preparation())
    parts = [embeddings]
    if normalise == "whiten":
        rows = embeddings if fitted_on is None else embeddings[fitted_on]
        parts = [rows[i : i + PART] for i in range(0, len(rows), PART)]
    by = _fit(parts, normalise, whiten_dims, sum(map(len, parts)))
    x = on_host.projected(by, embeddings)
    if normalise != "centre":
        by, x = on_host.scaled(by, x)
    return Prepared(x, by)


def _fit(parts: Sequence[np.ndarray] | _Parts, normalise: str, whiten_dims: int, n: int) -> Preparation:
    if not n:
        raise UsageError("nothing to whiten by: there is no row to choose from")
    return on_host.fit(parts, n, normalise, whiten_dims)


class _Parts:
    """The rows of a file that a preparation is fitted on, a part at a time, again and again."""

    def __init__(self, x: Spill, rows: np.ndarray | None, size: int):
        self.x, self.kept, self.size = x, None if rows is None else np.isin(np.arange(len(x)), rows), size

    def __iter__(self) -> Iterator[np.ndarray]:
        for start in range(0, len(self.x), self.size):
            rows = self.x[start : start + self.size]
            yield rows if self.kept is None else rows[self.kept[start : start + self.size]]


def _spilled(stream: Stream, normalise: str, whiten_dims: int, fitted_on: np.ndarray | None) -> Prepared:
    """The same of a file: a pass for the mean, one for the components, one to write; whitened rows go into another."""
    x = stream.spill()
    if normalise == "none" or not len(x):
        return Prepared(x, Preparation())
    white = normalise == "whiten"
    parts = _Parts(x, fitted_on if white else None, PART if white else next(x.slices()).stop)
    by = _fit(parts, normalise, whiten_dims, len(x) if fitted_on is None or not white else len(fitted_on))
    out = Spill((len(x), by.axes.shape[1]), stream.scratch) if white else x
    norms = np.zeros(len(x), np.float32)
    for part in x.slices():
        rows = on_host.projected(by, x[part])
        if normalise != "centre":
            norms[part] = np.linalg.norm(rows, axis=1)
            rows /= on_host.divisors(norms[part], 0.0)[:, None]
        out[part] = rows
    if normalise == "centre":
        return Prepared(out, by)
    by = by._replace(least=on_host.least(norms))  # known once all rows were seen
    for row in np.flatnonzero(norms <= by.least):
        out[row : row + 1] = np.zeros((1, out.shape[1]), np.float32)
    return Prepared(out, by)


def take(features: Features, rows: np.ndarray) -> Features:
    """The features of these rows alone, in this order; all of them as they are."""
    if len(rows) == len(features):
        return features
    parts = Columns(features.scores, features.facts, features.arrays, features.pairs).take(rows)
    x = features.embeddings
    return Features(
        tuple(features.ids[i] for i in rows),
        x.take(rows) if isinstance(x, Stream) else x[rows],
        parts.scores,
        parts.facts,
        features.digest,
        parts.arrays,
        parts.pairs,
    )
