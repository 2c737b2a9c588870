"""A first pass that looks ahead: the picks of a block too large for it, in fewer rounds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kernel_cases import Problem, assert_greedy

from edjax.kernels import AtMost, FacilityLocation, Ground, facility_location, reference, select
from edjax.kernels.methods import ahead

BLOCK, PLAIN = 4, 64  # of 300 rows: looks ahead, does not


def mixture(seed, n=300, d=16, centres=10):
    rng = np.random.default_rng(seed)
    middle = rng.standard_normal((centres, d))
    return (middle[rng.integers(0, centres, n)] + 0.5 * rng.standard_normal((n, d))).astype(np.float32)


def both(x, budget, **options):
    looking = facility_location(x, budget, form="tiled", block=BLOCK, **options)
    plain = facility_location(x, budget, form="tiled", block=PLAIN, **options)
    assert ahead.pays(x.shape[0], BLOCK) and not ahead.pays(x.shape[0], PLAIN)
    return looking, plain


def assert_same(looking, plain):
    np.testing.assert_array_equal(looking.indices, plain.indices)
    np.testing.assert_allclose(looking.gains, plain.gains, rtol=1e-4, atol=1e-5)


def with_nan(x):
    x = x.copy()
    x[[0, 7, 150]] = np.nan
    return x


rng = np.random.default_rng(5)
CASES = {
    "plain": {},
    "cosine": {"similarity": "cosine"},
    "narrow": {"bandwidth": 0.02},
    "labelled": {"labelled": [3, 8, 200]},
    "weights": {"weights": rng.uniform(0, 1, 300)},
    "quality": {"quality": rng.uniform(0.2, 1, 300)},
    "all": {
        "labelled": [1, 2],
        "weights": rng.uniform(0, 1, 300),
        "quality": rng.uniform(0.2, 1, 300),
    },
}


@pytest.mark.parametrize("name", CASES)
def test_same_picks(name):
    assert_same(*both(mixture(1), 40, **CASES[name]))


def test_same_picks_with_nan_rows_to_the_last_row():
    assert_same(*both(with_nan(mixture(2)), 300))


def test_each_pick_among_copies_is_greedy():
    """Which of the copies comes first is rounding's: their sums are made in other lanes, whose last bits may differ."""
    p = Problem(np.repeat(mixture(3, n=60), 5, axis=0), 30, {})
    for found in both(p.x, p.budget):
        assert_greedy(found, reference.facility_location, p)
        assert len(set((np.asarray(found.indices) // 5).tolist())) == 30, "a copy of a pick covers nothing more"


def test_rows_that_are_all_alike():
    looking, plain = both(np.ones((300, 16), np.float32), 5)
    np.testing.assert_array_equal(looking.indices, plain.indices)


def test_a_pool_of_one_cluster_takes_a_fraction_of_the_rounds():
    x = mixture(4, n=600, centres=1)
    looking = facility_location(x, 4, form="tiled", block=BLOCK)
    plain = facility_location(x, 4, form="resident", block=BLOCK)
    assert_same(looking, plain)
    assert looking.refreshes < plain.refreshes / 4


def test_guesses_from_few_rows_cost_no_pick(monkeypatch):
    monkeypatch.setattr(ahead, "_SAMPLE", 2)
    x = mixture(6, n=301)  # a shape of its own, so that it is traced anew
    assert_same(*both(x, 40))


def test_under_jit_and_vmap():
    stack = jnp.stack([mixture(seed) for seed in (7, 8)])
    found = jax.jit(jax.vmap(lambda x: facility_location(x, 20, form="tiled", block=BLOCK)))(stack)
    for x, indices in zip(stack, found.indices, strict=True):
        np.testing.assert_array_equal(indices, facility_location(x, 20, form="tiled", block=PLAIN).indices)


@pytest.mark.parametrize("seed", range(3))
def test_rows_that_may_not_be_picked_cover_nothing(seed):
    """A guess may hold rows of a mask, or of a group that is full: these are no picks, and its bounds are none."""
    x, rng = mixture(10 + seed), np.random.default_rng(seed)
    valid, group = rng.random(300) < 0.5, rng.integers(0, 40, 300)
    for method, ground in (
        (FacilityLocation(form="tiled"), Ground({"embedding": x}, valid=valid)),
        (AtMost(FacilityLocation(form="tiled"), each=1), Ground({"embedding": x, "group": group})),
    ):
        looking, plain = (select(method, ground, 20, block=block) for block in (BLOCK, PLAIN))
        assert_same(looking, plain)
