"""The statistic of savings on simulated grids: unbiased, intervals that cover, and a null that holds zero.

The noise is that of the committed grid: random's spread over seeds and its drop per doubling at 16 to 128 labels.
"""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from edjax.study.analysis.savings import Arm, null
from edjax.study.analysis.shift import Curve, along, shift

X = np.log2([16.0, 32.0, 64.0, 128.0])
QUALITY = -np.cumsum([3.096, -0.545, -0.430, -0.222])
NOISE = np.asarray([0.175, 0.138, 0.118, 0.062])  # over seeds
FLATTER = {"x": np.append(X, [8.0, 9.0]), "quality": np.append(QUALITY, QUALITY[-1] + [0.15, 0.25])}
GRIDS = 2000
RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"


def curves(quality):
    """Of (grids, seeds, budgets): means and what each seed adds to their errors."""
    n, mean = quality.shape[1], quality.mean(1)
    x = np.broadcast_to(X, mean.shape)
    return Curve(x, mean, (quality - mean[:, None]) / n, np.zeros_like(quality))


def simulated(saved, seeds, of_random, truth=None, grids=GRIDS):
    """Shifts of a strategy that needs (1 - saved) of random's labels."""
    rng = np.random.Generator(np.random.PCG64(round(1000 * saved) + 10 * seeds + of_random))
    known = truth or {"x": X, "quality": QUALITY}
    doublings = -np.log2(1 - saved)
    random = QUALITY + NOISE * rng.normal(size=(grids, of_random, 4))
    mine = along(known["x"], known["quality"], X + doublings) + NOISE * rng.normal(size=(grids, seeds, 4))
    return shift(curves(random), curves(mine)), doublings


@pytest.mark.parametrize("seeds", [(5, 5), (10, 10), (3, 5)], ids=str)
@pytest.mark.parametrize("saved", [0.0, 0.25, 0.5])
def test_the_mean_is_right_and_the_interval_covers(saved, seeds):
    got, true = simulated(saved, *seeds)
    assert np.mean(1 - 2.0**-got.doublings) == pytest.approx(saved, abs=0.03)
    assert 0.92 <= np.mean((got.low <= true) & (true <= got.high)) <= 0.98


@pytest.mark.parametrize("seeds", [5, 10])
def test_where_the_curve_flattens_beyond_its_budgets_too(seeds):
    """The end slope is then too steep: a half is found a little short."""
    got, true = simulated(0.5, seeds, seeds, FLATTER)
    assert np.mean(1 - 2.0**-got.doublings) == pytest.approx(0.5, abs=0.03)
    assert np.mean((got.low <= true) & (true <= got.high)) >= 0.92


def test_a_level_curve_claims_nothing():
    rng = np.random.Generator(np.random.PCG64(1))
    random, mine = (2 + 0.1 * rng.normal(size=(GRIDS, 5, 4)) for _ in range(2))
    got = shift(curves(random), curves(mine))
    assert np.mean(np.isfinite(got.doublings) & ((got.low > 0) | (got.high < 0))) < 0.05
    assert np.mean(np.isinf(got.low) & np.isinf(got.high)) > 0.9, "and nearly always that no saving can be said"


def test_the_null_is_as_wide_as_random_s_luck():
    """The central 95 % of random against itself holds zero, and the spread of such savings between fresh draws."""
    rng = np.random.Generator(np.random.PCG64(2))
    budgets, cost = (16, 32, 64, 128), np.tile(2.0**X, (10, 1))
    found = [null(Arm(budgets, QUALITY + NOISE * rng.normal(size=(10, 4)), cost), [0, 1, 2, 3], -9) for _ in range(60)]
    assert all(f["low"] < 0 < f["high"] and f["splits"] == 252 for f in found)
    fresh, _ = simulated(0.0, 5, 5)
    width = np.subtract(*np.quantile(1 - 2.0**-fresh.doublings, [0.975, 0.025]))
    assert np.mean([f["high"] - f["low"] for f in found]) == pytest.approx(width, rel=0.15)


def test_the_twin_of_random_saves_nothing_on_the_committed_cells():
    """Random's own seeds split in two in every way: the one half is no strategy, and is told no saving."""
    grid = json.loads((RESULTS / "label_efficiency-cpu.json").read_text())
    losses: dict[int, list[float]] = {}
    for c in grid["rows"]:
        if c["strategy"] == "random":
            losses.setdefault(c["seed"], []).append(-c["scores"]["response_loss"])
    quality = np.asarray([losses[s] for s in sorted(losses)])
    assert quality.shape == (5, 4)
    sides = [list(s) for s in itertools.combinations(range(5), 2)]
    rest = [[i for i in range(5) if i not in s] for s in sides]
    got = shift(curves(quality[rest]), curves(quality[sides]))
    saved = 1 - 2.0**-got.doublings
    assert np.mean(saved) == pytest.approx(0, abs=0.03)
    assert np.mean((got.low <= 0) & (got.high >= 0)) == 1
    found = null(Arm((16, 32, 64, 128), quality, np.tile(2.0**X, (5, 1))), [0, 1, 2, 3], -9)
    assert found["low"] < 0 < found["high"] and (found["seeds"], found["splits"]) == (5, 20)
