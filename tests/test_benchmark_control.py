"""The control: designs save labels for a learner that is fixed, or something in them is broken."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))  # benchmarks/ is run from a checkout, not installed
from benchmarks.evidence.control import __main__ as control
from benchmarks.evidence.control import learners, sets, splits
from benchmarks.evidence.control.table import control as tables
from benchmarks.harness import runner
from edjax.data.features import Features
from edjax.data.pool import read_pool

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
    assert learners.accuracy(x, y, rows, held, 0.3) == pytest.approx(macro)


def test_a_split_holds_a_third_of_every_label_out():
    y = np.repeat([0, 1, 2], (30, 9, 2))
    candidates, held = splits.split(y, 0)
    assert np.bincount(y[held]).tolist() == [10, 3, 1] and len(np.intersect1d(candidates, held)) == 0
    assert (splits.split(y, 0)[1] == held).all() and (splits.split(y, 1)[1] != held).any()
    assert np.bincount(y[splits.split(y, 0, most=4)[1]]).tolist() == [4, 3, 1]


def told(n=90, d=6, seed=0):
    """Prompts whose answers lie where a linear map of them says, on the whole, among three choices or four."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)).astype(np.float32)
    answers = (x @ rng.normal(size=(d, 5)) + 0.3 * rng.normal(size=(n, 5))).astype(np.float32)
    options = np.column_stack([np.arange(n), *((np.arange(n) + k) % n for k in (7, 20, 33))])
    options[::3, 3] = -1
    return x, answers, np.apply_along_axis(rng.permutation, 1, options)


def by_primal(x, answers, rows, held, ridge):
    """(held, d) predictions and the space of answers, by the normal equations with a column of ones."""
    space = answers - answers.mean(0)
    space = (space / np.linalg.norm(space, axis=1, keepdims=True)).astype(np.float64)
    one = np.column_stack([x, np.ones(len(x))]).astype(np.float64)
    a = one[rows]
    return one[held] @ np.linalg.solve(a.T @ a + ridge * np.eye(a.shape[1]), a.T @ space[rows]), space


def test_the_choice_is_the_nearest_to_what_ridge_foretells():
    x, answers, options = told()
    rows, held = np.arange(60), np.arange(60, 90)
    learner = learners.Choices(answers, np.arange(90), options=options)
    guessed, space = by_primal(x, answers, rows, held, 0.5)
    right = []
    for i, g in zip(held, guessed, strict=True):
        there = [o for o in options[i] if o >= 0]
        right.append(there[int(np.argmax([g @ space[o] for o in there]))] == i)
    score = learner.score(x, rows, held, 0.5, "l2")
    assert score == pytest.approx(np.mean(right)) and score > 0.7
    assert learner.chance() == pytest.approx((30 / 3 + 60 / 4) / 90)


def test_retrieval_is_the_mean_reciprocal_rank():
    from scipy.stats import rankdata

    x, answers, _ = told()
    rows, held = np.arange(60), np.arange(60, 90)
    guessed, space = by_primal(x, answers, rows, held, 0.5)
    ranks = [rankdata(-(g @ space[held].T), "max")[k] for k, g in enumerate(guessed)]
    learner = learners.Retrieval(answers, np.arange(90))
    assert learner.score(x, rows, held, 0.5, "l2") == pytest.approx(np.mean(1 / np.asarray(ranks)))
    untold = learners.Retrieval(np.random.default_rng(5).normal(size=(90, 5)).astype(np.float32), np.arange(90))
    assert untold.score(x, rows, held, 0.5, "l2") < 0.5 * learner.score(x, rows, held, 0.5, "l2")
    assert learner.chance() == pytest.approx(np.mean(1 / np.arange(1, 31)))


def test_an_answer_that_two_rows_share_counts_once_among_those_held_out():
    x, answers, _ = told()
    truth = np.minimum(np.arange(90), 70)
    learner = learners.Retrieval(answers, truth)
    assert learner.score(x, np.arange(60), np.arange(70, 90), 0.5, "l2") == 1


def test_nothing_is_said_where_nothing_is_learnt():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(240, 8)).astype(np.float32)
    features = Features(tuple(map(str, range(240))), x, {}, {}, "")
    guesses = learners.Retrieval(rng.normal(size=(240, 8)).astype(np.float32), np.arange(240))
    found = control.measured(features, ["a", "b"] * 120, guesses, ("l2", 0.1), range(4), (20, 40))
    assert not found["signal"] and len(found["cells"]["random"]) == 4
    same = control.measured(features, ["a", "b"] * 120, guesses, ("l2", 0.1), range(4), (20, 40))
    assert same == found
    row = {"job": "noise", **found}
    assert "No signal" in tables(
        {"control": {**json.loads((runner.RESULTS / "control.json").read_text()), "rows": [row]}}
    )
    known = learners.Labels((x[:, 0] > 0).astype(int))
    assert control.measured(features, ["a", "b"] * 120, known, ("l2", 0.1), range(4), (20, 40))["signal"]


