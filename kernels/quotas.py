"""How many rows each group gives: alike, by water-filling in whole rows, or in proportion to its rows."""

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


def proportional(sizes: jax.Array, budget: jax.Array | int) -> jax.Array:
    """(g,) int32, what each group gives: floor(budget size / n), and one more for those that give least.

    The rows that the floors leave over go to the smallest quotas, one each, the first group first among equals, and
    none to a group that has given all its rows. The sum is the budget, or all rows there are. So the floor's loss falls
    on no small group, as it would with largest remainders; the rule of Nguyen et al. 2024 (arXiv 2407.19580, in its
    code), whose quotas may exceed a group's rows, as these do not.

    Args:
        sizes: (g,) int >= 0, rows of each group, whose sum n is below 2^15. budget: rows to give in all, below 2^15.

    Cost: O(g log g). Traces under `jit` and `vmap`.

    >>> proportional(jnp.array([60, 40, 20, 4, 4]), 64).tolist()
    [30, 20, 10, 2, 2]
    >>> proportional(jnp.array([7, 5, 1, 0]), 6).tolist()
    [3, 2, 1, 0]
    """
    sizes = jnp.asarray(sizes, jnp.int32)
    n = jnp.sum(sizes, dtype=jnp.int32)
    budget = jnp.minimum(jnp.asarray(budget, jnp.int32), n)
    # In whole numbers: a share in float32 times the budget can fall just below the row that it should reach.
    floors = sizes * budget // jnp.maximum(n, 1)
    # Fewer rows are left than there are groups with a fraction left over, which have all a row to spare.
    last = jnp.lexsort((floors, floors >= sizes))
    rank = jnp.zeros_like(sizes).at[last].set(jnp.arange(sizes.shape[0], dtype=jnp.int32))
    return floors + (rank < budget - jnp.sum(floors, dtype=jnp.int32))
