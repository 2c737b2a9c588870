"""Strategies that read more than embeddings and the scores of an answer, from the command line and as functions."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from edjax.data.features import Features
from edjax.keep.errors import DataError, UsageError
from edjax.keep.store import read_manifest
from edjax.selection.choose import select
from edjax.selection.selection import read_selection

N = 24
PROMPTS = [0, 0, 0, 1, 1, 2]
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


def test_a_budget_of_tokens_buys_the_prompts_that_there_are():
    """Fewer rows than were looked at are all there are: the walk ends with them."""
    found = responses([0, 0, 0, 1, 1, 2])
    found.facts["n_prompt_tokens"] = np.ones(6, np.int32)
    for allowed in (False, True):
        assert select(found, "grape", budget_tokens=1000, allow_fewer=allowed).ids == ("r5", "r0", "r3")
    assert select(found, "grape", budget_tokens=2).ids == ("r5", "r0")
    for quotas in ("proportional", "balanced"):
        asked = {"group_by": "prompt_id", "quotas": quotas, "budget_tokens": 1000}
        assert set(select(found, "grape", 6, **asked).ids) == {"r5", "r0", "r3"}


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


# Worked by hand: scores -2, -3, -2, -2, -2, -1 choose rows 0, 3 and 5, of 6, 2 and 7 tokens; 3, 10 and 2 are rejected.
WHO = ["people", "large", "small", "large", "people", "people"]
REPORT = {
    "prompts": 3,
    "tokens": {"chosen": 5.0, "rejected": 5.0},
    "dropped": {"empty": 0, "short": 0, "long": 0},
    "source": "source",
    "sources": {
        "people": {"prompts": 3, "changed": 1, "share": 0.3333},
        "large": {"prompts": 2, "changed": 1, "share": 0.5},
        "small": {"prompts": 1, "changed": 1, "share": 1.0},
    },
}


def among(tokens=TOKENS, nll=NLL, who=WHO, column="source"):
    found = responses([0, 0, 0, 1, 1, 2])
    found.scores["response_nll"] = nll
    return replace(found, facts=found.facts | {"n_response_tokens": tokens, column: np.asarray(who, object)})


def test_what_a_choice_among_responses_came_to():
    assert select(among(), "grape", 3).responses == REPORT
    assert select(among(), "nearest", 3).responses is None
    first = select(among(), "grape", 1).responses  # row 5 alone, whose prompt has no other
    assert first["tokens"] == {"chosen": 7.0, "rejected": None}
    assert first["sources"] == {"people": {"prompts": 1, "changed": 0, "share": 0.0}}
    by_model = select(among(column="model"), "grape", 3).responses
    assert by_model == REPORT | {"source": "model"}
    plain = select(responses([0, 0, 0, 1, 1, 2]), "grape", 3).responses
    assert plain == {k: REPORT[k] for k in ("prompts", "tokens", "dropped")}, "nobody says who answered"


def test_responses_that_are_no_candidates_are_counted():
    long = select(among(), "grape:min_tokens=3:max_tokens=9", 2)  # rows 3, 4 too short, row 2 too long; 0 and 5 stay
    assert sorted(long.indices) == [0, 5]
    assert long.responses["dropped"] == {"empty": 0, "short": 2, "long": 1}
    assert long.responses["tokens"] == {"chosen": 6.5, "rejected": 3.0}
    assert long.responses["sources"] == {
        "people": {"prompts": 2, "changed": 0, "share": 0.0},
        "large": {"prompts": 1, "changed": 1, "share": 1.0},
    }
    tokens, nll = TOKENS.copy(), NLL.copy()
    tokens[4], nll[4] = 0, np.nan  # as score leaves a row without a response
    empty = select(among(tokens, nll), "grape", 3, drop_invalid=True).responses
    assert empty["dropped"]["empty"] == 1 and empty["tokens"] == {"chosen": 5.0, "rejected": 6.5}
    assert empty["sources"]["people"] == {"prompts": 2, "changed": 0, "share": 0.0}
    second = select(among(), "grape", 2, labelled=["r5"]).responses  # rows 0 and 3
    assert second["prompts"] == 2 and second["tokens"] == {"chosen": 4.0, "rejected": 5.0}
    both = select(among(), "grape:keep=2", 5).responses  # 1 is the one that is not among them
    assert both["tokens"] == {"chosen": 5.4, "rejected": 3.0} and both["sources"] == REPORT["sources"]
    unknown = select(among(who=["people", None, np.nan, "large", None, "people"]), "grape", 3).responses
    assert unknown["sources"] == {
        "people": {"prompts": 2, "changed": 0, "share": 0.0},
        "large": {"prompts": 1, "changed": 0, "share": 0.0},
    }


def test_the_report_is_told_and_kept(edjax_, tmp_path):
    rows = [{"id": f"r{i}", "prompt": f"Q{PROMPTS[i]}", "prompt_id": PROMPTS[i], "source": WHO[i]} for i in range(6)]
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    x = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    table = {"id": [r["id"] for r in rows], "embedding": x.tolist(), "response_nll": NLL, "n_response_tokens": TOKENS}
    pq.write_table(pa.table(table), tmp_path / "f.parquet")
    argv = ["select", tmp_path / "f.parquet", "--pool", tmp_path / "pool.jsonl", "--strategy"]
    code, said, err = edjax_(*argv, "grape", "--budget", 3, "--out", tmp_path / "s")
    assert code == 0, err
    assert said.splitlines()[1:3] == [
        "responses to 3 prompts, 5.0 tokens on average (rejected: 5.0)",
        "prompts whose choice is another than of source people 33% of 3, large 50% of 2, small 100% of 1",
    ]
    assert read_manifest(tmp_path / "s", "selection")["responses"] == REPORT == read_selection(tmp_path / "s").responses
    code, said, err = edjax_(*argv, "grape:min_tokens=3,nearest", "--budget", 2, "--out", tmp_path / "two")
    assert code == 0, err
    assert (
        "grape_min_tokens=3-2: responses to 2 prompts, 6.5 tokens on average (rejected: 6.5); left out: 2 too short"
        in said
    )
    code, said, _ = edjax_(*argv, "grape", "--budget", 3, "--out", tmp_path / "s", "--json")
    assert json.loads(said)["responses"] == REPORT


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