def test_the_sets_are_what_they_are_said_to_be(shared):
    pool = read_pool(str(shared / "data" / "pool.parquet"))
    for name, labels, most in (("t0", 21, sets.MOST_TEMPLATED), ("choice", 3, sets.MOST)):
        rows = sets.rows_of(pool, name)
        assert len(set(rows.labels)) == labels and len(rows.pool) == len(rows.labels) == most
    assert rows.pool.ids == sets.rows_of(pool, "choice").pool.ids
    assert all(r in c for r, c in zip(rows.pool.responses, rows.pool.column("choices"), strict=True))
    answers = sets.texts(["b", "a", "b"])
    assert answers.ids == ("b", "a") and answers.prompt_text(1) == "a"


def test_a_curve_that_needs_half_the_labels_saves_half():
    budgets, rng = (50, 100, 200, 400, 800), np.random.default_rng(0)
    noise = 0.004 * rng.normal(size=(2, 20, 5))
    level = 0.1 * np.log2(budgets)
    values = {"random": level + noise[0], "half": level + 0.1 + noise[1], "same": level + noise[1]}
    found = splits.summary(values, budgets)
    half, same = found["savings"]["half"]["200"], found["savings"]["same"]["200"]
    assert half["share_saved"] == pytest.approx(0.5, abs=0.02) and half["low"] < 0.5 < half["high"]
    assert same["low"] < 0 < same["high"] and abs(same["share_saved"]) < 0.03
    assert found["null"]["200"]["low"] < 0 < found["null"]["200"]["high"] < 0.1


def test_a_curve_that_ends_level_below_random_saves_nothing_that_can_be_said():
    rising, level = [0.1, 0.2, 0.3, 0.4, 0.5], [0.1, 0.2, 0.25, 0.27, 0.265]
    wobble = 0.001 * np.random.default_rng(0).normal(size=(2, 6, 5))
    values = {"random": rising + wobble[0], "level": level + wobble[1]}
    found = splits.summary(values, (50, 100, 200, 400, 800))["savings"]["level"]
    assert found["200"]["share_saved"] is None and found["200"]["high"] is None
    assert splits.saving(values, "level", (50, 100, 200, 400, 800), 100)["share_saved"] is not None


def test_whitened_facility_location_saves_labels(smollm2, shared, tmp_path, monkeypatch):
    """The small form of the control: some intents of CLINC150, a few splits. A design that broke fails it."""
    monkeypatch.setattr(splits, "AT", (40,))
    whitened = [arm for arm in control.arms() if arm[1:] in (("random", "l2"), ("facility_location", "whiten"))]
    monkeypatch.setattr(control, "arms", lambda: whitened)
    pool = sets.intents(read_pool(str(shared / "data" / "pool.parquet")), "clinc150").pool
    kept = sorted(set(pool.responses))[:INTENTS]
    pool = pool.take([i for i, r in enumerate(pool.responses) if r in kept])
    rows = sets.Rows(pool, list(pool.responses))
    features, learner = sets.scored(pool, tmp_path / "features"), control.learner_of("clinc150", rows, tmp_path)
    found = control.measured(features, rows.labels, learner, control.SETS["clinc150"], range(SPLITS), BUDGETS)
    saved = found["savings"]["facility_location, whiten"]["40"]
    assert saved["low"] > 0 and saved["share_saved"] > found["null"]["40"]["high"], saved


def test_the_committed_control_is_what_its_cells_give():
    path = runner.RESULTS / "control.json"
    result = json.loads(path.read_text())
    assert {*sets.INTENTS} <= {row["job"] for row in result["rows"]} <= {*control.SETS}
    for row in result["rows"]:
        assert (row["learner"]["features"], row["learner"]["ridge"]) == control.SETS[row["job"]]
        assert row["signal"] == control.signal(np.asarray(row["cells"]["random"]), row["chance"])
        values = {name: np.asarray(v) for name, v in row["cells"].items()}
        again = json.loads(json.dumps(splits.summary(values, tuple(row["budgets"]))))
        for name, of_arm in again["savings"].items():
            for at, s in of_arm.items():
                assert s == pytest.approx(row["savings"][name][at], abs=1e-3), (row["job"], name, at)
    assert "random` against itself" in tables({"control": result})
