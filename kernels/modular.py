"""Modular objectives: a score a row, whatever else was picked."""

import jax
import jax.numpy as jnp

from .objective import EXCLUDED, INVALID, Block, Objective


def modular(scores: jax.Array, labelled: jax.Array | None = None) -> Objective:
    """sum over the picks of scores_i, as an `Objective`; reported gains are the scores.

    scores: (n,) float32 of either sign; a row whose score is NaN or infinite is picked last, with gain -inf. Alone it
    is a sort (ties to the lowest index); it is there to be combined, see `combine`.

    >>> from .greedy import maximize
    >>> maximize(modular(jnp.array([-1.0, 2.0, jnp.nan])), 3).indices.tolist()
    [1, 0, 2]
    """
    scores = jnp.asarray(scores, jnp.float32)
    valid = jnp.isfinite(scores)
    least = jnp.min(jnp.where(valid, scores, jnp.inf), initial=jnp.inf)
    least = jnp.where(jnp.isfinite(least), least, 0)

    def init():
        bounds = jnp.where(valid, scores - least, INVALID)
        return (), bounds if labelled is None else bounds.at[labelled].set(EXCLUDED)

    def refresh(state, ids):
        return Block(jnp.where(valid[ids], scores[ids] - least, INVALID), (), ())

    def take(fixed, live, gains, j):
        return live, gains

    def commit(state, bounds, block, order, count):
        return state, bounds

    return Objective(init, refresh, take, commit, report=lambda gains: gains + least)
