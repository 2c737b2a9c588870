"""The control: designs save labels for a learner that is fixed, or something in them is broken."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))  # benchmarks/ is run from a checkout, not installed
from benchmarks import control
from benchmarks.control_table import control as tables
from edjax.pool import read_pool

INTENTS, SPLITS, BUDGETS = 24, 6, (20, 40, 80)


def test_the_probe_is_least_squares_in_its_dual():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 5)), rng.integers(0, 3, 60)
    x[:, 0] += 3 * y
    rows, held = np.arange(40), np.arange(40, 60)
    a = np.column_stack([x[rows], np.ones(40)])
    w = np.linalg.solve(a.T @ a + 0.3 * np.eye(6), a.T @ (y[rows][:, None] == np.arange(3)))
    guessed = (np.column_stack([x[held], np.ones(20)]) @ w).argmax(1)
    macro = np.mean([(guessed[y[held] == c] == c).mean() for c in range(3)])
    assert control.accuracy(x, y, rows, held, 0.3) == pytest.approx(macro)


def test_a_split_holds_a_third_of_every_label_out():
    y = np.repeat([0, 1, 2], (30, 9, 2))
    candidates, held = control.split(y, 0)
    assert np.bincount(y[held]).tolist() == [10, 3, 1] and len(np.intersect1d(candidates, held)) == 0
    assert (control.split(y, 0)[1] == held).all() and (control.split(y, 1)[1] != held).any()


def test_a_curve_that_needs_half_the_labels_saves_half():
    budgets, rng = (50, 100, 200, 400, 800), np.random.default_rng(0)
    noise = 0.004 * rng.normal(size=(2, 20, 5))
    level = 0.1 * np.log2(budgets)
    values = {"random": level + noise[0], "half": level + 0.1 + noise[1], "same": level + noise[1]}
    found = control.summary(values, budgets)
    half, same = found["savings"]["half"]["200"], found["savings"]["same"]["200"]
    assert half["share_saved"] == pytest.approx(0.5, abs=0.02) and half["low"] < 0.5 < half["high"]
    assert same["low"] < 0 < same["high"] and abs(same["share_saved"]) < 0.03
    assert found["null"]["200"]["low"] < 0 < found["null"]["200"]["high"] < 0.1


def test_whitened_facility_location_saves_labels(smollm2, shared, tmp_path, monkeypatch):
    """The small form of the control: some intents of CLINC150, a few splits. A design that broke fails it."""
    monkeypatch.setattr(control, "AT", (40,))
    whitened = [arm for arm in control.arms() if arm[1:] in (("random", "l2"), ("facility_location", "whiten"))]
    monkeypatch.setattr(control, "arms", lambda: whitened)
    pool = control.intents(read_pool(str(shared / "data" / "pool.parquet")), "clinc150")
    kept = sorted(set(pool.responses))[:INTENTS]
    pool = pool.take([i for i, r in enumerate(pool.responses) if r in kept])
    features, labels = control.scored(pool, tmp_path / "features"), list(pool.responses)
    found = control.measured(features, labels, range(SPLITS), BUDGETS)
    saved = found["savings"]["facility_location, whiten"]["40"]
    assert saved["low"] > 0 and saved["share_saved"] > found["null"]["40"]["high"], saved


def test_the_committed_control_is_what_its_cells_give():
    path = control.runner.RESULTS / "control.json"
    result = json.loads(path.read_text())
    for row in result["rows"]:
        values = {name: np.asarray(v) for name, v in row["cells"].items()}
        again = json.loads(json.dumps(control.summary(values, tuple(row["budgets"]))))
        for name, of_arm in again["savings"].items():
            for at, s in of_arm.items():
                assert s == pytest.approx(row["savings"][name][at], abs=1e-3), (row["job"], name, at)
    assert "random` against itself" in tables({"control": result})
