"""Centring, distances, similarities and row tiles: what every selector measures with.

The precision policy lives here and nowhere else. `"highest"` (the default) runs every matrix product in full
float32; `"fast"` lets the device choose (TF32 on a GPU, one bfloat16 pass on a TPU; on a CPU the two are the same)
and keeps a bfloat16 pool in bfloat16. Sums are accumulated in float32 under both.
"""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Precision = Literal["highest", "fast"]

_LAX_PRECISION = {"highest": lax.Precision.HIGHEST, "fast": lax.Precision.DEFAULT}

# Two float32 rows whose squared distance is below this share of |a|^2 + |b|^2 count as one point: below it the
# expansion |a|^2 + |b|^2 - 2ab returns rounding noise, and copies of a row would seem to be apart.
_SAME_POINT = 2e-6

# A temporary of up to 64 MB is made whole: a tile copies its rows, and costs more than it saves. Above that, row
# tiles and their temporaries are 16 MB each.
_WHOLE_ELEMENTS = 1 << 24
_TILE_ELEMENTS = 1 << 22


def matmul(a: jax.Array, b: jax.Array, precision: Precision = "highest") -> jax.Array:
    """a @ b.T for `a` (n, d) and `b` (m, d), accumulated in float32 under the precision policy. Cost 2 n m d."""
    return lax.dot_general(
        a,
        b.astype(a.dtype),
        (((a.ndim - 1,), (b.ndim - 1,)), ((), ())),
        precision=_LAX_PRECISION[precision],
        preferred_element_type=jnp.float32,
    )


def square_norms(x: jax.Array) -> jax.Array:
    """|x_i|^2 of each row, float32."""
    return jnp.sum(jnp.square(x.astype(jnp.float32)), axis=-1)


class Points(NamedTuple):
    """A pool made ready to be measured.

    x: (n, d) rows, shifted and with every invalid row set to zero. norms: (n,) squared norms of `x`. valid: (n,) False
    where a row held NaN or infinity. shift: (2, d) the mean that was subtracted, as two terms, since one float32 is
    too coarse at a large offset.
    """

    x: jax.Array
    norms: jax.Array
    valid: jax.Array
    shift: jax.Array


def points(
    x: jax.Array, *, centre: bool = True, precision: Precision = "highest", shift: jax.Array | None = None
) -> Points:
    """Shift a pool to its mean, set NaN and infinite rows to zero and mark them.

    Distances do not change when a pool is shifted, but their float32 expansion |a|^2 + |b|^2 - 2ab does: at an offset
    of 1000 it loses all but the first picks, after centring none. `shift` gives the mean instead of measuring it.

    Cost: three passes over the pool, one copy of it.

    >>> pool = jnp.array([[1001.0, 1000.0], [999.0, 1000.0], [jnp.nan, 0.0]])
    >>> points(pool).x.tolist(), points(pool).valid.tolist()
    ([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]], [True, True, False])
    """
    keep = x.dtype if precision == "fast" and x.dtype == jnp.bfloat16 else jnp.float32
    x = x.astype(jnp.float32)
    valid = jnp.all(jnp.isfinite(x), axis=1)
    count = jnp.maximum(jnp.sum(valid), 1).astype(jnp.float32)
    x = jnp.where(valid[:, None], x, 0)
    if shift is None and centre:
        rough = jnp.sum(x, axis=0) / count
        rest = jnp.sum(jnp.where(valid[:, None], x - rough, 0), axis=0) / count
        shift = jnp.stack([rough, rest])
    elif shift is None:
        shift = jnp.zeros((2, x.shape[1]), jnp.float32)
    x = jnp.where(valid[:, None], (x - shift[0]) - shift[1], 0).astype(keep)
    # Without the barrier XLA merges sums of the norms with theirs and holds all squares, (n, d), for both.
    return Points(x, lax.optimization_barrier(square_norms(x)), valid, shift)


def squared_distances(
    a: jax.Array,
    b: jax.Array,
    a_norms: jax.Array | None = None,
    b_norms: jax.Array | None = None,
    *,
    precision: Precision = "highest",
) -> jax.Array:
    """||a_i - b_j||^2 for `a` (n, d), `b` (m, d) -> (n, m) float32, by one matrix product.

    The rows should be centred (see `points`). Distances that are rounding noise are exactly zero, so copies of a
    row are at distance zero.

    >>> squared_distances(jnp.array([[0.0, 0.0], [3.0, 4.0]]), jnp.array([[3.0, 4.0]])).tolist()
    [[25.0], [0.0]]
    """
    scale = (square_norms(a) if a_norms is None else a_norms)[:, None] + (
        square_norms(b) if b_norms is None else b_norms
    )[None, :]
    d2 = scale - 2 * matmul(a, b, precision)
    return jnp.where(d2 > _SAME_POINT * scale, d2, 0)


def mean_squared_distance(pool: Points) -> jax.Array:
    """Mean of ||x_i - x_j||^2 over all pairs of valid rows: 2 (mean ||x||^2 - ||mean x||^2), without a pair formed."""
    count = jnp.maximum(jnp.sum(pool.valid), 1).astype(jnp.float32)
    mean = jnp.sum(pool.x.astype(jnp.float32), axis=0) / count
    return 2 * jnp.maximum(jnp.sum(pool.norms) / count - jnp.sum(jnp.square(mean)), 0)


