"""Feature-based functions, GIST and FisherSFT: worked examples, and 50 random problems against float64."""

import numpy as np
import pytest
from kernel_cases import mixture

from edjax.kernels import AtMost, DOptimal, FeatureBased, Fisher, Gist, Ground, Scaled, plan, select
from edjax.kernels.contract import check_method
from edjax.kernels.reference import greedy
from edjax.kernels.streamed import select_streamed


def assert_greedy(method, there, budget, seed):
    """Each pick has the largest gain in float64, and reports it."""
    got = select(method, there, budget)
    trace = greedy(method, there, budget, follow=got.indices.tolist())
    assert (trace.best - trace.gains <= 2e-5 * trace.best).all(), seed
    np.testing.assert_allclose(got.gains, trace.gains, rtol=2e-5, atol=2e-6 * trace.best[0], err_msg=str(seed))


# Feature-based

COUNTS = np.array([[4, 0, 0], [0, 4, 0], [2, 2, 0], [0, 0, 1], [3, 1, 0]])


def test_feature_based_worked_example():
    got = select(FeatureBased(column="counts"), Ground({"counts": COUNTS}), 3)
    assert got.indices.tolist() == [2, 4, 3]
    np.testing.assert_allclose(got.gains, [2.8284, 1.1397, 1.0], atol=5e-5)


@pytest.mark.parametrize("concave", ["sqrt", "log1p", "min"])
def test_feature_based_is_greedy_on_50_problems(concave):
    for seed in range(50):
        rng = np.random.default_rng(seed)
        counts = rng.poisson(1.0, (60, 8)) * rng.uniform(0.5, 2, (60, 8))
        weights = rng.uniform(0.1, 1, 8)
        if seed % 2:
            method, there = FeatureBased(concave, 3.0, "counts", weights), Ground({"counts": counts})
        else:
            method, there = FeatureBased(concave, 4.0), Ground({"embedding": mixture(seed, 60, 8)})
        assert_greedy(method, there, 15, seed)


def test_the_embedding_s_features_are_its_two_signs():
    x = mixture(3, 60, 4)
    both = np.concatenate([np.maximum(x, 0), np.maximum(-x, 0)], axis=1)
    weights = np.random.default_rng(3).uniform(0.1, 1, 8)
    one = select(FeatureBased(weights=weights), Ground({"embedding": x}), 15)
    other = select(FeatureBased(column="counts", weights=weights), Ground({"counts": both}), 15)
    assert one.indices.tolist() == other.indices.tolist()


# GIST


def test_gist_worked_example():
    x, u = np.array([[0.0], [0.1], [1], [1.05], [3]]), np.array([1, 0.99, 0.5, 0.6, 0.2])
    got = select(Gist(strength=0.5, utility="u"), Ground({"embedding": x, "u": u}), 2)
    rows = got.indices.tolist()
    assert rows == [0, 4] and u[rows].sum() + 0.5 * abs(x[0] - x[4])[0] == pytest.approx(2.7)
    pairs = [u[i] + u[j] + 0.5 * abs(x[i] - x[j])[0] for i in range(5) for j in range(i)]
    assert max(pairs) == pytest.approx(2.7)


def test_gist_is_its_definition_on_50_problems():
    fewer = 0
    for seed in range(50):
        u = np.random.default_rng(seed).uniform(0, 1, 60).astype(np.float32)
        there = Ground({"embedding": mixture(seed, 60, 6), "u": u})
        method = Gist(strength=float(10 ** (seed % 5 - 2)), utility="u")
        got = select(method, there, 9).indices.tolist()
        rows = method.picks(there, 9)
        assert got == rows + [-1] * (9 - len(rows)), seed
        fewer += len(rows) < 9
    assert 5 < fewer < 45


def test_gist_is_at_least_half_of_the_best():
    from itertools import combinations

    for seed in range(8):
        x, u = mixture(seed, 12, 2), np.random.default_rng(seed).uniform(0, 1, 12)
        far = np.linalg.norm(x[:, None] - x, axis=2)

        def worth(rows, far=far, u=u):
            near = [far[i, j] for i in rows for j in rows if i < j]
            return u[list(rows)].sum() + 0.3 * min(near, default=far.max())

        got = select(Gist(strength=0.3, utility="u"), Ground({"embedding": x, "u": u}), 4).indices.tolist()
        best = max(worth(rows) for k in range(1, 5) for rows in combinations(range(12), k))
        assert worth([i for i in got if i >= 0]) >= 0.4 * best


def test_gist_with_labelled_rows_keeps_its_distance_from_them():
    x, u = mixture(3, 61, 5), np.random.default_rng(3).uniform(0, 1, 61)
    there = Ground({"embedding": x, "mean_entropy": u}, given=np.array([3, 50]))
    for strength in (0.01, 1.0, 100.0):
        method = Gist(strength=strength)
        got = [j for j in select(method, there, 20).indices.tolist() if j >= 0]
        assert got == method.picks(there, 20) and not {3, 50} & set(got)
    check_method(method, there._replace(valid=np.arange(61) % 3 > 0), 20)


