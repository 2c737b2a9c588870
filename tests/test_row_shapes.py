"""What a row means: every column that is part of a prompt is read, null is absent, and no label is made up."""

import datetime
import json
from decimal import Decimal

import pytest

from edjax.data.pool import read_pool, write_rows
from edjax.keep.errors import DataError

A, U, S, T = "assistant", "user", "system", "tool"


def turn(role, content, **more):
    return {"role": role, "content": content} | more


def jsonl(path, *rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def table(path, *rows):
    """The rows as Parquet, where every row has every key, and every object of a list those of all of them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return path


def dataset(path, *rows):
    import datasets

    datasets.Dataset.from_list(list(rows)).save_to_disk(path)
    return path


def array(path, *rows):
    path.write_text(json.dumps(rows))
    return path


CONTAINERS = {"p.jsonl": jsonl, "p.json": array, "p.parquet": table, "saved": dataset}
talk = [turn(U, "Hi"), turn(A, "Hey"), turn(U, "And?")]
said = [{"from": "human", "value": "Hi?"}, {"from": "gpt", "value": "Yes."}]
READ = {  # a row, the prompt's turns, the response
    "dolly": (
        {"instruction": "When?", "context": "It was 1900.", "response": "1900."},
        [turn(U, "When?\n\nIt was 1900.")],
        "1900.",
    ),
    "dolly, no context": ({"instruction": "When?", "context": "", "response": "Then."}, [turn(U, "When?")], "Then."),
    "alpaca and context": (
        {"instruction": "Do", "input": "this", "context": "Now.", "output": "ok", "response": "older"},
        [turn(U, "Do\n\nthis\n\nNow.")],
        "ok",
    ),
    "a list of contexts": (
        {"question": "Who?", "context": ["One.", "Two."], "answer": "I"},
        [turn(U, "Who?\n\nOne.\n\nTwo.")],
        "I",
    ),
    "system and history": (
        {"instruction": "And?", "input": "", "output": "Cold.", "system": "A sailor.", "history": [["Hi", "Hey"]]},
        [turn(S, "A sailor."), *talk],
        "Cold.",
    ),
    "history of turns": ({"prompt": "And?", "history": talk[:2], "response": "x"}, talk, "x"),
    "history as JSON text": ({"prompt": "And?", "history": '[["Hi", "Hey"]]'}, talk, None),
    "no history": ({"instruction": "And?", "history": [], "system": "", "output": "x"}, [turn(U, "And?")], "x"),
    "sharegpt and system": (
        {"conversations": said, "system": "One word.", "tools": "[]"},
        [turn(S, "One word."), turn(U, "Hi?")],
        "Yes.",
    ),
    "the same system twice": (
        {"messages": [turn(S, "Brief."), *talk], "system": "Brief."},
        [turn(S, "Brief."), *talk],
        None,
    ),
    "an empty system turn": ({"messages": [turn(S, ""), *talk], "system": "Brief."}, [turn(S, "Brief."), *talk], None),
    "orca": (
        {"system_prompt": "Think.", "question": "1+1?", "response": "2"},
        [turn(S, "Think."), turn(U, "1+1?")],
        "2",
    ),
    "gsm8k": ({"question": "How many?", "answer": "1+1=2\n#### 2"}, [turn(U, "How many?")], "1+1=2\n#### 2"),
    "prompt and answer": ({"prompt": "2+2?", "answer": 4}, [turn(U, "2+2?")], "4"),
    "an answer beside an empty response": (
        {"prompt": "2+2?", "response": None, "answer": "4"},
        [turn(U, "2+2?")],
        None,
    ),
    "an answer that is an index": ({"question": "q", "choices": ["a", "b"], "answer": 1}, [turn(U, "q")], None),
    "an answer that is a list": ({"prompt": "q", "answer": ["a", "b"]}, [turn(U, "q")], None),
    "text is whole": (
        {"text": "All of it.", "system": "x", "context": "y", "tools": "hammer"},
        [turn(U, "All of it.")],
        None,
    ),
    "a completion of several turns": (
        {"prompt": [turn(U, "Hi")], "completion": [turn(A, "Hey"), turn(U, "And?"), turn(A, "Done.")]},
        talk,
        "Done.",
    ),
    "a completion after text": ({"prompt": "Hi", "completion": [turn(A, "Hey"), turn(U, "And?")]}, talk, None),
    "a completion that is one turn": ({"prompt": "Hi", "completion": turn(A, "Hey")}, talk[:1], "Hey"),
    "an answer of weight 0 and a label": (
        {"messages": [turn(U, "Hi"), turn(A, "BAD", weight=0)], "response": "Hey"},
        talk[:1],
        "Hey",
    ),
}


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("case", READ)
def test_every_column_of_a_prompt_is_read(tmp_path, case, container):
    row, messages, response = READ[case]
    pool = read_pool(CONTAINERS[container](tmp_path / container, row))
    assert list(pool.messages[0]) == messages
    assert pool.responses == (response,)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "q", "system": {"a": 1}}, "system is dict, not text"),
        ({"messages": [turn(S, "a"), turn(U, "b")], "system": "c"}, "the column 'system' and a system turn differ"),
        ({"instruction": "q", "context": {"title": ["a"]}}, "context is dict, not text"),
        ({"instruction": "q", "context": [["t", ["s"]]]}, "an entry of context is list, not text"),
        ({"prompt": "q", "history": "long ago"}, "history is str, not a list of turns or of .*rename the column"),
        ({"prompt": "q", "history": [["a", None]]}, r"entry 1 of history is neither a turn nor \[question, answer\]"),
        ({"prompt": "q", "response": ["a", "b"]}, "response is list, not text; keep one answer a row"),
        ({"prompt": "q", "response": {"text": "a"}}, "response is dict, not text"),
        ({"prompt": "q", "response": True}, "response is bool, not text"),
        ({"prompt": "q", "response": float("inf")}, "response is float, not text"),
        ({"messages": [turn(U, "a"), turn(A, "b", weight=0.5)]}, "turn 2 has the weight 0.5; 0, which is not trained"),
        ({"messages": [turn(U, "a"), turn(A, "b", weight="high")]}, "turn 2 has the weight 'high'"),
        ({"messages": None}, "'messages' is null"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_row(tmp_path, row, said):
    with pytest.raises(DataError, match=rf"p\.jsonl:1: {said}"):
        read_pool(jsonl(tmp_path / "p.jsonl", row))
    pool = read_pool(jsonl(tmp_path / "p.jsonl", row, {**row, **GOOD[next(iter(row))]}), skip_bad_lines=True)
    assert len(pool) == 1 and pool.notes[0].startswith("1 malformed line skipped")


GOOD = {
    "prompt": dict.fromkeys(("system", "history", "response")),
    "messages": {"messages": [turn(U, "a")], "system": None},
    "instruction": {"context": None},
}


def test_null_is_absent(tmp_path):
    rows = [
        {"id": "a", "messages": None, "prompt": "A", "response": "x"},
        {"id": "b", "messages": [turn(U, "B"), turn(A, "y")], "prompt": None, "response": None},
        {"id": "c", "messages": float("nan"), "prompt": "C", "response": float("nan")},
    ]
    for container in ("p.jsonl", "p.json"):
        pool = read_pool(CONTAINERS[container](tmp_path / container, *rows))
        assert [pool.prompt_text(i) for i in range(3)] == ["A", "B", "C"]
        assert pool.responses == ("x", "y", None) and pool.ids == ("a", "b", "c")
        assert [pool.shape(i) for i in range(3)] == ["prompt", "messages", "prompt"]
    pool = read_pool(table(tmp_path / "p.parquet", *rows[:2]))
    assert [pool.prompt_text(i) for i in range(2)] == ["A", "B"]
    whole = [{"instruction": "a", "text": "a, and its answer b"}, {"instruction": None, "text": "c, and its answer d"}]
    with pytest.raises(DataError, match="row 2: the prompt is empty"):  # a text with its answer is no prompt
        read_pool(table(tmp_path / "t.parquet", *whole))


@pytest.mark.parametrize("container", ["p.parquet", "saved"])
def test_keys_that_only_other_rows_have(tmp_path, container):
    """Parquet and `datasets` give every object of a column the keys of all of them."""
    rows = [
        {"id": "a", "conversations": [{"from": "human", "value": "Q0"}, {"from": "gpt", "value": "A0"}]},
        {"id": "b", "conversations": [turn(U, "Q1"), turn(A, "A1", weight=0), turn(U, "Q2"), turn(A, "A2")]},
    ]
    pool = read_pool(CONTAINERS[container](tmp_path / container, *rows))
    assert pool.messages[0] == (turn(U, "Q0"),) and pool.responses == ("A0", "A2")
    assert pool.messages[1] == (turn(U, "Q1"), turn(A, "A1", weight=0), turn(U, "Q2"))


@pytest.mark.parametrize("container", ["p.parquet", "saved"])
def test_rows_written_as_lines_mean_the_same(tmp_path, container):
    def function(name, parameter):
        return {"name": name, "parameters": {"type": "object", "properties": {parameter: {"type": "string"}}}}

    def call(name, **arguments):
        return turn(A, "", tool_calls=[{"function": {"name": name, "arguments": arguments}}])

    rows = [
        {"messages": [turn(U, "a"), call("price", item="tea")], "tools": [function("price", "item")]},
        {"messages": [turn(U, "b"), call("weather", city="Rome")], "tools": [function("weather", "city")]},
    ]
    pool = read_pool(CONTAINERS[container](tmp_path / container, *rows))
    write_rows(tmp_path / "s.jsonl", pool, range(2))
    again = read_pool(tmp_path / "s.jsonl")
    assert (again.messages, again.tools, again.withheld) == (pool.messages, pool.tools, pool.withheld)
    assert again.digest == pool.digest
    assert list(again.tools[0][0]["function"]["parameters"]["properties"]) == ["item"]
    assert again.withheld[1]["tool_calls"][0]["function"]["arguments"] == {"city": "Rome"}


@pytest.mark.parametrize("label", [{"answer": "3"}, {"answer": 3}, {"response": "3"}])
@pytest.mark.parametrize("shape", ["messages", "prompt"])
def test_a_last_turn_that_calls_is_not_lost_to_a_column(tmp_path, shape, label):
    last = turn(A, None, tool_calls=[{"function": {"name": "add", "arguments": {"a": 1}}}])
    pool = read_pool(jsonl(tmp_path / "p.jsonl", {shape: [turn(U, "1 + 2?"), last]} | label))
    assert pool.responses == (None,) and pool.withheld[0]["tool_calls"][0]["function"]["name"] == "add"
    assert pool.records[0].items() >= label.items()
    assert pool.notes == ("1 row ends in a turn that calls tools: no response (row-000001)",)


@pytest.mark.parametrize("weight", [0, 0.0, False, "0", "0.0"])
def test_a_weight_of_0_in_every_spelling(tmp_path, weight):
    rows = [{"messages": [turn(U, "a"), turn(A, "b", weight=weight)]}, {"messages": [turn(U, "c"), turn(A, "d")]}]
    pool = read_pool(jsonl(tmp_path / "p.jsonl", *rows))
    assert pool.responses == (None, "d") and pool.withheld == (turn(A, "b", weight=0), None)
    assert pool.notes == ("1 row ends in an assistant turn of weight 0: no response (row-000001)",)
    for one in (1, 1.0, True, "1", None):
        pool = read_pool(jsonl(tmp_path / "p.jsonl", {"messages": [turn(U, "a"), turn(A, "b", weight=one)]}))
        assert pool.responses == ("b",) and not pool.notes


@pytest.mark.parametrize(
    ("value", "text"),
    [(2.0, "2"), (-3.0, "-3"), (0.5, "0.5"), (1e300, "1e+300"), (2, "2"), (2**60, str(2**60)), ("2.0", "2.0")],
)
def test_numbers_as_labels(tmp_path, value, text):
    assert read_pool(jsonl(tmp_path / "p.jsonl", {"prompt": "q", "response": value})).responses == (text,)


def test_columns_of_numbers(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {
        "double": (pa.array([2.0, 0.1, None]), ["2", "0.1", None]),
        "float": (pa.array([2.0, 0.1, float("nan")], pa.float32()), ["2", "0.1", None]),
        "decimal": (pa.array([Decimal("2.50"), Decimal("-1.00"), None], pa.decimal128(5, 2)), ["2.50", "-1", None]),
        "integer": (pa.array([2, 0, None]), ["2", "0", None]),
    }
    for kind, (values, texts) in kinds.items():
        pq.write_table(pa.table({"prompt": list("abc"), "response": values}), tmp_path / f"{kind}.parquet")
        assert list(read_pool(tmp_path / f"{kind}.parquet").responses) == texts, kind
    pq.write_table(pa.table({"prompt": ["a"], "response": [datetime.date(2026, 1, 2)]}), tmp_path / "d.parquet")
    with pytest.raises(DataError, match="row 1: response is date, not text"):
        read_pool(tmp_path / "d.parquet")


def test_decimals_written_as_lines_mean_the_same(tmp_path):
    rows = [{"id": Decimal(i), "prompt": "q", "response": Decimal(n)} for i, n in ((7, "2.00"), (10**25 + 7, "2.50"))]
    pool = read_pool(table(tmp_path / "p.parquet", *rows))
    write_rows(tmp_path / "s.jsonl", pool, range(2))
    again = read_pool(tmp_path / "s.jsonl")
    assert again.responses == pool.responses == ("2", "2.50")
    assert again.ids == pool.ids == ("7", str(10**25 + 7))


def test_bytes_are_base64_and_ids_of_bytes_or_floats_are_text(tmp_path):
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    image = b"\x89PNG\x00"
    path = tmp_path / "p.parquet"
    pq.write_table(pa.table({"id": [b"p0", b"\xc3\xa9"], "prompt": ["a", "b"], "img": [image, None]}), path)
    pool = read_pool(path)
    assert pool.ids == ("p0", "é")
    assert json.loads(pool.line(0)) == {"id": "p0", "prompt": "a", "img": "iVBORwA="}
    pq.write_table(pa.table({"id": [0.0, 1.0, None], "prompt": ["a", "b", "c"]}), path)
    assert read_pool(path).ids == ("0", "1", "row-000003")
    pq.write_table(pa.table({"id": [b"\xff"], "prompt": ["a"]}), path)
    with pytest.raises(DataError, match="the id b'\\\\xff' is neither text nor an integer"):
        read_pool(path)
    features = datasets.Features({"prompt": datasets.Value("string"), "img": datasets.Image()})
    made = datasets.Dataset.from_list([{"prompt": "a", "img": {"bytes": image, "path": None}}], features=features)
    made.save_to_disk(tmp_path / "d")
    assert json.loads(read_pool(tmp_path / "d").line(0))["img"] == {"bytes": "iVBORwA=", "path": None}
    pq.write_table(pa.table({"prompt": [b"text"]}), path)
    with pytest.raises(DataError, match="prompt is bytes, not text"):
        read_pool(path)


def test_the_digest_says_what_was_read(tmp_path):
    """The same lines read in another way are other prompts: what was scored or trained of them is not gone on with."""
    path = jsonl(tmp_path / "p.jsonl", {"prompt": "a", "other": "b", "response": "c"})
    one, same, other = (read_pool(path, text_column=c).digest for c in (None, "prompt", "other"))
    assert one == same != other
    assert read_pool(table(tmp_path / "p.parquet", {"prompt": "a", "other": "b", "response": "c"})).digest != other
