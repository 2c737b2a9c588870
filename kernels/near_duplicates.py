"""Near-duplicates: rows that an earlier row already stands for."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from . import geometry
from .geometry import Precision

_TILE_BYTES = 8 << 20
_TILE_ROWS = 2048  # at most: the similarities of two tiles take 16 MB


class Duplicates(NamedTuple):
    """keeper: (n,) int64, the row that stands for each row: itself for those that are kept. similarity: (n,) float32
    to it, 1 for those that are kept."""

    keeper: np.ndarray
    similarity: np.ndarray


def near_duplicates(
    x: Any,
    threshold: float,
    *,
    order: Any = None,
    tile: int | None = None,
    precision: Precision = "highest",
) -> Duplicates:
    """Keep rows one by one, each unless a row kept before has a cosine similarity of at least `threshold` to it.

    So no two kept rows are that similar, and every other row has a kept one that is. The same outcome as comparing
    all pairs, as the pruning inside the clusters of SemDeDup (Abbas et al. 2023, arXiv 2303.09540) does; differs in
    that no clustering comes first, so no pair is missed, and in that the first row of a group is kept and not the one
    farthest from its centroid.

    Args:
        x: (n, d) rows on the host, any real dtype, measured in float32: a NumPy array, or anything with `shape` that
            takes an int array of rows. Centre them first if they share an offset. Not for use inside `jit`.
        threshold: in (0, 1]. 1 removes rows of one direction (copies) alone, up to float32: 1 - 2e-6 counts as 1.
        order: (n,) int, the rows in the order in which they are looked at; default as they lie.
        tile: rows compared at a time; changes the time, not the outcome.
        precision: as in `k_center`.

    Returns:
        `Duplicates`. A row holding NaN or infinity is kept and stands for no other. Two zero rows are copies; a zero
        row and another have similarity 0.

    Raises:
        ValueError: naming the value, for a bad shape, threshold, order, tile or precision.

    Cost: n m d FLOPs for m kept rows; two tiles and their similarities on the device, nothing of size n there.

    >>> x = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 0.01], [0.0, 1.0]])
    >>> near_duplicates(x, 0.99).keeper.tolist()
    [0, 1, 0, 1]
    >>> near_duplicates(x, 1, order=[3, 2, 1, 0]).keeper.tolist()
    [0, 3, 2, 3]
    """
    if len(x.shape) != 2:
        raise ValueError(f"x must be 2-dimensional (rows, features), got shape {tuple(x.shape)}")
    if isinstance(threshold, bool) or not 0 < threshold <= 1:
        raise ValueError(f"threshold must be above 0 and at most 1, got {threshold!r}")
    n, d = x.shape
    order = np.arange(n) if order is None else np.asarray(order)
    if order.shape != (n,) or not np.array_equal(np.sort(order), np.arange(n)):
        raise ValueError(f"order must hold each of the {n} rows once")
    size = min(_TILE_ROWS, max(1, _TILE_BYTES // (4 * max(d, 1)))) if tile is None else tile
    if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1:
        raise ValueError(f"tile must be a whole number of at least 1, got {tile!r}")
    size, precision = min(int(size), max(n, 1)), geometry.check_precision(precision)
    keeper, similarity = order.copy(), np.ones(n, np.float32)  # by place in the order, until the end
    kept = np.zeros(0, np.int64)
    for start in range(0, n, size):
        ids = order[start : start + size]
        rows = _unit(_filled(np.asarray(x[ids], np.float32), size))
        first, value = np.full(size, -1, np.int32), np.zeros(size, np.float32)
        for at in range(0, len(kept), size):
            others = _unit(_filled(np.asarray(x[kept[at : at + size]], np.float32), size))
            j, s = (np.asarray(a) for a in _first_like(rows, others, threshold, precision))
            new = (j < size) & (first < 0)
            first[new], value[new] = j[new] + at, s[new]
            if (first[: len(ids)] >= 0).all():
                break
        j, s = (np.asarray(a) for a in _inside(rows, jnp.asarray(first < 0), threshold, precision))
        stands = np.where(first >= 0, kept[first] if len(kept) else -1, ids[np.minimum(j, len(ids) - 1)])
        alone = (first < 0) & (j == np.arange(size))
        keeper[start : start + size] = stands[: len(ids)]
        similarity[start : start + size] = np.where(first >= 0, value, np.where(alone, 1, s))[: len(ids)]
        kept = np.concatenate([kept, ids[alone[: len(ids)]]])
    back = np.argsort(order)
    return Duplicates(keeper[back].astype(np.int64), similarity[back])


def _filled(rows: np.ndarray, size: int) -> np.ndarray:
    """NaN rows, which are like no row, fill a tile up to its size."""
    return np.pad(rows, ((0, size - len(rows)), (0, 0)), constant_values=np.nan)


@jax.jit
def _unit(x):
    """Rows of length 1 (0 where they are 0), NaN where a row held NaN or infinity."""
    valid = jnp.all(jnp.isfinite(x), axis=1)
    x = x / jnp.maximum(jnp.max(jnp.abs(x), axis=1, keepdims=True), jnp.finfo(jnp.float32).tiny)
    norms = geometry.square_norms(x)
    unit = x * jnp.where(norms > 0, lax.rsqrt(jnp.where(norms > 0, norms, 1)), 0)[:, None]
    return jnp.where(valid[:, None], unit, jnp.nan)


def _similarity(a, b, precision):
    """Cosine of unit rows, exactly 1 for copies; NaN compares as unlike."""
    a_norms, b_norms = geometry.square_norms(a), geometry.square_norms(b)
    d2 = geometry.squared_distances(a, b, a_norms, b_norms, precision=precision)
    both = (a_norms[:, None] > 0) == (b_norms[None, :] > 0)
    s = jnp.where(both, jnp.minimum(1 - d2 / 2, 1), 0)
    return jnp.where(jnp.isnan(a_norms)[:, None] | jnp.isnan(b_norms)[None, :], -jnp.inf, s)


@partial(jax.jit, static_argnames="precision")
def _first_like(a, b, threshold, precision):
    """(index of the first row of b at least so similar, or the size; the similarity) for each row of a."""
    s = _similarity(a, b, precision)
    like = s >= threshold
    j = jnp.where(like.any(axis=1), jnp.argmax(like, axis=1), b.shape[0])
    return j, jnp.take_along_axis(s, jnp.minimum(j, b.shape[0] - 1)[:, None], axis=1)[:, 0]


@partial(jax.jit, static_argnames="precision")
def _inside(a, alive, threshold, precision):
    """Among the rows of one tile, in order: (index of the row that stands for each, the similarity)."""
    s, places = _similarity(a, a, precision), jnp.arange(a.shape[0])

    def step(j, keeper):
        keeps = alive[j] & (keeper[j] == j)
        like = keeps & (places > j) & (keeper == places) & (s[:, j] >= threshold)
        return jnp.where(like, j, keeper)

    keeper = lax.fori_loop(0, a.shape[0], step, places)
    return keeper, jnp.take_along_axis(s, keeper[:, None], axis=1)[:, 0]
