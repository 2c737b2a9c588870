"""k-means against its float64 twin, and on bad and degenerate pools."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kernel_cases import mixture

from edjax.kernels import geometry, kmeans, reference


@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_lloyd_is_the_twins(offset):
    x = mixture(0, 200, 5, clusters=6) + np.float32(offset)
    initial = jnp.asarray(x[:6])
    ours = kmeans(x, 6, initial=initial, iterations=4)
    centres, labels = reference.lloyd(x, np.asarray(initial), 4)
    assert (np.asarray(ours.labels) == labels).mean() > 0.99
    np.testing.assert_allclose(ours.centres, centres, atol=1e-3 + 1e-6 * offset)
    assert ours.counts.tolist() == np.bincount(ours.labels, minlength=6).tolist()


def test_well_separated_clusters_are_found():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 8, 400)
    x = (50 * np.eye(8)[truth] + rng.normal(size=(400, 8))).astype(np.float32)
    labels = np.asarray(kmeans(x, 8, key=jax.random.key(3)).labels)
    assert len(set(zip(truth.tolist(), labels.tolist(), strict=True))) == 8


def test_iterations_do_not_raise_the_cost():
    x = mixture(1, 300, 6)
    costs = [float(kmeans(x, 10, iterations=i).distances.sum()) for i in (0, 5)]
    assert costs == sorted(costs, reverse=True)


def test_bad_rows_have_no_label_and_no_weight():
    x = mixture(2, 60, 4)
    spoiled = np.concatenate([x, np.full((3, 4), np.nan, np.float32)])
    initial = jnp.asarray(x[:5])
    with_bad, without = kmeans(spoiled, 5, initial=initial), kmeans(x, 5, initial=initial)
    assert with_bad.labels.tolist() == [*without.labels.tolist(), -1, -1, -1]
    np.testing.assert_allclose(with_bad.centres, without.centres, atol=1e-4)


def test_fewer_distinct_rows_than_clusters():
    found = kmeans(np.ones((9, 2), np.float32), 4)
    assert np.isfinite(found.centres).all()
    assert found.counts.tolist() == [9, 0, 0, 0]


def test_vmap_and_tiles(monkeypatch):
    stack = jnp.stack([mixture(s, 83, 4) for s in range(3)])
    stacked = jax.vmap(lambda x: kmeans(x, 5, iterations=3))(stack)
    monkeypatch.setattr(geometry, "_WHOLE_ELEMENTS", 0)
    monkeypatch.setattr(geometry, "_TILE_ELEMENTS", 100)
    for i, x in enumerate(stack):
        assert stacked.labels[i].tolist() == kmeans(x, 5, iterations=3).labels.tolist()


def test_bad_arguments_are_named():
    x = mixture(0, 20, 3)
    for call, says in [
        (lambda: kmeans(x, 0), "0"),
        (lambda: kmeans(x, 21), "21"),
        (lambda: kmeans(x, 2.5), "2.5"),
        (lambda: kmeans(x, 3, iterations=-1), "-1"),
        (lambda: kmeans(x, 3, initial=jnp.zeros((2, 3))), r"\(2, 3\)"),
    ]:
        with pytest.raises(ValueError, match=says):
            call()
