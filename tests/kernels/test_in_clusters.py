"""A row of each cluster: the worked example, the rule by its definition, and what chance problems may not break."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kernel_cases import mixture

from edjax.kernels import METHODS, Ground, select
from edjax.kernels.contract import check_method
from edjax.kernels.methods import one_a_cluster
from edjax.kernels.neighbours import mean_neighbour_distance

N, D = 61, 5
neighbours = jax.jit(mean_neighbour_distance, static_argnames=("k", "shards"))
IN_CLUSTERS = ("aloe", "nearest", "densest")


def ground(seed=0, **more):
    score = np.random.default_rng(seed).normal(size=N).astype(np.float32)
    return Ground({"embedding": mixture(seed, N, D), "energy": score}, **more)


def test_the_worked_example():
    """SYSTEMS 1.3: labels [0,0,1,1,2], GradNorm [5,3,2,4,1], the smallest of each cluster."""
    got = one_a_cluster(jnp.array([0, 0, 1, 1, 2]), -jnp.array([5.0, 3, 2, 4, 1]), 3, 3)
    assert sorted(got.indices.tolist()) == [1, 2, 4]
    assert got.indices.tolist() == [4, 2, 1] and got.gains.tolist() == [-1, -2, -3]


def by_definition(labels, value, clusters, budget, given, valid):
    """One pick after the other, with lists."""
    left = {c: [i for i in range(len(labels)) if labels[i] == c and np.isfinite(value[i])] for c in range(clusters)}
    fresh = {c for c in left if not {int(i) for i in given if labels[i] == c}}
    left = {
        c: sorted((i for i in of if valid[i] and i not in given), key=lambda i: (-value[i], i))
        for c, of in left.items()
    }
    picks = []
    while len(picks) < budget:
        offered = [left[c][0] for c in fresh if left[c]]
        if offered:
            j = min(offered, key=lambda i: (-value[i], i))
        else:
            c = max(range(clusters), key=lambda c: (len(left[c]), -c))
            if not left[c]:
                break
            j = left[c][0]
        picks.append(j)
        left[labels[j]].remove(j)
        fresh.discard(labels[j])
    rest = [
        i for i in range(len(labels)) if valid[i] and i not in given and not (labels[i] >= 0 and np.isfinite(value[i]))
    ]
    return [*picks, *rest, *[-1] * budget][:budget]


def test_it_is_the_rule_on_random_problems():
    """Empty clusters, given rows, ties, rows without numbers, rows that may not be picked; 50 of them, one program."""
    clusters, budget = 9, 30
    run = jax.jit(lambda *a: one_a_cluster(a[0], a[1], clusters, budget, given=a[2], valid=a[3]))
    for seed in range(50):
        rng = np.random.default_rng(seed)
        labels = rng.integers(-1, rng.integers(1, clusters + 1), N).astype(np.int32)
        value = rng.integers(0, 12, N).astype(np.float32) if seed % 2 else rng.normal(size=N).astype(np.float32)
        value[rng.random(N) < 0.05] = np.nan
        given, valid = rng.choice(N, 4, replace=False), rng.random(N) < (0.5, 0.95)[seed % 2]
        got = run(labels, value, given, valid)
        want = by_definition(labels, value, clusters, budget, set(given.tolist()), valid)
        assert got.indices.tolist() == want, seed
        said = [value[i] if i >= 0 and labels[i] >= 0 and np.isfinite(value[i]) else -np.inf for i in want]
        np.testing.assert_array_equal(got.gains, np.float32(said))


@pytest.mark.parametrize("name", IN_CLUSTERS)
def test_with_as_many_clusters_as_are_named_it_keeps_the_laws(name):
    there = ground(1, given=np.array([3, 50]), valid=np.arange(N) % 3 > 0)
    check_method(replace(METHODS[name], clusters=12), there, 20)


@pytest.mark.parametrize("name", IN_CLUSTERS)
def test_without_a_number_there_are_as_many_as_rows_in_all(name):
    method = METHODS[name]
    assert not method.nested and replace(method, clusters=5).nested
    whole = select(method, ground(), 12)
    assert whole.indices.tolist() == select(replace(method, clusters=12), ground(), 12).indices.tolist()
    there = ground(given=np.array([7, 8]))
    with_given = select(method, there, 10)
    assert with_given.indices.tolist() == select(replace(method, clusters=12), there, 10).indices.tolist()
    with pytest.raises(ValueError, match="the clusters are those of a budget"):
        method.gains(ground(), [])


def test_any_score_and_what_makes_no_sense():
    columns = {"embedding": mixture(0, N, D), "mine": np.arange(N)}
    got = select(replace(METHODS["aloe"], score="mine", clusters=1), Ground(columns), 3)
    assert got.indices.tolist() == [60, 59, 58]
    with pytest.raises(ValueError, match="aloe needs the column 'energy'; there are embedding, mine"):
        select(METHODS["aloe"], Ground(columns), 3)
    with pytest.raises(ValueError, match="clusters 99 is larger"):
        select(replace(METHODS["nearest"], clusters=99), Ground(columns), 3)


def test_neighbours_are_those_of_the_definition():
    for seed in range(50):
        x = mixture(seed, N, D) * np.float32(10.0 ** (seed % 5 - 2))
        x[3] = x[4]
        x[9] = np.nan if seed % 2 else x[9]
        apart = np.linalg.norm(x[:, None].astype(np.float64) - x[None], axis=2)
        np.fill_diagonal(apart, np.inf)
        near = np.sort(np.nan_to_num(apart, nan=np.inf), axis=1)[:, :20].mean(axis=1)
        near[np.isnan(x).any(axis=1)] = np.nan
        got = neighbours(jnp.asarray(x))
        np.testing.assert_allclose(got, near, rtol=2e-5)


def test_copies_are_neighbours_at_no_distance():
    x = jnp.asarray(np.repeat(mixture(1, 3, 12), [25, 5, 1], axis=0) + 1000)
    got = np.asarray(neighbours(x, 4))
    assert (got[:30] == 0).all() and got[30] > 0
    assert np.isnan(neighbours(jnp.ones((1, 2)), 4)).all()


def test_a_tiled_pool_gives_the_same(monkeypatch):
    from edjax.kernels import geometry

    x = jnp.asarray(mixture(2, N, 12))
    whole = neighbours(x)
    monkeypatch.setattr(geometry, "_WHOLE_ELEMENTS", 0)
    monkeypatch.setattr(geometry, "_TILE_ELEMENTS", 7 * N)
    np.testing.assert_allclose(neighbours(x, shards=1), whole, rtol=1e-6)
