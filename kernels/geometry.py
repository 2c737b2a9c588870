"""Frames, matrix products and row tiles: what every selector measures with.

The precision policy lives here and nowhere else. `"highest"` (the default) runs every matrix product in full
float32; `"fast"` lets the device choose (TF32 on a GPU, one bfloat16 pass on a TPU; on a CPU the two are the same)
and keeps a bfloat16 pool in bfloat16. Sums are accumulated in float32 under both.
"""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

Precision = Literal["highest", "fast"]
Centre = Literal["none", "near", "mean"]

_LAX_PRECISION = {"highest": lax.Precision.HIGHEST, "fast": lax.Precision.DEFAULT}

DIRECT = 8  # features up to which differences cost no more than a matrix product, see `distances`

# Squared distances stay below 2^100 and are exact down to 2^-126: rows 10^15 times farther apart than others are
# beside them, and nothing overflows on the way.
_ROOM = 49
_MOST = 126

# A temporary of up to 64 MB is made whole: a tile copies its rows, and costs more than it saves. Above that, row
# tiles and their temporaries are 16 MB each.
_WHOLE_ELEMENTS = 1 << 24
_TILE_ELEMENTS = 1 << 22
_TILE_BYTES = (
    8 << 20
)  # of rows from the host; larger ones are slower: every tile's memory is then fresh from the system


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


class Frame(NamedTuple):
    """Where rows are measured from and in what unit: x * scale - shift[0] - shift[1].

    scale: () float32, a power of two, so that it rounds nothing. shift: (2, d) in scaled units; two terms, since one
    float32 is too coarse for a mean at a large offset. mean: (2, d) the pool's in the frame, likewise.
    """

    scale: jax.Array
    shift: jax.Array
    mean: jax.Array


class Points(NamedTuple):
    """A pool made ready to be measured.

    x: (n, d) rows in the frame, zero where a row is invalid. norms: (n,) squared norms of `x`, infinite where a row is
    invalid, which so is at no finite distance from any. valid: (n,) False where a row held NaN or infinity. raw: (r, d)
    the rows as given, for differences of rows that the shift would round; `places` (n,) int32 says which are these, so
    that none is copied. frame: where `x` is measured from.
    """

    x: jax.Array
    norms: jax.Array
    valid: jax.Array
    raw: jax.Array
    places: jax.Array
    frame: Frame

    def take(self, ids: jax.Array) -> "Points":
        """These rows alone."""
        return Points(self.x[ids], self.norms[ids], self.valid[ids], self.raw, self.places[ids], self.frame)

    def given(self, at: jax.Array) -> jax.Array:
        """The rows at some positions, as given."""
        return self.raw[self.places[at]].astype(jnp.float32)

    def cut(self, start: jax.Array, size: int) -> "Points":
        """`size` rows from `start` on."""

        def part(a: jax.Array) -> jax.Array:
            return lax.dynamic_slice_in_dim(a, start, size)

        return Points(part(self.x), part(self.norms), part(self.valid), self.raw, part(self.places), self.frame)


def finite_rows(x: jax.Array) -> jax.Array:
    """(n,) whether each row holds neither NaN nor infinity in float32."""
    return jnp.all(jnp.isfinite(x.astype(jnp.float32)), axis=1)


def own_frame(x: jax.Array, *, centre: Centre = "near", others: tuple[jax.Array, ...] = ()) -> Frame:
    """The frame of a pool, see `frame_of`; rows of `others` have room in it too."""
    rows, valid, row = _filled(x)
    of_all = [rows, *(_filled(y)[0] for y in others)]
    low = jnp.stack([jnp.min(y, axis=0, initial=jnp.inf) for y in of_all])
    high = jnp.stack([jnp.max(y, axis=0, initial=-jnp.inf) for y in of_all])
    low, high = (jnp.where(jnp.isfinite(side), side, 0) for side in (low, high))
    unit = power_of_two(-exponent(_largest(low, high)))
    # From one of the rows on, the mean is a sum of what is of the size of the spread.
    one = row * unit
    count = jnp.maximum(jnp.sum(valid), 1).astype(jnp.float32)
    rest = jnp.sum(rows * unit - one, axis=0) / count
    if centre == "mean":  # once more, in case that row is far out
        rough = one + rest
        one, rest = rough, jnp.sum(jnp.where(valid[:, None], rows * unit - rough, 0), axis=0) / count
    return frame_of(low, high, jnp.stack([one, rest]), centre)


