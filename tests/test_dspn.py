"""A learned deep submodular function: monotone and submodular whatever its weights, and better for being learned."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from flax import nnx

from edjax.data.features import Features
from edjax.keep.errors import UsageError
from edjax.kernels import FacilityLocation, FeatureBased, Ground, Plus, Scaled, facility_location, measure, select
from edjax.kernels.contract import check_method
from edjax.kernels.reference import greedy
from edjax.selection import dspn
from edjax.selection.choose import select as choose
from edjax.selection.learned import Dspn
from edjax.selection.strategies import STRATEGIES

SMALL = Dspn(steps=8, width=12, sets=32)
KNOBS = "dspn:steps=8:width=12:sets=32"


def mixture(seed, n, d=6, kinds=8):
    """Unit rows of kinds of very unequal numbers."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, kinds, n) * rng.integers(0, 2, n)
    x = 2 * rng.normal(size=(kinds, d))[kind] + 0.7 * rng.normal(size=(n, d))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def any_function(seed, d=6, width=10):
    """A function whose parameters are all drawn at random."""
    graph, state = nnx.split(dspn.DeepSubmodular(jnp.asarray(mixture(seed, width, d))))
    rng = np.random.default_rng(seed)
    return nnx.merge(graph, jax.tree.map(lambda a: jnp.asarray(3 * rng.normal(size=a.shape), jnp.float32), state))


# By construction


@pytest.mark.parametrize("seed", range(8))
def test_it_is_monotone_and_submodular_whatever_its_parameters(seed):
    rng, x = np.random.default_rng(seed), mixture(seed, 20)
    model = any_function(seed)
    c = model.pillar(jnp.asarray(x))
    assert (np.asarray(c) >= 0).all() and (np.asarray(model.weights) >= 0).all()
    c64, w64 = np.asarray(c, np.float64), np.asarray(model.weights, np.float64)

    def f(rows):
        return np.log1p(c64[sorted(rows)].sum(axis=0)) @ w64

    for _ in range(30):
        large = set(rng.choice(19, rng.integers(1, 18), replace=False).tolist())
        small = set(list(large)[: rng.integers(0, len(large) + 1)])
        gain_small, gain_large = f(small | {19}) - f(small), f(large | {19}) - f(large)
        slack = 1e-9 * f(range(20))
        assert gain_small >= gain_large - slack and gain_large >= -slack
    members = np.zeros((1, 20), np.float32)
    members[0, sorted(large)] = 1
    assert float(model(c, jnp.asarray(members))[0]) == pytest.approx(f(large), rel=1e-5)
    check_method(dspn.by_features(model), Ground({"counts": np.asarray(c)}, given=np.array([3])), 8)


def test_the_loss_is_its_formula_in_float64():
    rng = np.random.default_rng(0)
    learned, oracle = rng.normal(size=200), rng.normal(size=200)
    oracle[:3] = 0
    got = dspn.peripteral(jnp.asarray(learned, jnp.float32), jnp.asarray(oracle, jnp.float32))
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        want = np.abs(oracle) * np.log1p(np.exp(1 - learned / oracle))
    want[:3] = 0
    ok = np.isfinite(want)
    np.testing.assert_allclose(np.asarray(got)[ok], want[ok], rtol=2e-5, atol=1e-6)
    slope = jax.grad(lambda d: dspn.peripteral(d, jnp.asarray(oracle, jnp.float32)).sum())(jnp.asarray(learned))
    assert np.isfinite(slope).all() and (np.sign(slope[3:]) == -np.sign(oracle[3:])).all(), "towards the oracle's side"
    assert not np.asarray(slope[:3]).any()


def test_the_loss_of_a_function_is_that_of_its_definition():
    x, model = mixture(2, 30), any_function(2)
    similarity = measure.rbf_similarity(jnp.asarray(x), jnp.asarray(x), 0.25)
    orders = jnp.asarray(np.random.default_rng(0).integers(0, 30, (2, 10)))
    pairs = dspn.draw(jax.random.key(1), similarity, orders, 16)
    s, members = np.asarray(similarity, np.float64), np.asarray(pairs.members)
    sizes = members.sum(axis=1)
    assert members.shape == (32, 30) and sizes.min() >= 1 and sizes.max() <= 10 and len(set(sizes)) > 3
    values = [s[:, row > 0].max(axis=1).mean() for row in members]
    np.testing.assert_allclose(pairs.values, values, rtol=1e-6)
    c, w = np.asarray(model.pillar(jnp.asarray(x)), np.float64), np.asarray(model.weights, np.float64)
    f = np.log1p(members @ c) @ w / (np.log1p(c.sum(axis=0)) @ w)
    at = np.array([0, 3, 3, 15])
    d, oracle = f[at] - f[16 + at], np.asarray(values)[at] - np.asarray(values)[16 + at]
    want = np.mean(np.abs(oracle) * np.logaddexp(0, 1 - d / oracle))
    assert float(dspn.loss(model, jnp.asarray(x), pairs, jnp.asarray(at))) == pytest.approx(want, rel=1e-4)


# Fitted


def test_learning_brings_its_picks_nearer_to_facility_location_s():
    x, budget = mixture(3, 240, 8, 40), 10  # well below the features' number, as its page says
    s = np.asarray(measure.rbf_similarity(jnp.asarray(x), jnp.asarray(x), 0.25))

    def worth(rows):
        return s[:, np.asarray(rows)].max(axis=1).sum() / s.shape[0]

    best = worth(facility_location(x, budget).indices)
    there = Ground({"embedding": x})
    begun = worth(select(Dspn(steps=0, width=48), there, budget).indices) / best
    learned = worth(select(Dspn(steps=120, width=48, sets=256), there, budget).indices) / best
    rng = np.random.default_rng(0)
    random = np.mean([worth(rng.choice(240, budget, replace=False)) for _ in range(20)]) / best
    assert learned > begun + 0.05 and learned > random + 0.05, (learned, begun, random)


