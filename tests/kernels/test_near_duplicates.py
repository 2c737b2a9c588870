"""Near-duplicates: the twin's outcome, what it promises of any outcome, and the odd rows."""

import numpy as np
import pytest

from edjax.kernels import near_duplicates, reference


def groups(seed, n=150, d=12, each=4, noise=0.05):
    """Rows in groups of `each` around random directions, shuffled, of random length."""
    rng = np.random.default_rng(seed)
    x = np.repeat(rng.normal(size=(-(-n // each), d)), each, axis=0)[:n] + noise * rng.normal(size=(n, d))
    x *= rng.uniform(0.1, 10, (n, 1))
    return x[rng.permutation(n)].astype(np.float32)


def cosine(x):
    u = x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    return u @ u.T


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("shuffled", [False, True])
def test_the_outcome_is_the_twins_for_every_tile(seed, shuffled):
    x = groups(seed)
    order = np.random.default_rng(seed).permutation(len(x)) if shuffled else None
    threshold = 0.99
    close = np.abs(cosine(x) - threshold) < 1e-5
    assert not close.any(), "the problem must not hang on rounding"
    keeper, similarity = reference.near_duplicates(x, threshold, order=order)
    assert 10 < np.count_nonzero(keeper != np.arange(len(x))) < 140
    for tile in (None, 16, 64):
        got = near_duplicates(x, threshold, order=order, tile=tile)
        np.testing.assert_array_equal(got.keeper, keeper)
        np.testing.assert_allclose(got.similarity, similarity, atol=2e-6)


def test_no_two_kept_rows_are_alike_and_every_other_has_a_kept_one():
    x = groups(7, 400)
    got = near_duplicates(x, 0.95, tile=50)
    s, kept = cosine(x), got.keeper == np.arange(400)
    among = s[np.ix_(kept, kept)] - 2 * np.eye(kept.sum())
    assert among.max() < 0.95 + 1e-6
    gone = np.flatnonzero(~kept)
    assert kept[got.keeper[gone]].all() and (got.keeper[gone] < gone).all()
    assert (s[gone, got.keeper[gone]] > 0.95 - 1e-6).all()


def test_copies_go_at_a_threshold_of_one():
    x = np.random.default_rng(0).normal(size=(30, 8)).astype(np.float32)
    x[20:] = x[:10]
    x[5] = x[25] = 0
    got = near_duplicates(x, 1, tile=7)
    assert got.keeper.tolist() == [*range(20), *range(10)]
    assert (got.similarity == 1).all()


@pytest.mark.parametrize("scale", [1e-25, 1e-6, 1e6, 1e25])
def test_the_scale_of_a_row_does_not_count(scale):
    x = groups(1)
    assert (near_duplicates(x * np.float32(scale), 0.99).keeper == near_duplicates(x, 0.99).keeper).all()


def test_rows_that_are_not_finite_are_kept_and_stand_for_no_other():
    x = np.ones((6, 3), np.float32)
    x[0], x[3, 1] = np.nan, np.inf
    assert near_duplicates(x, 0.9, tile=4).keeper.tolist() == [0, 1, 1, 3, 1, 1]


@pytest.mark.parametrize("n", [0, 1, 2])
def test_tiny_pools(n):
    assert near_duplicates(np.ones((n, 1)), 0.5).keeper.tolist() == [0] * n


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"threshold": 0}, "threshold.*got 0"),
        ({"threshold": 1.5}, "1.5"),
        ({"threshold": float("nan")}, "nan"),
        ({"order": [0, 0, 1, 2]}, "each of the 4 rows once"),
        ({"tile": 0}, "tile.*got 0"),
        ({"x": np.ones(3)}, "2-dimensional"),
    ],
)
def test_bad_arguments_are_named(change, said):
    with pytest.raises(ValueError, match=said):
        near_duplicates(**({"x": np.eye(4), "threshold": 0.9} | change))
