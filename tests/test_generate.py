"""`edjax generate`: answers that are a pool again, alone and several, and what is refused."""

import json

import numpy as np
import pytest

from edjax.data.pool import read_pool
from edjax.evaluation.candidates import generate, listed
from edjax.keep.errors import DataError, UsageError
from edjax.lm.load import load

ROWS = [
    {"id": "a", "prompt": "Once upon a time"},
    {"id": "b", "prompt": "The little dog", "response": "not looked at"},
    {"id": "c", "prompt": "Lily saw"},
]
TURNS = [
    {"id": "a", "messages": [{"role": "user", "content": "Tom"}, {"role": "assistant", "content": "Hi"}]},
    {"id": "b", "messages": [{"role": "user", "content": "One day"}]},
    {"id": "c", "messages": [{"role": r, "content": "Ben"} for r in ("user", "assistant", "user")]},
]


@pytest.fixture(scope="module")
def small(shared):
    return load(str(shared / "models" / "stories260k"))


def written(path, rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


@pytest.fixture
def rows(tmp_path):
    return written(tmp_path / "rows.jsonl", ROWS)


@pytest.mark.parametrize("some", [ROWS, TURNS], ids=["texts", "turns"])
def test_answers_are_a_pool_again(some, small, tmp_path):
    pool = read_pool(written(tmp_path / "rows.jsonl", some))
    made = generate(pool, "m", loaded=small, max_new_tokens=6, template="plain")
    assert [r["id"] for r in made] == [r["prompt_id"] for r in made] == ["a", "b", "c"]
    again = read_pool(written(tmp_path / "answers.jsonl", made))
    assert again.messages == pool.messages and None not in again.responses
    assert not {"not looked at", "Hi"} & set(again.responses)
    assert all(r["n_tokens"] == 6 and r["mean_nll"] > 0 and r["model"] == "m" for r in made)
    alone = generate(pool.take(np.asarray([1])), "m", loaded=small, max_new_tokens=6, template="plain")
    assert alone[0]["response"] == again.responses[1]


def test_samples_differ_and_do_not_depend_on_the_batch(rows, small):
    pool = read_pool(rows)
    drawn = [
        generate(pool, "m", loaded=small, samples=3, temperature=1.0, max_new_tokens=6, batch_size=size, seed=1)
        for size in (2, 16)
    ]
    assert [r["response"] for r in drawn[0]] == [r["response"] for r in drawn[1]]
    assert [r["id"] for r in drawn[0][:4]] == ["a/1", "a/2", "a/3", "b/1"]
    assert len({r["response"] for r in drawn[0][:3]}) > 1
    other = generate(pool, "m", loaded=small, samples=3, temperature=1.0, max_new_tokens=6, seed=2)
    assert [r["response"] for r in other] != [r["response"] for r in drawn[0]]


def test_what_makes_no_sense_is_refused(rows, small):
    pool = read_pool(rows)
    with pytest.raises(UsageError, match="2 samples of the likeliest answer are all alike; give a temperature above 0"):
        generate(pool, "m", loaded=small, samples=2)
    with pytest.raises(UsageError, match="samples is 0"):
        generate(pool, "m", loaded=small, samples=0)


def test_the_verb_writes_a_pool_that_score_reads(rows, shared, tmp_path, edjax_):
    model, out = str(shared / "models" / "stories260k"), tmp_path / "new" / "answers.jsonl"
    argv = ["generate", str(rows), "--model", model, "--out", str(out), "--max-new-tokens", "4", "--batch-size", "4"]
    code, said, _ = edjax_(*argv)
    assert code == 0 and said.splitlines()[0] == f"3 answers to 3 prompts in {out}"
    line = said.splitlines()[1].removeprefix("next: edjax ").split()
    assert edjax_(*line, "--max-new-tokens", "0")[0] == 0
    code, _, err = edjax_(*argv)
    assert code == 2 and f"{out} is there; name another file, or --overwrite" in err
    assert edjax_(*argv, "--overwrite")[0] == 0


def test_a_prompt_is_cut_as_in_scoring(small, tmp_path):
    long = [{"id": "a", "prompt": "Once upon a time there was a little dog who saw Lily"}]
    pool = read_pool(written(tmp_path / "long.jsonl", long))
    asked = {"loaded": small, "max_new_tokens": 8, "template": "plain"}
    whole, short = generate(pool, "m", **asked), generate(pool, "m", **asked, max_prompt=3)
    wide = generate(pool, "m", **asked, max_length=24, max_response=4)
    assert short[0]["response"] != whole[0]["response"] == wide[0]["response"]
    assert generate(pool, "m", **asked, max_length=24, max_response=22)[0]["response"] != whole[0]["response"]


LISTED = [
    {
        "id": "a",
        "prompt": "Two and two?",
        "responses": ["four", {"text": "4", "source": "large", "id": "x", "score": 0.5}],
    },
    {"id": "b", "prompt": "A colour?", "responses": []},
    {"id": "c", "prompt": "A day?", "responses": [{"role": "assistant", "content": "Monday", "model": "m"}, ""]},
    {"id": "d", "prompt": "Why?"},
]


def test_answers_that_a_column_lists_are_a_row_each(tmp_path, edjax_):
    out = tmp_path / "candidates.jsonl"
    argv = ["generate", written(tmp_path / "rows.jsonl", LISTED), "--responses", "responses", "--out", out]
    code, said, err = edjax_(*argv)
    assert code == 0 and said.splitlines()[0] == f"4 answers to 4 prompts in {out}"
    assert "edjax: note: 2 prompts without an answer" in err
    assert [json.loads(line) for line in out.read_text().splitlines()] == [
        {"id": "a/1", "prompt_id": "a", "prompt": "Two and two?", "response": "four"},
        {"id": "a/2", "prompt_id": "a", "prompt": "Two and two?", "response": "4", "source": "large", "score": 0.5},
        {"id": "c/1", "prompt_id": "c", "prompt": "A day?", "response": "Monday", "model": "m"},
        {"id": "c/2", "prompt_id": "c", "prompt": "A day?", "response": ""},
    ]
    assert read_pool(out).responses == ("four", "4", "Monday", None)
    code, _, err = edjax_(*argv, "--overwrite", "--temperature", 1)
    assert code == 2 and "--temperature is for answers of the model" in err


def test_of_listed_answers_one_a_prompt_is_chosen(shared, tmp_path, edjax_):
    """From lists in the rows to the answer that fits, and what the choice came to."""
    rows = [
        {"id": f"p{i}", "prompt": f"{who} saw", "responses": [{"text": t, "source": s} for s, t in answers.items()]}
        for i, (who, answers) in enumerate(
            {
                "Tim": {"plain": "a big red ball.", "odd": "qzx qzx vv"},
                "Lily": {"plain": "a little dog.", "odd": "77 && 88"},
                "Tom": {"plain": "", "odd": "zk zk zk"},
            }.items()
        )
    ]
    model, made, found, out = shared / "models" / "stories260k", tmp_path / "c.jsonl", tmp_path / "f", tmp_path / "s"
    assert edjax_("generate", written(tmp_path / "rows.jsonl", rows), "--responses", "responses", "--out", made)[0] == 0
    probe = ["--probe", "response", "--max-new-tokens", 0, "--template", "plain"]
    assert edjax_("score", made, "--model", model, *probe, "--out", found)[0] == 0
    pick = ["--strategy", "grape", "--budget", 9, "--allow", "fewer,invalid", "--out", out]
    code, said, err = edjax_("select", found, *pick)
    assert code == 0, err
    assert {json.loads(x)["id"] for x in (out / "selected.jsonl").read_text().splitlines()} == {"p0/1", "p1/1", "p2/2"}
    assert "left out: 1 without tokens" in said and "than of source plain 0% of 2, odd 67% of 3" in said


def test_turns_and_their_answers(tmp_path):
    rows = [TURNS[2] | {"answers": ["Yes", "No"]}]
    pool = read_pool(written(tmp_path / "rows.jsonl", rows))
    again = read_pool(written(tmp_path / "again.jsonl", listed(pool, "answers")))
    assert again.messages == pool.messages * 2 and again.responses == ("Yes", "No")


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ("four", "row 'a': responses is str, not a list of answers"),
        (["four", 4], "row 'a': responses: answer 2 is no text, nor an object with one under response, text, content"),
        ([{"source": "m"}], "row 'a': responses: answer 1 is no text"),
        ([None], "row 'a': responses: answer 1 is no text"),
        ([], "responses lists no answer in any row"),
    ],
)
def test_what_is_no_list_of_answers_is_named(answers, said, tmp_path):
    pool = read_pool(written(tmp_path / "rows.jsonl", [{"id": "a", "prompt": "Two?", "responses": answers}]))
    with pytest.raises(DataError, match=said):
        listed(pool)
    with pytest.raises(DataError, match="no column 'others'"):
        listed(pool, "others")
