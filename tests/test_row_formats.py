"""The formats that data sets are known by are read without an option, and columns of other names with one."""

import json

import pytest
from test_row_shapes import jsonl, table

from edjax.data.pool import read_pool
from edjax.data.reading import Reading
from edjax.evaluation.references import answers_of
from edjax.handoff import read_chosen
from edjax.handoff.labels import import_labels
from edjax.keep.errors import DataError, UsageError

A, U, S = "assistant", "user", "system"


def turn(role, content, **more):
    return {"role": role, "content": content} | more


def said(*texts):
    return [{"from": "gpt" if n % 2 else "human", "value": t} for n, t in enumerate(texts)]


CONTAINERS = {"p.jsonl": jsonl, "p.parquet": table}
Q, TALK = turn(U, "Q?"), [turn(U, "Hi"), turn(A, "Hey"), turn(U, "Q?")]
TOOL = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object", "properties": {"x": {"type": "string"}}}},
}
KNOWN = {  # a row, its prompt, its response, what evaluating compares with
    "Dolly": (
        {"instruction": "Q?", "context": "C.", "response": "A.", "category": "closed_qa"},
        [turn(U, "Q?\n\nC.")],
        "A.",
        ["A."],
    ),
    "OpenOrca": (
        {"id": "o", "system_prompt": "Think.", "question": "Q?", "response": "A."},
        [turn(S, "Think."), Q],
        "A.",
        ["A."],
    ),
    "GSM8K": ({"question": "Q?", "answer": "1+1=2\n#### 2"}, [Q], "1+1=2\n#### 2", ["1+1=2\n#### 2", "2"]),
    "SQuAD": (
        {"id": "s", "title": "T", "context": "C.", "question": "Q?", "answers": {"text": ["A"], "answer_start": [0]}},
        [turn(U, "Q?\n\nC.")],
        "A",
        ["A"],
    ),
    "SQuAD, validation": (
        {"context": "C.", "question": "Q?", "answers": {"text": ["A", "A B", "A"], "answer_start": [0, 0, 0]}},
        [turn(U, "Q?\n\nC.")],
        None,
        ["A", "A B"],
    ),
    "SQuAD, nothing": (
        {"context": "C.", "question": "Q?", "answers": {"text": [], "answer_start": []}},
        [turn(U, "Q?\n\nC.")],
        None,
        None,
    ),
    "Natural Questions": ({"question": "Q?", "answers": ["A", "B"]}, [Q], None, ["A", "B"]),
    "MMLU": (
        {"question": "Q?", "subject": "s", "choices": ["ant", "bee", "cow", "doe"], "answer": 2},
        [Q],
        None,
        ["cow", "C"],
    ),
    "ARC": (
        {"question": "Q?", "choices": {"text": ["ant", "bee"], "label": ["A", "B"]}, "answerKey": "B"},
        [Q],
        None,
        ["bee", "B"],
    ),
    "LIMA": ({"conversations": ["Q?", "A."], "source": "s"}, [Q], "A.", ["A."]),
    "LIMA, several turns": ({"conversations": ["Hi", "Hey", "Q?", "A."]}, TALK, "A.", ["A."]),
    "LIMA, unanswered": ({"conversations": ["Hi", "Hey", "Q?"]}, TALK, None, None),
    "Alpaca with history": (
        {"instruction": "Q?", "input": "", "output": "A.", "system": "S.", "history": [["Hi", "Hey"]]},
        [turn(S, "S."), *TALK],
        "A.",
        ["A."],
    ),
    "ShareGPT": (
        {"conversations": said("Q?", "A."), "system": "S.", "tools": json.dumps([TOOL])},
        [turn(S, "S."), Q],
        "A.",
        ["A."],
    ),
    "OpenAI fine-tuning": ({"messages": [turn(S, "S."), Q, turn(A, "A.")]}, [turn(S, "S."), Q], "A.", ["A."]),
    "OpenAI batch": (
        {"custom_id": "c1", "method": "POST", "url": "/v1", "body": {"model": "m", "messages": [turn(S, "S."), Q]}},
        [turn(S, "S."), Q],
        None,
        None,
    ),
    "OpenAI batch, tools": ({"custom_id": "c", "body": {"messages": [Q], "tools": [TOOL]}}, [Q], None, None),
    "pair, text": ({"prompt": "Q?", "chosen": "A.", "rejected": "B."}, [Q], "A.", ["A."]),
    "pair, turns": (
        {"prompt": [turn(S, "S."), Q], "chosen": [turn(A, "A.")], "rejected": [turn(A, "B.")]},
        [turn(S, "S."), Q],
        "A.",
        ["A."],
    ),
    "pair, whole conversations": (
        {"prompt": "Q?", "chosen": [Q, turn(A, "A.")], "rejected": [Q, turn(A, "B.")]},
        [Q],
        "A.",
        ["A."],
    ),
    "pair, whole conversations and system": (
        {"prompt": "Q?", "chosen": [turn(S, "S."), Q, turn(A, "A.")], "rejected": [Q, turn(A, "B.")]},
        [turn(S, "S."), Q],
        "A.",
        ["A."],
    ),
    "pair without a prompt": ({"chosen": [Q, turn(A, "A.")], "rejected": [Q, turn(A, "B.")]}, [Q], "A.", ["A."]),
}


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("name", KNOWN)
def test_known_formats_need_no_option(tmp_path, name, container):
    row, prompt, response, compared = KNOWN[name]
    pool = read_pool(CONTAINERS[container](tmp_path / container, row))
    assert list(pool.messages[0]) == prompt and pool.responses == (response,)
    assert (pool.tools[0] is not None) == ("tools" in row or "tools" in row.get("body", {}))
    if compared is None:
        with pytest.raises(DataError, match="has no response to compare with"):
            answers_of(pool, ["exact_match"])
    else:
        assert answers_of(pool, ["exact_match"])[0].references == compared


