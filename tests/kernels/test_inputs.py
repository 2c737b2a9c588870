"""What callers hand in: rows that hold NaN, odd dtypes and shapes, numbers at the ends of float32, options of the
streamed forms, x64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kernel_cases import SELECTORS, Problem, assert_greedy, mixture

from edjax.kernels import (
    d_optimal,
    d_optimal_streamed,
    facility_location,
    k_center,
    k_center_streamed,
    kmeans,
    near_duplicates,
    reference,
)

STREAMED = {"k_center_streamed": k_center_streamed, "d_optimal_streamed": d_optimal_streamed}
ALL = {name: select for name, (select, _) in SELECTORS.items()} | STREAMED
every_one = pytest.mark.parametrize("name", ALL)


def pool():
    return mixture(4, 60, 12) + np.float32(3)


@every_one
def test_a_labelled_row_that_holds_nan_counts_for_nothing(name):
    x = pool()
    x[[5, 9, 11]] = np.nan
    for bad, real in (([5, 9], [2]), ([5, 9, 11], [])):
        without, given = ALL[name](x, 20, labelled=real), ALL[name](x, 20, labelled=[*real, *bad])
        assert given.indices.tolist() == without.indices.tolist()
        np.testing.assert_allclose(given.gains, without.gains, rtol=1e-6)


def test_a_traced_labelled_row_that_holds_nan_counts_for_nothing():
    x = pool()
    x[5] = np.nan
    call = jax.jit(lambda x, rows: k_center(x, 20, labelled=rows).indices)
    assert call(x, jnp.array([5])).tolist() == k_center(x, 20).indices.tolist()


def test_a_labelled_row_given_twice_counts_once():
    x = pool()
    for select in ALL.values():
        assert select(x, 20, labelled=[7, 7, 3]).gains.tolist() == select(x, 20, labelled=[7, 3]).gains.tolist()


@pytest.mark.parametrize("select", [k_center, k_center_streamed])
def test_first_is_a_row_that_can_be_measured(select):
    x = pool()
    x[5] = np.inf
    with pytest.raises(ValueError, match="first is row 5, which holds NaN or infinity"):
        select(x, 3, first=5)
    x[:50] = np.nan
    for seed in range(5):
        drawn = select(x, 3, first="random", key=jax.random.key(seed))
        assert drawn.indices[0] >= 50 and np.isinf(drawn.gains[0]) and drawn.gains[1] < 1e3


def test_a_traced_first_that_cannot_be_measured_is_the_row_nearest_the_mean():
    x = pool()
    x[5] = np.nan
    traced = jax.jit(lambda x, row: k_center(x, 3, first=row))
    assert traced(x, 5).indices.tolist() == k_center(x, 3).indices.tolist()
    assert traced(x, 8).indices.tolist() == k_center(x, 3, first=8).indices.tolist()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda x: d_optimal_streamed(x, 2, ridge=0), "ridge must be .* got 0"),
        (lambda x: d_optimal_streamed(x, 2, ridge=float("nan")), "ridge must be"),
        (lambda x: d_optimal_streamed(x, 2, ridge="1"), "ridge must be"),
        (lambda x: d_optimal_streamed(x, 2, precision="low"), "low"),
        (lambda x: d_optimal_streamed(x, 2, block=0), "block"),
        (lambda x: d_optimal_streamed(x, 2, tile=0), "tile"),
        (lambda x: d_optimal_streamed(x, 0, ridge=-1.0), "-1.0"),
        (lambda x: k_center_streamed(x, 2, tile=2.5), "2.5"),
        (lambda x: k_center_streamed(x, 2, first="last"), "last"),
        (lambda x: k_center_streamed(x, 2, first="random"), "key"),
        (lambda x: k_center_streamed(x, 2, first=60), "60"),
        (lambda x: k_center_streamed(x, 2, first=1, labelled=[2]), "labelled"),
        (lambda x: k_center_streamed(x, 2, weights=np.full(60, np.inf)), "inf"),
        (lambda x: k_center(x, 2, weights=np.full(60, "a")), "weights must hold real numbers"),
        (lambda x: kmeans(x, 3, initial=np.zeros((3, 0))), "initial"),
    ],
)
def test_options_are_checked(call, says):
    with pytest.raises(ValueError, match=says):
        call(pool())


@pytest.mark.parametrize("name", [*ALL, "kmeans", "near_duplicates"])
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda x: x[:, :0], "at least one feature"),
        (lambda x: x.astype(object), "object"),
        (lambda x: x > 0, "bool"),
        (lambda x: x.astype(complex), "complex"),
        (lambda x: x.astype(str), "real numbers"),
        (lambda x: x[0], "2-dimensional"),
    ],
)
def test_what_is_no_pool_is_refused(name, make, says):
    calls = ALL | {"kmeans": kmeans, "near_duplicates": near_duplicates}
    with pytest.raises(ValueError, match=says):
        calls[name](make(pool()), 1)


@every_one
@pytest.mark.parametrize("dtype", [">f4", ">f8", np.longdouble, ">i2", np.int64, np.uint32])
def test_other_dtypes_are_read_as_what_they_hold(name, dtype):
    x = np.round(pool() * 4 + 30)
    x = np.maximum(x, 0)
    assert ALL[name](x.astype(dtype), 20).indices.tolist() == ALL[name](x, 20).indices.tolist()
    assert ALL[name](np.asmatrix(x), 20).indices.tolist() == ALL[name](x, 20).indices.tolist()


def test_large_whole_numbers_are_not_wrapped_around():
    x = np.array([[0], [1], [2**40], [2**40 + 2**33]], np.int64)
    assert k_center(x, 4).indices.tolist() == reference.k_center(x, 4).indices.tolist()
    assert k_center(x.tolist(), 4).indices.tolist() == reference.k_center(x, 4).indices.tolist()


@every_one
def test_what_float32_cannot_hold_is_named(name):
    x = pool().astype(np.float64)
    x[[3, 7], 2] = np.inf, 1e300
    with pytest.raises(ValueError, match=r"1e\+300 in row 7"):
        ALL[name](x, 3)


@every_one
@pytest.mark.parametrize("scale", [1e30, 1e-30])
def test_squares_that_overflow_or_vanish(name, scale):
    x = pool()
    near, far = ALL[name](x, 20), ALL[name](x * np.float32(scale), 20)
    assert len(set(near.indices.tolist()) & set(far.indices.tolist())) >= 19
    unit = scale if name.startswith("k_center") else 1
    np.testing.assert_allclose(np.asarray(far.gains, np.float64) / unit, near.gains, rtol=1e-4)


@pytest.mark.parametrize("select", [d_optimal, d_optimal_streamed])
def test_a_ridge_beyond_float32_is_in_squared_units_of_the_rows(select):
    x = pool()
    near = select(x, 20, ridge=2.0)
    for scale in (2.0**90, 2.0**-90):
        far = select(x * np.float32(scale), 20, ridge=2.0 * scale**2)
        assert far.indices.tolist() == near.indices.tolist()
        np.testing.assert_allclose(far.gains, near.gains, rtol=1e-6)


@pytest.mark.parametrize("spread", [1e-3, 1e-6, 0.0])
def test_the_default_ridge_of_rows_that_are_nearly_alike(spread):
    """Streamed as resident, which measures from the mean: the squared norms hold nothing of a spread this small."""
    x = (1 + spread * np.random.default_rng(2).standard_normal((60, 12))).astype(np.float32)
    resident, streamed = (float(v.gains[0]) for v in (d_optimal(x, 1), d_optimal_streamed(x, 1, tile=25)))
    assert streamed == pytest.approx(resident, rel=1e-3)
    if spread:
        centred = x - x.mean(0, dtype=np.float64)
        ridge = 0.1 * (centred**2).sum(1).mean()
        largest = np.square(x, dtype=np.float64).sum(1).max()
        assert streamed == pytest.approx(np.log1p(largest / ridge), rel=1e-4)


@pytest.mark.parametrize("name", ["k_center", "d_optimal"])
@pytest.mark.parametrize("unit", [1e25, 1e-25])
def test_weights_whose_squares_overflow_or_vanish(name, unit):
    select, twin = SELECTORS[name]
    w = np.random.default_rng(0).uniform(0.2, 2, 60)
    assert_greedy(select(pool(), 20, weights=w * unit), twin, Problem(pool(), 20, {"weights": w * unit}))


@pytest.mark.parametrize("select", [k_center, k_center_streamed])
def test_one_row_far_beyond_the_others(select):
    x = pool()
    x[7] = 1e30
    assert_greedy(select(x, 30), reference.k_center, Problem(x, 30, {}), rtol=1e-6)
    rest = [i for i in select(x, 30).indices.tolist() if i != 7]
    kept = np.delete(x, 7, axis=0)
    order = [i - (i > 7) for i in rest]
    assert order == reference.k_center(kept, 29, first=order[0]).indices.tolist()


def test_facility_location_takes_rows_to_cover_of_another_size():
    x, z = pool(), np.float32(1e25) * mixture(1, 40, 12)
    assert_greedy(
        facility_location(x, 5, represented=np.concatenate([z, x])),
        reference.facility_location,
        Problem(x, 5, {"represented": np.concatenate([z, x])}),
    )


DRAWN = {
    "first": lambda x, key: k_center(x, 10, first="random", key=key).indices,
    "first, streamed": lambda x, key: k_center_streamed(x, 10, first="random", key=key).indices,
    "stochastic": lambda x, key: facility_location(x, 10, epsilon=0.5, key=key).indices,
    "kmeans": lambda x, key: kmeans(x, 8, key=key, iterations=0).labels,
}


@pytest.mark.parametrize("what", DRAWN)
def test_a_key_draws_the_same_rows_under_x64(what):
    x = pool()
    for seed in range(3):
        expected = DRAWN[what](x, jax.random.key(seed)).tolist()
        with jax.enable_x64(True):
            assert DRAWN[what](x, jax.random.key(seed)).tolist() == expected


@every_one
@pytest.mark.parametrize("precision", ["highest", "fast"])
def test_a_pool_of_one_row(name, precision):
    for x in (np.ones((1, 3)), np.zeros((1, 20)), np.full((1, 3), np.nan)):
        assert partial(ALL[name], precision=precision)(x, 1).indices.tolist() == [0]
