"""Stochastic greedy: each pick is the best of a random sample of the rows that are left."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .greedy import largest
from .objective import EXCLUDED, INVALID, Objective, Selection, nothing


def sample_size(n: int, budget: int, epsilon: Any) -> int:
    """ceil(n / budget ln(1 / epsilon)), at most n; or a ValueError that names epsilon.

    >>> sample_size(10_000, 100, 0.1)
    231
    """
    value = np.asarray(epsilon)
    if value.shape != () or not 0 < float(value) < 1:
        raise ValueError(f"epsilon must be a number between 0 and 1, got {epsilon!r}")
    return min(n, max(1, math.ceil(n / max(budget, 1) * math.log(1 / float(value)))))


def maximize_stochastic(objective: Objective, budget: int, *, sample: int, key: jax.Array) -> Selection:
    """Pick `budget` rows, each the row of largest gain (lowest index among equals) of `sample` drawn without return.

    Mirzasoleiman, Badanidiyuru, Karbasi, Vondrak & Krause 2015, "Lazier than lazy greedy", Algorithm 1. With samples
    of (n / budget) ln(1 / epsilon), 1 - 1/e - epsilon of the best value in expectation, from n ln(1 / epsilon) gains
    in all. sample = n gives the picks of `maximize`. Rows that held NaN are drawn when no other is left.

    Memory: the objective's state, a block of `sample` rows, and 8 n bytes.
    """
    state, bounds = objective.init()
    n = bounds.shape[0]
    if budget == 0 or n == 0:
        return nothing()

    def step(carry, key):
        state, bounds = carry
        chance = jax.random.uniform(key, (n,), jnp.float32)
        chance = jnp.where(bounds == EXCLUDED, -2, jnp.where(bounds < 0, INVALID, chance))
        ids = jnp.sort(largest(chance, sample)[1]).astype(jnp.int32)
        block = objective.refresh(state, ids)
        gains = jnp.minimum(block.gains, bounds[ids])
        j = jnp.argmax(gains).astype(jnp.int32)
        gain, found = gains[j], gains[j] > EXCLUDED
        live, _ = objective.take(block.fixed, block.live, gains, j)
        order = jnp.zeros(sample, jnp.int32).at[0].set(j)
        state, bounds = objective.commit(state, bounds, block._replace(live=live), order, found.astype(jnp.int32))
        return (state, bounds.at[ids[j]].set(EXCLUDED)), (jnp.where(found, ids[j], -1), gain)

    _, (indices, gains) = lax.scan(step, (state, bounds), jax.random.split(key, budget))
    real = gains >= 0
    gains = jnp.where(real, objective.report(jnp.where(real, gains, 0)), EXCLUDED).astype(jnp.float32)
    return Selection(indices, gains, jnp.int32(budget))