@pytest.mark.parametrize("name", [n for n in KNOWN if n != "SQuAD, nothing"])
def test_an_answer_is_read_where_it_is_written(tmp_path, name):
    """What `import-labels` writes into a row of any format is what the row then says."""
    path = jsonl(tmp_path / "p.jsonl", {"id": "x", "custom_id": "x"} | KNOWN[name][0])
    pool = read_pool(path)
    answers = jsonl(tmp_path / "a.jsonl", {"id": pool.ids[0], "response": "New."})
    (tmp_path / "done.jsonl").write_bytes(import_labels(read_chosen(path), [answers]).lines[0])
    again = read_pool(tmp_path / "done.jsonl")
    assert again.responses == ("New.",) and again.messages == pool.messages and again.ids == pool.ids


def test_rows_of_a_batch_are_named_by_their_custom_id(tmp_path):
    rows = [{"custom_id": f"c{i}", "body": {"messages": [Q]}} for i in range(2)]
    pool = read_pool(jsonl(tmp_path / "p.jsonl", *rows))
    assert pool.ids == ("c0", "c1") and pool.reading.record() == {"id_column": "custom_id"}
    assert read_pool(jsonl(tmp_path / "q.jsonl", {"id": "i", **rows[0]})).ids == ("i",)
    with pytest.raises(DataError, match="no prompt among the columns custom_id, body"):
        read_pool(jsonl(tmp_path / "r.jsonl", {"custom_id": "c", "body": "a text"}))


def test_other_columns_called_chosen_or_answers(tmp_path):
    rows = [
        {"prompt": "Q?", "chosen": True, "answers": 3},
        {"prompt": "Q?", "chosen": {"by": "us"}, "answers": [{"text": "A", "score": 1}]},
    ]
    assert read_pool(jsonl(tmp_path / "p.jsonl", *rows)).responses == (None, None)


# Columns of other names


