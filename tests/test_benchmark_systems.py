"""The speed of the methods for a target: the loops they stand beside, and what a row says."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent.parent))  # benchmarks/ is run from a checkout, not installed
from benchmarks.harness import runner
from benchmarks.selectors import systems
from edjax.kernels import Go, Ground
from edjax.kernels.reference import greedy


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    monkeypatch.setattr(runner, "RESULTS", tmp_path)
    monkeypatch.setattr(systems, "REPEATS", 2)
    sizes = {name: shape | {"n": 300, "d": 8, "budget": 12} for name, shape in systems.SIZES.items()}
    sizes["quotas-100k"]["clusters"] = 6
    monkeypatch.setattr(systems, "SIZES", sizes)


@pytest.mark.parametrize("aggregate", ["mean", "max"])
def test_the_loop_is_greedy_by_definition(aggregate):
    x, z = systems.problem(80, 6, 5)
    picks = systems.go_loop(x.astype(np.float64), z.astype(np.float64), 0.7, 10, aggregate)
    there = Ground({"embedding": x}, target={"embedding": z})
    trace = greedy(Go(aggregate=aggregate, noise=0.7), there, 10, follow=picks.tolist())
    assert ((trace.best - trace.gains) <= 1e-9 * trace.best[0]).all()
    left = systems.variance_left(aggregate, 80, 6, 5, 10, np.zeros(0, int))
    assert left == pytest.approx(getattr(np, aggregate)(np.sum(z.astype(float) ** 2, axis=1)))


@pytest.mark.parametrize("name", ["go-mean", "go-max"])
def test_go_beside_the_loops(name):
    row = systems.job(name)
    assert set(row["ratios"]) == {"numpy, float64", "numpy, float32"} and row["bars"] == {"numpy, float64": 5.0}
    assert row["same_place"]["numpy, float64"] == 12 and not row["skipped"]
    assert row["variance_left"]["numpy, float64"] == pytest.approx(row["variance_left"]["edjax"], rel=1e-9)
    for side in row["timed"].values():
        assert side["best_s"] == min(side["runs_s"]) and len(side["runs_s"]) == 2
    assert f"{name}: edjax" in systems.says(row)
    json.dumps(row)


def test_a_package_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "submodlib", None)
    row = systems.job("flqmi-20k")
    assert set(row["skipped"]) == {"submodlib", "submodlib, NumPy's similarities"} and row["ratios"] == {}
    assert "left out" in systems.says(row)


def test_quotas_have_a_clock_for_a_bar():
    row = systems.job("quotas-100k")
    assert set(row["timed"]) == set(row["bars_s"]) == {"random", "facility_location"}


def test_cosines_are_cut_at_zero():
    s = systems.cosines(np.array([[3.0, 4.0], [-1.0, 0.0]]), np.array([[2.0, 0.0]]))
    assert s.tolist() == [[pytest.approx(0.6)], [0.0]]


def test_an_unknown_job_is_refused():
    run = CliRunner().invoke(systems.main, ["--jobs", "go-mean,nobody"])
    assert run.exit_code == 2 and "'nobody' is not one of" in run.output
