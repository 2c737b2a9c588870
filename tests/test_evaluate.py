"""Evaluation: losses and choices against full forwards, metrics against tables and Google's rouge_score, adapters."""

import json

import numpy as np
import pytest
from lm_cases import greedy, make_pool, nll_of

from edjax.evaluation import METRICS, evaluate, read_evaluation
from edjax.evaluation.answers import references, right_choice
from edjax.evaluation.metrics import exact_match, normalise, rouge_l
from edjax.finetuning import FinetuneConfig, finetune
from edjax.keep.errors import DataError, UsageError
from edjax.lm.encode import Encoder
from edjax.lm.peft import import_adapter

ROWS = [
    ("Tim had a", "red ball.", {"choices": ["red ball.", "blue sky", "a"]}),
    ("Lily went to the", "park", {"choices": ["moon", "park"], "answer": "park"}),
    ("The dog was", "happy", {"refs": ["happy", "very happy"]}),
    ("Once upon a time, there was a little girl named", "Lily", {"choices": ["Bob the big dog", "Lily", "lily pad"]}),
    ("Mom said:", "Let us go home now, it is late and you must sleep.", {"choices": ["x"]}),
    ("The cat saw a big", "tree", {"choices": ["tree", "bird", "ball", "house", "red"], "answer": "Tree."}),
    ("One day", "he ran", {"choices": None}),
]


@pytest.fixture(scope="module")
def run(stories):
    def run(pool, **settings):
        settings = {"max_new_tokens": 8, "batch_size": 4, "show_progress": False, "loaded": stories} | settings
        return evaluate(pool, stories.name, **settings)

    return run


@pytest.fixture(scope="module")
def pool():
    return make_pool(ROWS)


@pytest.fixture(scope="module")
def result(run, pool):
    return run(pool)


def brute(model, stories, pool):
    """Per row: mean loss of the response, the likeliest choice (None without choices), the greedy answer."""
    encoder = Encoder(stories.tokenizer)
    out = []
    for i, messages in enumerate(pool.messages):
        prompt = encoder.prompt(messages)
        loss = nll_of(model, prompt, encoder.response(pool.responses[i])).mean()
        choices = pool.records[i].get("choices") or []
        totals = [nll_of(model, prompt, encoder.response(c)).sum() for c in choices]
        tokens, _ = greedy(model, prompt, 8, stories.eos_ids)
        text = stories.tokenizer.decode(tokens, skip_special_tokens=True).strip()
        out.append((loss, int(np.argmin(totals)) if len(totals) > 1 else None, text))
    return out


def check(result, expected, pool):
    right = []
    for i, (row, (loss, choice, text)) in enumerate(zip(result.rows, expected, strict=True)):
        assert row["id"] == pool.ids[i]
        assert abs(row["response_loss"] - loss) < 1e-4
        assert row.get("choice") == choice
        assert row["generated"] == text
        if choice is not None:
            right.append(pool.records[i]["choices"][choice] == pool.responses[i])
            assert row["choice_accuracy"] == right[-1]
    assert abs(result.scores["response_loss"] - np.mean([e[0] for e in expected])) < 1e-4
    assert result.scores["choice_accuracy"] == np.mean(right)
    assert result.counts == {"response_loss": 7, "exact_match": 7, "rouge_l": 7, "choice_accuracy": len(right)}


def test_against_full_forwards(stories, pool, result):
    expected = brute(stories.model, stories, pool)
    assert len({e[1] for e in expected}) > 2  # not always the same place
    check(result, expected, pool)


@pytest.mark.parametrize(("batch_size", "n"), [(1, 2), (16, 7)])
def test_batches_change_nothing(run, pool, result, batch_size, n):
    other = run(pool.take(range(n)), batch_size=batch_size)
    for a, b in zip(other.rows, result.rows[:n], strict=True):
        assert abs(a.pop("response_loss") - b["response_loss"]) < 1e-4
        assert a == {k: v for k, v in b.items() if k != "response_loss"}


