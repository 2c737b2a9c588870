"""Pools that stay on the host."""

import numpy as np
import pytest
from kernel_cases import SELECTORS, Problem, assert_greedy, mixture

from edjax.kernels import (
    d_optimal,
    d_optimal_streamed,
    k_center,
    k_center_streamed,
    reference,
)

STREAMED = {"k_center": (k_center, k_center_streamed), "d_optimal": (d_optimal, d_optimal_streamed)}


@pytest.mark.parametrize("name", STREAMED)
@pytest.mark.parametrize("options", [{}, {"labelled": list(range(3, 300, 4))}])
def test_streamed_picks_are_the_resident_picks(name, options, tmp_path):
    resident, streamed = STREAMED[name]
    x = mixture(0, 1000, 12) + np.float32(5)
    x[17] = np.nan
    np.save(tmp_path / "pool.npy", x)
    on_disk = np.load(tmp_path / "pool.npy", mmap_mode="r")
    options = options | ({"centre": True} if name == "d_optimal" else {})
    ours, theirs = streamed(on_disk, 80, block=64, tile=300, **options), resident(x, 80, block=64, **options)
    assert ours.indices.tolist() == theirs.indices.tolist()
    np.testing.assert_allclose(ours.gains, theirs.gains, rtol=1e-3)
    assert 17 not in ours.indices


@pytest.mark.parametrize("labelled", [[], [3, 500]])
def test_streamed_k_center_takes_weights(labelled):
    x = mixture(0, 1000, 12) + np.float32(5)
    w = np.random.default_rng(0).uniform(0.2, 2.0, 1000).astype(np.float32)
    options = {"labelled": labelled, "weights": w}
    ours, plain = k_center_streamed(x, 80, block=64, tile=300, **options), k_center(x, 80, labelled=labelled)
    assert_greedy(ours, reference.k_center, Problem(x, 80, options))
    assert ours.indices.tolist() != plain.indices.tolist()
    with pytest.raises(ValueError, match="weights must have shape"):
        k_center_streamed(x, 2, weights=w[:5])


@pytest.mark.parametrize("name", STREAMED)
def test_streamed_picks_are_greedy_without_centring_too(name):
    _, streamed = STREAMED[name]
    x = mixture(0, 1000, 12) + np.float32(5)
    assert_greedy(streamed(x, 80, block=64, tile=300), SELECTORS[name][1], Problem(x, 80, {}))


@pytest.mark.parametrize("name", STREAMED)
def test_streamed_edges(name):
    _, streamed = STREAMED[name]
    x = mixture(0, 20, 3)
    assert streamed(x, 0).indices.shape == (0,)
    assert sorted(streamed(x, 20, block=7, tile=6).indices.tolist()) == list(range(20))
    with pytest.raises(ValueError, match="21"):
        streamed(x, 21)
    with pytest.raises(ValueError, match="2-dimensional"):
        streamed(x[0], 1)
    assert k_center_streamed(x, 2, first=4).indices[0] == 4
