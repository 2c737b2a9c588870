"""The contract of what greedy maximises, and what it gives back."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

State = Any

INVALID = -1.0  # the bound of a NaN row: below every real gain, above a row that may not be picked
EXCLUDED = -jnp.inf


class Selection(NamedTuple):
    """An ordered choice of rows.

    indices: (k,) int32, in the order taken; where the method is `nested` the first j are those of budget j. -1 where no
    further row could be picked: a quota, a price, a mask, or a method that may be done sooner (`Method.fewer`). gains:
    (k,) float32, the gain of each pick when it was taken; -inf for a row that held NaN and for a -1. refreshes: ()
    int32, the rounds it took.
    """

    indices: jax.Array
    gains: jax.Array
    refreshes: jax.Array


def nothing() -> Selection:
    """The Selection of budget 0."""
    return Selection(jnp.zeros(0, jnp.int32), jnp.zeros(0, jnp.float32), jnp.zeros((), jnp.int32))


class Block(NamedTuple):
    """The B candidates of a round. gains: (B,) float32, exact. fixed: what stays as it is during the round (pytree).
    live: what changes with each pick (pytree)."""

    gains: jax.Array
    fixed: Any
    live: Any


class Objective(NamedTuple):
    """What greedy maximises, as pure functions. Internal gains are >= 0, and for
    `greedy.maximize` must not grow as picks are made.

    init() -> (state, bounds): the empty set's state, and an upper bound of each row's gain, (n,) float32; `INVALID`
        for rows that held NaN, `EXCLUDED` for rows that may not be picked.
    refresh(state, ids) -> Block: exact gains of the B rows `ids` (B,) int32 ascending.
    take(fixed, live, gains, j) -> (live, gains): the block after row j (a position in it) was picked. The new gains
        are exact where `peek` is None, and bounds otherwise.
    commit(state, bounds, block, order, count) -> (state, bounds): the pool's state after the first `count` positions
        of `order` (B,) were picked, in that order; `block.gains` and `block.live` are as the last pick left them, gains
        `EXCLUDED` at the picks. `bounds` are those from
        before the picks, which are marked `EXCLUDED` already, and may be tightened by what the picks changed; marks
        must stay.
    peek(fixed, live, j) -> (): the exact gain of row j where `take` gives only bounds.
    report(gains) -> gains: from internal to documented units, increasing.
    limit: the most picks a round may take; None for B.
    ties: gains below the largest by up to this share of it count as equal to it, where rounding alone sets them apart;
        only with gains and bounds that are exact for all rows after each commit, and without `peek`.
    """

    init: Callable[[], tuple[State, jax.Array]]
    refresh: Callable[[State, jax.Array], Block]
    take: Callable[[Any, Any, jax.Array, jax.Array], tuple[Any, jax.Array]]
    commit: Callable[[State, jax.Array, Block, jax.Array, jax.Array], tuple[State, jax.Array]]
    peek: Callable[[Any, Any, jax.Array], jax.Array] | None = None
    report: Callable[[jax.Array], jax.Array] = lambda gains: gains
    limit: int | None = None
    ties: float = 0.0
