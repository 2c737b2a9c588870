"""The benchmark of CoLM's update times what it says: the same model and rows on every side."""

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent.parent))  # benchmarks/ is run from a checkout, not installed
from benchmarks.model import colm


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    out = tmp_path_factory.mktemp("colm") / "colm.json"
    options = ["--model", "tiny", "--rows", "8", "--tokens", "16", "--repeats", "2", "--out", str(out)]
    done = CliRunner().invoke(colm.main, options, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "colm" in done.output
    return json.loads(out.read_text())


def test_a_tiny_run(written):
    (row,) = written["rows"]
    assert row["job"] == "tiny 8x16, 1 directions" and set(row["timed"]) == set(colm.SIDES)
    for side in row["timed"].values():
        assert len(side["runs_s"]) == len(side["cpu_runs_s"]) == 2 and side["median_s"] > 0
    assert row["ratios"]["whole batch"] == row["cpu_ratios"]["whole batch"] == 1
