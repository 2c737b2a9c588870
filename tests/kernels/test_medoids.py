"""Medoids inside groups and proportional quotas: worked examples, and NumPy by the definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edjax.kernels import facility_location
from edjax.kernels.medoids import NONE, TIE, medoids
from edjax.kernels.quotas import proportional


def apart(x):
    x = np.asarray(x, np.float64).reshape(len(x), -1)
    return np.abs(x[:, None] - x).sum(-1)


def twin(distances, k, follow=None):
    """(picks, gains, best gains on offer, sizes) of one group, in float64, from the definition of F alone."""
    near = distances.max() - np.asarray(distances, np.float64)
    picks, gains, best = [], [], []

    def value(rows):
        return near[:, rows].max(axis=1).sum() if rows else 0.0

    for t in range(k):
        now = np.asarray([value([*picks, j]) - value(picks) if j not in picks else -1.0 for j in range(len(near))])
        equal = now >= now.max() - TIE * distances.max()
        j = int(equal.argmax()) if follow is None else int(follow[t])
        picks.append(j)
        gains.append(now[j])
        best.append(now.max())
    stands = [i if i in picks else picks[int(near[i, picks].argmax())] for i in range(len(near) if k else 0)]
    return picks, np.asarray(gains), np.asarray(best), [stands.count(j) for j in picks]


def test_the_worked_example():
    slopes = [0, 0.1, 0.15, 1, 1.1, 3]
    found = medoids(jnp.asarray(apart(slopes)), jnp.zeros(6, jnp.int32), jnp.asarray([3]), 3)
    assert found.picks.tolist() == [2, 5, 3] and found.sizes.tolist() == [3, 1, 2]
    assert twin(apart(slopes), 3)[0] == [2, 5, 3]


@pytest.mark.parametrize(("n", "k", "d"), [(9, 4, 1), (40, 13, 3), (128, 64, 5)])
def test_one_group_against_numpy(n, k, d):
    x = np.random.default_rng(n).normal(size=(n, d)).astype(np.float32)
    far = jnp.asarray(apart(x), jnp.float32)
    found = medoids(far, jnp.zeros(n, jnp.int32), jnp.asarray([k]), k)
    picks, gains, best, sizes = twin(apart(x), k, follow=found.picks)
    assert (gains >= best - 1.01 * TIE * apart(x).max()).all()
    assert len(set(picks)) == k and found.sizes.tolist() == sizes and sum(sizes) == n


def test_one_group_is_facility_location_of_the_similarities():
    far = jnp.asarray(apart(np.random.default_rng(7).normal(size=(40, 3))), jnp.float32)
    other = facility_location(None, 13, similarities=far.max() - far)
    assert medoids(far, jnp.zeros(40, jnp.int32), jnp.asarray([13]), 13).picks.tolist() == other.indices.tolist()


def test_each_group_has_the_picks_that_it_has_alone():
    rng = np.random.default_rng(3)
    x, groups = rng.normal(size=(60, 2)), rng.integers(-1, 4, 60)
    quotas = np.asarray([5, 0, 3, 70])
    found = jax.jit(medoids, static_argnums=3)(jnp.asarray(apart(x)), jnp.asarray(groups), jnp.asarray(quotas), 50)
    there = found.picks >= 0
    picks, sizes = np.asarray(found.picks)[there], np.asarray(found.sizes)[there]
    assert not np.asarray(found.sizes)[~there].any()
    for g, quota in enumerate(quotas):
        members = np.flatnonzero(groups == g)
        own = groups[picks] == g
        wanted, *_, stood = twin(apart(x[members]), min(quota, len(members)))
        assert picks[own].tolist() == members[wanted].tolist()
        assert sizes[own].tolist() == stood
    assert not (groups[picks] == NONE).any()


def test_rows_that_are_all_the_same_are_picked_from_the_first_on():
    found = medoids(jnp.zeros((5, 5)), jnp.asarray([0, NONE, 0, 0, 0]), jnp.asarray([3]), 4)
    assert found.picks.tolist() == [0, 2, 3, NONE]
    assert found.sizes.tolist() == [2, 1, 1, 0]


def test_a_batch_of_problems():
    x = np.random.default_rng(5).normal(size=(3, 20, 2))
    far = jnp.asarray(np.stack([apart(v) for v in x]))
    many = jax.vmap(lambda d: medoids(d, jnp.zeros(20, jnp.int32), jnp.asarray([6]), 6))(far)
    for one, picks in zip(x, many.picks, strict=True):
        assert picks.tolist() == twin(apart(one), 6)[0]


# Quotas


@pytest.mark.parametrize(
    ("sizes", "budget", "want"),
    [
        ([60, 40, 20, 4, 4], 64, [30, 20, 10, 2, 2]),
        ([7, 5, 1, 0], 6, [3, 2, 1, 0]),
        ([1, 1, 1], 2, [1, 1, 0]),
        ([3, 0, 2], 9, [3, 0, 2]),
        ([0, 0], 4, [0, 0]),
        ([5], 0, [0]),
    ],
)
def test_proportional(sizes, budget, want):
    assert proportional(jnp.asarray(sizes), budget).tolist() == want


def test_quotas_are_floors_and_one_more_for_the_smallest():
    rng = np.random.default_rng(0)
    run = jax.jit(proportional)
    for _ in range(300):
        sizes = rng.integers(0, rng.integers(1, 60), 6)
        budget = int(rng.integers(0, 100))
        quotas = np.asarray(run(jnp.asarray(sizes), budget))
        n = sizes.sum()
        budget = min(budget, n)
        floors = np.asarray([s * budget // max(n, 1) for s in sizes.tolist()])
        assert quotas.sum() == budget and (quotas <= sizes).all()
        more = quotas - floors
        assert set(more.tolist()) <= {0, 1}
        waiting = floors[(more == 0) & (floors < sizes)]
        if more.any() and len(waiting):
            assert floors[more == 1].max() <= waiting.min()


def test_both_middle_rows_are_the_first_medoid_of_a_line():
    """In float32 their gains differ by rounding; the lower row is picked all the same."""
    for seed in range(20):
        x = np.random.default_rng(seed).normal(size=(10, 1)).astype(np.float32)
        found = medoids(jnp.asarray(apart(x), jnp.float32), jnp.zeros(10, jnp.int32), jnp.asarray([1]), 1)
        assert int(found.picks[0]) == np.argsort(x[:, 0])[4:6].min()