def rbf(a: Points, b: Points, gamma: jax.Array, precision: Precision = "highest") -> jax.Array:
    """exp(-||a_i - b_j||^2 / gamma), (n, m) float32; 1 for copies even where gamma is 0."""
    d2 = squared_distances(a.x, b.x, a.norms, b.norms, precision=precision)
    return jnp.exp(-d2 / jnp.maximum(gamma, jnp.finfo(jnp.float32).tiny))


def cosine(a: Points, b: Points, precision: Precision = "highest") -> jax.Array:
    """max(0, a_i . b_j / |a_i| |b_j|), (n, m) float32; 0 where either row is zero."""

    def inverse(norms: jax.Array) -> jax.Array:
        return jnp.where(norms > 0, lax.rsqrt(jnp.where(norms > 0, norms, 1)), 0)

    return jnp.maximum(inverse(a.norms)[:, None] * matmul(a.x, b.x, precision) * inverse(b.norms), 0)


def row_shards(x: Any) -> int | None:
    """In how many pieces the rows of `x` lie on devices; None for a tracer whose layout cannot be known."""
    if isinstance(x, jax.core.Tracer):
        return 1 if jax.device_count() == 1 else None
    sharding = getattr(x, "sharding", None)
    if sharding is None or x.shape[0] == 0:
        return 1
    return x.shape[0] // sharding.shard_shape(x.shape)[0]


def over_rows(fn: Callable[..., Any], *rows: jax.Array, width: int, shards: int | None, tile: int | None = None) -> Any:
    """`fn(*rows)` computed tile by tile down the rows, so that a large temporary (n, width) is never held in full.

    `fn` maps arrays of r rows to an array, or a pytree of arrays, of r rows. `shards` is the number of pieces in
    which the rows lie on devices (`row_shards`): tiles are cut inside each piece, so no row moves between devices.
    None (layout not known: a call inside someone's `jit`) makes one tile, which is right for any layout and costs
    4 n width bytes.
    """
    n = rows[0].shape[0]
    if shards is None or n % shards or (tile is None and n * width <= _WHOLE_ELEMENTS * shards):
        return fn(*rows)
    local = n // shards
    widest = max(width, *(math.prod(a.shape[1:]) for a in rows))
    tile = max(1, _TILE_ELEMENTS // widest) if tile is None else tile
    if tile >= local:
        return fn(*rows)
    split = [a.reshape(shards, local, *a.shape[1:]) for a in rows]

    def cut(a: jax.Array, start: jax.Array) -> jax.Array:
        piece = lax.dynamic_slice_in_dim(a, start, tile, axis=1)
        return piece.reshape(shards * tile, *a.shape[2:])

    def put(out: jax.Array, piece: jax.Array, start: jax.Array) -> jax.Array:
        return lax.dynamic_update_slice_in_dim(out, piece.reshape(shards, tile, *out.shape[2:]), start, axis=1)

    def step(i: jax.Array, out: Any) -> Any:
        start = jnp.minimum(i * tile, local - tile)  # the last tile overlaps; rows are recomputed from the inputs
        piece = fn(*(cut(a, start) for a in split))
        return jax.tree.map(lambda o, p: put(o, p, start), out, piece)

    like = jax.eval_shape(fn, *(jax.ShapeDtypeStruct((tile, *a.shape[1:]), a.dtype) for a in rows))
    out = jax.tree.map(lambda a: jnp.zeros((shards, local, *a.shape[1:]), a.dtype), like)
    out = lax.fori_loop(0, math.ceil(local / tile), step, out)
    return jax.tree.map(lambda a: a.reshape(n, *a.shape[2:]), out)


def check_pool(x: Any, name: str = "x") -> jax.Array:
    """`x` as a JAX array, or a ValueError that names what is wrong with its shape or dtype."""
    x = jnp.asarray(x)
    if x.ndim != 2:
        raise ValueError(f"{name} must be 2-dimensional (rows, features), got shape {tuple(x.shape)}")
    if not (jnp.issubdtype(x.dtype, jnp.floating) or jnp.issubdtype(x.dtype, jnp.integer)):
        raise ValueError(f"{name} must hold real numbers, got dtype {x.dtype}")
    return x


def check_precision(precision: Any) -> Precision:
    """`precision` if it is one of the two, or a ValueError that names it."""
    if precision not in _LAX_PRECISION:
        raise ValueError(f"precision must be 'highest' or 'fast', got {precision!r}")
    return precision


def check_vector(v: Any, n: int, name: str) -> jax.Array:
    """`v` as a float32 (n,) array; concrete values must be finite and >= 0, also where other processes hold some."""
    if not isinstance(v, jax.core.Tracer):
        spread = isinstance(v, jax.Array) and not v.is_fully_addressable
        values, xp = (v, jnp) if spread else (np.asarray(v), np)
        if values.shape == (n,) and not (ok := xp.isfinite(values) & (values >= 0)).all():
            bad = int(xp.argmin(ok))
            raise ValueError(f"{name} must be finite and not negative, got {values[bad]} at row {bad}")
    v = jnp.asarray(v, jnp.float32)
    if v.shape != (n,):
        raise ValueError(f"{name} must have shape ({n},), got {tuple(v.shape)}")
    return v
