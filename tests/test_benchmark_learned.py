"""What a learned function's picks reach of facility location's value: the shares, and their table."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))  # benchmarks/ is run from a checkout, not installed
from benchmarks.pages import learned_table
from benchmarks.pages.render import read
from benchmarks.selectors import learned


def test_the_benchmark_s_shares_are_those_of_the_definition():
    x = np.random.default_rng(10).normal(size=(210, 6)).astype(np.float32)
    s = np.exp(-((x[:, None] - x) ** 2).sum(-1) / (0.25 * ((x[:, None] - x) ** 2).sum(-1).mean()))
    best, other = np.arange(210), np.arange(210)[::-1]
    rows = learned.shares(x, {"facility_location": [best], "random": [other, best]})
    for row in rows:
        of = {"facility_location": [best], "random": [other, best]}[row["strategy"]]
        k = row["budget"]
        want = [s[:, o[:k]].max(axis=1).sum() / s[:, best[:k]].max(axis=1).sum() for o in of]
        assert row["share"] == pytest.approx(np.mean(want), abs=2e-4)
        assert row["least"] == pytest.approx(min(want), abs=2e-4)


def test_the_table_has_a_line_a_strategy():
    said = learned_table.learned(read())
    for name in ("facility_location", "feature_based", "dspn", "random"):
        assert said.count(f"| `{name}` |") == 1
