"""RELIABILITY I1-I3, I5: bad rows, bad arguments, duplicates, offsets and scales."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kernel_cases import SELECTORS, Problem, assert_greedy, mixture

from edjax.kernels import d_optimal, facility_location, k_center, reference

all_selectors = pytest.mark.parametrize("name", SELECTORS)


@all_selectors
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_bad_rows_come_last_and_change_nothing_else(name, bad):
    select, _ = SELECTORS[name]
    x = mixture(0, 40, 4)
    bad_rows = [0, 7, 39]
    good_rows = np.setdiff1d(np.arange(40), bad_rows)
    spoiled = x.copy()
    spoiled[bad_rows, 2] = bad
    picks = select(spoiled, 40)
    order = np.asarray(picks.indices)
    assert order[:37].tolist() == good_rows[np.asarray(select(x[good_rows], 37).indices)].tolist()
    assert sorted(order[37:].tolist()) == bad_rows
    assert np.isneginf(picks.gains[37:]).all()
    assert (np.asarray(picks.gains[:37]) >= 0).all()


@all_selectors
def test_all_rows_bad(name):
    picks = SELECTORS[name][0](np.full((5, 3), np.nan, np.float32), 3)
    assert picks.indices.tolist() == [0, 1, 2]
    assert np.isneginf(picks.gains).all()


@all_selectors
@pytest.mark.parametrize(
    ("budget", "says"),
    [(-1, "-1"), (2.5, "2.5"), (21, "21"), ("3", "'3'"), (None, "None"), (True, "True"), (2.0, "2.0")],
)
def test_bad_budget_is_named(name, budget, says):
    with pytest.raises(ValueError, match=says):
        SELECTORS[name][0](mixture(0, 20, 3), budget)


@all_selectors
def test_budget_edges(name):
    select, _ = SELECTORS[name]
    x = mixture(0, 20, 3)
    none = select(x, 0)
    assert none.indices.shape == none.gains.shape == (0,)
    assert none.indices.dtype == jnp.int32
    assert none.gains.dtype == jnp.float32
    assert sorted(select(x, 20).indices.tolist()) == list(range(20))
    assert select(x, np.int64(20)).indices.shape == (20,)
    rest = select(x, 17, labelled=[4, 4, 9, 0]).indices.tolist()
    assert sorted([*rest, 4, 9, 0]) == list(range(20))
    with pytest.raises(ValueError, match="18"):
        select(x, 18, labelled=[4, 4, 9, 0])
    assert select(x, 20, labelled=[]).indices.tolist() == select(x, 20).indices.tolist()


@all_selectors
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"block": 0}, "block"),
        ({"block": 2.5}, "2.5"),
        ({"precision": "low"}, "low"),
        ({"labelled": [20]}, "20"),
        ({"labelled": [-1]}, "-1"),
        ({"labelled": [0.5]}, "labelled"),
        ({"weights": np.ones(3)}, "weights"),
        ({"weights": -np.ones(20)}, "-1.0"),
        ({"weights": np.full(20, np.nan)}, "nan"),
    ],
)
def test_bad_options_are_named(name, options, says):
    with pytest.raises(ValueError, match=says):
        SELECTORS[name][0](mixture(0, 20, 3), 2, **options)


def test_bad_options_of_one_selector_are_named():
    x = mixture(0, 20, 3)
    for call, says in [
        (lambda: k_center(x, 2, first="last"), "last"),
        (lambda: k_center(x, 2, first=20), "20"),
        (lambda: k_center(x, 2, first="random"), "key"),
        (lambda: k_center(x, 2, first=1, labelled=[2]), "labelled"),
        (lambda: d_optimal(x, 2, ridge=0.0), "0.0"),
        (lambda: d_optimal(x, 2, ridge=float("nan")), "nan"),
        (lambda: facility_location(x, 2, similarity="dot"), "dot"),
        (lambda: facility_location(x, 2, bandwidth=-1.0), "-1.0"),
        (lambda: facility_location(x, 2, form="dense"), "dense"),
        (lambda: facility_location(x, 2, represented=x[:, :2]), "2 features"),
        (lambda: k_center(x[0], 2), "2-dimensional"),
        (lambda: k_center(x.astype(complex), 2), "complex"),
    ]:
        with pytest.raises(ValueError, match=says):
            call()


@all_selectors
@pytest.mark.parametrize(("n", "d"), [(0, 3), (1, 3), (2, 1)])
def test_tiny_pools(name, n, d):
    picks = SELECTORS[name][0](mixture(0, n, d), n)
    assert sorted(picks.indices.tolist()) == list(range(n))


@all_selectors
def test_identical_rows(name):
    picks = SELECTORS[name][0](np.full((12, 3), 7.0, np.float32), 12, block=5)
    assert sorted(picks.indices.tolist()) == list(range(12))
    if name != "d_optimal":
        assert picks.indices.tolist() == list(range(12))
        assert (np.asarray(picks.gains[1:]) == 0).all()


@pytest.mark.parametrize("ridge", [1e-8, 1e-20])
def test_a_ridge_too_small_for_float32_still_picks_every_row(ridge):
    rows = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
    picks = SELECTORS["d_optimal"][0](np.tile(rows, (3, 1)), 120, ridge=ridge, block=7)
    assert sorted(picks.indices.tolist()) == list(range(120)) and np.isfinite(picks.gains).all()


@all_selectors
@pytest.mark.parametrize("offset", [100.0])
def test_copies_are_covered_before_they_repeat(name, offset):
    groups = mixture(2, 10, 16, clusters=10) * 3
    x = np.tile(groups, (20, 1)) + np.float32(offset)
    options = {"centre": True} if name == "d_optimal" else {}
    picks = SELECTORS[name][0](x, 60, block=32, **options)
    order = np.asarray(picks.indices)
    assert len(set(order.tolist())) == 60
    assert sorted((order[:10] % 10).tolist()) == list(range(10))
    if name != "d_optimal":
        assert (np.asarray(picks.gains[10:]) == 0).all()
        assert order[10:].tolist() == [i for i in range(200) if i not in order[:10]][:50]


@all_selectors
def test_zero_rows(name):
    x = mixture(1, 30, 4)
    x[10:20] = 0
    p = Problem(x, 25, {})
    assert_greedy(SELECTORS[name][0](x, 25), SELECTORS[name][1], p)


@all_selectors
@pytest.mark.parametrize("offset", [10.0, 1e3, 1e4])
def test_offset_does_not_change_the_picks(name, offset):
    options = {"centre": True} if name == "d_optimal" else {}
    x = mixture(4, 150, 12) + np.float32(offset)  # rounds the data themselves: the twin sees the rounded rows
    p = Problem(x, 50, options)
    assert_greedy(SELECTORS[name][0](x, 50, **options), SELECTORS[name][1], p)


@all_selectors
@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_scale_does_not_change_the_picks(name, scale):
    x = mixture(4, 150, 12) * np.float32(scale)
    assert_greedy(SELECTORS[name][0](x, 50), SELECTORS[name][1], Problem(x, 50, {}))


@all_selectors
def test_one_large_feature_keeps_the_objective(name):
    x = mixture(4, 150, 12)
    x[:, 3] *= 1e4
    select, twin = SELECTORS[name]
    picks = np.asarray(select(x, 40).indices)
    assert len(set(picks.tolist())) == 40
    ours, best = twin(x, 40, follow=picks).gains, twin(x, 40).gains
    if name == "k_center":
        assert radius(x, picks) <= radius(x, twin(x, 40).indices) * 1.01
        assert radius(x, np.arange(40)) > 2 * radius(x, picks)
    else:
        assert ours.sum() >= 0.99 * best.sum()


def radius(x, picks):
    return np.min([np.linalg.norm(x - x[j], axis=1) for j in picks], axis=0).max()


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int32, jnp.bfloat16])
@all_selectors
def test_dtypes(name, dtype):
    x = (np.round(mixture(4, 60, 5) * 4) / 4).astype(dtype)
    p = Problem(x.astype(np.float32), 20, {})
    assert_greedy(SELECTORS[name][0](x, 20), SELECTORS[name][1], p)


@all_selectors
def test_fast_precision_keeps_the_objective(name):
    x = mixture(4, 150, 12)
    ours = SELECTORS[name][1](x, 40, follow=np.asarray(SELECTORS[name][0](x, 40, precision="fast").indices)).gains
    best = SELECTORS[name][1](x, 40).gains
    assert ours[np.isfinite(ours)].sum() >= 0.99 * best[np.isfinite(best)].sum()


def test_first_pick_options():
    x = mixture(4, 50, 3)
    assert k_center(x, 3, first=17).indices[0] == 17
    assert k_center(x, 3, first=jnp.int32(17)).indices[0] == 17
    nearest = np.argmin(np.linalg.norm(x - x.mean(0), axis=1))
    assert k_center(x, 3).indices[0] == k_center(x, 3, first="mean").indices[0] == nearest
    key = jax.random.key(0)
    random = [int(k_center(x, 3, first="random", key=k).indices[0]) for k in jax.random.split(key, 8)]
    assert len(set(random)) > 3


def test_d_optimal_drift_beyond_d():
    """The stated drift: over 1,500 picks in 32 dimensions each pick is within 1e-4 of the best gain then on offer."""
    x = mixture(11, 2000, 32)
    picks = d_optimal(x, 1500)
    followed = reference.d_optimal(x, 1500, follow=np.asarray(picks.indices))
    assert (followed.best - followed.gains).max() <= 1e-4
    np.testing.assert_allclose(float(picks.gains.sum()), followed.gains.sum(), rtol=2e-4)
