"""Medoids inside groups, for few rows: greedy facility location on given distances, all of it in fixed shapes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

TIE = 2**-16  # gains that differ by no more than this share of a group's largest distance count as equal
NONE = -1  # in place of a group: the row may not be picked; in place of a pick: there was none


class Medoids(NamedTuple):
    """picks: (k,) int32, rows in the order they were picked, `NONE` where all quotas were spent before. sizes: (k,)
    int32, how many rows of its group each stands for, itself included; 0 where there is no pick."""

    picks: jax.Array
    sizes: jax.Array


def medoids(distances: jax.Array, groups: jax.Array, quotas: jax.Array, most: int) -> Medoids:
    """Pick rows of every group greedily to maximise F(S) = sum_i max_{j in S} s_ij, s_ij = max D - D_ij.

    i and j are of one group, and max D is the group's largest distance. A row belongs to the pick of its group that it
    is nearest to, the one picked first among equals, and a pick to itself: the sizes are the weights of a coreset of
    medoids (Mirzasoleiman, Bilmes & Leskovec 2020, arXiv 1906.01827; in groups: Nguyen et al. 2024, arXiv 2407.19580).
    Groups share nothing, so the picks of a group are those that it would have alone, in the same order. Ties go to the
    lowest row, also where no row is left that gains anything; gains within 2^-16 of the largest distance count as
    equal (ours). On a line they often are: of an even number of rows both middle ones are the first medoid.

    Args:
        distances: (n, n) float >= 0, from row i to row j. Those between rows of different groups are not read.
        groups: (n,) int, 0 to g - 1; `NONE` for a row that is neither picked nor stood for.
        quotas: (g,) int >= 0, picks of each group; what goes beyond its rows is not picked.
        most: static, k: a bound on the sum of the quotas.

    Cost: k n^2 FLOPs and 2 n^2 numbers; for batches of some hundred rows. Traces under `jit` and `vmap`.

    >>> slopes = jnp.array([0, 0.1, 0.15, 1, 1.1, 3])
    >>> found = medoids(jnp.abs(slopes[:, None] - slopes), jnp.zeros(6, jnp.int32), jnp.array([3]), 3)
    >>> found.picks.tolist(), found.sizes.tolist()
    ([2, 5, 3], [3, 1, 2])
    """
    n = groups.shape[0]
    groups, quotas = jnp.asarray(groups, jnp.int32), jnp.asarray(quotas, jnp.int32)
    together = (groups[:, None] == groups) & (groups >= 0)
    largest = jnp.max(jnp.where(together, distances, 0), axis=1, keepdims=True)
    # A row's own group's largest distance: that of any of its rows, so each takes the largest over its group.
    largest = jnp.max(jnp.where(together, largest, 0), axis=0)[:, None]
    near = jnp.where(together, largest - distances, 0)

    def pick(t, state):
        cover, left, picks, free = state
        gains = jnp.sum(jnp.maximum(near - cover[:, None], 0), axis=0)
        may = free & (left[groups] > 0)
        first = jnp.argmax(jnp.where(may, gains, -1))
        # Only rows of that row's group are its equals, or a group's picks would hang on what others have to offer.
        equal = may & (groups == groups[first]) & (gains >= gains[first] - TIE * largest[first, 0])
        best = jnp.argmax(equal).astype(jnp.int32)
        there = may[best]
        left = left.at[groups[best]].add(-there.astype(jnp.int32))
        cover = jnp.where(there, jnp.maximum(cover, near[:, best]), cover)
        return cover, left, picks.at[t].set(jnp.where(there, best, NONE)), free.at[best].set(free[best] & ~there)

    start = (jnp.zeros(n, near.dtype), quotas, jnp.full(most, NONE, jnp.int32), groups >= 0)
    _, _, picks, _ = lax.fori_loop(0, most, pick, start)
    return Medoids(picks, _sizes(near, together, picks))


def _sizes(near: jax.Array, together: jax.Array, picks: jax.Array) -> jax.Array:
    rows, most = jnp.arange(near.shape[0]), picks.shape[0]
    of_group = together[:, picks] & (picks >= 0)
    own = rows[:, None] == picks
    # No similarity is above the largest distance, so a pick is nearest to itself even where another row lies on it.
    nearest = jnp.argmax(jnp.where(own, jnp.inf, jnp.where(of_group, near[:, picks], -1)), axis=1)
    stands = of_group.any(axis=1)
    return jnp.zeros(most, jnp.int32).at[nearest].add(stands.astype(jnp.int32))
