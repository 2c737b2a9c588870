"""DELIFT: facility location on how much rows help each other as examples."""

import numpy as np
import pytest

from edjax.kernels import (
    METHODS,
    Delift,
    FacilityLocation,
    Ground,
    Plus,
    facility_location,
    flcg,
    flmi,
    scaled_utility,
    select,
    value,
)
from edjax.kernels.contract import check_method
from edjax.kernels.reference import greedy

U = np.array([[0.5, 0.3, -0.1], [0.2, 0.6, 0.0], [0.0, 0.1, 0.4]])


def random_utility(seed, n=40, unknown=0.1):
    rng = np.random.default_rng(seed)
    u = 0.3 * rng.normal(size=(n, n)).astype(np.float32)
    return np.where(rng.random((n, n)) < unknown, np.float32(np.nan), u)


def test_the_worked_example():
    np.testing.assert_allclose(
        scaled_utility(U), [[0.8571, 0.5714, 0], [0.4286, 1, 0.1429], [0.1429, 0.2857, 0.7143]], atol=5e-5
    )
    there = Ground({"icl_utility": U})
    np.testing.assert_allclose(METHODS["delift"].gains(there, []), [1.4286, 1.8571, 0.8571], atol=5e-5)
    np.testing.assert_allclose(METHODS["delift"].gains(there, [1]), [0.2857, 0, 0.4286], atol=5e-5)
    got = select(Delift(), there, 2)
    assert got.indices.tolist() == [1, 2]
    np.testing.assert_allclose(got.gains, [1.8571, 0.4286], atol=5e-5)
    assert value(Delift(), there, [1, 2]) == pytest.approx(1.8571 + 0.4286, abs=1e-4)


@pytest.mark.parametrize("exponential", [False, True])
def test_it_keeps_the_laws_where_pairs_are_not_known(exponential):
    rng = np.random.default_rng(1)
    columns = {"icl_utility": random_utility(0), "weight": rng.uniform(0.5, 2, 40), "quality": rng.uniform(0.5, 2, 40)}
    for more in ({}, {"given": np.array([3, 17])}, {"valid": np.arange(40) % 4 > 0}):
        check_method(Delift(exponential), Ground(columns, **more), 12)


def test_it_is_facility_location_on_the_scaled_matrix():
    u = random_utility(2)
    known = u[np.isfinite(u)].astype(np.float64)
    s = np.where(np.isfinite(u), (u - known.min()) / (known.max() - known.min()), 0)
    np.testing.assert_allclose(scaled_utility(u), s, atol=1e-6)
    e = np.exp(known)
    by_exp = np.where(np.isfinite(u), (np.exp(np.float64(u)) - e.min()) / (e.max() - e.min()), 0)
    np.testing.assert_allclose(scaled_utility(u, exponential=True), by_exp, atol=1e-6)
    assert not np.allclose(s, by_exp, atol=1e-3)
    for asked, matrix in ((Delift(), s), (Delift(exponential=True), by_exp)):
        want = facility_location(None, 12, similarities=matrix)
        assert select(asked, Ground({"icl_utility": u}), 12).indices.tolist() == want.indices.tolist()


def test_a_pair_that_is_not_known_is_never_the_most_useful():
    u = np.array([[0.1, np.nan, 0.2], [0.1, np.nan, 0.0], [0.0, np.nan, 0.3]])
    assert scaled_utility(u)[:, 1].tolist() == [0, 0, 0]
    got = select(Delift(), Ground({"icl_utility": u}), 3)
    assert got.indices.tolist()[-1] == 1 and float(got.gains[-1]) == 0


