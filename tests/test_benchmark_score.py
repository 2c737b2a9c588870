"""The scoring benchmark gives both sides the same work and compares what they computed."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))  # benchmarks/ is run from a checkout, not installed
from benchmarks.model import score
from edjax.data.features import UNCERTAINTIES


@pytest.fixture
def settings(shared):
    return {
        "model": str(shared / "models" / "stories260k"),
        "pool": "",
        "rows": 9,
        "new": 4,
        "batch_size": 4,
        "threads": 1,
    }


def test_a_turn_of_both_sides(torch, settings, tmp_path, monkeypatch):
    """Ours and torch's agree, copies included."""
    turns = [score.turn({**settings, "turn": i, "turns": 2}) for i in (0, 1)]
    assert sorted(np.concatenate([t["row"] for t in turns]).tolist()) == list(range(9))
    pieces = iter([{**t, "commit": "c"} for t in turns])
    monkeypatch.setattr(score, "part", lambda *_: next(pieces))
    monkeypatch.setattr(score, "TURNS", 2)
    row = score.speed(settings, tmp_path)
    assert row["agree"]["rows"] == row["agree"]["same_texts"] == 9
    assert row["agree"]["worst_embedding_difference"] < 1e-4
    worst = row["agree"]["worst_score_difference_where_texts_are_the_same"]
    assert set(worst) == set(UNCERTAINTIES) and max(worst.values()) < 1e-4
    want = sum(t["torch"]["wall_s"] for t in turns) / sum(t["edjax"]["wall_s"] for t in turns)
    assert row["ratio"] == pytest.approx(want) and row["ratio_without_compiling"] > row["ratio"]


def test_differences_are_seen(settings, tmp_path, monkeypatch):
    side = {"wall_s": 1.0, "cpu_s": 1.0}
    piece = {"edjax": side | {"compile_s": 0.5, "generated": ["a", "b"]}, "torch": side | {"generated": ["a", "c"]}}
    for k in ("embedding", *UNCERTAINTIES):
        piece |= {f"edjax_{k}": np.zeros(2), f"torch_{k}": np.array([0.25, 3.0])}
    monkeypatch.setattr(score, "part", lambda *_: piece | {"commit": "c"})
    monkeypatch.setattr(score, "TURNS", 1)
    agree = score.speed(settings, tmp_path)["agree"]
    assert (agree["same_texts"], agree["worst_embedding_difference"]) == (1, 3.0)
    assert set(agree["worst_score_difference_where_texts_are_the_same"].values()) == {0.25}
