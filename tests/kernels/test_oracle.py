"""Every selector against its float64 twin and against brute force."""

from itertools import combinations

import numpy as np
import pytest
from kernel_cases import SELECTORS, Problem, assert_greedy, mixture, problem

from edjax.kernels import d_optimal, facility_location, k_center, reference
from edjax.kernels.methods import cover


def check(name, seed, block=None):
    select, twin = SELECTORS[name]
    p, its_own = problem(name, seed)
    assert_greedy(select(p.x, p.budget, block=block or its_own, **p.options), twin, p)


@pytest.mark.parametrize("name", SELECTORS)
@pytest.mark.parametrize("family", range(10))
def test_order_is_the_twins_on_200_problems(name, family):
    for repeat in range(20):
        check(name, family + 10 * repeat)


@pytest.mark.long
@pytest.mark.parametrize("name", SELECTORS)
@pytest.mark.parametrize("block", [1, 7, 256, 10**6])
def test_order_is_the_twins_on_200_problems_for_every_block(name, block):
    for seed in range(200):
        check(name, seed, block)


@pytest.mark.parametrize("name", SELECTORS)
def test_block_size_changes_nothing(name):
    select, _ = SELECTORS[name]
    x = mixture(5, 300, 12)
    orders = [select(x, 60, block=b).indices.tolist() for b in (1, 7, 256, 300)]
    assert all(order == orders[0] for order in orders)


@pytest.mark.parametrize("name", SELECTORS)
def test_order_is_nested(name):
    select, _ = SELECTORS[name]
    x = mixture(6, 200, 10)
    assert select(x, 50).indices[:20].tolist() == select(x, 20).indices.tolist()


SUBSETS = np.array(list(combinations(range(12), 4)))


@pytest.mark.parametrize("seed", range(5))
def test_k_center_radius_is_at_most_twice_the_best(seed):
    x = mixture(seed, 12, 3).astype(np.float64)
    d = np.linalg.norm(x[:, None] - x[None], axis=-1)

    def radius(rows):
        return d[:, rows].min(axis=1).max()

    picks = np.asarray(k_center(x, 4).indices)
    assert radius(picks) <= 2 * min(radius(s) for s in SUBSETS) + 1e-6


@pytest.mark.parametrize("seed", range(5))
def test_d_optimal_reaches_its_share_of_the_best(seed):
    x = mixture(seed, 12, 3).astype(np.float64)

    def value(rows):
        return np.linalg.slogdet(np.eye(3) + x[rows].T @ x[rows] / 0.5)[1]

    picks = d_optimal(x, 4, ridge=0.5)
    best = max(value(s) for s in SUBSETS)
    assert value(np.asarray(picks.indices)) >= (1 - 1 / np.e) * best
    np.testing.assert_allclose(picks.gains.sum(), value(np.asarray(picks.indices)), rtol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_facility_location_reaches_its_share_of_the_best(seed):
    x = mixture(seed, 12, 3).astype(np.float64)
    d2 = ((x[:, None] - x[None]) ** 2).sum(-1)
    s = np.exp(-d2 / (0.25 * d2.mean()))

    def value(rows):
        return s[rows].max(axis=0).sum()

    picks = facility_location(x, 4)
    assert value(np.asarray(picks.indices)) >= (1 - 1 / np.e) * max(value(r) for r in SUBSETS)
    np.testing.assert_allclose(picks.gains.sum(), value(np.asarray(picks.indices)), rtol=1e-5)


def test_d_optimal_order_is_the_determinantal_process_order():
    x = mixture(3, 60, 40).astype(np.float64)
    kernel = np.eye(60) + x @ x.T / 5.0
    chosen = []
    for _ in range(30):
        rest = [i for i in range(60) if i not in chosen]
        chosen.append(max(rest, key=lambda i: np.linalg.slogdet(kernel[np.ix_([*chosen, i], [*chosen, i])])[1]))
    assert d_optimal(x, 30, ridge=5.0).indices.tolist() == chosen


@pytest.mark.parametrize("form", ["resident", "tiled"])
@pytest.mark.parametrize("options", [{}, {"represented": True}, {"quality": True}, {"labelled": [3, 9, 11]}])
def test_facility_location_forms_agree_with_the_twin(form, options):
    rng = np.random.default_rng(0)
    options = dict(options)
    if "represented" in options:
        options["represented"] = mixture(9, 77, 6)
        options["weights"] = rng.uniform(0, 1, 77)
    if "quality" in options:
        options["quality"] = rng.uniform(0.5, 1, 130)
    p = Problem(mixture(8, 130, 6), 30, options)
    assert_greedy(facility_location(p.x, 30, form=form, block=16, **options), reference.facility_location, p)


def test_facility_location_half_pass_over_many_tiles(monkeypatch):
    monkeypatch.setattr(cover, "_TILES", {True: 32, False: 48})
    p = Problem(mixture(8, 135, 7), 30, {"labelled": [1, 2]})
    for form in ("resident", "tiled"):
        assert_greedy(facility_location(p.x, 30, form=form, labelled=[1, 2]), reference.facility_location, p)


@pytest.mark.parametrize("ridge", [1e-4, 0.1])
def test_d_optimal_does_not_drift_over_thousands_of_picks(ridge):
    """Every one of 3,000 picks in 24 dimensions is greedy in float64, whatever the ridge."""
    x = mixture(9, 4000, 24)
    big = x.astype(np.float64)
    ridge = float(np.float32(ridge * np.square(big - big.mean(0)).sum(1).mean()))
    picks = d_optimal(x, 3000, ridge=ridge)
    gram, free = ridge * np.eye(24), np.ones(len(x), bool)
    for t, (j, gain) in enumerate(zip(np.asarray(picks.indices), np.asarray(picks.gains), strict=True)):
        if t % 20 == 0:
            leverage = np.einsum("ij,ij->i", big @ np.linalg.inv(gram), big)
            assert leverage[free].max() <= leverage[j] * (1 + 1e-4)
            assert gain == pytest.approx(np.log1p(leverage[j]), rel=2e-3)
        gram += np.outer(big[j], big[j])
        free[j] = False


def test_d_optimal_after_many_labelled_rows():
    x = mixture(10, 3000, 12)
    rows = np.arange(0, 3000, 2)
    p = Problem(x, 20, {"labelled": rows.tolist(), "ridge": 1e-3})
    assert_greedy(d_optimal(x, 20, labelled=rows, ridge=1e-3), reference.d_optimal, p)


@pytest.mark.parametrize(("d", "ridge", "budget"), [(200, 1e-5, 420), (50, 1e-7, 120)])
def test_d_optimal_with_a_ridge_at_rounding_still_fills_the_budget(d, ridge, budget):
    x = np.random.default_rng(1).standard_normal((2000, d)).astype(np.float32)
    picks = np.asarray(d_optimal(x, budget, ridge=ridge).indices)
    assert (picks >= 0).all() and len(set(picks.tolist())) == budget