def test_some_metrics_only(run, pool, result):
    some = run(pool, metrics=["response_loss"])
    assert set(some.scores) == {"response_loss"}
    assert all(set(row) == {"id", "response_loss"} for row in some.rows)
    for a, b in zip(some.rows, result.rows, strict=True):
        assert abs(a["response_loss"] - b["response_loss"]) < 1e-5


def test_no_choices_no_accuracy(run):
    result = run(make_pool(ROWS[2:3]), metrics=list(METRICS))
    assert "choice_accuracy" not in result.scores
    assert "choice_accuracy" not in result.rows[0]


def test_with_an_adapter(stories, run, pool, result, tmp_path):
    """Learned by heart: the adapter's own numbers, from its directory and from a model that wears it."""
    config = FinetuneConfig(
        num_train_epochs=12,
        per_device_train_batch_size=7,
        learning_rate=2e-2,
        gradient_checkpointing=False,
        save_steps=0,
    )
    finetune(pool, stories.name, out=tmp_path / "a", config=config, loaded=stories, show_progress=False)
    adapted, _ = import_adapter(stories.model, tmp_path / "a")
    after = run(pool, adapter=tmp_path / "a", out=tmp_path / "e")
    check(after, brute(adapted, stories, pool), pool)
    assert after.scores["response_loss"] < 0.5 * result.scores["response_loss"]
    assert run(pool).rows == result.rows  # the base model is as it was
    again = read_evaluation(tmp_path / "e")
    assert again == after
    assert json.loads((tmp_path / "e" / "scores.json").read_text())["scores"] == after.scores
    with pytest.raises(UsageError, match="adapter"):
        run(pool, out=tmp_path / "e")


def test_a_result_of_another_dtype_is_not_handed_back(run, pool, tmp_path):
    few = pool.take([0])
    first = run(few, metrics=["response_loss"], out=tmp_path / "e")
    assert run(few, metrics=["response_loss"], out=tmp_path / "e") == first
    with pytest.raises(UsageError, match='dtype: "float32" there, "bfloat16" now'):
        run(few, metrics=["response_loss"], out=tmp_path / "e", dtype="bfloat16")


def test_refusals(run, pool, tmp_path):
    with pytest.raises(UsageError, match="bleu"):
        run(pool, metrics=["bleu"])
    with pytest.raises(UsageError, match="no metrics are asked for; edjax computes: response_loss, "):
        run(pool, metrics=())
    with pytest.raises(DataError, match="'row-1' has no response"):
        run(make_pool([("a", "b"), ("c", None)]))
    with pytest.raises(DataError, match="is not an adapter"):
        run(pool, adapter=tmp_path)
    with pytest.raises(DataError, match="is not an adapter"):
        run(pool, adapter=tmp_path / "nowhere", out=tmp_path / "e")


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("Paris", "paris"),
        ("  Paris.\n", "paris"),
        ('"Paris"', "paris"),
        ("'Paris.'", "paris"),
        ('"Paris".', "paris"),
        ("`Paris`!", "paris"),
        ("New\n  York", "new york"),
        ("3.5", "3.5"),
        ("35", "35"),
        ("-7", "-7"),
        ("the answer", "the answer"),
        ("Why?!", "why"),
        ("rock'n'roll", "rock'n'roll"),
        ("ÉCOLE", "école"),
        ("...", ""),
        ("", ""),
    ],
)
def test_normalise(text, want):
    assert normalise(text) == want
    assert exact_match(text, [want]) == 1.0


def test_exact_match():
    assert exact_match("Paris.", ["London", "paris"]) == 1.0
    assert exact_match("3.5", ["35"]) == 0.0
    assert exact_match("Paris France", ["Paris"]) == 0.0


