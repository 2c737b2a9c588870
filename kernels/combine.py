"""Objectives of objectives: sums, quality, quotas and budgets on top of any `Objective`, still exact and still nested.

Two kinds. Limits (`within`, `at_most`, `affordable`) leave gains as they are and take rows out of the running. Values
(`plus`, `scaled`) make one gain of others; they hold the objectives they are made of, with the bounds of each, in their
own state, and a bound of the whole is what the bounds of the parts add up to. What shrinks stays shrinking, so
`greedy.maximize` picks what plain greedy on the combination would.

Composition in the manner of gradient transformations (optax): each function takes objectives and gives one back.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from .objective import EXCLUDED, INVALID, Block, Objective


def within(objective: Objective, rows: jax.Array) -> Objective:
    """Only rows where `rows` (n,) is True may be picked; the others still count where an objective covers them.

    >>> from .modular import modular
    >>> from .greedy import maximize
    >>> maximize(within(modular(jnp.array([3.0, 2.0, 1.0])), jnp.array([False, True, True])), 2).indices.tolist()
    [1, 2]
    """

    def init():
        state, bounds = objective.init()
        return state, jnp.where(jnp.asarray(rows), bounds, EXCLUDED)

    return objective._replace(init=init)


def at_most(objective: Objective, group: jax.Array, quota: jax.Array) -> Objective:
    """At most quota[g] picks of each group g: greedy under a partition matroid.

    At least 1/2 of the best value there is (Fisher, Nemhauser & Wolsey 1978, "An analysis of approximations for
    maximizing submodular set functions II"). Where quotas do not depend on the budget, a smaller budget's picks are
    the first of a larger one's. -1 is picked where all that is left is of full groups.

    group: (n,) int32, 0 <= group < g. quota: (g,) int32, 0 or more; rows given as labelled do not count.

    >>> from .modular import modular
    >>> from .greedy import maximize
    >>> of_two = at_most(modular(jnp.array([5.0, 4.0, 3.0, 2.0])), jnp.array([0, 0, 1, 1]), jnp.array([1, 2]))
    >>> maximize(of_two, 3).indices.tolist()
    [0, 2, 3]
    """

    def begin():
        return jnp.asarray(quota, jnp.int32)

    def bought(left, j_group):
        return left.at[j_group].add(-1)

    return _limited(objective, begin, (jnp.asarray(group),), bought, lambda left, groups: left[groups] > 0)


def affordable(objective: Objective, price: jax.Array, budget: jax.Array | float) -> Objective:
    """Rows are picked while they fit into what is left of `budget`; one that does not is out for good.

    The knapsack without its density rule: dividing gains by prices (Leskovec et al. 2007, CELF) would change which
    rows an objective prefers; `scaled` by 1 / price does that. No guarantee by itself.

    price: (n,) float32, 0 or more.

    >>> from .modular import modular
    >>> from .greedy import maximize
    >>> for_five = affordable(modular(jnp.array([9.0, 8.0, 1.0])), jnp.array([4.0, 3.0, 1.0]), 5.0)
    >>> maximize(for_five, 3).indices.tolist()
    [0, 2, -1]
    """

    def begin():
        return jnp.asarray(budget, jnp.float32)

    prices = (jnp.asarray(price, jnp.float32),)
    return _limited(objective, begin, prices, lambda left, cost: left - cost, lambda left, cost: cost <= left)


def _limited(
    objective: Objective,
    begin: Callable[[], Any],
    facts: tuple[jax.Array, ...],
    bought: Callable[..., Any],
    allowed: Callable[..., jax.Array],
) -> Objective:
    """`objective` where a row leaves the running once `allowed(left, *its facts)` is False.

    begin() -> left; bought(left, *facts of the pick) -> left. What is not allowed never is again.
    """

    def marked(gains, left, of):
        return jnp.where(allowed(left, *of), gains, EXCLUDED)

    def init():
        state, bounds = objective.init()
        left = begin()
        return (state, left), marked(bounds, left, facts)

    def refresh(state, ids):
        inner = objective.refresh(state[0], ids)
        own = tuple(fact[ids] for fact in facts)
        return Block(inner.gains, (inner.fixed, own), (inner.live, state[1]))

    def take(fixed, live, gains, j):
        inner, own = fixed
        within_block, gains = objective.take(inner, live[0], gains, j)
        left = bought(live[1], *(fact[j] for fact in own))
        return (within_block, left), marked(gains, left, own)

    def commit(state, bounds, block, order, count):
        inner = Block(block.gains, block.fixed[0], block.live[0])
        state, bounds = objective.commit(state[0], bounds, inner, order, count)
        return (state, block.live[1]), marked(bounds, block.live[1], facts)

    peek = None
    if (exact := objective.peek) is not None:

        def peek(fixed, live, j):
            return exact(fixed[0], live[0], j)

    return objective._replace(init=init, refresh=refresh, take=take, commit=commit, peek=peek)


def scaled(objective: Objective, quality: jax.Array, *, shrinks: bool = True) -> Objective:
    """quality_i times the gain of row i, counted from what the objective reports for nothing gained.

    quality: (n,) float32, 0 or more. shrinks: False where gains may grow, for `maximize_sequential`.

    >>> from .modular import modular
    >>> from .greedy import maximize
    >>> maximize(scaled(modular(jnp.array([4.0, 3.0, 0.0])), jnp.array([1.0, 2.0, 9.0])), 2).indices.tolist()
    [1, 0]
    """
    return _valued((objective,), lambda gains, q: _times(q, gains[0]), (jnp.asarray(quality, jnp.float32),), shrinks)


def plus(
    objectives: Sequence[Objective], weights: Sequence[jax.Array | float] | None = None, *, shrinks: bool = True
) -> Objective:
    """sum_k weights_k gain_k, in the units that each objective reports, counted from what it reports for nothing.

    A sum of submodular functions is submodular (for weights of 0 or more), so the bounds hold and so does 1 - 1/e.
    A row is out of the running where it is for one of them, and one that held NaN for one of them did for all.
    shrinks: as in `scaled`.

    >>> from .modular import modular
    >>> from .greedy import maximize
    >>> both = plus([modular(jnp.array([1.0, 0.0])), modular(jnp.array([0.0, 3.0]))], [1.0, 0.5])
    >>> [round(float(g), 1) for g in maximize(both, 2).gains]
    [1.5, 1.0]
    """
    of = [jnp.asarray(w, jnp.float32) for w in ([1.0] * len(objectives) if weights is None else weights)]

    def value(gains):
        return sum((_times(w, g) for w, g in zip(of, gains, strict=True)), start=jnp.float32(0))

    return _valued(tuple(objectives), value, (), shrinks)


def _times(factor: jax.Array, gains: jax.Array) -> jax.Array:
    """Their product, in which 0 times infinity is 0: the first row of farthest-first has an infinite gain."""
    return jnp.where(factor == 0, 0, factor * gains)


def _valued(
    parts: tuple[Objective, ...], value: Callable[..., jax.Array], facts: tuple[jax.Array, ...], shrinks: bool
) -> Objective:
    """The objective whose gain is `value(gains of the parts, *facts of the row)`, which grows with each of the gains.

    Its state holds what each part has: (state, bounds). Internal gains are those of `value`, in reported units, so the
    bounds that the parts keep stay in the parts' own units, as their `commit` asks for.
    """
    nothing = [part.report(jnp.zeros(())) for part in parts]

    def together(gains, of):
        reported = [part.report(jnp.maximum(g, 0)) - zero for part, g, zero in zip(parts, gains, nothing, strict=True)]
        whole = jnp.maximum(value(reported, *of), 0)
        for g in gains:
            whole = jnp.where(g == EXCLUDED, EXCLUDED, jnp.where((g < 0) & (whole >= 0), INVALID, whole))
        return whole.astype(jnp.float32)

    def init():
        begun = [part.init() for part in parts]
        return tuple(begun), together([bounds for _, bounds in begun], facts)

    def refresh(state, ids):
        own = tuple(fact[ids] for fact in facts)
        blocks = [part.refresh(held, ids) for part, (held, _) in zip(parts, state, strict=True)]
        known = [bounds[ids] for _, bounds in state]
        gains = [block.gains for block in blocks]
        if shrinks:  # bounds count, as in `greedy.maximize`; where gains grow only their marks do
            gains = [jnp.minimum(fresh, bounds) for fresh, bounds in zip(gains, known, strict=True)]
        fixed = [block.fixed for block in blocks]
        return Block(
            together(gains, own), (fixed, own, ids, gains), [(b.live, g) for b, g in zip(blocks, gains, strict=True)]
        )

    def take(fixed, live, gains, j):
        moved = [part.take(f, at, g, j) for part, f, (at, g) in zip(parts, fixed[0], live, strict=True)]
        moved = [(at, g.at[j].set(EXCLUDED)) for at, g in moved]
        return moved, jnp.where(gains == EXCLUDED, EXCLUDED, together([g for _, g in moved], fixed[1]))

    def commit(state, bounds, block, order, count):
        fixed, _, ids, before = block.fixed
        after = []
        picked = (jnp.zeros(ids.shape[0], jnp.int32).at[order].max(jnp.arange(ids.shape[0]) < count)) > 0
        for part, f, (at, g), (held, known), fresh in zip(parts, fixed, block.live, state, before, strict=True):
            # As `greedy.maximize` hands bounds to an objective that stands alone: the block's fresh gains from before
            # the picks, which are marked. A part may leave bounds as they are: were the fresh ones dropped, rows that
            # lost to others would come up again for ever.
            known = known.at[ids].set(jnp.where(picked, EXCLUDED, fresh if shrinks else known[ids]))
            after.append(part.commit(held, known, Block(g, f, at), order, count))
        kept = together([known for _, known in after], facts)
        return tuple(after), jnp.where(bounds == EXCLUDED, EXCLUDED, kept)

    def peek(fixed, live, j):
        exact = []
        for part, f, (at, g) in zip(parts, fixed[0], live, strict=True):
            exact.append(g[j] if part.peek is None else jnp.minimum(part.peek(f, at, j), g[j]))
        return together(exact, tuple(fact[j] for fact in fixed[1]))

    lazy = any(part.peek is not None for part in parts)
    limits = [part.limit for part in parts if part.limit is not None]
    return Objective(
        init=init,
        refresh=refresh,
        take=take,
        commit=commit,
        peek=peek if lazy else None,
        limit=min(limits, default=None),
        ties=0.0 if lazy else max((part.ties for part in parts), default=0.0),
    )
