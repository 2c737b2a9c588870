"""The settings of the default are tuned on splits of their own, each beside the default on the same held-out rows."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))  # benchmarks/ is run from a checkout, not installed
from benchmarks.evidence import tuning
from benchmarks.evidence.control import __main__ as control
from benchmarks.evidence.control import splits
from edjax.data.features import Features
from edjax.kernels.methods.facility_location import DEFAULT_BANDWIDTH
from edjax.selection import defaults


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(splits, "BUDGETS", (6, 12, 24))
    monkeypatch.setattr(splits, "AT", (12,))
    monkeypatch.setattr(tuning, "SEEDS", range(1000, 1003))
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(6), 15)
    x = (4 * np.eye(6, 10)[y] + rng.normal(size=(90, 10))).astype(np.float32)
    return Features(tuple(f"r{i}" for i in range(90)), x, {}, {}, "digest"), y


def test_the_splits_are_those_of_no_figure():
    assert not set(tuning.SEEDS) & set(range(control.SPLITS))


def test_the_default_that_is_tried_is_the_default(small):
    features, y = small
    found = tuning.curves(features, features, y, defaults.STRATEGY, tuning.OPTIONS["the default"])
    said = {"normalise": defaults.NORMALISE, "whiten_dims": defaults.WHITEN_DIMS, "bandwidth": DEFAULT_BANDWIDTH}
    assert found.shape == (3, 3)
    np.testing.assert_array_equal(found, tuning.curves(features, features, y, "facility_location", said))
    assert (found != tuning.curves(features, features, y, "facility_location", {"whiten_dims": 2})).any()


def test_a_line_sets_a_setting_beside_the_default_split_by_split(small):
    rng = np.random.default_rng(1)
    default = np.sort(rng.random((3, 3)), 1)
    values = {"random": default - 0.05, "the default": default, "better": default + 0.02}
    first, second, null = tuning.lines(values)
    assert first[:2] == ["the default", f"{default[:, 1].mean():.3f}"]
    assert null[0] == "random against itself"
    assert second[1] == f"{default[:, 1].mean() + 0.02:.3f} (+2.0, +2.0 to +2.0)"
    assert tuning.shown("small", values).count("\n") == 4
