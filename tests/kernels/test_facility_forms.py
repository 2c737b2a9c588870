"""Facility location beyond the plain call: similarities kept in bfloat16, and stochastic greedy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kernel_cases import SELECTORS, mixture

from edjax.kernels import facility_location, stochastic


def value(x, picks, bandwidth=0.25):
    """F of a set, float64."""
    x = np.asarray(x, np.float64)
    d2 = np.square(x[:, None] - x[None]).sum(-1)
    return np.exp(-d2 / (bandwidth * d2.mean()))[:, np.asarray(picks)].max(1).sum()


@pytest.mark.parametrize("similarity", ["rbf", "cosine"])
def test_bfloat16_similarities_cost_less_than_a_percent(similarity):
    x = mixture(3, 600, 12)
    exact = facility_location(x, 60, similarity=similarity)
    rounded = facility_location(x, 60, similarity=similarity, similarity_dtype="bfloat16", form="resident")
    assert len(set(rounded.indices.tolist())) == 60
    total = float(exact.gains.sum())
    assert abs(float(rounded.gains.sum()) - total) < 0.01 * total
    if similarity == "rbf":
        assert value(x, rounded.indices) > 0.99 * value(x, exact.indices)


def test_bfloat16_sees_copies_as_copies():
    x = np.repeat(mixture(4, 12, 5), 20, axis=0)
    picks = facility_location(x, 12, similarity_dtype="bfloat16", form="resident").indices
    assert len({int(i) // 20 for i in picks}) == 12


def test_bfloat16_halves_what_is_kept():
    def temporary(dtype):
        call = jax.jit(lambda x: facility_location(x, 5, form="resident", similarity_dtype=dtype))
        return call.lower(jax.ShapeDtypeStruct((3000, 8), jnp.float32)).compile().memory_analysis().temp_size_in_bytes

    assert temporary("bfloat16") < temporary("float32") - 0.9 * 2 * 3000**2


def test_a_sample_of_everything_is_greedy():
    x = mixture(5, 120, 6)
    options = {"labelled": [3, 50], "quality": np.linspace(0.5, 1.5, 120)}
    greedy = facility_location(x, 40, **options)
    sampled = facility_location(x, 40, epsilon=1e-18, key=jax.random.key(0), **options)
    assert sampled.indices.tolist() == greedy.indices.tolist()
    np.testing.assert_allclose(sampled.gains, greedy.gains, rtol=1e-5)


@pytest.mark.parametrize("form", ["resident", "tiled"])
def test_stochastic_greedy(form):
    x = mixture(6, 500, 8)
    x[7] = np.nan
    picks = facility_location(x, 50, epsilon=0.1, key=jax.random.key(1), form=form, labelled=[0, 1])
    chosen = picks.indices.tolist()
    assert len(set(chosen)) == 50 and not {0, 1, 7} & set(chosen)
    again = facility_location(x, 50, epsilon=0.1, key=jax.random.key(1), form=form, labelled=[0, 1])
    assert again.indices.tolist() == chosen
    exact = facility_location(x, 50, labelled=[0, 1])
    assert 0.95 * exact.gains.sum() < picks.gains.sum() <= 1.0001 * exact.gains.sum()
    other = facility_location(x, 50, epsilon=0.1, key=jax.random.key(2), form=form, labelled=[0, 1])
    assert other.indices.tolist() != chosen


def test_stochastic_greedy_in_tiles_makes_no_first_pass():
    x = jax.ShapeDtypeStruct((4000, 64), jnp.float32)

    def flops(**options):
        call = jax.jit(lambda x: facility_location(x, 1, form="tiled", **options))
        return call.lower(x).compile().cost_analysis()["flops"]

    assert flops(epsilon=0.99, key=jax.random.key(0)) < 0.1 * 2 * 4000**2 * 64


def test_every_row_can_be_drawn_and_nan_comes_last():
    x = mixture(7, 30, 3)
    x[4] = np.inf
    picks = facility_location(x, 30, epsilon=0.5, key=jax.random.key(3))
    assert sorted(picks.indices.tolist()) == list(range(30))
    assert picks.indices[-1] == 4 and picks.gains[-1] == -np.inf


def test_stochastic_greedy_serves_every_objective():
    from edjax.kernels.geometry import points
    from edjax.kernels.methods.k_center import objective

    x = jnp.asarray(mixture(8, 200, 5))
    sampled = stochastic.maximize_stochastic(objective(points(x)), 20, sample=200, key=jax.random.key(0))
    assert sampled.indices.tolist() == SELECTORS["k_center"][0](x, 20).indices.tolist()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"epsilon": 0.1}, "needs key"),
        ({"epsilon": 1.5, "key": 0}, "epsilon must be a number between 0 and 1, got 1.5"),
        ({"similarity_dtype": "float16"}, "similarity_dtype must be"),
        ({"bandwidth": 0.0}, "bandwidth must be"),
    ],
)
def test_what_is_refused(options, said):
    with pytest.raises(ValueError, match=said):
        facility_location(np.ones((5, 2)), 2, **options)


@pytest.mark.parametrize("form", ["resident", "tiled"])
def test_a_quality_of_zero_is_drawn_last(form):
    x, quality = mixture(9, 300, 6), np.ones(300)
    quality[:150] = 0
    picks = facility_location(x, 10, quality=quality, epsilon=0.3, key=jax.random.key(0), form=form)
    assert (np.asarray(picks.indices) >= 150).all() and (np.asarray(picks.gains) > 0).all()
