"""Precision of choosing for a target: the features of words, and the tables of what was measured."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

sys.path.insert(0, str(Path(__file__).parent.parent))  # benchmarks/ is run from a checkout, not installed
from benchmarks.evidence import targets

TOPICS = {
    "cooking": "boil fry stew oven salt pepper soup bread butter dough",
    "sailing": "wind mast sail rope harbour tide keel anchor wave deck",
    "chess": "pawn rook bishop knight queen king mate castle board move",
}


def prompts(each, seed):
    rng = np.random.default_rng(seed)
    said, dataset = [], []
    for topic, words in TOPICS.items():
        for _ in range(each):
            said.append("how do i " + " ".join(rng.choice(words.split(), 5)) + " the " + rng.choice(["a", "b", "c"]))
            dataset.append(topic)
    return targets.Rows(said, np.asarray(dataset, object), np.asarray([f"{d} task" for d in dataset], object))


@pytest.fixture(scope="module")
def pool():
    return prompts(40, 0)


def test_features_are_the_singular_vectors_of_tf_idf(pool):
    words = targets.Words(pool.prompts, directions=6)
    x = words._weighted([targets._terms(p) for p in pool.prompts]).toarray()
    term, row = words.place["boil"], next(i for i, p in enumerate(pool.prompts) if p.split().count("boil") == 1)
    held = sum("boil" in p.split() for p in pool.prompts)
    others = x[row] / x[row, term] * (1 + np.log(121 / (1 + held)))
    assert others[words.place["how"]] == pytest.approx(1.0) and np.linalg.norm(x[row]) == pytest.approx(1)
    _, values, vectors = np.linalg.svd(x)
    ours = words(pool.prompts)
    assert np.linalg.norm(ours, axis=0) == pytest.approx(values[:6], rel=1e-2)
    assert np.abs(np.sum(words.axes[:, 0] * vectors[0])) == pytest.approx(1, abs=1e-4)
    assert sparse.issparse(words._weighted([targets._terms("never seen")])) and not words(["never seen"]).any()


def test_a_target_gets_rows_of_its_kind_and_nothing_else_does(pool, monkeypatch):
    monkeypatch.setattr(targets, "DIRECTIONS", 12)
    monkeypatch.setattr(targets, "NORMALISED", ("l2",))
    monkeypatch.setattr(targets, "UNTARGETED", ("random",))
    monkeypatch.setattr(
        targets, "TARGETED", ("flqmi:eta=1", "go:aggregate=mean", "rds_plus:taken=skip", "rocket:chains=any")
    )
    held = prompts(8, 1)
    rows = list(targets.measured(pool, held, ["cooking", "chess"], range(2), budget=12, count=5))
    assert [row["job"] for row in rows] == ["cooking", "chess"] and rows[0]["share"] == pytest.approx(1 / 3)
    for row in rows:
        found = row["precision"]["l2"]
        assert set(found) == {*targets.UNTARGETED, *targets.TARGETED, targets.NEAREST}
        assert all(len(v) == 2 for v in found.values())
        for name in ("flqmi:eta=1", "go:aggregate=mean", "rds_plus:taken=skip", targets.NEAREST):
            assert np.mean(found[name]) > 0.9, name
        assert np.mean(found["random"]) < 0.7
        assert row["picked"]["l2"]["rocket:chains=any"][0] <= 12 == row["picked"]["l2"]["flqmi:eta=1"][0]
    assert targets.reached(rows, "l2", "flqmi:eta=1") == 2 > targets.reached(rows, "l2", "random")
    json.dumps(rows)


def test_targets_are_drawn_of_one_data_set_with_the_seed():
    held = prompts(30, 2)
    one, again, other = (targets.drawn(held, "sailing", seed) for seed in (0, 0, 1))
    assert len(one) == targets.TARGETS and (one == again).all() and set(one) != set(other)
    assert set(held.dataset[one]) == {"sailing"}
