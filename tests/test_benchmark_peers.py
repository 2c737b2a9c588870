"""The peers of the benchmark answer the question our selectors answer, and a missing one is named."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent.parent))  # benchmarks/ is run from a checkout, not installed
from benchmarks.harness import runner
from benchmarks.harness.data import mixture
from benchmarks.selectors import peers, selection
from edjax.kernels import d_optimal, facility_location, k_center, reference

N, D, BUDGET = 300, 16, 30


@pytest.fixture(scope="module")
def problem():
    return peers.problem(mixture(N, D, centres=20), BUDGET)


@pytest.fixture(scope="module")
def ours(problem):
    x, ridge = problem.x, problem.ridge
    return {
        "k_center": np.asarray(k_center(x, BUDGET).indices),
        "d_optimal": np.asarray(d_optimal(x, BUDGET, ridge=ridge).indices),
        "facility_location": np.asarray(facility_location(x, BUDGET).indices),
    }


@pytest.mark.parametrize(("method", "name"), [(m, name) for m in peers.PEERS for name in peers.installed(m)])
def test_a_peer_answers_as_we_do(method, name, problem, ours):
    answer = peers.PEERS[method][name].run(problem)
    if method == "facility_location":  # where ties are common: as good a set, in any order
        assert len(set(answer.picks.tolist())) == BUDGET and answer.build_s > 0
        assert peers.coverage(problem, answer.picks) == pytest.approx(peers.coverage(problem, ours[method]), rel=1e-4)
    else:
        assert answer.picks.tolist() == ours[method].tolist()


def test_the_loops_are_greedy_where_the_budget_is_above_the_dimension(problem):
    p = problem._replace(budget=3 * D)
    k = reference.k_center(p.x, p.budget).indices.tolist()
    d = reference.d_optimal(p.x, p.budget, ridge=p.ridge).indices.tolist()
    assert peers.numpy_k_center(p).picks.tolist() == k
    assert peers.numpy_d_optimal(p).picks.tolist() == peers.chen_d_optimal(p).picks.tolist() == d


def test_values_are_those_of_the_definitions(problem):
    x, picks = problem.x.astype(np.float64), np.array([5, 17, 200, 3])
    d2 = ((x[:, None] - x[picks]) ** 2).sum(-1)
    assert peers.radius(problem, picks) == pytest.approx(d2.min(1).max() ** 0.5)
    assert peers.coverage(problem, picks) == pytest.approx(np.exp(-d2 / problem.gamma).max(1).sum())
    kernel = np.eye(4) + x[picks] @ x[picks].T / problem.ridge
    assert peers.log_det(problem, picks) == pytest.approx(np.log(np.linalg.det(kernel)))
    every = np.array(list(range(N)))
    assert [len(part) for part in peers._nearest(problem.x, every, tile=128)] == [128, 128, 44]


def test_a_peer_that_cannot_run_is_named(monkeypatch):
    broken = peers.Peer(lambda p: 1 // 0)
    monkeypatch.setitem(peers.PEERS, "k_center", {"gone": peers.Peer(None, ("no_such_package",)), "broken": broken})
    assert peers.installed("k_center") == ["broken"]
    usable, skipped = peers.usable("k_center", ["gone", "broken"])
    assert not usable
    assert "no_such_package" in skipped["gone"] and skipped["broken"].startswith("ZeroDivisionError")


@pytest.fixture
def small_jobs(monkeypatch, tmp_path):
    monkeypatch.setattr(runner, "RESULTS", tmp_path)
    monkeypatch.setattr(selection, "POOLS", 3)
    small = {name: what._replace(n=N, d=8, budget=20, repeats=2) for name, what in selection.JOBS.items()}
    monkeypatch.setattr(selection, "JOBS", small)
    return tmp_path


@pytest.mark.parametrize("name", ["k_center-20k", "d_optimal-20k"])
def test_a_job_beside_peers(name, small_jobs):
    row = selection.job(name, ["numpy"])
    assert set(row["ratios"]) == set(row["agree"]) == {selection.PLAIN, "numpy"} == set(row["timed"]) - {"edjax"}
    assert row["bars"][selection.PLAIN] == {"k_center-20k": 4, "d_optimal-20k": 2}[name]
    for agree in row["agree"].values():
        assert agree == {"same_set": 20, "same_place": 20, "value": row["edjax_value"]}
    for timed in row["timed"].values():
        assert len(timed["runs_s"]) == timed["repeats"] == 2
    assert "compile_s" in row["timed"]["edjax"] and "compile_s" not in row["timed"]["numpy"]
    json.dumps(row)


def test_worse_picks_are_reported(small_jobs, monkeypatch):
    worse = peers.Peer(lambda p: peers.Answer(np.arange(p.budget), 0.5))
    monkeypatch.setitem(peers.PEERS["k_center"], "numpy", worse)
    row = selection.job("k_center-20k", ["numpy"])
    assert row["agree"]["numpy"]["same_set"] < 20
    assert row["agree"]["numpy"]["value"] > row["edjax_value"]
    assert row["timed"]["numpy"]["build_s"] == 0.5


def test_a_peer_that_fails_on_the_real_pool_is_named(small_jobs, monkeypatch):
    def run(p):
        if len(p.x) == N:
            raise MemoryError("too large\nby far")
        return peers.Answer(np.arange(p.budget))

    monkeypatch.setitem(peers.PEERS["k_center"], "numpy", peers.Peer(run))
    row = selection.job("k_center-20k", ["numpy"])
    assert row["skipped"] == {"numpy": "MemoryError: too large"} and set(row["ratios"]) == {selection.PLAIN}


def test_a_slow_peer_is_run_once(monkeypatch):
    monkeypatch.setattr(selection, "SLOW_S", -1.0)
    calls = []
    slow = lambda: calls.append(1) or peers.Answer(np.arange(3))  # noqa: E731
    timed, failed = selection.measure({"edjax": lambda: np.arange(3)}, {"slow": slow}, 2)
    assert not failed
    assert len(calls) == timed["slow"]["repeats"] == 1 and timed["slow"]["median_s"] == timed["slow"]["first_call_s"]


def test_stacked_pools(small_jobs):
    row = selection.job("k_center-stack")
    assert row["pools"] == 3 and row["bars"] == {selection.SEQUENTIAL: 1.0}
    assert row["agree"][selection.SEQUENTIAL]["same_place"] == 3 * 20


def test_peak_memory_of_its_own_process(small_jobs):
    row = selection.job("facility_location-100k")
    assert row["peak_rss_bytes"] > row["rss_before_bytes"] > 0 and row["bars"]["peak_rss_bytes"] == 3e9
    p = peers.problem(mixture(N, 8), 20)
    ours = facility_location(p.x, 20).indices
    assert row["edjax_value"] == pytest.approx(peers.coverage(p, np.asarray(ours)))


def test_the_command_adds_a_job_to_the_file(small_jobs):
    run = CliRunner().invoke(selection.main, ["--jobs", "k_center-20k", "--name", "x"], catch_exceptions=False)
    assert "k_center-20k: edjax" in run.output
    run = CliRunner().invoke(selection.main, ["--jobs", "d_optimal-20k", "--peers", "numpy,torch", "--name", "x"])
    rows = json.loads((small_jobs / "x.json").read_text())["rows"]
    assert [row["job"] for row in rows] == ["k_center-20k", "d_optimal-20k"]
    assert all(row["commit"] and row["date"] and len(row["load"]) == 3 for row in rows)
    assert set(rows[0]["ratios"]) == {selection.PLAIN} and set(rows[1]["ratios"]) == {selection.PLAIN, "numpy"}


@pytest.mark.parametrize("option", ["--jobs", "--peers"])
def test_an_unknown_name_is_refused(option):
    run = CliRunner().invoke(selection.main, [option, "numpy,nobody" if option == "--peers" else "nobody"])
    assert run.exit_code == 2 and "'nobody' is not one of" in run.output
