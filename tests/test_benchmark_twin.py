"""The twin: pools whose classes are of unlike size, and what is said of them."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))  # benchmarks/ is run from a checkout, not installed
from benchmarks.evidence import twin
from benchmarks.evidence.control.splits import summary
from benchmarks.harness import runner
from benchmarks.pages import twin_table
from edjax.data.features import Features

CLASSES, EACH, BUDGETS = 16, 60, (16, 32, 64, 128)


@pytest.fixture(scope="module")
def blobs():
    """Classes that lie apart in a few directions each, and noise in the rest."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(CLASSES), EACH)
    x = (rng.normal(size=(CLASSES, 24))[y] + 1.6 * rng.normal(size=(len(y), 24))).astype(np.float32)
    return Features(tuple(map(str, range(len(y)))), x, {}, {}, ""), y


def test_sizes_follow_the_power_within_what_there_is():
    capacity = np.r_[np.full(10, 300), np.full(30, 40)]
    alike, steep = (twin.sizes(capacity, power, 400, 3) for power in (0.0, 1.0))
    assert (alike == 10).all() and steep.sum() == 400 and (steep <= capacity).all() and steep.min() >= 1
    ranked = np.sort(steep)[::-1]
    assert ranked[0] / ranked[3] == pytest.approx(4, rel=0.1) and np.argmax(steep) < 10
    assert (twin.sizes(capacity, 1.0, 400, 3) == steep).all() and (twin.sizes(capacity, 1.0, 400, 4) != steep).any()
    assert twin.effective(alike) == pytest.approx(40) and twin.effective(steep) < 25


def test_a_head_that_nobody_can_fill_goes_to_the_others():
    found = twin.sizes(np.array([50, 8, 8, 8]), 3.0, 70, 0)
    assert found.tolist() == [50, *found[1:]] and found.sum() == 70 and found[1:].max() == 8


def test_draws_hold_out_rows_of_every_class_and_share_none(blobs):
    y = blobs[1]
    candidates, held = twin.drawn(y, 1.0, 160, 0)
    assert len(candidates) == 160 and not np.intersect1d(candidates, held).size
    assert (np.bincount(y[held]) == twin.MOST_HELD).all() and len(np.unique(y[candidates])) == CLASSES
    again = twin.drawn(y, 1.0, 160, 0)
    assert (candidates == again[0]).all() and (twin.drawn(y, 1.0, 160, 1)[1] != held).any()


def test_balance_pays_where_classes_are_of_unlike_size(blobs, monkeypatch):
    """The small form: class quotas save more of a long tail than of classes alike, where all classes count alike."""
    monkeypatch.setattr("benchmarks.evidence.control.splits.AT", (64,))
    monkeypatch.setattr(twin, "ARMS", twin.ARMS[:3])
    alike, steep = (twin.measured(*blobs, power, 160, range(6), BUDGETS) for power in (0.0, 1.5))
    assert alike["effective"] == pytest.approx(CLASSES) and steep["effective"] < 0.7 * CLASSES
    saved = {(row["power"], w): row[w]["savings"] for row in (alike, steep) for w in twin.WEIGHTS}
    quotas = {k: s["random in class quotas"]["64"] for k, s in saved.items()}
    assert quotas[1.5, "macro"]["low"] > 0
    assert quotas[1.5, "macro"]["share_saved"] > quotas[0.0, "macro"]["share_saved"] + 0.1
    assert quotas[1.5, "macro"]["share_saved"] > (quotas[1.5, "as the candidates"]["share_saved"] or -1)
    same = twin.measured(*blobs, 1.5, 160, range(6), BUDGETS)
    assert same == steep


def test_the_committed_twin_is_what_its_cells_give():
    result = json.loads((runner.RESULTS / "twin.json").read_text())
    for row in result["rows"]:
        for weights in twin.WEIGHTS:
            part = row[weights]
            values = {name: np.asarray(v) for name, v in part["cells"].items()}
            assert set(values) == {arm.name for arm in twin.ARMS} and len(values["random"]) == result["seeds"] >= 10
            again = json.loads(json.dumps(summary(values, tuple(part["budgets"]))))
            for name, of_arm in again["savings"].items():
                for at, s in of_arm.items():
                    assert s == pytest.approx(part["savings"][name][at], abs=1e-3), (row["job"], weights, name, at)
    shown = twin_table.twin({"twin": result})
    assert "random in class quotas" in shown and "`random` against itself" in shown
