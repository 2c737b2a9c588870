"""What is right: references of every kind, choices as MMLU and ARC write them, GSM8K's last line, what is refused."""

import json
from decimal import Decimal

import pytest
from lm_cases import make_pool

from edjax.evaluation import METRICS, answers_of, evaluate
from edjax.evaluation.answers import Unclear, read_answers, references, right_choice
from edjax.evaluation.metrics import exact_match, final_answers
from edjax.keep.errors import DataError, UsageError


@pytest.mark.parametrize(
    ("record", "want"),
    [
        ({"answer": ["Hell", "Paris"]}, ["Hell", "Paris"]),
        ({"answer": ["a", 5, 2.0]}, ["a", "5", "2"]),
        ({"answer": []}, ["yes"]),
        ({"answer": float("nan")}, ["yes"]),
        ({"answer": 3.0}, ["3"]),
        ({"answer": 2.5}, ["2.5"]),
        ({"answer": Decimal("2.00")}, ["2"]),
        ({"refs": [Decimal("2.50"), Decimal("9007199254740993")]}, ["2.50", "9007199254740993"]),
        ({"refs": "a text", "answer": "b"}, ["a text"]),
        ({"refs": [""], "answer": "b"}, ["b"]),
        ({"answerKey": "B"}, ["yes"]),  # names a choice, and there are none
        ({"answer": "0 + 1,200 = 1,200\n#### 1,200"}, ["0 + 1,200 = 1,200\n#### 1,200", "1,200", "1200"]),
    ],
)
def test_references(record, want):
    assert references(record, "yes") == want


@pytest.mark.parametrize("value", [True, {"value": "Paris"}, [["Paris"]], [None], float("inf")])
@pytest.mark.parametrize("column", ["answer", "refs"])
def test_what_is_no_answer_is_refused(value, column):
    with pytest.raises(Unclear, match="neither text, nor a number, nor a list of these"):
        references({column: value}, "yes")


def test_a_final_answer_is_compared_with_its_like():
    assert final_answers("12 #### 3") == final_answers("####") == []
    assert exact_match("1 + 1 = 2\n#### 2", ["0 + 2 = 2\n#### 2", "2"]) == 1
    assert exact_match("2", references({"answer": "0 + 2 = 2\n#### 2"}, None)) == 1
    assert exact_match("#### 3", references({"answer": "0 + 2 = 2\n#### 2"}, None)) == 0
    assert final_answers("2\n#### 2 \n\n") == ["2"]


def test_a_heading_is_no_final_answer():
    assert exact_match("Bad\n#### Steps\n1. Burn", references({}, "Intro\n#### Steps\n1. Wash")) == 0
    assert final_answers("#### 1\n#### 2\nand so on") == []


def test_a_model_may_go_on_after_its_final_answer():
    assert exact_match("1 + 1 = 2\n#### 2\n\nQuestion: how", ["0 + 2 = 2\n#### 2", "2"]) == 1


ABCD = ["red", "green", "blue", "grey"]
ARC = {"text": ["stone", "water"], "label": ["A", "B"]}


