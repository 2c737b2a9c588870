"""Strategies that read more than embeddings and the scores of an answer, from the command line and as functions."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from edjax.data.features import Features
from edjax.keep.errors import DataError, UsageError
from edjax.selection.choose import select

N = 24
NLL, TOKENS = np.float32([12, 9, 20, 4, 4, 7]), np.array([6, 3, 10, 2, 2, 7], np.int32)


@pytest.fixture
def given(tmp_path):
    """24 rows, each prompt with four responses; and what a model found of them."""
    rng = np.random.default_rng(0)
    rows = [{"id": f"r{i}", "prompt": f"Question {i // 4}?", "prompt_id": 1000 + i // 4} for i in range(N)]
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    table = {
        "id": [r["id"] for r in rows],
        "embedding": rng.normal(size=(N, 5)).astype(np.float32).tolist(),
        "energy": rng.normal(size=N).astype(np.float32),
        "response_nll": rng.uniform(1, 9, N).astype(np.float32),
        "n_response_tokens": rng.integers(1, 5, N).astype(np.int32),
        "trajectory": (np.arange(N) % 3 + rng.random((4, N)) / 9).T.tolist(),
    }
    pq.write_table(pa.table(table), tmp_path / "f.parquet")
    return tmp_path


def chosen(edjax_, given, strategy, budget, *more):
    out = given / strategy.replace(":", "_")
    pool = ["--pool", given / "pool.jsonl"]
    code, _, err = edjax_(
        "select", given / "f.parquet", *pool, "--strategy", strategy, "--budget", budget, "--out", out, *more
    )
    assert code == 0, err
    assert not (out / "gains.svg").exists(), "values are no gains"
    return [int(json.loads(line)["id"][1:]) for line in (out / "selected.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("strategy", ["aloe", "aloe:score=response_nll:clusters=3", "nearest", "densest"])
def test_a_row_of_each_cluster(edjax_, given, strategy):
    picks = chosen(edjax_, given, strategy, 5)
    assert len(set(picks)) == 5
    if strategy == "aloe":
        energy = pq.read_table(given / "f.parquet")["energy"].to_numpy()
        assert picks == sorted(picks, key=lambda i: -energy[i]) and picks[0] == np.argmax(energy)


def test_a_response_of_each_prompt(edjax_, given):
    table = pq.read_table(given / "f.parquet")
    mean = table["response_nll"].to_numpy() / table["n_response_tokens"].to_numpy()
    best = [4 * p + int(np.argmin(mean[4 * p : 4 * p + 4])) for p in range(6)]
    assert chosen(edjax_, given, "grape", 6) == sorted(best, key=lambda i: mean[i])
    assert chosen(edjax_, given, "grape:by=prompt", 20, "--allow-fewer") == sorted(best, key=lambda i: mean[i])


def test_rows_of_every_kind_of_trajectory(edjax_, given):
    assert np.bincount(np.asarray(chosen(edjax_, given, "s2l:clusters=3", 9, "--seed", 1)) % 3).tolist() == [3, 3, 3]
    half = chosen(edjax_, given, "s2l:clusters=1:by=prompt_id", 12)
    assert np.bincount(np.asarray(half) // 4).tolist() == [2] * 6


def responses(prompts, **more):
    facts = {"prompt_id": np.asarray(prompts, object), "n_response_tokens": TOKENS}
    x = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)
    return Features(tuple(f"r{i}" for i in range(6)), x, {"response_nll": NLL} | more, facts, "d")


def test_prompts_are_told_apart_by_any_name():
    for prompts in (["a", "a", "a", "b", "b", "c"], [9, 9, 9, 70, 70, 8], ["x", "x", "x", None, None, "y"]):
        assert select(responses(prompts), "grape", 3).ids == ("r5", "r0", "r3")
    assert select(responses([0] * 6), "grape:normalise=sum:keep=2", 2).ids == ("r3", "r4")
    first = select(responses([0, 0, 0, 1, 1, 2]), "grape", 1)
    second = select(responses([0, 0, 0, 1, 1, 2]), "grape", 2, labelled=first.ids)
    assert first.ids + second.ids == ("r5", "r0", "r3"), "a prompt that has its response gets no other"


def test_what_grape_lacks_is_said():
    with pytest.raises(
        UsageError, match=r"grape finds 3 of 4 rows that it may pick; lower the budget, or --allow fewer"
    ):
        select(responses([0, 0, 0, 1, 1, 2]), "grape", 4)
    found = responses([0, 0, 0, 1, 1, 2])
    del found.scores["response_nll"]
    with pytest.raises(DataError, match=r"hold no score 'response_nll' .*score with --probe response"):
        select(found, "grape", 2)
    with pytest.raises(DataError, match="have a column 'who' to group by"):
        select(responses([0] * 6), "grape:by=who", 2)


def test_trajectories_of_every_source_give_alike():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(40, 3)).astype(np.float32)
    falls = rng.random((40, 5), np.float32) + 5 * (np.arange(40) % 2)[:, None]
    source = np.asarray(["big"] * 30 + ["small"] * 10, object)
    found = Features(tuple(f"r{i}" for i in range(40)), x, {}, {"source": source}, "d", {"trajectory": falls})
    got = select(found, "s2l:by=source:clusters=2", 12, seed=1)
    assert np.bincount(got.indices // 30).tolist() == [6, 6] and got.gains is None and got.warning is None
    assert np.bincount(got.indices % 2).tolist() == [6, 6]
    assert got.ids == select(found, "s2l:by=source:clusters=2", 12, seed=1).ids
    assert got.ids != select(found, "s2l:by=source:clusters=2", 12, seed=2).ids
    falls[3, 2] = np.nan
    with pytest.raises(DataError, match=r"^1 row has NaN or infinite features \(r3\)"):
        select(found, "s2l", 12)


def test_they_are_not_weighted_by_quality():
    got = select(responses([0, 0, 0, 1, 1, 2], worry=NLL), "nearest", 2, weight_by="worry")
    assert "nearest is not weighted by worry" in got.warning
