"""k-center with a front: the same picks as without, in every corner, for less work."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kernel_cases import SELECTORS, Problem, assert_greedy, mixture

from edjax.kernels import greedy, k_center
from edjax.kernels.geometry import points
from edjax.kernels.methods import front
from edjax.kernels.methods.k_center import objective

BLOCK, N = 8, 300  # small blocks, so that fronts wear out and are renewed many times


def fronted(x, budget, labelled=None, weights=None):
    pool = points(jnp.asarray(x))
    rows = None if labelled is None else jnp.asarray(labelled)
    weights = None if weights is None else jnp.asarray(weights, jnp.float32)
    plain = objective(pool, labelled=rows, weights=weights)
    square_weights = None if weights is None else jnp.square(weights)
    return greedy.maximize(front.with_front(plain, pool, budget, BLOCK, square_weights), budget, block=BLOCK)


@pytest.mark.parametrize("seed", range(12))
def test_same_picks_as_the_float64_twin(seed):
    rng = np.random.default_rng(seed)
    options = [{}, {"labelled": [3, 5, 250]}, {"weights": rng.uniform(0.2, 2, N)}][seed % 3]
    x = mixture(seed, N, [2, 7, 16, 40][seed % 4])
    assert front.pays(N, BLOCK, 1)
    assert_greedy(fronted(x, 200, **options), SELECTORS["k_center"][1], Problem(x, 200, options))


def test_copies_nan_and_a_pool_used_up():
    x = np.repeat(mixture(1, N // 10, 5), 10, axis=0)
    x[17] = np.nan
    picks = jax.jit(lambda x: fronted(x, N))(x)
    chosen = np.asarray(picks.indices)
    assert sorted(chosen.tolist()) == list(range(N)) and chosen[-1] == 17
    assert len(set((chosen[: N // 10] // 10).tolist())) == N // 10
    gains = np.asarray(picks.gains)
    assert (gains[N // 10 : -1] == 0).all() and gains[-1] == -np.inf


def test_fewer_distances_than_plain_greedy():
    """Counted as the rows whose bounds know of all picks at the end: most are left behind."""
    x = mixture(3, 4000, 24)
    pool = points(jnp.asarray(x))
    lazy = front.with_front(objective(pool), pool, 400, 32)
    commits = []

    def commit(state, bounds, block, order, count):
        state, bounds = lazy.commit(state, bounds, block, order, count)
        jax.debug.callback(lambda seen, total: commits.append((np.array(seen), int(total))), state.seen, state.total)
        return state, bounds

    jax.block_until_ready(greedy.maximize(lazy._replace(commit=commit), 400, block=32))
    jax.effects_barrier()
    seen, total = commits[-1]
    assert total == 400
    assert (seen == total).sum() < 0.25 * len(x)
    assert seen.mean() < 0.7 * total


def test_a_large_pool_takes_the_front_and_its_picks_are_the_same():
    x = mixture(4, 13_000, 8)
    assert front.pays(len(x), 512, 1) and not front.pays(len(x), 1024, 1)
    assert k_center(x, 300).indices.tolist() == k_center(x, 300, block=1024).indices.tolist()


def test_a_block_of_one():
    x = mixture(5, 2000, 3)
    picks = k_center(x, 100, block=1)
    assert picks.indices.tolist() == k_center(x, 100, block=500).indices.tolist()
    assert picks.refreshes <= 150