@pytest.mark.parametrize(
    ("record", "response", "want"),
    [
        ({"choices": ABCD, "answer": 2}, None, 2),
        ({"choices": ABCD, "answer": 0}, "red", 0),
        ({"choices": ABCD, "answer": 2.0}, "C", 2),
        ({"choices": ABCD, "answer": "C"}, None, 2),
        ({"choices": ABCD, "answer": ["blue"]}, None, 2),
        ({"choices": ABCD}, "Blue.", 2),
        ({"choices": ABCD}, "purple", None),
        ({"choices": ["0", "1", "2", "3"], "answer": 2}, "C", 2),  # both readings agree
        ({"choices": ["1", "2", "3", "4"], "answer": 2}, "C", 2),  # the response says which
        ({"choices": ["1", "2", "3", "4"], "answer": 2}, "2", 1),
        ({"choices": [10, 20, 30], "answer": 20}, None, 1),  # no place
        ({"choices": ["B", "A"]}, "A", 1),  # its text before a letter that nobody wrote
        ({"choices": ARC, "answerKey": "B"}, None, 1),
        ({"choices": ARC, "answer": "B"}, None, 1),
        ({"choices": ARC, "answer": "water"}, None, 1),
        ({"choices": ARC}, "water", 1),
        ({"choices": {"text": ["2", "4", "1"], "label": ["1", "2", "3"]}, "answerKey": "2"}, None, 1),
        ({"choices": {"text": ["2", "4", "1"], "label": ["1", "2", "3"]}, "answerKey": 2}, None, 1),
        ({"choices": {"text": ["stone", "water"], "label": [1, 2]}, "answer": "2"}, None, 1),
        ({"choices": [{"label": "A", "text": "stone"}, {"label": "B", "text": "water"}], "answer": "B"}, None, 1),
        ({"choices": [{"text": "stone"}, {"text": "water"}], "answer": 1}, None, 1),
        ({"choices": {"A": "stone", "B": "water"}, "answer_idx": "B"}, None, 1),
        ({"choices": {"A": "stone", "B": "water", "C": None, "D": float("nan")}, "answer": "B"}, None, 1),
        ({"choices": {"text": ["stone", "water"], "label": None}, "answer": "B"}, None, 1),
        ({"choices": ABCD, "answer": "2"}, None, 2),
        ({"choices": ABCD, "answer": ["2"]}, None, 2),
        ({"choices": ABCD, "answer_idx": " 2 "}, None, 2),
        ({"choices": ABCD, "answer": Decimal("2.0")}, None, 2),
        ({"choices": ARC, "answerKey": "1"}, None, 1),  # as the number is: neither a label nor a text
        ({"choices": ["1", "2", "3"], "answer": "2"}, None, 1),  # its text
        ({"choices": ["1", "2", "3"], "answer_idx": "2"}, "3", 2),
        ({"choices": ["happy", "Happy", "sad"], "answer": "B"}, "happy", 0),  # the same text
        ({"choices": {"text": ["B", "A"], "label": ["A", "B"]}, "answerKey": "A"}, "B", 0),  # the response is either
    ],
)
def test_right_choice(record, response, want):
    assert right_choice(record, response) == want


@pytest.mark.parametrize(
    ("record", "response", "why"),
    [
        ({"choices": ["1", "2", "3", "4"], "answer": 2}, None, "may mean the choice '2' or, counted from 0, '3'"),
        ({"choices": [1, 2, 3, 4], "answer": 2}, None, "may mean the choice"),
        ({"choices": ABCD, "answer": 4}, None, "none of its 4 choices"),
        ({"choices": ABCD, "answer": -1}, None, "none of its 4 choices"),
        ({"choices": ABCD, "answer": 1.5}, None, "none of its 4 choices"),
        ({"choices": ABCD, "answer": 3}, "C", r"'grey' \(places count from 0\), and a response that is 'blue'"),
        ({"choices": ABCD, "answer": "4"}, None, "none of its 4 choices"),
        ({"choices": ABCD, "answerKey": "E"}, None, "has the key 'E', which is none of its 4 choices"),
        ({"choices": ["1", "2", "3"], "answer_idx": "2"}, None, "may mean the choice '2' or, counted from 0, '3'"),
        ({"choices": ABCD, "answer": "A"}, "blue", "the answer 'A', the choice 'red', and a response that is 'blue'"),
        ({"choices": ARC, "answerKey": "A"}, "water", "the choice 'stone', and a response that is 'water'"),
        ({"choices": {"1": "a", "2": "b"}, "answerKey": 1}, "b", "the choice 'a', and a response that is 'b'"),
        ({"choices": ABCD, "answer": True}, None, "neither text"),
        ({"choices": {"text": ["B", "A"], "label": ["A", "B"]}, "answer": "A"}, None, "'B' or|'A' or"),
        ({"choices": {"text": ["a", "b"], "label": ["A"]}}, "a", "not as many labels"),
        ({"choices": [{"label": "A"}, {"label": "B"}]}, "a", "without text"),
        ({"choices": ["a", None]}, "a", "neither text"),
    ],
)
def test_what_is_unclear_is_refused(record, response, why):
    with pytest.raises(Unclear, match=why):
        right_choice(record, response)


