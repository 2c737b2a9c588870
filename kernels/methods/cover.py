"""Facility location's objective: similarities kept, or made tile by tile as they are needed."""

import jax
import jax.numpy as jnp
from jax import lax

from .. import geometry
from ..distances import Unlikeness
from ..geometry import Points
from ..objective import EXCLUDED, INVALID, Block, Objective
from . import ahead

_TILES = {True: 256, False: 512}  # sides of the first pass's tiles: kept ones are transposed in cache, so smaller
_SAME = 2.0**-7  # similarities kept in bfloat16 that are closer than this share differ by rounding


def objective(
    pool: Points,
    measure: Unlikeness,
    to_cover: Points | None = None,
    *,
    labelled: jax.Array | None = None,
    weights: jax.Array | None = None,
    quality: jax.Array | None = None,
    gap: jax.Array | None = None,
    floor: jax.Array | None = None,
    bonus: jax.Array | None = None,
    kept: str | None = None,
    block: int = 128,
    symmetric: bool = False,
    lookahead: bool = True,
    bounded: bool = True,
) -> Objective:
    """Facility location as an `Objective`; the state is the gap 1 - max_{j in S} s_ij that is left, (m,) float32.

    The gain of row j is q_j (sum_i w_i max(min(s_ij, cap_i) - cover_i, 0) + bonus_j), which shrinks as `cover` grows.

    gap: (m,) 1 - cover at the start; None: what the labelled rows leave. floor: (m,) 1 - cap, the least that an
    unlikeness counts as. bonus: (n,) 0 or more. Gaps and floors count from `measure.most`, not 1, where that differs.

    measure: 1 - s. Differences of similarities near 1 are lost in float32, those of what they lack are not. kept: the
    dtype of the resident similarities, None for tiles.
    symmetric: compute only half of the first pass; for a pool that covers itself and is not split over devices.
    lookahead: False where the first bounds are to be the first gains. bounded: False where nobody needs the first
    bounds; they are then infinite, and with tiles no pass is made.
    """
    n = pool.x.shape[0]
    target = pool if to_cover is None else to_cover
    m = target.x.shape[0]
    w = jnp.where(target.valid, 1.0 if weights is None else weights, 0.0)
    symmetric = symmetric and floor is None  # a cap is the covered row's: s_ij and s_ji are cut at different heights
    looks = lookahead and kept is None and symmetric and bounded and ahead.pays(n, block)

    def columns(ids):
        itself = ids[:, None] == jnp.arange(n) if to_cover is None else None
        unlike = measure.between(pool.take(ids), target, itself)
        return unlike if floor is None else jnp.maximum(unlike, floor)

    def beyond(unlike, gap, norms):
        """max(gap_i - (1 - s_i), 0), with differences that are rounding taken as none: a copy of a pick would seem to
        improve on it a little for every row it covers."""
        slack = _SAME * (1 - unlike) if kept == "bfloat16" else measure.slack(gap, norms)
        return jnp.where(gap - unlike > slack, gap - unlike, 0)

    def growth(unlike, gap):
        return jnp.sum(beyond(unlike, gap, target.norms) * w, axis=-1)

    def valued(gains, ids=slice(None)):
        gains = gains if bonus is None else gains + bonus[ids]
        return gains if quality is None else gains * quality[ids]

    given_gap = gap

    def init():
        gap = jnp.full(m, measure.most, jnp.float32) if given_gap is None else given_gap
        if given_gap is None and labelled is not None and labelled.shape[0]:
            gap = _gap_of(labelled, columns, gap, block)
        if kept is None and (looks or not bounded):
            gains, unlike = jnp.full(n, jnp.inf), jnp.zeros((0, m), jnp.float32)
        elif symmetric:
            gains, unlike = _first_gains_by_halves(pool, measure, beyond, w, gap, kept)
        else:
            gains, unlike = _first_gains(columns, growth, gap, n, m, block, kept)
        gains = jnp.where(gains < jnp.inf, valued(gains), gains)
        bounds = jnp.where(pool.valid, gains, INVALID)
        if labelled is not None:
            bounds = bounds.at[labelled].set(EXCLUDED)
        return (gap, unlike), bounds

    def refresh(state, ids):
        gap, unlike = state
        unlike = columns(ids) if kept is None else _unpacked(unlike[ids], kept)
        return Block(valued(growth(unlike, gap), ids), (unlike, ids), gap)

    def take(fixed, gap, gains, j):
        return jnp.minimum(gap, fixed[0][j]), gains

    def peek(fixed, gap, j):
        return valued(growth(fixed[0][j], gap), fixed[1][j])

    def commit(state, bounds, block, order, count):
        bounds = bounds.at[block.fixed[1]].min(block.gains, indices_are_sorted=True, unique_indices=True)
        return (block.live, state[1]), bounds

    plain = Objective(init, refresh, take, commit, peek=peek)
    if not looks:
        return plain

    def all_gains(gaps):
        gains, _ = ahead.by_halves(pool, measure, beyond, w, gaps, _TILES[False], exact=False)
        return valued(gains)

    def sampled(gap, rows):
        some, size = pool.take(rows), min(_TILES[False], n)

        def step(i, gains):
            start = jnp.minimum(i * size, n - size)
            itself = (start + jnp.arange(size))[:, None] == rows
            tile = measure.between(pool.cut(start, size), some, itself)
            found = jnp.sum(jnp.maximum(gap[rows] - tile, 0) * w[rows], axis=1)
            return lax.dynamic_update_slice(gains, found, (start,))

        return valued(lax.fori_loop(0, -(-n // size), step, jnp.zeros(n, jnp.float32)))

    return ahead.with_lookahead(plain, all_gains, sampled, n, block)


def closest(rows: Points, measure: Unlikeness, covered: Points, block: int) -> jax.Array:
    """How unlike each of the rows covered is to the most similar of `rows`, (m,); `measure.most` where that is none."""

    def columns(ids):
        return measure.between(rows.take(ids), covered, None)

    none = jnp.full(covered.norms.shape[0], measure.most, jnp.float32)
    return _gap_of(geometry.every(rows.x), columns, none, block) if rows.x.shape[0] else none


def _gap_of(rows, columns, gap, block):
    """min(gap, unlikeness to any of `rows`), a block of rows at a time; invalid rows are like none."""
    block = min(block, rows.shape[0])
    rows = jnp.pad(rows, (0, -rows.shape[0] % block), mode="edge").reshape(-1, block)
    return lax.scan(lambda g, ids: (jnp.minimum(g, jnp.min(columns(ids), axis=0)), None), gap, rows)[0]


# bfloat16 is kept as its bits: of a bfloat16 array XLA makes float32 copies on a CPU, whole ones. It keeps the
# similarity, whose small values matter more to a sum than what is lacking to large ones.
def _packed(tile, kept):
    return lax.bitcast_convert_type((1 - tile).astype(jnp.bfloat16), jnp.uint16) if kept == "bfloat16" else tile


def _unpacked(tile, kept):
    return 1 - lax.bitcast_convert_type(tile, jnp.bfloat16).astype(jnp.float32) if kept == "bfloat16" else tile


def _room(n, m, kept):
    return jnp.zeros((n, m) if kept else (0, m), jnp.uint16 if kept == "bfloat16" else jnp.float32)


def _rounded(tile, kept):
    """The values `tile` has once it is kept; `astype` there and back would be optimised away."""
    return 1 - lax.reduce_precision(1 - tile, exponent_bits=8, mantissa_bits=7) if kept == "bfloat16" else tile


def _first_gains(columns, growth, gap, n, m, block, kept):
    """Gains of all rows for a gap, a block of candidates at a time; and the (n, m) unlikeness if kept."""
    block = min(block, n)
    unlike = _room(n, m, kept)

    def step(i, carry):
        gains, unlike = carry
        start = jnp.minimum(i * block, n - block)
        tile = _rounded(columns(start + jnp.arange(block)), kept)
        if kept:
            unlike = lax.dynamic_update_slice(unlike, _packed(tile, kept), (start, 0))
        return lax.dynamic_update_slice(gains, growth(tile, gap), (start,)), unlike

    return lax.fori_loop(0, -(-n // block), step, (jnp.zeros(n, jnp.float32), unlike))


# s_ij = s_ji: a tile above the diagonal is written to both places, so that only half of the exponentials are computed.
def _first_gains_by_halves(pool, measure, beyond, w, gap, kept):
    """`_first_gains` of a pool that covers itself."""
    n = pool.x.shape[0]

    def keep(unlike, tile, a, b):
        tile = _rounded(tile, kept)
        if kept:
            packed = _packed(tile, kept)
            unlike = lax.dynamic_update_slice(unlike, packed, (a, b))
            unlike = lax.dynamic_update_slice(unlike, packed.T, (b, a))
        return unlike, tile

    size = _TILES[kept is not None]
    gains, unlike = ahead.by_halves(pool, measure, beyond, w, gap[None], size, keep=keep, kept=_room(n, n, kept))
    return gains[0], unlike
