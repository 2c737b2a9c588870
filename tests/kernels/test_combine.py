"""Objectives of objectives, and the greedy of gains that grow, against float64 greedy from the definitions."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kernel_cases import mixture

from edjax.kernels import METHODS, Ground, KCenter, Plus, geometry, select
from edjax.kernels import facility_location as fl_selector
from edjax.kernels.combine import affordable, at_most, plus, scaled, within
from edjax.kernels.distances import rbf
from edjax.kernels.from_gains import from_gains
from edjax.kernels.greedy import maximize
from edjax.kernels.methods.cover import objective as facility_location
from edjax.kernels.methods.d_optimal import default_ridge, design
from edjax.kernels.methods.d_optimal import objective as d_optimal
from edjax.kernels.methods.k_center import objective as k_center
from edjax.kernels.modular import modular
from edjax.kernels.objective import EXCLUDED, Block, Objective
from edjax.kernels.sequential import maximize_sequential

N, D, BUDGET, GROUPS = 60, 6, 24, 5
RTOL = 2e-5


def covering(x, **options):
    pool = geometry.points(x)
    gamma = 0.25 * geometry.mean_squared_distance(pool)
    return facility_location(pool, rbf(gamma, x.shape[1]), **options)


def spreading(x, **options):
    return k_center(geometry.points(x), **options)


def informing(x, **options):
    pool = design(x, None, centre=False, precision="highest")
    return d_optimal(pool, default_ridge(pool), **options)


class Exact:
    """The same three in float64: `gains()` of every row now, `add(j)`."""

    def __init__(self, name, x):
        self.name, self.x, self.rows = name, np.asarray(x, np.float64), []
        d2 = ((self.x[:, None] - self.x[None]) ** 2).sum(-1)
        self.similar, self.far = np.exp(-d2 / (0.25 * d2.mean())), np.sqrt(d2)
        self.ridge = 0.1 * ((self.x - self.x.mean(0)) ** 2).sum(1).mean()

    def add(self, j):
        self.rows.append(j)

    def gains(self):
        if self.name == "covering":
            covered = self.similar[self.rows].max(0) if self.rows else np.zeros(len(self.x))
            return np.maximum(self.similar - covered, 0).sum(1)
        if self.name == "spreading":
            return self.far[self.rows].min(0)
        a = self.ridge * np.eye(self.x.shape[1]) + self.x[self.rows].T @ self.x[self.rows]
        return np.log1p((self.x * np.linalg.solve(a, self.x.T).T).sum(1))


def follow(picks, parts, value, allowed=lambda rows: np.ones(N, bool), labelled=()):
    """Every pick has, in float64, the largest gain among the rows allowed at its turn, up to rounding."""
    taken = list(labelled)
    for part in parts:
        for j in labelled:
            part.add(j)
    for turn, j in enumerate(int(j) for j in picks):
        free = allowed([t for t in taken if t not in labelled]) & ~np.isin(np.arange(N), taken)
        if j < 0:
            assert not free.any(), f"pick {turn} is none, and rows {np.flatnonzero(free)} may be picked"
            continue
        now = value([part.gains() for part in parts])
        assert free[j], f"pick {turn} is row {j}, which may not be picked"
        assert now[j] >= now[free].max() - RTOL * max(now.max(), 1e-9), f"pick {turn} is not greedy"
        taken.append(j)
        for part in parts:
            part.add(j)


KINDS = {"covering": covering, "spreading": spreading, "informing": informing}


def pool_of(seed):
    return mixture(seed, N, D)


@partial(jax.jit, static_argnames=("kind", "block"))
def limited(x, group, quota, price, money, rows, kind, block):
    made = KINDS[kind](x, labelled=jnp.array([0, 1]))
    return (
        maximize(at_most(made, group, quota), BUDGET, block=block).indices,
        maximize(affordable(made, price, money), BUDGET, block=block).indices,
        maximize(within(made, rows), BUDGET, block=block).indices,
        maximize(at_most(within(affordable(made, price, money), rows), group, quota), BUDGET, block=block).indices,
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("block", [1, 7, N])
def test_limits_are_greedy_among_what_is_allowed(kind, block):
    for seed in range(9):
        rng = np.random.default_rng(seed)
        x, group, price = pool_of(seed), rng.integers(0, GROUPS, N), rng.integers(1, 9, N).astype(np.float32)
        quota, money, rows = rng.integers(0, 6, GROUPS), 40.0, rng.random(N) < 0.6
        quotas, afford, inside, both = limited(x, group, quota, price, money, rows, kind, block)

        def room(taken, group=group, quota=quota):
            return (quota - np.bincount(group[taken], minlength=GROUPS))[group] > 0

        def payable(taken, price=price, money=money):
            return price <= money - price[taken].sum()

        checks = (quotas, room), (afford, payable), (inside, lambda taken, rows=rows: rows)
        every = lambda taken, rows=rows, room=room, payable=payable: room(taken) & payable(taken) & rows  # noqa: E731
        for picks, allowed in (*checks, (both, every)):
            follow(picks, [Exact(kind, x)], lambda gains: gains[0], allowed, labelled=(0, 1))


@partial(jax.jit, static_argnames=("kinds", "block"))
def valued(x, quality, scores, weights, kinds, block):
    labelled = jnp.array([3])
    parts = [KINDS[kind](x, labelled=labelled) for kind in kinds]
    summed = plus([*parts, modular(scores)], [*weights, 0.5])
    better = scaled(plus(parts, weights), quality)
    chosen = at_most(better, jnp.arange(N) % GROUPS, jnp.full(GROUPS, 4))
    return [maximize(each, BUDGET, block=block) for each in (summed, better, chosen)]


@pytest.mark.parametrize(
    "kinds", [("covering", "informing"), ("informing",), ("spreading", "covering"), ("spreading",)]
)
@pytest.mark.parametrize("block", [5, N])
def test_values_are_greedy_on_what_they_add_up_to(kinds, block):
    for seed in range(7):
        rng = np.random.default_rng(seed)
        x, quality, scores = pool_of(seed), rng.uniform(0, 2, N), rng.normal(size=N)
        weights = rng.uniform(0.5, 2, len(kinds))
        summed, better, chosen = valued(x, quality, scores, tuple(weights), kinds, block)

        def total(gains, weights=weights):
            return sum(w * g for w, g in zip(weights, gains, strict=True))

        def with_scores(gains, scores=scores, total=total):
            return total(gains) + 0.5 * (scores - scores.min())

        def with_quality(gains, quality=quality, total=total):
            return quality * total(gains)

        def room(taken):
            return (4 - np.bincount(np.asarray(taken, int) % GROUPS, minlength=GROUPS))[np.arange(N) % GROUPS] > 0

        follow(summed.indices, [Exact(k, x) for k in kinds], with_scores, labelled=(3,))
        follow(better.indices, [Exact(k, x) for k in kinds], with_quality, labelled=(3,))
        follow(chosen.indices, [Exact(k, x) for k in kinds], with_quality, room, labelled=(3,))
        first = [Exact(k, x) for k in kinds]
        for part in first:
            part.add(3)
        assert float(better.gains[0]) == pytest.approx(with_quality([p.gains() for p in first]).max(), rel=1e-4)


def test_a_part_alone_and_a_quality_of_one_change_nothing():
    x = pool_of(11)
    for kind in KINDS.values():
        plain = maximize(kind(x), BUDGET, block=16)
        for same in (plus([kind(x)]), scaled(kind(x), jnp.ones(N)), within(kind(x), jnp.ones(N, bool))):
            again = maximize(same, BUDGET, block=16)
            assert again.indices.tolist() == plain.indices.tolist()
            np.testing.assert_allclose(again.gains, plain.gains, rtol=1e-5, atol=1e-5)


def test_quotas_that_do_not_depend_on_the_budget_nest():
    x, group, quota = pool_of(4), jnp.arange(N) % 4, jnp.array([9, 2, 0, 30])
    long, short = (maximize(at_most(covering(x), group, quota), k, block=8).indices for k in (30, 11))
    assert long[:11].tolist() == short.tolist() and (np.bincount(np.asarray(long) % 4, minlength=4) <= quota).all()


def test_scaled_facility_location_is_its_quality():
    x, quality = pool_of(5), np.random.default_rng(5).uniform(0.1, 2, N).astype(np.float32)
    own = fl_selector(x, BUDGET, quality=quality)
    assert maximize(scaled(covering(x), quality), BUDGET).indices.tolist() == own.indices.tolist()


def test_a_row_that_holds_nan_is_taken_last_and_scores_of_either_sign_sort():
    x = pool_of(6)
    x[7] = np.nan
    scores = jnp.where(jnp.arange(N) == 9, jnp.nan, jnp.linspace(-1, 1, N))
    picks = maximize(plus([covering(x), modular(scores)]), N, block=N)
    assert set(picks.indices[-2:].tolist()) == {7, 9} and (picks.gains[-2:] == EXCLUDED).all()
    order = maximize(modular(scores), N)
    assert order.indices[:3].tolist() == [59, 58, 57] and float(order.gains[0]) == 1.0


def test_under_vmap_and_jit_each_pool_gets_its_own_picks():
    pools = np.stack([pool_of(s) for s in range(3)])
    groups = np.stack([np.random.default_rng(s).integers(0, GROUPS, N) for s in range(3)])

    def one(x, group):
        return maximize(scaled(at_most(covering(x), group, jnp.full(GROUPS, 3)), jnp.ones(N)), 12, block=8).indices

    assert jax.jit(jax.vmap(one))(pools, groups).tolist() == [
        one(x, group).tolist() for x, group in zip(pools, groups, strict=True)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_the_sequential_greedy_of_shrinking_gains_is_the_blocked_one(kind):
    for seed in range(4):
        x = pool_of(seed)
        made = scaled(at_most(KINDS[kind](x), jnp.arange(N) % 4, jnp.full(4, 9)), jnp.ones(N))
        for block in (7, 100):
            again = maximize_sequential(made, BUDGET, block=block)
            assert again.indices.tolist() == maximize(made, BUDGET).indices.tolist()


def test_the_sequential_greedy_follows_gains_that_grow():
    """Pairs: a row is worth its own value, and ten more once its partner was picked."""
    value = np.random.default_rng(0).uniform(0, 1, N).astype(np.float32)

    def refresh(picked, ids):
        return Block(value[ids] + 10 * picked[ids ^ 1], ids, picked)

    pairs = Objective(
        init=lambda: (jnp.zeros(N), jnp.full(N, jnp.inf)),
        refresh=refresh,
        take=lambda ids, picked, gains, j: (picked.at[ids[j]].set(1), gains),
        commit=lambda state, bounds, block, order, count: (block.live, bounds),
    )
    value = jnp.asarray(value)
    found = maximize_sequential(pairs, 10, block=9)
    picked, want = np.zeros(N), []
    for _ in range(10):
        gains = np.where(picked > 0, -1, np.asarray(value) + 10 * picked[np.arange(N) ^ 1])
        want.append(int(gains.argmax()))
        picked[want[-1]] = 1
    assert found.indices.tolist() == want and want[1] == want[0] ^ 1
    assert maximize_sequential(within(pairs, jnp.arange(N) < 3), 5).indices.tolist()[3:] == [-1, -1]


def test_nothing_is_picked_of_nothing():
    empty = plus([modular(jnp.zeros(0))])
    assert maximize(empty, 0).indices.tolist() == [] == maximize_sequential(empty, 0).indices.tolist()


def test_a_sum_whose_parts_leave_their_bounds_as_they_are_ends():
    """In blocks smaller than the pool: rows that lost to others must not come up again with the bounds of before."""
    rng = np.random.default_rng(0)
    has = [jnp.asarray(rng.random((40, 6)), jnp.float32) for _ in range(2)]

    def covered(rows):
        return from_gains(rows, jnp.zeros(6), lambda seen, some: jnp.maximum(some - seen, 0).sum(1), jnp.maximum)

    got = maximize(plus([covered(rows) for rows in has], [1.0, 0.5]), 8, block=4)
    seen, picks = [np.zeros(6), np.zeros(6)], []
    for _ in range(8):
        gains = sum(w * np.maximum(np.asarray(r) - s, 0).sum(1) for w, r, s in zip((1, 0.5), has, seen, strict=True))
        gains[picks] = -1
        picks.append(int(gains.argmax()))
        seen = [np.maximum(s, np.asarray(r)[picks[-1]]) for s, r in zip(seen, has, strict=True)]
    assert got.indices.tolist() == picks


def test_a_sum_with_gains_that_grow_is_greedy_by_definition():
    """The sequential engine reads `refresh` alone: its gains must be exact of k-center too."""
    x, z = mixture(2, 60, 5), mixture(3, 4, 5)
    both = Plus((KCenter(), METHODS["go"]), (1.0, 2.0))
    ground = Ground({"embedding": x}, target={"embedding": z})
    got = [int(i) for i in select(both, ground, 6).indices]
    for t, row in enumerate(got):
        gains = both.gains(ground, got[:t])
        gains[got[:t]] = -np.inf
        assert np.isinf(gains[row]) or gains[row] >= gains.max() - 1e-5 * abs(gains.max()), t
    assert sorted(got) != list(range(6))