def test_integers_mean_the_same_in_all_rows():
    """MMLU's numbers are places in a row of words, so they are in a row of numbers."""
    numbers = {"choices": ["1", "2", "3", "4"], "answer": 2}
    with_words = read_answers([numbers, {"choices": ABCD, "answer": 0}], [None, None])
    assert [a.choices.right for a in with_words] == [2, 0]
    as_text = read_answers([numbers, {"choices": ABCD, "answer_idx": "0"}], [None, None])
    assert [a.choices.right for a in as_text] == [2, 0]
    by_value = read_answers([numbers, {"choices": ["10", "20"], "answer": 20}], [None, None])
    assert [a.choices.right for a in by_value] == [1, 1]


def test_a_choice_is_accepted_by_text_and_label():
    assert references({"choices": ABCD, "answer": 2}, "C") == ["blue", "C"]
    assert references({"choices": ["0", "1", "2"], "answer": 2}, "C") == ["2", "C"]
    assert references({"choices": ARC, "answerKey": "B"}, "water") == ["water", "B"]
    assert references({"choices": ["C", "B", "A"], "answer": 0}, None) == ["C"]  # A is what another choice says
    assert references({"choices": ABCD, "answer": "blue"}, None) == ["blue"]
    assert references({"choices": ABCD, "answer": "2"}, None) == ["blue", "C"]
    assert references({"choices": ABCD, "answer_idx": "2"}, None) == ["blue", "C"]


def lines(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def model(shared):
    return str(shared / "models" / "stories260k")


def test_rows_without_a_response_are_compared_with_their_answer(edjax_, model, tmp_path):
    rows = lines(
        tmp_path / "r.jsonl", {"id": "a", "prompt": "2+2?", "answer": "4"}, {"id": "b", "prompt": "3?", "refs": [3]}
    )
    code, out, err = edjax_("evaluate", rows, "--model", model, "--max-new-tokens", 2, "--json")
    assert code == 0, err
    assert json.loads(out)["counts"] == {"response_loss": 2, "exact_match": 2, "rouge_l": 2}
    neither = lines(tmp_path / "n.jsonl", {"id": "a", "prompt": "2+2?", "answer": ""})
    code, _, err = edjax_("evaluate", neither, "--model", model)
    assert code == 3 and "row 'a' has no response to compare with, and neither refs nor an answer" in err


def test_a_row_that_is_unclear_is_named(fails, model, tmp_path):
    rows = lines(
        tmp_path / "r.jsonl", {"id": "a", "prompt": "Where?", "response": "Paris", "answer": {"value": "Paris"}}
    )
    assert "row 'a' has {'value': 'Paris'} as answer" in fails(3, "evaluate", rows, "--model", model)


def test_a_metric_that_no_row_can_have(fails, model, tmp_path):
    rows = lines(tmp_path / "r.jsonl", {"id": "a", "prompt": "What is ice?", "response": "water"})
    assert "no metrics are asked for" in fails(2, "evaluate", rows, "--model", model, "--metrics", ",")
    line = fails(2, "evaluate", rows, "--model", model, "--metrics", "choice_accuracy")
    assert "no row can have choice_accuracy" in line
    assert len(answers_of(make_pool([("a", "b")]), METRICS)) == 1  # all of them: those that there are
    with pytest.raises(UsageError, match="no row can have"):
        answers_of(make_pool([("a", "zz", {"choices": ["x", "y"]})]), ["response_loss", "choice_accuracy"])


def test_only_what_is_asked_for_needs_to_be_clear():
    pool = make_pool([("a", "b", {"answer": {"value": "b"}})])
    assert answers_of(pool, ["response_loss"])[0].references == ["b"]
    with pytest.raises(DataError, match="row 'row-0' has"):
        answers_of(pool, ["exact_match"])


def test_arc_and_copies_among_choices(stories):
    """The likeliest of equal texts counts, whichever of them is meant."""
    rows = [
        ("The dog was", "happy", {"choices": {"text": ["xyzzy qux", "happy"], "label": ["A", "B"]}, "answerKey": "B"}),
        ("The dog was", "happy", {"choices": ["happy", "Happy", "zzz"], "answer": 1}),
    ]
    done = evaluate(
        make_pool(rows), stories.name, metrics=["choice_accuracy"], loaded=stories, show_progress=False, batch_size=2
    )
    assert done.scores == {"choice_accuracy": 1.0} and done.counts == {"choice_accuracy": 2}
