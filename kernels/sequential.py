"""Greedy for gains that may grow: every row is looked at anew before every pick."""

import jax.numpy as jnp
from jax import lax

from .objective import EXCLUDED, INVALID, Objective, Selection, nothing


def maximize_sequential(objective: Objective, budget: int, *, block: int = 1024) -> Selection:
    """Pick `budget` rows, each the row of largest gain at its turn, the lowest index among equals.

    The greedy of an objective that is not submodular: `greedy.maximize` trusts that a gain only shrinks, and takes
    old gains for bounds; here none is kept. Of `objective` the same functions serve: gains are those of `refresh`, and
    of `init`'s bounds and `commit`'s only the marks count (`EXCLUDED`, and `INVALID` for rows that held NaN).
    Gains must be 0 or more, as anywhere; where the objective is submodular the picks are those of `maximize`.

    budget: static int >= 0. block: static int >= 1, the rows refreshed at a time.

    Cost: budget passes over the pool, and a block a pick. Memory: the objective's state, a block, and 8 n bytes.

    >>> from .modular import modular
    >>> maximize_sequential(modular(jnp.array([0.3, 0.9, 0.1])), 2).indices.tolist()
    [1, 0]
    """
    state, bounds = objective.init()
    n = bounds.shape[0]
    if budget == 0 or n == 0:
        return nothing()
    size = min(block, n)

    def all_gains(state):
        def step(i, gains):
            start = jnp.minimum(i * size, n - size)
            ids = start + jnp.arange(size, dtype=jnp.int32)
            return lax.dynamic_update_slice(gains, objective.refresh(state, ids).gains.astype(jnp.float32), (start,))

        return lax.fori_loop(0, -(-n // size), step, jnp.zeros(n, jnp.float32))

    def step(carry, _):
        state, bounds = carry
        gains = jnp.where(bounds == EXCLUDED, EXCLUDED, jnp.where(bounds < 0, INVALID, all_gains(state)))
        j = jnp.argmax(gains).astype(jnp.int32)
        gain, found = gains[j], gains[j] > EXCLUDED
        # `take` and `commit` speak of a block that holds the pick: any window of rows around it will do.
        start = jnp.clip(j - size // 2, 0, n - size)
        candidates = objective.refresh(state, start + jnp.arange(size, dtype=jnp.int32))
        place = j - start
        live, after = objective.take(candidates.fixed, candidates.live, candidates.gains, place)
        done = candidates._replace(gains=after.at[place].set(EXCLUDED), live=live)
        order = jnp.zeros(size, jnp.int32).at[0].set(place)
        marked = bounds.at[j].set(EXCLUDED)
        state, bounds = objective.commit(state, marked, done, order, found.astype(jnp.int32))
        return (state, bounds), (jnp.where(found, j, -1), gain)

    _, (indices, gains) = lax.scan(step, (state, bounds), None, length=budget)
    real = gains >= 0
    gains = jnp.where(real, objective.report(jnp.where(real, gains, 0)), EXCLUDED).astype(jnp.float32)
    return Selection(indices, gains, jnp.int32(budget))
