"""Whitened features and groups made of clusters."""

import numpy as np
import pytest

from edjax.data.features import Features
from edjax.keep.errors import UsageError
from edjax.kernels import reference
from edjax.kernels.measure import dimensions
from edjax.selection.choose import Chooser, select
from edjax.selection.options import Options
from edjax.selection.prepared import prepare
from edjax.selection.strategies import STRATEGIES


@pytest.fixture
def x():
    """Rows with an offset and a spectrum as wide as that of hidden states."""
    rng = np.random.default_rng(0)
    return (
        rng.normal(size=(400, 24)) * np.geomspace(30, 0.1, 24) @ np.linalg.qr(rng.normal(size=(24, 24)))[0] + 50
    ).astype(np.float32)


def features(x, **facts):
    return Features(
        tuple(f"r{i}" for i in range(len(x))), x, {}, {k: np.asarray(v) for k, v in facts.items()}, "digest"
    )


@pytest.mark.parametrize("rows", [None, np.arange(100, 300)])
def test_whitened_rows_are_those_of_the_definition(x, rows):
    got = prepare(x, "whiten", 10, rows)
    assert got.shape == (400, 10) and got.dtype == np.float32
    np.testing.assert_allclose(got, reference.prepare(x, "whiten", 10, fitted_on=rows), atol=2e-4)
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1, rtol=1e-5)


def test_whitening_sees_neither_scale_nor_turn(x):
    """Picks are the same when features are scaled, or shifted."""
    picks = select(features(x), "k_center", 20, normalise="whiten", whiten_dims=12).indices
    for other in (x * np.float32(8), x + np.float32(16)):
        assert (select(features(other), "k_center", 20, normalise="whiten", whiten_dims=12).indices == picks).all()


def test_directions_without_variance_and_few_rows(x):
    flat = np.concatenate([x[:, :6], x[:, :6]], axis=1)  # twelve features, six directions
    assert prepare(flat, "whiten").shape == (400, 6)
    assert (dimensions(400, 576, 200), dimensions(4000, 576, 200), dimensions(4000, 64, 200)) == (100, 200, 64)
    assert dimensions(3, 576, 200) == 1
    same = np.ones((8, 3), np.float32)
    assert (prepare(same, "whiten") == np.zeros((8, 1))).all()
    assert len(select(features(same), "k_center", 3, normalise="whiten")) == 3


@pytest.mark.parametrize("offset", [0, 1e2, 1e4])
def test_rounding_far_from_zero_is_no_direction(offset):
    rng = np.random.default_rng(3)
    x = (rng.normal(size=(300, 3)) @ rng.normal(size=(3, 20)) + offset).astype(np.float32)
    assert prepare(x, "whiten").shape == (300, 3)


def test_whitening_is_fitted_on_all_rows_that_are_looked_at(x):
    """On labelled ones too, so that two rounds see one space; not on those that are left out."""
    rows = np.concatenate([x, np.full((2, 24), np.nan, np.float32)])

    def seen(**more):
        asked = Options(whiten_dims=12, drop_invalid=True, **more)
        return Chooser(features(rows), asked)._part(STRATEGIES["k_center"]).prepared().rows

    np.testing.assert_array_equal(seen(), prepare(x, "whiten", 12))
    np.testing.assert_array_equal(seen(labelled=tuple(f"r{i}" for i in range(60))), seen())


@pytest.mark.parametrize("strategy", ["k_center", "d_optimal", "facility_location"])
def test_two_whitened_rounds_are_one(x, strategy):
    whole = select(features(x), strategy, 60)
    second = select(features(x), strategy, 30, labelled=whole.ids[:30])
    assert whole.ids[30:] == second.ids


def test_clusters_as_groups():
    rng = np.random.default_rng(1)
    place = np.repeat(np.arange(5), (100, 50, 25, 12, 13))
    x = (10 * np.eye(8)[place] + 0.01 * rng.normal(size=(200, 8))).astype(np.float32)
    got = select(features(x), "random", 20, group_by="cluster:5", quotas="balanced", normalise="centre")
    assert np.bincount(place[got.indices]).tolist() == [4, 4, 4, 4, 4]
    same = select(features(x, task=place), "random", 20, group_by="task", quotas="balanced", normalise="centre")
    assert sorted(place[same.indices]) == sorted(place[got.indices])
    again = select(features(x), "random", 20, group_by="cluster:5", quotas="balanced", normalise="centre")
    assert again.ids == got.ids


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"group_by": "cluster:0"}, "how many clusters"),
        ({"group_by": "cluster:many"}, "how many clusters"),
        ({"group_by": "cluster:401"}, "401 clusters of 400 rows"),
        ({"whiten_dims": 0}, "at least 1 dimension"),
        ({"whiten_dims": 1.5}, "not a whole number"),
    ],
)
def test_what_makes_no_sense_is_refused(x, options, said):
    with pytest.raises(UsageError, match=said):
        select(features(x), "k_center", 4, **options)


def test_what_is_not_read_is_not_recorded():
    assert "whiten_dims" not in Options(normalise="l2").record()
    assert Options().record()["whiten_dims"] == 200
    assert (Options(group_by="task").group_column, Options(group_by="cluster:3").group_column) == ("task", None)
