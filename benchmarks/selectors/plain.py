"""The peers everyone writes first: one jitted pass over the pool for every pick."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax


@partial(jax.jit, static_argnames="budget")
def k_center(x: jax.Array, *, budget: int) -> jax.Array:
    """Farthest-first traversal from the row nearest the mean; picks (budget,) int32."""
    x = x - x.mean(0)
    norms = jnp.sum(x * x, axis=1)

    def step(t, state):
        picks, nearest = state
        j = jnp.argmax(nearest).astype(jnp.int32)
        d = norms - 2 * (x @ x[j]) + norms[j]
        return picks.at[t].set(j), jnp.minimum(nearest, d).at[j].set(-1.0)

    first = jnp.argmin(norms).astype(jnp.int32)
    nearest = (norms - 2 * (x @ x[first]) + norms[first]).at[first].set(-1.0)
    picks = jnp.zeros(budget, jnp.int32).at[0].set(first)
    return lax.fori_loop(1, budget, step, (picks, nearest))[0]


@partial(jax.jit, static_argnames="budget")
def d_optimal(x: jax.Array, ridge: jax.Array, *, budget: int) -> jax.Array:
    """Greedy log-determinant by rank-one (Sherman-Morrison) updates; picks (budget,) int32."""

    def step(t, state):
        picks, inverse, leverage = state
        j = jnp.argmax(leverage).astype(jnp.int32)
        v = inverse @ x[j]
        scale = 1.0 + x[j] @ v
        leverage = (leverage - (x @ v) ** 2 / scale).at[j].set(-1.0)
        return picks.at[t].set(j), inverse - jnp.outer(v, v) / scale, leverage

    state = (jnp.zeros(budget, jnp.int32), jnp.eye(x.shape[1]) / ridge, jnp.sum(x * x, axis=1) / ridge)
    return lax.fori_loop(0, budget, step, state)[0]