def longest_common(a, b):
    table = np.zeros((len(a) + 1, len(b) + 1), int)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1, j + 1] = table[i, j] + 1 if x == y else max(table[i, j + 1], table[i + 1, j])
    return table[-1, -1]


def test_rouge_l():
    """Against the package, and against a longest common subsequence where stems are the words themselves."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    words = ("cat", "dog", "sun", "red", "big")
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = (list(rng.choice(words, rng.integers(1, 9))) for _ in range(2))
        common = longest_common(a, b)
        want = 2 * common / (len(a) + len(b))
        assert rouge_l(" ".join(a), [" ".join(b)]) == pytest.approx(want)
    for answer, ref in (("The dogs were running.", "A dog runs"), ("", "x"), ("Same words!", "same words")):
        assert rouge_l(answer, [ref]) == scorer.score(ref, answer)["rougeL"].fmeasure
    assert rouge_l("the dog", ["a cat", "the dog"]) == 1.0
    assert rouge_l("日本", ["日本"]) == 0.0


def test_references():
    assert references({"refs": ["a", 5], "answer": "b"}, "c") == ["a", "5"]
    assert references({"refs": [], "answer": "b"}, "c") == ["b"]
    assert references({"refs": "text", "answer": ""}, "c") == ["text"]
    assert references({"refs": None, "answer": ""}, "c") == ["c"]
    assert references({"answer": 0}, "c") == ["0"]


def test_right_choice():
    assert right_choice({"choices": ["A", "B"]}, "B.") == 1
    assert right_choice({"choices": ["A", "B"], "answer": "a"}, "It is the first") == 0
    assert right_choice({"choices": ["A", "B"]}, "C") is None
    assert right_choice({"choices": ["A"]}, "A") is None
    assert right_choice({"choices": "AB"}, "A") is None
    assert right_choice({}, "A") is None


# Groups


def test_the_values_of_a_column_can_count_alike(run, tmp_path):
    pool = make_pool([(*row[:2], row[2] | {"task": t}) for row, t in zip(ROWS, "aaaabbc", strict=True)])
    got = run(pool, metrics=("response_loss", "choice_accuracy"), group_by="task", out=tmp_path / "e")
    losses = [r["response_loss"] for r in got.rows]
    assert got.scores["response_loss"] == pytest.approx(np.mean(losses))
    assert got.macro["response_loss"] == pytest.approx(np.mean([np.mean(losses[:4]), np.mean(losses[4:6]), losses[6]]))
    right = {i: r["choice_accuracy"] for i, r in enumerate(got.rows) if r.get("choice_accuracy") is not None}
    assert set(right) == {0, 1, 3, 5}, "tasks a and b"
    assert got.macro["choice_accuracy"] == pytest.approx((np.mean([right[0], right[1], right[3]]) + right[5]) / 2)
    assert got.groups == 3 and [r["group"] for r in got.rows] == list("aaaabbc")
    assert read_evaluation(tmp_path / "e") == got


def test_without_a_column_nothing_is_said_of_groups(result, run, pool, tmp_path):
    assert result.macro == {} and "group" not in result.rows[0]
    run(pool, metrics=("response_loss",), out=tmp_path / "e")
    assert set(json.loads((tmp_path / "e" / "scores.json").read_text())) == {"scores", "counts", "seconds"}
    assert "group_by" not in json.loads((tmp_path / "e" / "plan.json").read_text())["config"]


@pytest.mark.parametrize("lacks", [{}, {"task": None}, {"task": ""}], ids=["absent", "null", "empty"])
def test_a_row_without_a_group_is_named(run, lacks):
    pool = make_pool([("a", "b", {"task": "t"}), ("c", "d", lacks)])
    with pytest.raises(DataError, match=rf"row '{pool.ids[1]}' has no 'task' to group by \(1 such\)"):
        run(pool, group_by="task")
    with pytest.raises(DataError, match="'tsk'"):
        run(pool, group_by="tsk")
