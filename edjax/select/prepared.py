"""Embeddings as the diversity strategies see them."""

from __future__ import annotations

from typing import overload

import numpy as np

from edjax.errors import UsageError
from edjax.features import Features
from edjax.stream import Spill, Stream

NORMALISE = ("l2", "centre", "none")


@overload
def prepare(embeddings: np.ndarray, normalise: str = "l2") -> np.ndarray: ...
@overload
def prepare(embeddings: Stream, normalise: str = "l2") -> Spill: ...
@overload
def prepare(embeddings: np.ndarray | Stream, normalise: str = "l2") -> np.ndarray | Spill: ...
def prepare(embeddings: np.ndarray | Stream, normalise: str = "l2") -> np.ndarray | Spill:
    """Embeddings as the diversity strategies see them, (n, d) float32; of a stream, the same values in a file.

    "l2": centred, then each row scaled to length 1 (a row equal to the mean stays 0). "centre": centred only.
    "none": as they are. Hidden states share an offset larger than their spread and a few directions hold most of
    their variance, so without this k-center and D-optimal chase rows of large norm.
    """
    if normalise not in NORMALISE:
        raise UsageError(f"normalise {normalise!r} is not one of {', '.join(NORMALISE)}")
    if isinstance(embeddings, Stream):
        return _prepare_spilled(embeddings.spill(), normalise)
    if normalise == "none" or not len(embeddings):
        return embeddings
    rough, rest = _two_terms(embeddings.mean(axis=0, dtype=np.float64))
    x = embeddings - rough
    x -= rest
    if normalise == "l2":
        x /= _lengths(np.linalg.norm(x, axis=1))[:, None]
    return x


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
    return Features(
        tuple(features.ids[i] for i in rows),
        features.embeddings.take(rows) if isinstance(features.embeddings, Stream) else features.embeddings[rows],
        {k: v[rows] for k, v in features.scores.items()},
        {k: v[rows] for k, v in features.facts.items()},
        features.digest,
    )
