"""How many rows each group gives when all are to give alike: water-filling in whole rows."""

import jax
import jax.numpy as jnp
from jax import lax


def water_filling(sizes: jax.Array, budget: jax.Array | int, *, above: int = 0) -> jax.Array:
    """(g,) int32, what each group gives: the smallest first, each the whole part of an even share of what is left.

    A group that has not so many rows gives all it has, and so the larger ones give more. The sum is the budget, or all
    rows there are. Within a row of the exact level. The quotas of sources and of clusters in S2L (Yang, Mishra, Chiang
    & Mirzasoleiman 2024, arXiv 2403.07384, Algorithm 1). Groups of equal size come in their order.

    Args:
        sizes: (g,) int, rows of each group. budget: rows to give in all.
        above: static; groups of so many rows or fewer give none, and take no share.

    Cost: O(g log g). Traces under `jit` and `vmap`.

    >>> water_filling(jnp.array([50, 3, 10, 100]), 60).tolist()
    [23, 3, 10, 24]
    >>> water_filling(jnp.array([40, 2, 9, 1, 8]), 30, above=2).tolist()
    [13, 0, 9, 0, 8]
    """
    sizes = jnp.asarray(sizes, jnp.int32)
    asked = sizes > above
    order = jnp.lexsort((sizes, ~asked))  # those that are asked come first

    def step(left, group):
        rows, waiting = group
        given = jnp.where(waiting > 0, jnp.minimum(rows, left // jnp.maximum(waiting, 1)), 0)
        return left - given, given

    waiting = jnp.sum(asked, dtype=jnp.int32) - jnp.arange(sizes.shape[0], dtype=jnp.int32)
    _, given = lax.scan(step, jnp.asarray(budget, jnp.int32), (sizes[order], waiting))
    return jnp.zeros_like(sizes).at[order].set(given)
