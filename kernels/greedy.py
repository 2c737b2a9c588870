"""Exact greedy maximisation in blocks: one loop for every objective whose gains only shrink.

Plain greedy takes one pick per pass over the pool, and each pass is a memory-bound matrix-vector product. Here a gain
computed earlier is an upper bound on the gain now (diminishing returns), so one round

1. takes the B rows with the largest bounds and refreshes exactly these in one matrix product,
2. runs greedy inside the block as long as its best row still beats every bound outside,
3. commits the accepted picks to the state of the whole pool in one matrix product.

The picks are those of plain greedy; ties go to the lowest index. A pass over the pool serves many picks.

Source of the bound: Minoux (1978), "Accelerated greedy algorithms for maximizing submodular set functions". Lazy
greedy refreshes one element at a time; the block form here differs in refreshing B by a matrix product and in
accepting several picks per refresh.
"""

import jax
import jax.numpy as jnp
from jax import lax

from .objective import EXCLUDED, Block, Objective, Selection, nothing


def maximize(objective: Objective, budget: int, *, block: int = 256) -> Selection:
    """Pick `budget` rows greedily: at each step the row of largest gain, the lowest index among equals.

    Equal are gains that differ by no more than `objective.ties` times the largest.

    budget: static int >= 0. block: static int >= 1, the candidates B of a round; it changes the time, not the picks
    (equal up to rounding where two gains differ by less than rounding). Traces under `jit` and `vmap`.

    Memory: the objective's state, its block, and 8 n bytes.

    A modular objective, whose gains never change, is a sort:

    >>> scores = jnp.array([0.3, 0.9, 0.1, 0.9])
    >>> best = Objective(
    ...     init=lambda: ((), scores),
    ...     refresh=lambda state, ids: Block(scores[ids], (), ()),
    ...     take=lambda fixed, live, gains, j: (live, gains),
    ...     commit=lambda state, bounds, block, order, count: (state, bounds),
    ... )
    >>> maximize(best, 3, block=2).indices.tolist()
    [1, 3, 0]
    """
    state, bounds = objective.init()
    n = bounds.shape[0]
    if budget == 0 or n == 0:
        return nothing()
    size = min(block, n)
    limit = min(size, objective.limit or size)

    def more(carry):
        _, bounds, _, _, count, _ = carry
        return (count < budget) & (jnp.max(bounds) > EXCLUDED)

    def one_round(carry):
        state, bounds, indices, gains, count, rounds = carry
        ids, rest, rest_id = candidates_of(bounds, size, objective.ties)
        candidates = objective.refresh(state, ids)
        # A fresh gain may come out a rounding above the bound that the row had; a bound that rose would make order
        # depend on when a row was looked at.
        candidates = candidates._replace(gains=jnp.minimum(candidates.gains, bounds[ids]))
        done, order, got, taken = greedy_in_block(
            objective, candidates, ids, rest, rest_id, jnp.minimum(limit, budget - count)
        )
        # The buffers have room for a whole block past the budget: what lies beyond `got` is overwritten or cut off.
        indices = lax.dynamic_update_slice(indices, ids[order], (count,))
        gains = lax.dynamic_update_slice(gains, taken, (count,))
        # Gains from before the picks: `commit` takes off what the picks changed, D-optimal by subtraction, and that
        # must not happen twice. Of `done` only the marks count.
        marked = jnp.where(done.gains == EXCLUDED, EXCLUDED, candidates.gains)
        bounds = bounds.at[ids].set(marked, indices_are_sorted=True, unique_indices=True)
        state, bounds = objective.commit(state, bounds, done, order, got)
        return state, bounds, indices, gains, count + got, rounds + 1

    zero = jnp.zeros((), jnp.int32)
    indices = jnp.full(budget + size, -1, jnp.int32)
    gains = jnp.full(budget + size, EXCLUDED, jnp.float32)
    _, _, indices, gains, count, rounds = lax.while_loop(more, one_round, (state, bounds, indices, gains, zero, zero))
    indices, gains = indices[:budget], gains[:budget]
    picked = jnp.arange(budget) < count
    real = picked & (gains >= 0)
    gains = jnp.where(real, objective.report(jnp.where(real, gains, 0)), EXCLUDED)
    return Selection(jnp.where(picked, indices, -1), gains.astype(jnp.float32), rounds)


