"""Near-duplicates: rows that an earlier row already stands for."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from . import checks, distances, geometry
from .geometry import Points, Precision

_TILE_BYTES = 8 << 20
_DOUBT = {"highest": 2e-6, "fast": 2.0**-8}  # what a matrix product may get a cosine wrong by, and some

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
        threshold: in (0, 1]. 1 removes rows of one direction (copies) alone, up to float32: 1 - 3e-8 counts as 1.
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
    x = x if hasattr(x, "shape") and not isinstance(x, jax.Array) else np.asarray(x)
    checks.check_shape(x.shape)
    checks.check_dtype(getattr(x, "dtype", np.float32))
    if isinstance(threshold, bool) or not 0 < threshold <= 1:
        raise ValueError(f"threshold must be above 0 and at most 1, got {threshold!r}")
    n, d = x.shape
    order = np.arange(n) if order is None else np.asarray(order)
    if order.shape != (n,) or not np.array_equal(np.sort(order), np.arange(n)):
        raise ValueError(f"order must hold each of the {n} rows once")
    size = min(_TILE_ROWS, max(1, _TILE_BYTES // (4 * max(d, 1)))) if tile is None else tile
    if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1:
        raise ValueError(f"tile must be a whole number of at least 1, got {tile!r}")
    size, precision = min(int(size), max(n, 1)), checks.check_precision(precision)
    keeper, similarity = order.copy(), np.ones(n, np.float32)  # by place in the order, until the end
    kept = np.zeros(0, np.int64)
    for start in range(0, n, size):
        ids = order[start : start + size]
        rows = _unit(_filled(checks.as_float32(np.asarray(x[ids]), "a tile of x"), size))
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
    """Rows of length 1 (0 where they are 0), at no finite distance where a row held NaN or infinity."""
    unit, _ = distances.unit_rows(x)
    return geometry.points(unit, frame=geometry.unmoved(x.shape[1]))


def _similarity(a: Points, b: Points, threshold, precision):
    """Cosine of unit rows; exact where it is a question of the threshold, -inf where a row is not finite."""

    def doubtful(d2, scale):
        return jnp.abs(1 - d2 / 2 - threshold) <= _DOUBT[precision]

    d2 = distances.squared_distances(a, b, precision=precision, doubtful=doubtful)
    both = (a.norms[:, None] > 0) == (b.norms[None, :] > 0)
    return jnp.where(both, 1 - d2 / 2, jnp.where(d2 < jnp.inf, 0, -jnp.inf))


def _of_pairs(a: Points, b: Points):
    """The cosine of rows a_i and b_i."""
    both = (a.norms > 0) == (b.norms > 0)
    return jnp.where(both, 1 - geometry.square_norms(a.x - b.x) / 2, 0)


@partial(jax.jit, static_argnames="precision")
def _first_like(a, b, threshold, precision):
    """(index of the first row of b at least so similar, or the size; the similarity) for each row of a."""
    like = _similarity(a, b, threshold, precision) >= threshold
    size = like.shape[1]
    j = jnp.where(like.any(axis=1), jnp.argmax(like, axis=1), size)
    return j, _of_pairs(a, b.take(jnp.minimum(j, size - 1)))


@partial(jax.jit, static_argnames="precision")
def _inside(a, alive, threshold, precision):
    """Among the rows of one tile, in order: (index of the row that stands for each, the similarity)."""
    s, places = _similarity(a, a, threshold, precision), jnp.arange(a.norms.shape[0])

    def step(j, keeper):
        keeps = alive[j] & (keeper[j] == j)
        like = keeps & (places > j) & (keeper == places) & (s[:, j] >= threshold)
        return jnp.where(like, j, keeper)

    keeper = lax.fori_loop(0, places.shape[0], step, places)
    return keeper, _of_pairs(a, a.take(keeper))