def test_values_that_are_all_alike_and_none_at_all():
    for u in (np.full((3, 3), 0.4), np.full((3, 3), np.nan)):
        assert not np.asarray(scaled_utility(u)).any()
        assert select(Delift(), Ground({"icl_utility": u}), 2).indices.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("u", "said"),
    [
        (np.zeros((3, 2)), r"'icl_utility' must be \(3, 3\), a number for each pair of rows, got \(3, 2\)"),
        (np.zeros(3), r"icl_utility must have shape \(3, \*\)"),
        (np.array([["a"]]), "icl_utility must hold real numbers"),
    ],
)
def test_what_is_no_matrix_of_pairs_is_told(u, said):
    with pytest.raises(ValueError, match=said):
        select(Delift(), Ground({"icl_utility": u}), 1)


def test_existing_rows_of_the_pool_are_the_third_stage():
    """Labelled rows cover first, as the conditional gain with nu = 1 has it."""
    u = random_utility(3, unknown=0)
    given = np.array([2, 9, 30])
    got = select(Delift(), Ground({"icl_utility": u}, given=given), 10)
    want = flcg(None, 10, similarities=scaled_utility(u), labelled=given)
    assert got.indices.tolist() == want.indices.tolist()
    np.testing.assert_allclose(got.gains, want.gains, atol=1e-5)


def test_utilities_of_other_rows_by_the_family_s_functions():
    """The second stage caps a row at what target examples bring it; ours covers the target's rows by candidates."""
    rng = np.random.default_rng(4)
    u, by_target, of_target = rng.random((20, 20)), rng.random((4, 20)), rng.random((5, 20))
    s, t = np.asarray(scaled_utility(u), np.float64), np.asarray(scaled_utility(by_target), np.float64)
    picks = flmi(None, None, 6, similarities=s, target_similarities=t).indices.tolist()

    def worth(rows):
        return np.minimum(s[:, rows].max(axis=1), t.max(axis=0)).sum()

    taken = []
    for row in picks:
        best = max(worth([*taken, j]) for j in range(20) if j not in taken)
        taken.append(row)
        assert worth(taken) == pytest.approx(best, abs=1e-5)
    covered = facility_location(None, 3, similarities=scaled_utility(of_target))
    s = np.asarray(scaled_utility(of_target))
    assert covered.indices[0] == np.argmax(s.sum(axis=0))


def test_a_part_of_a_sum_leaves_the_others_their_columns():
    x = np.random.default_rng(5).normal(size=(30, 4)).astype(np.float32)
    there = Ground({"embedding": x, "icl_utility": random_utility(6, 30)})
    both = Plus((Delift(), FacilityLocation()), (1.0, 0.5))
    got = select(both, there, 8)
    followed = greedy(both, there, 8, follow=got.indices.tolist())
    np.testing.assert_allclose(followed.gains, followed.best, rtol=1e-4)


def test_a_sum_of_two_scales_each_once():
    there = Ground({"icl_utility": random_utility(7, 30)})
    both = Plus((Delift(exponential=True), Delift()), (1.0, 0.5))
    got = select(both, there, 6)
    followed = greedy(both, there, 6, follow=got.indices.tolist())
    np.testing.assert_allclose(got.gains, followed.gains, rtol=1e-4, atol=1e-5)


def test_scaling_changes_picks_where_there_is_quality_or_exponential():
    """Where first gains are far below 0, quality turns them about; scaled, it does not."""
    u = random_utility(8, 30, unknown=0) - 1
    quality = np.random.default_rng(8).lognormal(size=30).astype(np.float32)

    def picks(quality):
        """Facility location on utilities as they are, float64."""
        rows, held = [], np.zeros((30, 1))
        for _ in range(6):
            gain = (np.maximum(u, held) - held if rows else u).sum(axis=0, dtype=np.float64) * quality
            gain[rows] = -np.inf
            rows.append(int(np.argmax(gain)))
            held = u[:, rows].max(axis=1, keepdims=True)
        return rows

    plain, weighed = Ground({"icl_utility": u}), Ground({"icl_utility": u, "quality": quality})
    assert select(Delift(), plain, 6).indices.tolist() == picks(1)
    assert select(Delift(), weighed, 6).indices.tolist() != picks(quality)
    assert select(Delift(exponential=True), plain, 6).indices.tolist() != picks(1)
