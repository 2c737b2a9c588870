"""An objective from its gains: for methods whose gain of a row follows from a small state and the row alone."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .objective import EXCLUDED, INVALID, Block, Objective


def from_gains(
    rows: Any,
    start: Any,
    gains: Callable[[Any, Any], jax.Array],
    add: Callable[[Any, Any], Any],
    *,
    given: jax.Array | None = None,
    valid: jax.Array | None = None,
) -> Objective:
    """The `Objective` whose gains are `gains(state, rows)`, with a state that each pick moves on by `add(state, row)`.

    Everything of a block stays exact, at the cost of one call of `gains` on it a pick. `maximize` trusts that gains
    only shrink as picks are made; where they may grow, hand it to `maximize_sequential`.

    Args:
        rows: a pytree of (n, ...) arrays: what is known of each row.
        start: the state of the empty set, a pytree.
        gains: (state, B rows) -> (B,) float32, 0 or more.
        add: (state, one row, without the leading axis) -> state.
        given: (p,) int rows that are chosen already: they start the state and are never picked.
        valid: (n,) bool, rows that hold numbers; the others are picked last, and given they count for nothing.

    >>> from .greedy import maximize
    >>> has = jnp.array([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0], [0.0, 1.0, 0.0]])  # which topics a row covers
    >>> new = from_gains(has, jnp.zeros(3), lambda seen, some: jnp.maximum(some - seen, 0).sum(1), jnp.maximum)
    >>> [round(float(g)) for g in maximize(new, 3).gains]
    [2, 1, 0]
    """
    n = jax.tree.leaves(rows)[0].shape[0]
    sound = jnp.ones(n, bool) if valid is None else jnp.asarray(valid)
    chosen = jnp.zeros(0, jnp.int32) if given is None else jnp.asarray(given, jnp.int32)

    def of(ids):
        return jax.tree.map(lambda a: a[ids], rows)

    def begin(state, j):
        after = add(state, of(j))
        return jax.tree.map(lambda new, old: jnp.where(sound[j], new, old), after, state), None

    def now(state, ids):
        return jnp.where(sound[ids], gains(state, of(ids)), INVALID).astype(jnp.float32)

    def init():
        state, _ = lax.scan(begin, start, chosen)
        bounds = jnp.where(sound, gains(state, rows), INVALID).astype(jnp.float32)
        return state, bounds.at[chosen].set(EXCLUDED)

    def refresh(state, ids):
        return Block(now(state, ids), (of(ids), sound[ids]), state)

    def take(fixed, state, known, j):
        # A pick that held NaN must not reach the state: it would make every later gain NaN.
        some, good = fixed
        after = add(state, jax.tree.map(lambda a: a[j], some))
        state = jax.tree.map(lambda new, old: jnp.where(good[j], new, old), after, state)
        fresh = jnp.where(good, gains(state, some), INVALID).astype(jnp.float32)
        return state, jnp.where(known == EXCLUDED, EXCLUDED, fresh)

    def commit(state, bounds, block, order, count):
        return block.live, bounds

    return Objective(init, refresh, take, commit)
