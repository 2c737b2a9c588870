"""The facility-location family: worked examples, float64 greedy on random problems, matrices of one's own."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kernel_cases import mixture

from edjax.kernels import (
    METHODS,
    AtMost,
    Ground,
    KCenter,
    Plus,
    cobra,
    facility_location,
    flcg,
    flmi,
    flqmi,
    gain,
    graph_cut,
    plan,
    reference,
    select,
    select_streamed,
    until,
    value,
)

TO_QUERIES = np.array([[0.9, 0.85, 0.2, 0.5, 0.0], [0.1, 0.1, 0.7, 0.5, 0.6]])  # (2 targets, 5 rows)
TO_POOL = np.array(
    [
        [1.0, 0.9, 0.1, 0.2, 0.0],
        [0.9, 1.0, 0.1, 0.3, 0.1],
        [0.1, 0.1, 1.0, 0.4, 0.8],
        [0.2, 0.3, 0.4, 1.0, 0.3],
        [0.0, 0.1, 0.8, 0.3, 1.0],
    ]
)
TO_EXISTING = np.array([[0.95, 0.9, 0.1, 0.2, 0.1]])


def picked(selection, indices, gains):
    assert selection.indices.tolist() == indices
    np.testing.assert_allclose(selection.gains, gains, atol=5e-5)


# By hand, with submodlib's gains


@pytest.mark.parametrize(
    ("eta", "indices", "gains"),
    [
        (0.0, [0, 2, 1, 3, 4], [1.0, 0.6, 0, 0, 0]),
        (0.1, [0, 2, 1, 4, 3], [1.09, 0.67, 0.085, 0.06, 0.05]),
        (1.0, [0, 2, 1, 4, 3], [1.9, 1.3, 0.85, 0.6, 0.5]),
    ],
)
def test_flqmi_by_hand(eta, indices, gains):
    picked(flqmi(None, None, 5, eta=eta, similarities=TO_QUERIES), indices, gains)


def test_flmi_by_hand():
    got = flmi(None, None, 3, similarities=TO_POOL, target_similarities=TO_QUERIES)
    picked(got, [1, 2, 3], [2.25, 1.2, 0.1])


@pytest.mark.parametrize(("nu", "indices", "gains"), [(1, [2, 3, 4], [1.8, 0.6, 0.2]), (0, [2, 0, 3], [2.4, 1.7, 0.6])])
def test_flcg_by_hand(nu, indices, gains):
    picked(flcg(None, 3, nu=nu, similarities=TO_POOL, existing_similarities=TO_EXISTING), indices, gains)


def test_cobra_by_hand():
    got = cobra(None, None, 4, group=[0, 0, 1, 0, 1], eta=0.1, balance=1, similarities=TO_QUERIES)
    picked(got, [0, 2, 1, 4], [2.09, 1.67, 0.4992, 0.4742])


def test_graph_cut_by_hand():
    s = [[1, 0.5, 0.2], [0.5, 1, 0.4], [0.2, 0.4, 1]]
    picked(graph_cut(None, 3, lam=0.4, similarities=s), [1, 0, 2], [1.5, 0.9, 0.72])
    picked(graph_cut(None, 3, lam=2.0, similarities=s), [1, 2, 0], [-0.1, -2.0, -3.1])


# Against greedy in float64


def problem(name, seed, form):
    """A pool with given rows, rows that hold NaN and rows that may not be picked, and knobs of the method."""
    method, rng = METHODS[name], np.random.default_rng([seed, 3])
    n, m = 40, 7
    columns = {"embedding": mixture(seed, n, 6)}
    columns["embedding"][[4, 30]] = np.nan
    target = {"embedding": mixture(seed, m, 6) + 0.5 * rng.normal(size=(m, 6)).astype(np.float32)}
    target["embedding"][2, 1] = np.inf
    if form == "matrix":
        columns, target = {"similarity": rng.normal(size=(n, n)) + 0.5}, {"similarity": rng.normal(size=(m, n)) + 0.5}
        columns["similarity"][:, 4], columns["similarity"][9] = np.nan, np.inf
        target["similarity"][2], target["similarity"][0, 30] = np.nan, np.nan
    for name_, low, high in (("weight", 0.5, 2), ("quality", 0.5, 2)):
        if name_ in method.takes:
            columns[name_] = rng.uniform(low, high, n)
    if "group" in method.takes:
        columns["group"] = rng.integers(0, 5, n)
    if method.targets and name != "cobra":
        target["weight"] = rng.uniform(0.5, 2, m)
    knobs = {k: float(rng.uniform(0, 1.5)) for k in method.shares}
    if form != "matrix":
        knobs |= {"similarity": form} | ({"form": "tiled"} if form == "rbf" and name != "graph_cut" else {})
    given, valid = rng.choice(n, 3, replace=False), rng.random(n) < 0.8
    return replace(method, **knobs), Ground(columns, valid, given, target if method.targets else None)


@pytest.mark.parametrize(
    ("name", "form", "problems"),
    [
        *((name, "cosine", 50) for name in ("flqmi", "flmi", "flcg", "cobra", "graph_cut")),
        *((name, "matrix", 50) for name in ("facility_location", "flmi", "graph_cut")),
        ("flcg", "rbf", 10),
    ],
)
def test_every_pick_is_greedy_in_float64(name, form, problems):
    for seed in range(problems):
        method, there = problem(name, seed, form)
        got = select(method, there, 15, block=8)
        picks, gains = np.asarray(got.indices), np.asarray(got.gains)
        assert len(set(picks.tolist())) == 15 and not set(picks.tolist()) & set(there.given.tolist())
        assert there.valid[picks].all()
        followed = reference.greedy(method, there, 15, follow=picks.tolist())
        scale = np.abs(followed.best).max()
        assert (followed.best - followed.gains).max() <= 2e-5 * scale, seed
        np.testing.assert_allclose(gains, followed.gains, rtol=1e-4, atol=2e-5 * scale)
        assert (np.diff(gains) <= 2e-5 * scale).all(), "a gain grew"
        assert value(method, there, picks) == pytest.approx(followed.gains.sum(), rel=1e-9)
        if "quality" not in there.columns:  # a set function
            assert value(method, there, picks[::-1]) == pytest.approx(followed.gains.sum(), rel=1e-9)


def test_conditional_gain_of_given_rows_is_facility_location():
    x, rows = mixture(1, 60, 9), [3, 17, 40]
    plain = facility_location(x, 20, similarity="cosine", labelled=rows)
    assert flcg(x, 20, labelled=rows).indices.tolist() == plain.indices.tolist()


def test_large_similarities_of_one_s_own_keep_their_digits():
    s = 1e6 * np.random.default_rng(0).random((3, 5))
    got = facility_location(None, 2, similarities=s, weights=[1.0, 2.0, 0.5], quality=np.ones(5))
    first = np.array([1.0, 2.0, 0.5]) @ s
    assert int(got.indices[0]) == first.argmax() and got.gains[0] == pytest.approx(first.max(), rel=1e-6)


def test_matrices_trace():
    s = jnp.stack([jnp.asarray(TO_QUERIES, jnp.float32), jnp.asarray(TO_QUERIES[:, ::-1], jnp.float32)])
    both = jax.jit(jax.vmap(lambda one: flqmi(None, None, 3, similarities=one).indices))(s)
    assert both.tolist() == [[0, 2, 1], [4, 2, 3]]


# What is refused, and what is said


@pytest.mark.parametrize("name", ["flqmi", "flmi", "cobra"])
def test_without_a_target(name):
    there = Ground({"embedding": np.eye(4)})
    for method in (METHODS[name], AtMost(METHODS[name]), Plus((KCenter(), METHODS[name]))):
        ground = there if not isinstance(method, AtMost) else Ground({**there.columns, "group": np.zeros(4, int)})
        with pytest.raises(ValueError, match="needs a target, rows to be like"):
            select(method, ground, 2)
    with pytest.raises(ValueError, match=f"{name} needs the rows on the device"):
        select_streamed(METHODS[name], np.eye(4), 2)


def test_a_sum_with_a_method_that_reads_a_target():
    there = Ground({"embedding": mixture(3, 30, 9)}, target={"embedding": mixture(4, 5, 9)})
    got = select(Plus((METHODS["flqmi"], METHODS["d_optimal"]), (1.0, 0.0)), there, 5)
    assert got.indices.tolist() == select(METHODS["flqmi"], there, 5).indices.tolist()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: flqmi(np.eye(3), np.ones((2, 4)), 1), "the target has 4 features, and x has 3"),
        (lambda: flqmi(np.eye(3), np.eye(3), 1, eta=-1.0), "eta must be a finite number of 0 or more, got -1.0"),
        (lambda: graph_cut(np.eye(3), 1, lam=np.nan), "lam must be a finite number"),
        (lambda: graph_cut(None, 1, similarities=np.ones((2, 3))), r"'similarity' must be \(2, 2\)"),
        (lambda: flqmi(np.eye(3), None, 1, similarities=np.ones((2, 4))), r"must be \(m, 3\), a row for each"),
        (lambda: flmi(None, None, 1, target_similarities=np.ones((2, 4))), "similarities are given of some rows"),
        (lambda: facility_location(np.eye(3), 1, similarities=np.ones((2, 3)), weights=np.ones(3)), "weights must"),
        (lambda: cobra(np.eye(3), np.eye(3), 1, group=[0, 1, 5]), "group must be from 0 to 2"),
        (lambda: facility_location(None, 1), "needs the column 'embedding'|no columns"),
    ],
)
def test_what_makes_no_sense_is_named(call, said):
    with pytest.raises(ValueError, match=said):
        call()


def test_a_target_that_is_spent_is_said():
    falling = np.linspace(2, 1, 20)
    for name in ("flqmi", "cobra"):
        assert "20 picks of a target of 3 rows" in METHODS[name].advise(falling, targets=3)
        assert METHODS[name].advise(falling, targets=4) is METHODS[name].advise(falling) is None
    assert "3 of 20 picks lower the cut" in METHODS["graph_cut"].advise(np.r_[np.ones(17), -1, -2, -3])


def test_plans_count_the_target():
    near, far = (plan("flqmi", 1000, 16, 10, represented=m) for m in (100, 200))
    assert far.flops == 2 * near.flops and near.flops == 4 * 1000 * 100 * 16
    assert plan("flmi", 1000, 16, 10, represented=100).flops == 2 * 1000 * 1100 * 16
    assert plan("graph_cut", 1000, 16, 10).form == "blocked"
    assert plan("flcg", 1000, 16, 10).bytes == plan("facility_location", 1000, 16, 10).bytes


# Values and stopping


def test_value_and_gain_of_any_method():
    x = mixture(5, 30, 9)
    there = Ground({"embedding": x}, given=np.array([2]))
    for name in ("k_center", "d_optimal"):
        got = select(METHODS[name], there, 6)
        picks = got.indices.tolist()
        assert value(METHODS[name], there, picks) == pytest.approx(float(got.gains.sum()), rel=1e-4)
        assert gain(METHODS[name], there, picks[:5], picks[5]) == pytest.approx(float(got.gains[5]), rel=1e-3)
    assert value(KCenter(), there, []) == 0.0
    x[7] = np.nan
    assert gain(METHODS["facility_location"], there, [], 7) == gain(KCenter(), there, [1], 7) == 0.0
    for rows, said in (([3, 3], "row 3, which is there twice"), ([2], "row 2, which is given"), ([30], "rows 0 to 29")):
        with pytest.raises(ValueError, match=said):
            value(KCenter(), there, rows)


def test_until():
    got = flqmi(None, None, 5, similarities=TO_QUERIES)
    assert [until(got, stop_gain=g) for g in (0, 0.55, 0.7, 1.8, 2)] == [5, 4, 3, 1, 0]
    assert [until(got, stop_gain=g, relative=True) for g in (0, 0.4, 0.5, 1)] == [5, 3, 2, 1]
    spread = select(KCenter(), Ground({"embedding": np.array([[0.0], [1.0], [9.0], [np.nan]])}), 4)
    assert until(spread, stop_gain=0.5, relative=True) == 2 and until(spread, stop_gain=0) == 3
    with pytest.raises(ValueError, match="must be a share"):
        until(got, stop_gain=2, relative=True)
    with pytest.raises(ValueError, match="finite number"):
        until(got, stop_gain=np.inf)
