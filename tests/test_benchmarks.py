"""The benchmark suite measures the same work on both sides, and writes what it needs to be repeated."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))  # benchmarks/ is run from a checkout, not installed
from benchmarks import plain, runner, selection
from edjax.kernels import reference


def test_the_plain_loops_are_greedy():
    x = selection.mixture(400, 16, centres=20)
    k = np.asarray(plain.k_center(x, budget=30))
    assert k.tolist() == reference.k_center(x, 30).indices.tolist()
    ridge = np.float32(5.0)
    d = np.asarray(plain.d_optimal(x, ridge, budget=30))
    assert d.tolist() == reference.d_optimal(x, 30, ridge=5.0).indices.tolist()


@pytest.mark.parametrize("kind", ["k_center-20k", "d_optimal-20k"])
def test_a_small_job(kind, monkeypatch, tmp_path):
    select, *_ = selection.JOBS[kind]
    monkeypatch.setitem(selection.JOBS, "small", (select, 300, 8, 20, 2))
    monkeypatch.setattr(runner, "RESULTS", tmp_path)
    row = selection.job("small")
    assert row["same_set"] == 20 and row["ratio"] > 0
    assert {len(t["runs_s"]) for t in row["timed"].values()} == {2}
    written = json.loads(runner.write("small", [row], machine=runner.machine(), seed=0).read_text())
    assert written["rows"][0]["job"] == "small" and written["machine"]["cores"] and "jax" in written["versions"]