def test_the_same_call_gives_the_same_picks_and_the_seed_counts():
    there = Ground({"embedding": mixture(4, 40)})
    first = select(SMALL, there, 20)
    again = select(SMALL, there, 20)
    assert first.indices.tolist() == again.indices.tolist() and first.gains.tolist() == again.gains.tolist()
    other = select(Dspn(steps=8, width=12, sets=32, seed=1), there, 20)
    assert first.indices.tolist() != other.indices.tolist()
    assert select(SMALL, there, 7).indices.tolist() == first.indices.tolist()[:7]


def test_its_gains_are_greedy_by_its_definition():
    there = Ground({"embedding": mixture(5, 40)}, given=np.array([2, 9]))
    got = select(SMALL, there, 6)
    picks = got.indices.tolist()
    assert not {2, 9} & set(picks)
    gains = SMALL.gains(there, [2, 9])
    gains[[2, 9]] = -1
    assert picks[0] == np.argmax(gains) and float(got.gains[0]) == pytest.approx(gains[picks[0]], rel=1e-4)


def test_a_part_of_a_sum_leaves_the_others_their_columns():
    x, rng = mixture(5, 40), np.random.default_rng(5)
    there = Ground({"embedding": x, "counts": rng.random((40, 3)).astype(np.float32)})
    both = Plus((SMALL, FeatureBased(column="counts"), FacilityLocation(), SMALL), (1.0, 0.5, 0.5, 1.0))
    got = select(both, there, 4)
    followed = greedy(both, there, 4, follow=got.indices.tolist())
    np.testing.assert_allclose(got.gains, followed.gains, rtol=1e-4)
    np.testing.assert_allclose(followed.gains, followed.best, rtol=1e-4)


def test_numpy_s_whole_numbers_are_whole_numbers():
    there = Ground({"embedding": mixture(5, 40)})
    ours = select(Dspn(steps=np.int64(8), width=np.int32(12), sets=32), there, 4)
    assert ours.indices.tolist() == select(SMALL, there, 4).indices.tolist()


def test_rows_that_hold_nan_come_last_and_are_not_learned_from():
    x = mixture(6, 40)
    broken = np.concatenate([x, np.full((3, 6), np.nan, np.float32)])
    got, plain = select(SMALL, Ground({"embedding": broken}), 43), select(SMALL, Ground({"embedding": x}), 40)
    assert got.indices.tolist()[:40] == plain.indices.tolist()
    none = select(SMALL, Ground({"embedding": broken[40:]}), 2)
    assert none.indices.tolist() == [0, 1]


@pytest.mark.parametrize("x", [np.ones((1, 6)), np.zeros((40, 6)), 1e6 * mixture(1, 40)])
def test_small_flat_and_large_rows(x):
    got = select(SMALL, Ground({"embedding": x}), len(x))
    assert sorted(got.indices.tolist()) == list(range(len(x))) and np.isfinite(got.gains).all()


def test_it_is_part_of_other_methods_and_not_of_a_trace():
    x = mixture(7, 40)
    quality = np.linspace(0.1, 2, 40).astype(np.float32)
    got = select(Scaled(SMALL, by="quality"), Ground({"embedding": x, "quality": quality}), 5)
    assert np.mean(got.indices) > np.mean(select(SMALL, Ground({"embedding": x}), 5).indices) - 5
    with pytest.raises(ValueError, match="call it outside jit and vmap"):
        jax.jit(lambda x: select(SMALL, Ground({"embedding": x}), 2).indices)(x)
    for wrong in ({"width": 0}, {"steps": 1.5}, {"sets": True}):
        with pytest.raises(ValueError, match="must be a whole number of"):
            select(Dspn(**wrong), Ground({"embedding": x}), 2)


# By name


def found(n=40):
    return Features(tuple(f"r{i}" for i in range(n)), mixture(8, n), {}, {"g": np.arange(n) % 2}, "d")


def test_it_is_a_strategy_with_knobs():
    assert "dspn" in STRATEGIES and STRATEGIES["dspn"].paper
    whole = choose(found(), KNOBS, 12)
    first = choose(found(), KNOBS, 5)
    assert first.ids == whole.ids[:5] and whole.strategy == KNOBS
    second = choose(found(), KNOBS, 7, labelled=first.ids)
    assert first.ids + second.ids == whole.ids, "two rounds are one choice"
    grouped = choose(found(), KNOBS, 8, group_by="g", quotas="balanced")
    assert sorted(np.asarray(grouped.indices) % 2) == [0] * 4 + [1] * 4
    for name, said in (
        ("dspn:width=0", "of 1 or more"),
        ("dspn:steps=-1", "of 0 or more"),
        ("dspn:depth=2", "no knob"),
    ):
        with pytest.raises(UsageError, match=said):
            choose(found(), name, 3)


def test_from_the_command_line(edjax_, tmp_path):
    x = mixture(9, 40)
    pq.write_table(pa.table({"id": [f"r{i}" for i in range(40)], "embedding": x.tolist()}), tmp_path / "f.parquet")
    asked = ["--strategy", KNOBS, "--budget", 4]
    code, out, err = edjax_("select", tmp_path / "f.parquet", *asked, "--out", tmp_path / "s", "--json")
    assert code == 0 and json.loads(out)["rows"] == 4, err
    code, out, err = edjax_("select", tmp_path / "f.parquet", *asked, "--dry-run")
    assert code == 0 and "dspn" in out and "GFLOP" in out, err
    code, out, err = edjax_("strategies")
    assert code == 0 and "steps=300, width=256, sets=1024, seed=0" in out
