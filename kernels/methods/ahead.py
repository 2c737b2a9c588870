"""Facility location in tiles: a first pass that looks some picks ahead.

Each of the first picks lowers the gains of all rows, so that lazy greedy refreshes the whole pool again and again, at
2 n m d FLOPs each time. But a tile of similarities once made gives the gains for several gaps at little more: for the
gap at the start, and for those after the first picks as greedy among a few candidates guesses them. Once the picks
guessed are among those made, the gains for their gap bound the gains from then on, since gains only shrink. A wrong
guess costs time alone.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .. import greedy
from ..distances import Unlikeness
from ..geometry import Points
from ..objective import EXCLUDED, Objective

AHEAD = (1, 3, 8)  # numbers of guessed picks after which the gains are computed
_SHORT = 8  # blocks of candidates among which they are guessed
_SAMPLE = 1024  # rows to cover by which the candidates are found
_ROUNDING = 1 + 2.0**-16  # so that sums in another order than a refresh's are bounds of these


class _State(NamedTuple):
    """inner: the plain objective's. guess: (levels, p) int32 rows, those new at each level, n for none. made: (levels,
    p) which of these are picked or given. ahead: (levels, n) bounds once all up to a level are."""

    inner: Any
    guess: jax.Array
    made: jax.Array
    ahead: jax.Array


def pays(n: int, block: int) -> bool:
    """Whether to use it: for a pool that is large against what a guess is made from."""
    return n >= 4 * _SHORT * block


def with_lookahead(
    plain: Objective,
    all_gains: Callable[[jax.Array], jax.Array],
    sampled: Callable[[jax.Array, jax.Array], jax.Array],
    n: int,
    block: int,
) -> Objective:
    """`cover.objective` in tiles, whose own first bounds are infinite: the same picks in fewer products.

    plain: its state is (gap, similarities kept), a block's `live` the gap, and `fixed[1]` the block's rows. all_gains:
    gaps (l, m) -> (l, n), bounds up to rounding. sampled: gap (m,), rows (r,) -> (n,) gains as far as these rows to
    cover tell.

    Cost: about 0.1 of the first pass and (_SHORT + 1) refreshes for each of `AHEAD`. Memory: 12 n bytes for each.
    """
    levels = [level for level in AHEAD if level <= block]
    rooms = [int(room) for room in np.diff([0, *levels])]

    def best_of(state, ids):
        """The block of largest gains among the rows `ids`, ascending."""
        gains = lax.map(lambda some: plain.refresh(state, some).gains, ids.reshape(-1, block)).reshape(-1)
        return jnp.sort(ids[greedy.largest(gains, block)[1]])

    def guessed(state, ids):
        """What greedy among the rows `ids` picks before each level, (levels, widest) and n where that is fewer, and the
        gaps at the start and at each level."""

        def to_level(gap, room):
            now = (gap, state[1])
            some = best_of(now, ids)
            # EXCLUDED, n: no row is outside
            found, order, got, _ = greedy.greedy_in_block(plain, plain.refresh(now, some), some, EXCLUDED, n, room)
            picks = jnp.where(jnp.arange(max(rooms)) < got, some[order[: max(rooms)]], n)
            return found.live, (found.live, picks.astype(jnp.int32))

        _, (gaps, picks) = lax.scan(to_level, state[0], jnp.asarray(rooms, jnp.int32))
        return picks, jnp.concatenate([state[0][None], gaps])

    def init():
        state, marks = plain.init()
        rows = jnp.arange(min(_SAMPLE, n)) * (n // min(_SAMPLE, n))
        likely = jnp.where(marks >= 0, sampled(state[0], rows), marks)
        guess, gaps = guessed(state, greedy.largest(likely, _SHORT * block)[1].astype(jnp.int32))
        gains = all_gains(gaps) * _ROUNDING
        made = (guess == n) | (marks[jnp.minimum(guess, n - 1)] == EXCLUDED)  # no row, or a given one
        return _State(state, guess, made, gains[1:]), jnp.where(marks >= 0, gains[0], marks)

    def refresh(state, ids):
        return plain.refresh(state.inner, ids)

    def commit(state, bounds, candidates, order, count):
        inner, bounds = plain.commit(state.inner, bounds, candidates, order, count)
        # Gains were computed for the gaps that guessed picks leave. Once all of a guess are picked, in any order and
        # with whatever else, the gaps are no larger than that, so these gains are bounds of those of now. A mark alone
        # is no pick: a mask, a quota or a price excludes rows that cover nothing.
        picked = jnp.where(jnp.arange(order.shape[0]) < count, candidates.fixed[1][order], -1)
        made = state.made | jnp.isin(state.guess, picked)
        known = jnp.cumprod(jnp.all(made, axis=1))
        known = jnp.min(jnp.where(known[:, None] > 0, state.ahead, jnp.inf), axis=0)
        bounds = jnp.where(bounds >= 0, jnp.minimum(bounds, known), bounds)
        return state._replace(inner=inner, made=made), bounds

    return plain._replace(init=init, refresh=refresh, commit=commit)


def by_halves(
    pool: Points,
    measure: Unlikeness,
    beyond: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
    w: jax.Array,
    gaps: jax.Array,
    size: int,
    exact: bool = True,
    keep: Callable[[Any, jax.Array, jax.Array, jax.Array], tuple[Any, jax.Array]] | None = None,
    kept: Any = (),
) -> tuple[jax.Array, Any]:
    """Gains of all rows of a pool that covers itself, (l, n) for gaps (l, n): s_ij = s_ji, so that each tile on or
    above the diagonal serves both of its sides.

    exact: False for bounds up to rounding, sums of max(gap - u, 0) as products with w: less time, more rounding.

    keep: (kept, tile, a, b) -> (kept, tile), for each tile of unlikeness and where its rows and columns start; the
    gains are of what it returns. n^2 d FLOPs.
    """
    count, n = gaps.shape
    size = min(size, n)
    tiles = -(-n // size)
    above = np.array([(i, j) for i in range(tiles) for j in range(i, tiles)], np.int32).reshape(-1, 2)

    def step(t, carry):
        gains, kept = carry
        i, j = jnp.asarray(above)[t]
        # The last tile starts early to stay inside; what it shares with the tile before counts nothing here.
        a, b = jnp.minimum(i * size, n - size), jnp.minimum(j * size, n - size)
        fresh_a, fresh_b = a + jnp.arange(size) >= i * size, b + jnp.arange(size) >= j * size

        def cut(v, start):
            return lax.dynamic_slice_in_dim(v, start, size, axis=-1)

        def put(gains, more, start):
            return lax.dynamic_update_slice_in_dim(gains, cut(gains, start) + more, start, axis=1)

        itself = (a + jnp.arange(size))[:, None] == b + jnp.arange(size)
        tile = measure.between(pool.cut(a, size), pool.cut(b, size), itself)
        if keep is not None:
            kept, tile = keep(kept, tile, a, b)
        if not exact:  # made once: without the barrier each product would compute the exponentials anew
            tile = lax.optimization_barrier(tile)
        w_a, w_b = cut(w, a) * fresh_a, cut(w, b) * fresh_b
        of_a, of_b = [], []
        for level in range(count):
            gap_a, gap_b = cut(gaps[level], a)[:, None], cut(gaps[level], b)
            if exact:
                over_a = beyond(tile, gap_a, cut(pool.norms, a)[:, None])
                over_b = beyond(tile, gap_b, cut(pool.norms, b))
                of_a.append(jnp.sum(over_b * w_b, axis=1))
                of_b.append(jnp.sum(over_a * w_a[:, None], axis=0))
            else:
                of_a.append(_dot(jnp.maximum(gap_b - tile, 0), w_b))
                of_b.append(_dot(w_a, jnp.maximum(gap_a - tile, 0)))
        gains = put(gains, jnp.where(fresh_b, jnp.stack(of_b), 0), b)
        return put(gains, jnp.where(fresh_a & (i != j), jnp.stack(of_a), 0), a), kept

    return lax.fori_loop(0, len(above), step, (jnp.zeros((count, n), jnp.float32), kept))


def _dot(a, b):
    return jnp.dot(a, b, precision=lax.Precision.HIGHEST)