def _filled(x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The rows in float32, the first valid one for each that is not; which are valid; that first one, 0 if none is."""
    valid = finite_rows(x)
    if not x.shape[0]:
        return x.astype(jnp.float32), valid, jnp.zeros(x.shape[1], jnp.float32)
    one = jnp.argmax(valid)
    # Two indices: one alone would be a slice, for which a pool on several devices is gathered on each.
    fill = jnp.where(jnp.any(valid), x[jnp.stack([one, one])][0].astype(jnp.float32), 0)
    return jnp.where(valid[:, None], x.astype(jnp.float32), fill), valid, fill


def _largest(low: jax.Array, high: jax.Array) -> jax.Array:
    return jnp.max(jnp.maximum(jnp.abs(low), jnp.abs(high)), initial=0)


def frame_of(low: jax.Array, high: jax.Array, mean: jax.Array, centre: Centre) -> Frame:
    """The frame of a pool of which this is known.

    low, high: (p, d) smallest and largest value of each feature, first of the pool, then of other rows that are to have
    room. mean: (2, d) the pool's, two terms, times the power of two that brings the largest value below 1.

    centre: "none" shifts nothing. "mean" shifts to the mean. "near" shifts to a multiple, near the mean, of a power of
    two that is 1/16 to 1/32 of the feature's range: distances do not depend on the shift, and such a one leaves whole
    numbers whole, so that equal distances stay equal; it shifts nothing where `distances` takes differences anyway.
    The scale brings the largest value below 2^_ROOM[centre]: squares that would overflow or vanish do neither.
    """
    lift = -exponent(_largest(low, high))
    unit, d = power_of_two(lift), low.shape[1]
    low, high = low * unit, high * unit
    if centre == "none" or (centre == "near" and d <= DIRECT):
        shift = jnp.zeros((2, d), jnp.float32)
    elif centre == "mean":
        shift = mean
    else:
        spread = high[0] - low[0]
        step = power_of_two(jnp.maximum(exponent(spread) - 5, -_MOST))
        near = jnp.where(spread > 0, jnp.round((mean[0] + mean[1]) / step) * step, low[0])
        shift = jnp.stack([near, jnp.zeros_like(near)])
    reach = _largest(low - shift[0], high - shift[0])
    room = 0 if centre != "near" else _ROOM - math.ceil(math.log2(max(d, 1))) // 2
    power = jnp.where(reach > 0, room - exponent(reach), 0)
    power = jnp.clip(lift + power, -_MOST, _MOST) - lift
    more = power_of_two(power)
    return Frame(power_of_two(lift + power), shift * more, (mean - shift) * more)


def exponent(v: jax.Array) -> jax.Array:
    """e with |v| in [2^(e-1), 2^e), int32, but from -126 to 126, so that 2^e and 2^-e are floats."""
    bits = lax.bitcast_convert_type(v.astype(jnp.float32), jnp.int32)
    return jnp.minimum(((bits >> 23) & 255) - _MOST, _MOST)


def power_of_two(e: jax.Array) -> jax.Array:
    """2^e exactly, for -126 <= e <= 127."""
    return lax.bitcast_convert_type((e.astype(jnp.int32) + 127) << 23, jnp.float32)


def unmoved(d: int) -> Frame:
    """The frame of rows as they are."""
    return Frame(jnp.float32(1), jnp.zeros((2, d), jnp.float32), jnp.zeros((2, d), jnp.float32))


def points(x: jax.Array, *, frame: Frame | None = None, precision: Precision = "highest") -> Points:
    """Rows in a frame, by default the pool's own; NaN and infinite rows are set to zero and marked.

    Distances do not change when a pool is shifted, but their float32 expansion |a|^2 + |b|^2 - 2ab does: at an offset
    of 1000 it loses all but the first picks, after centring none.

    Cost: seven passes over the pool, one copy of it.

    >>> pool = jnp.array([[1001.0, 1000.0], [999.0, 1000.0], [jnp.nan, 0.0]])
    >>> points(pool).valid.tolist()
    [True, True, False]
    """
    frame = own_frame(x) if frame is None else frame
    filled, valid, _ = _filled(x)
    rows = place(filled, valid, frame, precision, x.dtype)
    # Without the barrier XLA merges sums of the norms with theirs and holds all squares, (n, d), for both.
    norms = lax.optimization_barrier(square_norms(rows))
    return Points(rows, jnp.where(valid, norms, jnp.inf), valid, x, every(x), frame)


def every(x: jax.Array) -> jax.Array:
    """The places of all rows, (n,) int32."""
    return jnp.arange(x.shape[0], dtype=jnp.int32)


def place(
    x: jax.Array, valid: jax.Array, frame: Frame, precision: Precision = "highest", dtype: Any = jnp.float32
) -> jax.Array:
    """The rows in a frame, zero where invalid. dtype: of the rows as given."""
    keep = dtype if precision == "fast" and dtype == jnp.bfloat16 else jnp.float32
    rows = (x.astype(jnp.float32) * frame.scale - frame.shift[0]) - frame.shift[1]
    return jnp.where(valid[:, None], rows, 0).astype(keep)


def from_mean(pool: Points) -> jax.Array:
    """||x_i - mean||^2 of each row of a pool in its own frame, (n,), infinite where a row is invalid."""
    mean = pool.frame.mean
    return jnp.where(pool.valid, square_norms((pool.x - mean[0]) - mean[1]), jnp.inf)


def mean_squared_distance(pool: Points) -> jax.Array:
    """Mean of ||x_i - x_j||^2 over all pairs of valid rows: 2 mean ||x - mean x||^2, without a pair formed."""
    share = 1 / jnp.maximum(jnp.sum(pool.valid), 1).astype(jnp.float32)
    mean = jnp.sum(pool.x.astype(jnp.float32), axis=0) * share
    return 2 * jnp.sum(jnp.where(pool.valid, square_norms(pool.x - mean), 0) * share)


def unit_weights(weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Weights scaled by a power of two to below 1, so that their squares do not overflow, and what undoes it."""
    power = exponent(jnp.max(weights, initial=0))
    return weights * power_of_two(-power), power_of_two(power)


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


def tile_rows(d: int) -> int:
    """Rows of length d in a tile, 8 MB."""
    return max(1, _TILE_BYTES // (4 * max(d, 1)))
