"""The benchmark of choices in parts: its values are what it says, and it runs."""

import json
import sys
from pathlib import Path

import numpy as np
from click.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent.parent))  # benchmarks/ is run from a checkout, not installed
from benchmarks.selectors import partitions
from edjax.kernels import reference


def test_the_values_are_those_of_the_definitions():
    x = np.random.default_rng(0).normal(size=(90, 5)).astype(np.float32)
    picks = np.asarray([3, 70, 12, 55])
    gains = reference.facility_location(x, 4, follow=picks).gains
    np.testing.assert_allclose(partitions.coverage(x, picks), gains.sum(), rtol=1e-5)
    far = np.linalg.norm(x[:, None] - x[picks], axis=2).min(axis=1).max()
    np.testing.assert_allclose(partitions.smallness(x, picks), 1 / far, rtol=1e-5)
    some = np.linalg.eigvalsh(np.eye(4) + x[picks].astype(float) @ x[picks].T.astype(float) / partitions.RIDGE)
    np.testing.assert_allclose(partitions.information(x, picks), np.log(some).sum(), rtol=1e-5)


def test_a_small_run(tmp_path, monkeypatch):
    monkeypatch.setattr(partitions, "PARTS", (1, 3))
    asked = ["--rows", "200", "--budget", "6", "--strategies", "k_center", "--out", str(tmp_path / "p.json")]
    done = CliRunner().invoke(partitions.main, asked, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    rows = {r["job"]: r for r in json.loads((tmp_path / "p.json").read_text())["rows"]}
    assert rows["k_center in 1"]["share"] == 1 and 0.5 < rows["k_center in 3"]["share"] < 1.5
    assert "k_center, random" in rows