ROW = {"ask": "Q?", "gold": "A.", "persona": "S.", "passage": "C.", "kinds": ["x", "A."], "key": 1}
ALL = {
    "text_column": "ask",
    "response_column": "gold",
    "system_column": "persona",
    "context_column": "passage",
    "choices_column": "kinds",
    "answer_column": "key",
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_columns_of_other_names(tmp_path, container):
    pool = read_pool(CONTAINERS[container](tmp_path / container, ROW), **ALL)
    assert list(pool.messages[0]) == [turn(S, "S."), turn(U, "Q?\n\nC.")] and pool.responses == ("A.",)
    assert pool.reading.record() == ALL and Reading(**ALL) == pool.reading
    one = answers_of(pool, ["choice_accuracy"])[0]
    assert one.choices.texts == ["x", "A."] and one.choices.right == 1


@pytest.mark.parametrize(
    ("row", "named", "prompt", "response"),
    [
        ({"prompt": "Q?", "response": "old", "gold": "A."}, {"response_column": "gold"}, [Q], "A."),
        ({"prompt": "Q?", "response": "old", "gold": None}, {"response_column": "gold"}, [Q], None),
        ({"instruction": "Q?", "output": "old", "gold": 2.0}, {"response_column": "gold"}, [Q], "2"),
        ({"messages": [Q], "gold": "A."}, {"response_column": "gold"}, [Q], "A."),
        ({"messages": [Q, turn(A, "A.")], "gold": "A."}, {"response_column": "gold"}, [Q], "A."),
        ({"prompt": "Q?", "gold": [turn(A, "A.")]}, {"response_column": "gold"}, [Q], "A."),
        ({"prompt": "Q?", "system": "no", "persona": "S."}, {"system_column": "persona"}, [turn(S, "S."), Q], None),
        ({"text": "Q?", "persona": "S."}, {"system_column": "persona"}, [turn(S, "S."), Q], None),
        ({"messages": [Q], "persona": "S."}, {"system_column": "persona"}, [turn(S, "S."), Q], None),
        ({"text": "Q?", "passage": ["C", "D"]}, {"context_column": "passage"}, [turn(U, "Q?\n\nC\n\nD")], None),
        (
            {"question": "Q?", "context": "no", "passage": "C"},
            {"context_column": "passage"},
            [turn(U, "Q?\n\nC")],
            None,
        ),
        ({"question": "Q?", "target": 7}, {"answer_column": "target"}, [Q], "7"),
        (
            {"question": "Q?", "kinds": ["a", "b"], "target": 1},
            {"choices_column": "kinds", "answer_column": "target"},
            [Q],
            None,
        ),
        ({"question": "Q?", "choices": ["a", "b"], "target": 1}, {"answer_column": "target"}, [Q], None),
        ({"prompt": "Q?", "gold": "A."}, {"response_column": "gold", "answer_column": "gold"}, [Q], "A."),
    ],
)
def test_a_named_column_stands_for_the_known_ones(tmp_path, row, named, prompt, response):
    pool = read_pool(jsonl(tmp_path / "p.jsonl", row), **named)
    assert list(pool.messages[0]) == prompt and pool.responses == (response,)


def test_what_cannot_be_read_of_named_columns(tmp_path):
    path = jsonl(tmp_path / "p.jsonl", ROW | {"prompt": "Q?"})
    for name in ALL:
        with pytest.raises(DataError, match=r"no column 'personna'; did you mean 'persona'\?"):
            read_pool(path, **{name: "personna"})
    with pytest.raises(UsageError, match="the column 'gold' is named for the response and for the context"):
        read_pool(path, response_column="gold", context_column="gold")
    path = jsonl(tmp_path / "p.jsonl", {"messages": [Q, turn(A, "A.")], "gold": "B.", "passage": "C."})
    with pytest.raises(DataError, match=r"p\.jsonl:1: the column 'gold' and the last turn differ"):
        read_pool(path, response_column="gold")
    with pytest.raises(DataError, match=r"p\.jsonl:1: the column 'passage' is context of a prompt that is text"):
        read_pool(path, context_column="passage")


def test_an_answer_goes_into_the_column_that_was_named(tmp_path):
    rows = [
        {"id": "a", "messages": [Q], "gold": None},
        {"id": "b", "messages": [Q]},
        {"id": "c", "messages": [Q], "gold": "x"},
    ]
    path = jsonl(tmp_path / "p.jsonl", *rows)
    answers = jsonl(tmp_path / "a.jsonl", *({"id": i, "response": f"to {i}"} for i in "abc"))
    done = import_labels(read_chosen(path, response_column="gold"), [answers])
    assert [json.loads(line) for line in done.lines] == [r | {"gold": f"to {r['id']}"} for r in rows]


def test_a_selection_of_rows_that_lack_the_column(tmp_path, edjax_):
    """Rows of JSON Lines may leave a column out, and those that are chosen are often the ones without a response."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"id": "a", "ask": "Q?"}, {"id": "b", "ask": "R?", "gold": "A."}]
    path, vectors = jsonl(tmp_path / "p.jsonl", *rows), tmp_path / "v.parquet"
    pq.write_table(pa.table({"id": ["a"], "embedding": [[0.0, 1.0]]}), vectors)
    out = tmp_path / "s"
    argv = ["select", "--embeddings", vectors, "--pool", path, "--strategy", "random", "--budget", 1, "--out", out]
    code, _, err = edjax_(*argv, "--text-column", "ask", "--response-column", "gold")
    assert code == 0, err
    chosen = read_chosen(out)
    assert chosen.pool.ids == ("a",) and chosen.pool.reading.response_column == "gold"
    answers = jsonl(tmp_path / "a.jsonl", {"id": "a", "response": "New."})
    code, said_, err = edjax_("import-labels", out, answers, "--out", tmp_path / "done.jsonl")
    assert code == 0 and "--text-column ask --response-column gold" in said_, err
    assert json.loads((tmp_path / "done.jsonl").read_text()) == {"id": "a", "ask": "Q?", "gold": "New."}


def test_users_files(shared):
    if not (shared / "cases").is_dir():
        pytest.skip("the cases are not there")
    for name in ("orca", "lima", "dolly", "gsm8k", "alpaca_history", "sharegpt_system"):
        pool = read_pool(shared / "cases" / f"{name}.jsonl")
        assert all(pool.responses), name