def largest(values: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """`lax.top_k` that stays one: XLA makes a sort of all n out of a top_k whose results are sliced apart.

    At n = 20,000 on two CPU cores the sort took 2.0 ms, `top_k` of 257 takes 0.1.
    """
    # Three operands: a barrier on nothing but top_k's two results breaks the compiler on several devices.
    top, ids, _ = lax.optimization_barrier((*lax.top_k(values, k), values[0]))
    return top, ids


def candidates_of(bounds: jax.Array, size: int, ties: float = 0.0) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The `size` rows of largest bound (ascending), the largest bound outside and the row that has it.

    Bounds that tie with the largest count as it, so that the lowest rows among them are in. Where the bound outside is
    none of these the row is -1, so that no row of the block comes before it: once refreshed, the best gain of the block
    may fall below the largest bound, and then other rows outside, of lower index, may tie with it too.
    """
    n = bounds.shape[0]
    most = jnp.max(bounds)
    tied = (bounds >= tie_with(most, ties)) & (most > 0)
    top, ids = largest(jnp.where(tied, most, bounds) if ties else bounds, min(size + 1, n))
    rest, rest_id = (top[size], ids[size]) if size < n else (jnp.float32(EXCLUDED), jnp.int32(n))
    if ties:
        rest_id = jnp.where((rest == most) | (most <= 0), rest_id, -1)
    return jnp.sort(ids[:size]).astype(jnp.int32), rest, rest_id.astype(jnp.int32)


def tie_with(gain: jax.Array, ties: float) -> jax.Array:
    """The least gain that counts as equal to `gain`, the largest."""
    return jnp.where(gain > 0, gain * (1 - ties), gain) if ties else gain


def greedy_in_block(objective, block, ids, rest, rest_id, room):
    """Greedy among the candidates while the best of them beats the largest bound outside.

    Returns the block after the picks (bounds of the rows, EXCLUDED where picked), the positions in the order taken
    (B,), how many, and the gains of the picks (B,).
    """
    size = ids.shape[0]
    exact_all = jnp.full(size, True)

    ties = objective.ties

    # A row outside whose bound ties may be as good, and plain greedy takes the lower index of the two: ours is safe
    # only if it comes first. Where no row of the block is safe none is picked; the refreshed bounds have fallen, and
    # the next round looks at other rows.
    def beats_rest(gain, most, j):
        return (tie_with(most, ties) > rest) | ((gain >= tie_with(rest, ties)) & (ids[j] < rest_id))

    def best(gains):
        j = jnp.argmax(gains)
        most = gains[j]
        if ties:
            j = jnp.argmax(gains >= tie_with(most, ties))
        return j.astype(jnp.int32), gains[j], most

    def running(carry):
        _, _, _, (j, gain, most), _, _, got = carry
        return (got < room) & (gain > EXCLUDED) & beats_rest(gain, most, j)

    def pick(live, gains, exact, order, taken, j, gain, got):
        live, gains = objective.take(block.fixed, live, gains, j)
        gains = gains.at[j].set(EXCLUDED)
        # With `peek` a pick turns every gain of the block into a bound, and the best is looked at until an exact one is
        # on top: Minoux's rule inside the block.
        exact = exact_all if objective.peek is None else ~exact_all
        return live, gains, exact, order.at[got].set(j), taken.at[got].set(gain), got + 1

    def look(live, gains, exact, order, taken, j, gain, got):
        fresh = jnp.minimum(objective.peek(block.fixed, live, j), gain)
        return live, gains.at[j].set(fresh), exact.at[j].set(True), order, taken, got

    def step(carry):
        live, gains, exact, (j, gain, _), order, taken, got = carry
        args = (live, gains, exact, order, taken, j, gain, got)
        if objective.peek is None:
            live, gains, exact, order, taken, got = pick(*args)
        else:
            live, gains, exact, order, taken, got = lax.cond(exact[j], pick, look, *args)
        return live, gains, exact, best(gains), order, taken, got

    order, taken = jnp.zeros(size, jnp.int32), jnp.full(size, EXCLUDED, jnp.float32)
    live, gains, _, _, order, taken, got = lax.while_loop(
        running,
        step,
        (block.live, block.gains, exact_all, best(block.gains), order, taken, jnp.zeros((), jnp.int32)),
    )
    return Block(gains, block.fixed, live), order, got, taken
