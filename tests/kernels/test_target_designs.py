"""Methods that choose for given targets: GO and SAL against explicit inverses, and their worked examples."""

import numpy as np
import pytest
from kernel_cases import mixture

from edjax.kernels import AtMost, Go, Ground, Sal, select
from edjax.kernels.reference import greedy

X = np.array([[1, 0], [0, 1], [1, 1], [2, 0], [0.1, 3]])
Z = np.array([[0, 1], [1, 0.2]])
LEFT = {"max": [0.6667, 0.5172, 0.1664], "mean": [0.5460, 0.1509, 0.1299]}


@pytest.mark.parametrize(("aggregate", "rows"), [("max", [2, 4, 3]), ("mean", [4, 3, 2])])
def test_go_s_worked_example(aggregate, rows):
    got = select(Go(aggregate=aggregate, noise=1.0), Ground({"embedding": X}, target={"embedding": Z}), 3)
    assert got.indices.tolist() == rows
    before = getattr(np, aggregate)(np.sum(Z * Z, axis=1))
    np.testing.assert_allclose(before - np.cumsum(got.gains), LEFT[aggregate], atol=6e-5)


def brute(x, z, noise, tau, of, budget, given=()):
    """argmin over rows of the variance left, each by the inverse of its own matrix: the formula as it stands."""
    rows, left = list(given), []
    for _ in range(budget):
        best = []
        for i in range(len(x)):
            some = x[[*rows, i]]
            sigma = np.linalg.inv(np.eye(x.shape[1]) / tau**2 + some.T @ some / noise)
            best.append(np.inf if i in rows else of([v @ sigma @ v for v in z]))
        rows.append(int(np.argmin(best)))
        left.append(min(best))
    return rows[len(given) :], left


