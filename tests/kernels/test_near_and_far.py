"""Rows that lie close together far from the rest: float32 sees what float64 does, in every kernel that measures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kernel_cases import SELECTORS, Problem, assert_greedy

from edjax.kernels import facility_location, geometry, k_center, k_center_streamed, kmeans, near_duplicates, reference
from edjax.kernels.distances import squared_distances


def two_clusters(d, n=400, apart=3000.0, seed=0):
    x = np.random.default_rng(seed).standard_normal((n, d))
    x[n // 2 :, 0] += apart
    return x.astype(np.float32)


def radius(x, picks):
    x = x.astype(np.float64)
    return np.sqrt(np.min([np.square(x - x[j]).sum(1) for j in np.asarray(picks)], axis=0).max())


@pytest.mark.parametrize("d", [3, 16])
def test_k_center_covers_two_clusters_that_are_far_apart(d):
    x = two_clusters(d)
    best = radius(x, reference.k_center(x, 60).indices)
    for select in (k_center, lambda x, k: k_center_streamed(x, k, tile=150)):
        picks = select(x, 60)
        assert radius(x, picks.indices) <= best * 1.001
        assert_greedy(picks, reference.k_center, Problem(x, 60, {}))


def test_a_cluster_at_the_origin_keeps_digits_that_a_shift_would_round():
    x = two_clusters(16, apart=3e6)
    x[:200] *= 1e-3
    x[:200, 0] *= 1e-2
    picks = k_center(x, 300)
    assert_greedy(picks, reference.k_center, Problem(x, 300, {}))
    inside = x[:200][np.asarray(picks.indices)[np.asarray(picks.indices) < 200]]
    assert len(inside) > 90


def test_k_center_with_a_front_too():
    x = two_clusters(16, n=13_000)
    assert_greedy(k_center(x, 40), reference.k_center, Problem(x, 40, {}))


@pytest.mark.parametrize("d", [4, 20])
def test_a_row_of_zeros_is_like_nothing_not_even_itself(d):
    x = np.random.default_rng(3).standard_normal((40, d)).astype(np.float32)
    x[0] = 0
    picks = facility_location(x, 40, similarity="cosine")
    assert picks.gains[picks.indices.tolist().index(0)] == 0


@pytest.mark.parametrize("select", [k_center, facility_location])
def test_a_feature_of_tiny_range_spoils_no_pool(select):
    x = np.random.default_rng(4).standard_normal((50, 12)).astype(np.float32)
    without = select(x, 20).indices.tolist()
    x[:, 3] = 8e-38 * np.random.default_rng(5).uniform(size=50)
    expected = select(np.delete(x, 3, axis=1), 20).indices.tolist()
    assert select(x, 20).indices.tolist() == expected != without


@pytest.mark.parametrize("form", ["resident", "tiled"])
def test_facility_location_sees_into_clusters_that_are_far_apart(form):
    """The kernel's width is that of the pool, so that all within a cluster is nearly alike."""
    x = two_clusters(16)
    assert_greedy(facility_location(x, 60, form=form), reference.facility_location, Problem(x, 60, {}), rtol=1e-7)


@pytest.mark.parametrize("form", ["resident", "tiled"])
def test_cosine_sees_small_angles(form):
    """1 - cosine is about 1e-4 for all pairs."""
    x = (np.random.default_rng(0).standard_normal((800, 64)) + 100).astype(np.float32)
    picks = np.asarray(facility_location(x, 100, similarity="cosine", form=form).indices)
    twin = reference.facility_location(x, 100, similarity="cosine").indices
    assert len(set(picks.tolist()) & set(twin.tolist())) >= 95


@pytest.mark.parametrize("d", [3, 40])
def test_distances_are_those_of_float64(d):
    x = two_clusters(d, n=60)
    x[7], x[41] = x[3], x[50]
    rows = geometry.points(jnp.asarray(x))
    got = np.asarray(squared_distances(rows, rows)) / float(rows.frame.scale) ** 2
    big = x.astype(np.float64)
    exact = np.square(big[:, None] - big[None]).sum(-1)
    np.testing.assert_allclose(got, exact, rtol=1e-3)
    assert got[3, 7] == got[41, 50] == 0
    together = jax.vmap(lambda a: squared_distances(a, a))(jax.tree.map(lambda a: jnp.stack([a, a]), rows))
    np.testing.assert_allclose(together[1], squared_distances(rows, rows), rtol=1e-5)


@pytest.mark.parametrize("d", [2, 16])
def test_kmeans_parts_clusters_within_a_cluster(d):
    x = two_clusters(d)
    initial = x[[0, 1, 2, 200, 201, 202]]
    found = kmeans(x, 6, initial=jnp.asarray(initial), iterations=5)
    _, labels = reference.lloyd(x, initial, 5)
    assert (np.asarray(found.labels) == labels).mean() > 0.98
    own = np.square(x.astype(np.float64) - np.asarray(found.centres, np.float64)[np.asarray(found.labels)]).sum(1)
    np.testing.assert_allclose(found.distances, own, rtol=5e-3)


def test_near_duplicates_are_told_apart_up_to_float32():
    x = np.zeros((4, 12), np.float32)
    x[:, 0] = 1
    x[1, 1], x[2, 2], x[3] = 1e-3, 4e-3, 5 * x[0]
    assert near_duplicates(x, 1).keeper.tolist() == [0, 1, 2, 0]
    assert near_duplicates(x, 1 - 1e-6).keeper.tolist() == [0, 0, 2, 0]
    assert near_duplicates(x, 0.9).similarity[[0, 3]].tolist() == [1, 1]


@pytest.mark.parametrize("name", SELECTORS)
def test_a_large_feature_leaves_the_others_to_be_covered(name):
    """One feature 10,000 times the others: the first picks spread along it, and the objective is greedy's to 1 %."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((150, 12)).astype(np.float32)
    x[:, 3] = 1e4 * (np.arange(150) % 10)
    picks, twin = np.asarray(SELECTORS[name][0](x, 40).indices), SELECTORS[name][1](x, 40)
    if name == "k_center":
        assert radius(x, picks) <= 1.05 * radius(x, twin.indices)
    else:
        value = SELECTORS[name][1](x, 40, follow=picks).gains.sum()
        assert value >= 0.99 * twin.gains.sum()
    assert len(set((picks[:10] % 10).tolist())) == 10 or name == "d_optimal"


def test_equal_distances_of_whole_numbers_stay_equal():
    """Squares of whole numbers are exact in float32 where the shift is whole: ties go to the lowest row throughout."""
    rng = np.random.default_rng(3)
    for dtype in (np.float64, np.uint8, np.int64):
        x = rng.integers(0, 5, (500, 64)).astype(dtype)
        assert k_center(x, 300).indices.tolist() == reference.k_center(x, 300).indices.tolist()
        assert k_center_streamed(x, 300, tile=200).indices.tolist() == reference.k_center(x, 300).indices.tolist()