# FisherSFT

TOKENS = np.array([[[1, 0], [1, 0]], [[0, 1], [0, 0]], [[0.6, 0.6], [0, 0]], [[0, 0.9], [0.9, 0]]])


def test_fisher_worked_example():
    got = select(Fisher(ridge=1.0), Ground({"tokens": TOKENS}), 4)
    assert got.indices.tolist() == [3, 0, 1, 2]
    np.testing.assert_allclose(got.gains, [1.1867, 0.7443, 0.4399, 0.2010], atol=5e-5)


def tokens(seed, shape=(60, 3, 5)):
    """States of rows of one to `t` tokens, zeros after the last."""
    rng = np.random.default_rng(seed)
    h = rng.normal(size=shape) * rng.uniform(0.3, 2, (shape[0], 1, 1))
    length = rng.integers(1, shape[1] + 1, shape[0])
    return np.where(np.arange(shape[1])[:, None] < length[:, None, None], h, 0).astype(np.float32)


@pytest.mark.parametrize("per_token", [False, True])
def test_fisher_is_greedy_on_50_problems(per_token):
    for seed in range(50):
        ridge = float(np.exp(np.random.default_rng(seed).uniform(-4, 2)))
        assert_greedy(Fisher(ridge, per_token), Ground({"tokens": tokens(seed)}), 15, seed)


def test_fisher_of_more_tokens_than_dimensions():
    assert_greedy(Fisher(), Ground({"tokens": tokens(7, (40, 6, 3))}), 15, 7)


def test_fisher_of_one_token_is_d_optimal():
    x = mixture(4, 60, 6)
    one = select(Fisher(ridge=0.5), Ground({"tokens": x[:, None]}), 15)
    other = select(DOptimal(ridge=0.5), Ground({"embedding": x}), 15)
    assert one.indices.tolist() == other.indices.tolist()
    np.testing.assert_allclose(one.gains, other.gains, rtol=1e-4)


def test_rows_whose_tokens_hold_nan_come_last():
    h = tokens(5)
    h[[4, 9]] = np.nan
    got = select(Fisher(), Ground({"tokens": h}, given=np.array([9])), 59)
    assert int(got.indices[-1]) == 4 and np.isfinite(got.gains[:-1]).all() and got.gains[-1] == -np.inf


# All


def test_what_makes_no_sense_is_refused():
    x, group = mixture(0, 20, 3), np.zeros(20, int)
    there = Ground({"embedding": x, "counts": x, "tokens": x, "mean_entropy": x[:, 0], "group": group})
    fine = there._replace(columns={**there.columns, "mean_entropy": np.ones(20)})
    for method, ground, said in [
        (FeatureBased("cube"), there, "concave must be one of sqrt, log1p, min, got 'cube'"),
        (FeatureBased(column="counts"), there, "counts must be 0 or more, and row"),
        (FeatureBased(weights=np.ones(3)), there, r"weights must have shape \(6,\)"),
        (FeatureBased(cap=0), there, "cap must be a positive"),
        (Fisher(), there, r"tokens must have shape \(20, \*, \*\), got"),
        (Fisher(ridge=0), there._replace(columns={"tokens": x[:, None]}), "ridge must be a positive"),
        (Gist(), there, "mean_entropy must be finite and not negative"),
        (Gist(strength=-1.0), fine, "strength must be a finite number of 0 or more"),
        (Gist(epsilon=1.0), fine, "epsilon must be above 0 and below 1"),
        (AtMost(Gist()), fine, "no method can go around it"),
    ]:
        with pytest.raises(ValueError, match=said):
            select(method, ground, 2)
    for method in (FeatureBased(), Fisher(), Gist()):
        with pytest.raises(ValueError, match=f"{method.name} needs the rows on the device"):
            select_streamed(method, x, 2)


@pytest.mark.parametrize("method", [FeatureBased(), Fisher()], ids=lambda m: m.name)
def test_methods_go_around_them(method):
    columns = {"embedding": mixture(0, 61, 5), "tokens": tokens(0, (61, 3, 4)), "group": np.arange(61) % 4}
    got = select(AtMost(method, each=2), Ground(columns), 8).indices.tolist()
    assert sorted(np.asarray(got) % 4) == [0, 0, 1, 1, 2, 2, 3, 3]
    quality = np.random.default_rng(0).uniform(0.5, 2, 61)
    assert_greedy(Scaled(method), Ground({**columns, "quality": quality}), 8, 0)


@pytest.mark.parametrize("name", ["go", "sal", "rds_plus", "rocket", "feature_based", "gist", "fisher"])
def test_a_plan_says_what_it_will_take(name):
    made = plan(name, 20_000, 384, 500, represented=64)
    assert made.form == "resident" and made.bytes >= 8 * 20_000 * 384 and name in made.says
    with pytest.raises(ValueError, match="form must be 'auto' or 'resident', got 'streamed'"):
        plan(name, 20_000, 384, 500, form="streamed")