@pytest.mark.parametrize("aggregate", ["mean", "max"])
def test_the_definition_is_the_formula(aggregate):
    x, z = mixture(0, 40, 5).astype(np.float64), mixture(1, 6, 5).astype(np.float64)
    there = Ground({"embedding": x}, target={"embedding": z}, given=np.array([7, 2]))
    trace = greedy(Go(aggregate=aggregate, noise=0.7, tau=1.5), there, 8)
    of = np.mean if aggregate == "mean" else np.max
    rows, left = brute(x, z, 0.7, 1.5, of, 8, (7, 2))
    assert trace.indices.tolist() == rows
    np.testing.assert_allclose(-np.diff(left), trace.gains[1:], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("aggregate", ["mean", "max"])
def test_picks_are_greedy_on_50_problems(aggregate):
    for seed in range(50):
        rng = np.random.default_rng(seed)
        x, z = mixture(seed, 60, 6), mixture(seed + 1000, 5, 6)
        noise, tau = float(np.exp(rng.uniform(-6, 2))), float(rng.uniform(0.5, 2))
        there = Ground({"embedding": x}, target={"embedding": z})
        method = Go(aggregate=aggregate, noise=noise, tau=tau)
        got = select(method, there, 15)
        trace = greedy(method, there, 15, follow=got.indices.tolist())
        short = trace.best - trace.gains
        assert (short <= 2e-5 * trace.best).all(), (seed, short / trace.best)
        # Sigma's largest part is known to float32's rounding times its condition number, 1e5 at the least noise here;
        # and a difference of variances to the rounding of these.
        condition = 1 + np.linalg.norm(x[got.indices].astype(np.float64), 2) ** 2 * tau**2 / noise
        known = {"rtol": 2e-5 + 2.0**-24 * condition, "atol": 2.0**-22 * tau**2 * np.max(np.sum(z * z, axis=1))}
        np.testing.assert_allclose(got.gains, trace.gains, **known, err_msg=str(seed))


def test_picks_stay_greedy_beyond_a_refresh():
    x, z = mixture(3, 400, 6), mixture(4, 5, 6)
    there = Ground({"embedding": x}, target={"embedding": z})
    got = select(Go(noise=0.01), there, 300)
    trace = greedy(Go(noise=0.01), there, 300, follow=got.indices.tolist())
    assert ((trace.best - trace.gains) <= 2e-5 * trace.best).all()


def test_noise_too_small_for_float32_does_not_break_the_picks():
    x, z = mixture(5, 60, 6), mixture(6, 5, 6)
    for given in (None, np.array([1, 2, 3])):
        got = select(Go(noise=1e-12), Ground({"embedding": x}, target={"embedding": z}, given=given), 15)
        assert np.isfinite(got.gains).all() and len(set(got.indices.tolist())) == 15


def test_a_worst_target_that_no_row_knows_of_leaves_the_lowest_rows():
    x = np.array([[0.3, 0.1, 0], [2, 1, 0], [1, 5, 0]])
    got = select(Go(aggregate="max", noise=1.0), Ground({"embedding": x}, target={"embedding": np.eye(3)[2:]}), 3)
    assert got.indices.tolist() == [0, 1, 2] and got.gains.tolist() == [0, 0, 0]


def test_a_target_that_holds_nan_counts_for_nothing():
    x, z = mixture(7, 60, 6), mixture(8, 5, 6)
    holes = np.concatenate([z, np.full((2, 6), np.nan)])
    for aggregate in ("mean", "max"):
        method = Go(aggregate=aggregate, noise=1.0)
        one, other = (greedy(method, Ground({"embedding": x}, target={"embedding": t}), 15) for t in (z, holes))
        got = select(method, Ground({"embedding": x}, target={"embedding": holes}), 15)
        assert one.indices.tolist() == other.indices.tolist() == got.indices.tolist()


def test_pool_and_target_in_other_units_give_the_same_picks():
    x, z = mixture(7, 60, 6), mixture(8, 5, 6)
    one = select(Go(tau=2.0, noise=4.0), Ground({"embedding": x}, target={"embedding": z}), 15)
    other = select(Go(noise=1024.0**2), Ground({"embedding": x * 1024}, target={"embedding": z * 1024}), 15)
    assert one.indices.tolist() == other.indices.tolist()
    np.testing.assert_allclose(np.asarray(one.gains) * 1024**2 / 4, other.gains, rtol=1e-6)


# SAL


def sal_by_simulation(x, z, noise, budget, answers, rng):
    """As the paper has it, with a linear model: simulated answers, each appended, and the targets' entropy measured."""
    chosen, labels = [], []
    for _ in range(budget):
        worst = np.full(len(x), np.inf)
        for i in set(range(len(x))) - set(chosen):
            some = x[[*chosen, i]]
            sigma = np.linalg.inv(np.eye(x.shape[1]) + some.T @ some / noise)
            entropies = []
            for _ in range(answers):
                y = np.array([*labels, rng.normal()])
                mean = sigma @ some.T @ y / noise
                draws = z @ rng.multivariate_normal(mean, sigma, size=2).T  # the answers differ, their spread does not
                assert draws.shape == (len(z), 2)
                entropies.append(0.5 * np.log(2 * np.pi * np.e * np.einsum("kd,de,ke->k", z, sigma, z)))
            worst[i] = np.max(np.mean(entropies, axis=0))
        chosen.append(int(np.argmin(worst)))
        labels.append(rng.normal())
    return chosen


@pytest.mark.parametrize("answers", [1, 4])
def test_sal_is_go_whatever_is_simulated(answers):
    x, z = mixture(9, 12, 3), mixture(10, 4, 3)
    there = Ground({"embedding": x}, target={"embedding": z})
    picks = select(Sal(noise=0.5), there, 4).indices.tolist()
    assert picks == select(Go(aggregate="max", noise=0.5), there, 4).indices.tolist()
    assert picks == sal_by_simulation(x.astype(float), z.astype(float), 0.5, 4, answers, np.random.default_rng(0))


def test_what_makes_no_sense_is_refused():
    x = mixture(0, 201, 3)
    with pytest.raises(ValueError, match=r"sal is for up to 200 rows and 20 targets, got 201 and 3.*take Go"):
        select(Sal(), Ground({"embedding": x}, target={"embedding": x[:3]}), 2)
    with pytest.raises(ValueError, match=r"got 200 and 21"):
        select(Sal(), Ground({"embedding": x[:200]}, target={"embedding": x[:21]}), 2)
    there = Ground({"embedding": x}, target={"embedding": x[:3]})
    for method, ground, said in [
        (Go(), Ground({"embedding": x}), r"go needs a target, rows to be like: give Ground"),
        (AtMost(Go()), Ground({"embedding": x, "group": np.zeros(201, int)}), "needs a target"),
        (Go(aggregate="min"), there, "aggregate must be 'mean' or 'max', got 'min'"),
        (Go(noise=0), there, "noise must be a positive"),
        (Go(tau=-1.0), there, "tau must be a positive"),
        (Go(), there._replace(target={"embedding": x[:3, :2]}), "the target has 2 features, the rows have 3"),
        (Go(), there._replace(target={"embedding": x[:0]}), "the target has no rows"),
        (Go(), there._replace(target={"text": x}), "needs the column 'embedding' of the target"),
    ]:
        with pytest.raises(ValueError, match=said):
            select(method, ground, 2)
