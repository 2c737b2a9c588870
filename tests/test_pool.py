"""The reader: every container, every shape, every kind of damage, and bytes that come back as they were."""

import gzip
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from edjax.data.pool import Pool, read_pool, write_rows
from edjax.keep.errors import DataError, EnvError, UsageError

ROWS = [{"id": f"r{i}", "prompt": f"Question {i}?", "response": f"Answer {i}.", "task": "t"} for i in range(5)]


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the reader opened a socket")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def jsonl(rows):
    return b"".join(json.dumps(r).encode() + b"\n" for r in rows)


def put(tmp_path, data, name="pool.jsonl"):
    path = tmp_path / name
    path.write_bytes(data)
    return path


def read_one(tmp_path, row, **kw):
    return read_pool(put(tmp_path, jsonl([row])), **kw)


def turns(*pairs):
    return [{"role": r, "content": c} for r, c in pairs]


# Containers


def containers(tmp_path):
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    yield put(tmp_path, jsonl(ROWS))
    yield put(tmp_path, gzip.compress(jsonl(ROWS)), "pool.jsonl.gz")
    yield put(tmp_path, json.dumps(ROWS, indent=1).encode(), "pool.json")
    yield put(tmp_path, jsonl(ROWS), "lines.json")
    cells = [",".join(ROWS[0])] + [",".join(r.values()) for r in ROWS]
    yield put(tmp_path, "\r\n".join(cells).encode(), "pool.csv")
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "pool.parquet")
    yield tmp_path / "pool.parquet"
    data = datasets.Dataset.from_list(ROWS)
    data.save_to_disk(tmp_path / "one")
    yield tmp_path / "one"
    datasets.DatasetDict({"train": data}).save_to_disk(tmp_path / "dict")
    yield tmp_path / "dict"


def test_every_container_gives_the_same_pool(tmp_path):
    seen = 0
    for path in containers(tmp_path):
        pool = read_pool(path)
        assert pool.ids == tuple(r["id"] for r in ROWS), path
        assert pool.records == tuple(ROWS), path
        assert pool.responses[2] == "Answer 2."
        assert pool.messages[2] == ({"role": "user", "content": "Question 2?"},)
        assert json.loads(pool.line(2)) == ROWS[2]
        assert len(read_pool(path, limit=2)) == 2
        seen += 1
    assert seen == 8


def test_the_digest_is_of_the_rows(tmp_path):
    plain = read_pool(put(tmp_path, jsonl(ROWS)))
    packed = read_pool(put(tmp_path, gzip.compress(jsonl(ROWS)), "p.jsonl.gz"))
    fewer = read_pool(put(tmp_path, jsonl(ROWS[:4]), "four.jsonl"))
    assert plain.digest == packed.digest != fewer.digest
    assert read_pool(put(tmp_path, jsonl(ROWS)), limit=4).digest == fewer.digest == plain.take(range(4)).digest
    assert plain.take([1, 0]).digest != plain.take([0, 1]).digest


def test_splits(tmp_path):
    import datasets

    data = datasets.Dataset.from_list(ROWS)
    datasets.DatasetDict({"train": data, "test": data.select([4])}).save_to_disk(tmp_path / "d")
    assert read_pool(tmp_path / "d", split="test").ids == ("r4",)
    with pytest.raises(UsageError, match=r"train, test; choose one with --split"):
        read_pool(tmp_path / "d")
    with pytest.raises(UsageError, match=r"train, test; there is no 'dev'"):
        read_pool(tmp_path / "d", split="dev")
    with pytest.raises(UsageError, match="one file"):
        read_pool(put(tmp_path, jsonl(ROWS)), split="train")


def test_what_is_not_there(tmp_path, monkeypatch):
    put(tmp_path, jsonl(ROWS))
    with pytest.raises(DataError, match=r"pool\.jsnl does not exist; did you mean .*pool\.jsonl\?"):
        read_pool(tmp_path / "pool.jsnl")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for missing in ("nowhere/pool.jsonl", "./nowhere/pool", "nowhere", "data/pool", "a/b/c"):
        with pytest.raises(DataError, match="does not exist"):
            read_pool(missing)
    with pytest.raises(DataError, match="save_to_disk"):
        read_pool(tmp_path / "data")
    with pytest.raises(DataError, match="unknown kind of file"):
        read_pool(put(tmp_path, b"x", "pool.txt"))
    with pytest.raises(DataError, match=r"bad\.parquet: not a readable Parquet"):
        read_pool(put(tmp_path, b"PAR1 not really", "bad.parquet"))


def test_a_hub_id_goes_to_datasets(monkeypatch):
    import datasets

    calls = []

    def load(name, config=None, split=None):
        calls.append((name, config, split))
        if name == "org/none":
            raise datasets.exceptions.DatasetNotFoundError("nope")
        if name == "org/off":
            raise ConnectionError("offline")
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert read_pool("org/name:main", split="test").ids[0] == "r0"
    read_pool("org/name")
    assert calls == [("org/name", "main", "test"), ("org/name", None, "train")]
    with pytest.raises(DataError, match="no such data set"):
        read_pool("org/none")
    with pytest.raises(EnvError, match="cannot fetch org/off"):
        read_pool("org/off")


def test_import_is_cheap():
    code = "import sys, edjax.data.pool; print([m for m in ('numpy','jax','datasets','pyarrow') if m in sys.modules])"
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert done.stdout.strip() == "[]"


# Malformed lines: each is placed at physical line 143


BAD_LINES = {
    "cut": (b'{"prompt": "abc', "Unterminated string starting at column 12"),
    "no comma": (b'{"prompt": "abc" "id": 1}', r"not valid JSON \(Expecting ',' delimiter at column 18\)"),
    "nul": (b'{"prompt": "a\x00b"}', r"NUL byte \(byte 14"),
    "latin-1": (b'{"prompt": "caf\xe9"}', r"not UTF-8 \(0xe9 at byte 16"),
    "array": (b'["prompt"]', "must be a JSON object, not an array"),
    "string": (b'"prompt"', "not a string"),
    "number": (b"17", "not a number"),
    "duplicate key": (b'{"prompt": "a", "prompt": "b"}', "the key 'prompt' occurs twice"),
    "nested duplicate": (b'{"prompt": "a", "m": {"k": 1, "k": 2}}', "the key 'k' occurs twice"),
    "deep": (b'{"prompt": ' + b"[" * 200_000, "nested too deep"),
    "long number": (b'{"prompt": "a", "n": ' + b"1" * 9000 + b"}", "not readable JSON"),
    "no prompt": (b'{"text": "a"}', "no column 'prompt'"),
    "empty prompt": (b'{"prompt": " "}', "the prompt is empty"),
    "null prompt": (b'{"prompt": null}', "the prompt is empty"),
    "prompt of another type": (b'{"prompt": 7}', "prompt is int, not text"),
}


def with_bad_line(line):
    good = [json.dumps({"prompt": f"q{i}"}).encode() for i in range(200)]
    lines = [*good[:100], b"", b"  ", *good[100:140], line, *good[140:]]  # two blank lines count as physical lines
    assert lines[142] is line
    return b"\n".join(lines) + b"\n"


@pytest.mark.parametrize("kind", BAD_LINES)
def test_a_malformed_line_is_named(tmp_path, kind):
    line, reason = BAD_LINES[kind]
    path = put(tmp_path, with_bad_line(line))
    with pytest.raises(DataError, match=reason) as e:
        read_pool(path)
    assert str(e.value).startswith(f"{path}:143: ")
    assert str(e.value).endswith("; mend the line, or --skip-bad-lines to leave such lines out")
    assert "\n" not in str(e.value) and len(str(e.value)) < 400

    pool = read_pool(path, skip_bad_lines=True)
    assert len(pool) == 200
    assert len(pool.notes) == 1 and pool.notes[0].startswith("1 malformed line skipped: 143 (")
    assert pool.prompt_text(140) == "q140" and pool.ids[140] == "row-000144"


def test_the_message_in_full(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    put(tmp_path, with_bad_line(b'{"prompt": "abc" "id": 1}'))
    with pytest.raises(DataError) as e:
        read_pool("pool.jsonl")
    assert str(e.value) == (
        "pool.jsonl:143: not valid JSON (Expecting ',' delimiter at column 18); "
        "mend the line, or --skip-bad-lines to leave such lines out"
    )


def test_many_bad_lines_are_counted(tmp_path):
    path = put(tmp_path, b"x\n" * 7 + jsonl(ROWS))
    said = []
    pool = read_pool(path, skip_bad_lines=True, log=said.append)
    assert pool.notes[0].startswith("7 malformed lines skipped: 1, 2, 3, 4, 5, ... (")
    assert tuple(said) == pool.notes
    with pytest.raises(DataError, match=r"holds no rows \(7 malformed skipped"):
        read_pool(put(tmp_path, b"x\n" * 7), skip_bad_lines=True)


@pytest.mark.parametrize("data", [b"", b"\n\r\n  \n", b"\xef\xbb\xbf"])
def test_an_empty_pool(tmp_path, data):
    with pytest.raises(DataError, match="holds no rows"):
        read_pool(put(tmp_path, data))
    with pytest.raises(DataError, match="holds no rows"):
        read_pool(put(tmp_path, b"[]", "pool.json"))


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbf" + jsonl(ROWS),
        jsonl(ROWS).replace(b"\n", b"\r\n"),
        jsonl(ROWS).replace(b"\n", b"\n\n \r\n"),
        jsonl(ROWS).rstrip(b"\n"),
    ],
    ids=["BOM", "CRLF", "blank lines", "no final newline"],
)
@pytest.mark.parametrize("name", ["pool.jsonl", "pool.json"])
def test_harmless_differences_between_files(tmp_path, data, name):
    pool = read_pool(put(tmp_path, data, name))
    assert pool.lines == tuple(jsonl(ROWS).splitlines())
    assert pool.records == tuple(ROWS)


def test_a_gzip_file_cut_short(tmp_path):
    whole = gzip.compress(os.urandom(1000).hex().encode().join([b'{"prompt": "', b'"}\n']))
    for data in (whole[:-20], b"not gzip at all", whole[:20] + b"\xff" * 40 + whole[60:]):
        with pytest.raises(DataError, match="damaged or cut short"):
            read_pool(put(tmp_path, data, "pool.jsonl.gz"))


def test_a_long_line(tmp_path):
    row = {"prompt": "x" * 50_000_000}
    assert len(read_one(tmp_path, row).prompt_text(0)) == 50_000_000


def test_damage_in_other_containers(tmp_path):
    cases = {
        "a.json": (b'[{"prompt": "a"},\n {"prompt": }]', r"a\.json:2: not valid JSON \(Expecting value at column 13\)"),
        "b.json": (b'[{"prompt": "a"}, 3]', r"b\.json: row 2: .*not a number"),
        "c.json": (b'[{"prompt": "a",\n "t": "\xe9"}]', r"c\.json:2: not UTF-8"),
        "a.csv": (b"id,prompt\n1,a\n2,b,c\n", r"a\.csv: row 2: 3 cells where the header has 2"),
        "b.csv": (b"id,prompt,id\n1,a,2\n", r"b\.csv:1: the column 'id' occurs twice"),
        "c.csv": (b'id,prompt\n1,"a\n', r"c\.csv:\d: not valid CSV"),
        "d.csv": (b"id,prompt\n1,\n", r"d\.csv: row 1: the prompt is empty"),
        "e.csv": (b"id,prompt\n", "holds no rows"),
    }
    for name, (data, reason) in cases.items():
        with pytest.raises(DataError, match=reason):
            read_pool(put(tmp_path, data, name))
    assert len(read_pool(tmp_path / "b.json", skip_bad_lines=True)) == 1


def test_csv_cells_stay_text(tmp_path):
    long = "y" * 300_000
    pool = read_pool(put(tmp_path, f'id,prompt,response\n007,"a, ""b""\nc",4\n008,{long},\n'.encode(), "p.csv"))
    assert pool.ids == ("007", "008")
    assert pool.prompt_text(0) == 'a, "b"\nc'
    assert pool.responses == ("4", None)
    assert pool.prompt_text(1) == long


# Bytes


def test_rows_come_back_byte_for_byte(tmp_path):
    lines = [
        '{"prompt": "caf\\u00e9 😀 \\ud83d\\ude00", "n": 1.50}'.encode(),
        '{"prompt":"שלום مرحبا","x":  [1,2 ,3]}'.encode(),
        b'{"prompt": "lone \\ud800 surrogate", "big": 123456789012345678901234567890}',
        '{"prompt": "a\u2028b\u2029c\x85d"}'.encode(),
        b'  {"prompt" : "spaces"}\t',
        b'{"prompt": "\\u0000 escaped NUL, <script>, =cmd()"}',
    ]
    path = put(tmp_path, b"\xef\xbb\xbf" + b"\r\n".join(lines))
    pool = read_pool(path)
    assert pool.lines == tuple(lines)
    assert pool.prompt_text(3) == "a\u2028b\u2029c\x85d"
    out = tmp_path / "sub" / "chosen.jsonl"
    write_rows(out, pool, [4, 2, 0, 1, 3, 5])
    assert out.read_bytes() == b"".join(lines[i] + b"\n" for i in [4, 2, 0, 1, 3, 5])
    again = read_pool(out)
    assert again.messages == pool.take([4, 2, 0, 1, 3, 5]).messages
    assert [p.name for p in out.parent.iterdir()] == ["chosen.jsonl"]


def test_lone_surrogates_reach_no_tokenizer(tmp_path):
    pool = read_pool(put(tmp_path, b'{"id": "i\\udfff", "prompt": "a\\ud800b", "response": "\\udc00"}\n'))
    assert pool.prompt_text(0) == "a\ufffdb" and pool.responses == ("\ufffd",) and pool.ids == ("i\ufffd",)
    assert pool.records[0]["prompt"] == "a\ud800b"
    (pool.prompt_text(0) + pool.ids[0]).encode()


def test_rows_without_lines_are_written_as_strict_json(tmp_path):
    import datetime

    records = (
        {"prompt": "é\ud800", "x": 1},
        {"prompt": "n", "x": float("nan"), "y": [float("inf"), 1.5]},
        {"prompt": "d", "x": datetime.date(2026, 1, 2)},
        {"prompt": "é 😀", "x": None},
    )
    n = len(records)
    pool = Pool(
        ids=tuple("abcd"), messages=((),) * n, responses=(None,) * n, records=records, lines=None, source="memory"
    )
    assert pool.line(0) == b'{"prompt":"\\u00e9\\ud800","x":1}'
    assert pool.line(1) == b'{"prompt":"n","x":null,"y":[null,1.5]}'
    assert pool.line(2) == b'{"prompt":"d","x":"2026-01-02"}'
    assert pool.line(3) == '{"prompt":"é 😀","x":null}'.encode()
    write_rows(tmp_path / "out.jsonl", pool, range(n))
    assert read_pool(tmp_path / "out.jsonl").records[0] == records[0]


# Ids


def test_ids(tmp_path):
    rows = [{"id": 7, "prompt": "a"}, {"id": "x y", "prompt": "b"}, {"prompt": "c"}, {"id": None, "prompt": "d"}]
    rows.append({"id": "", "prompt": "e"})
    pool = read_pool(put(tmp_path, b"\n" + jsonl(rows)))
    assert pool.ids == ("7", "x y", "row-000004", "row-000005", "row-000006")
    assert pool.notes == ("3 rows without an id named after their place",)
    assert pool.index_of["x y"] == 1
    assert read_pool(tmp_path / "pool.jsonl", id_column=None).ids[0] == "row-000002"
    named = read_pool(put(tmp_path, jsonl([{"uid": "u", "id": 1, "prompt": "a"}])), id_column="uid")
    assert named.ids == ("u",)
    with pytest.raises(DataError, match=r"no column 'uuid'; did you mean 'uid'\?"):
        read_pool(tmp_path / "pool.jsonl", id_column="uuid")
    for value in (1.5, True, [1]):
        with pytest.raises(DataError, match=r"pool\.jsonl:1: the id .* is neither"):
            read_one(tmp_path, {"id": value, "prompt": "a"})


def test_duplicate_ids_name_both_lines(tmp_path):
    rows = [{"id": "a", "prompt": "1"}, {"id": 3, "prompt": "2"}, {"id": "3", "prompt": "3"}]
    with pytest.raises(DataError, match=r"pool\.jsonl:4: the id '3' is taken by .*pool\.jsonl:3; make"):
        read_pool(put(tmp_path, b"\n" + jsonl(rows)))


def test_duplicate_prompts_are_counted(tmp_path):
    rows = [{"prompt": p} for p in "abaabc"]
    assert read_pool(put(tmp_path, jsonl(rows))).notes == ("3 rows share a prompt with an earlier row",)
    assert read_pool(put(tmp_path, jsonl(rows[:3]))).notes == ("1 row shares a prompt with an earlier row",)


# Shapes


def shapes():
    system, asked, said = ("system", "Be brief."), ("user", "Hi?"), ("assistant", "Yes.")
    one = turns(asked)
    yield "prompt alone", {"prompt": "Hi?"}, one, None
    yield "prompt, response", {"prompt": "Hi?", "response": "Yes."}, one, "Yes."
    yield "prompt, completion", {"prompt": "Hi?", "completion": "Yes."}, one, "Yes."
    yield (
        "prompt turns (TRL)",
        {"prompt": turns(system, asked), "completion": turns(said)},
        turns(system, asked),
        "Yes.",
    )
    yield "a numeric response", {"prompt": "Hi?", "response": 4}, one, "4"
    yield "an empty response", {"prompt": "Hi?", "response": " "}, one, None
    yield "text", {"text": "Hi?"}, one, None
    yield "messages", {"messages": turns(system, asked, said)}, turns(system, asked), "Yes."
    yield "messages before prompt", {"prompt": "x", "messages": turns(asked, said)}, one, "Yes."
    yield "unlabelled messages", {"messages": turns(asked)}, one, None
    yield "messages and a label", {"messages": turns(asked), "response": "Yes."}, one, "Yes."
    yield "multi-turn", {"messages": turns(asked, said, asked, said)}, turns(asked, said, asked), "Yes."
    yield "open multi-turn", {"messages": turns(asked, said, asked)}, turns(asked, said, asked), None
    yield "empty answer", {"messages": turns(asked, ("assistant", ""))}, one, None
    yield "empty system", {"messages": turns(("system", ""), asked)}, turns(("system", ""), asked), None
    parts = [{"type": "text", "text": "H"}, {"type": "text", "text": "i?"}]
    yield "parts", {"messages": [{"role": "user", "content": parts}]}, one, None
    yield "alpaca", {"instruction": "Hi?", "input": "", "output": "Yes."}, one, "Yes."
    yield "alpaca, input", {"instruction": "Do", "input": "this", "output": "ok"}, turns(("user", "Do\n\nthis")), "ok"
    talk = [{"from": "human", "value": "Hi?"}, {"from": "gpt", "value": "Yes."}]
    yield "sharegpt", {"conversations": talk}, one, "Yes."
    tool = [*talk[:1], {"from": "observation", "value": "4"}]
    yield "sharegpt, tool", {"conversations": tool}, turns(asked, ("tool", "4")), None


@pytest.mark.parametrize("name,row,messages,response", list(shapes()), ids=lambda v: v if isinstance(v, str) else "")
def test_shapes(tmp_path, name, row, messages, response):
    pool = read_one(tmp_path, row)
    assert list(pool.messages[0]) == messages
    assert pool.responses == (response,)
    assert pool.records == (row,)
    assert pool.prompt_text(0) == [m["content"] for m in messages if m["role"] == "user"][-1]


@pytest.mark.parametrize(
    "messages,reason",
    [
        (turns(("system", "Be brief.")), "no user turn"),
        (turns(("assistant", "Yes.")), "no user turn"),
        ([], "no user turn"),
        (turns(("user", "")), "the prompt is empty"),
        (turns(("user", None)), "the prompt is empty"),
        (turns(("narrator", "x")), r"turn 1 has the unknown role 'narrator' \(known: system"),
        ([{"content": "x"}], "turn 1 has the unknown role None"),
        (turns(("user", [{"type": "image"}])), "turn 1 has a part of type 'image'"),
        (turns(("user", 7)), "the content of turn 1 is int, not text"),
        ("user: hi", "'messages' is not a list of turns"),
        (["hi"], "turn 1 is not an object"),
    ],
)
def test_chat_rows_that_cannot_be_used(tmp_path, messages, reason):
    with pytest.raises(DataError, match=rf"pool\.jsonl:1: {reason}"):
        read_one(tmp_path, {"messages": messages})


def test_columns(tmp_path):
    path = put(tmp_path, jsonl([{"promt": "a", "answer": "b"}]))
    with pytest.raises(DataError, match=r"no prompt among the columns promt, answer \('promt' is near 'prompt'\)") as e:
        read_pool(path)
    assert "accepted are messages; conversations; prompt" in str(e.value) and "--text-column" in str(e.value)
    assert read_pool(path, text_column="promt").prompt_text(0) == "a"
    with pytest.raises(DataError, match=r"no column 'prompt'; did you mean 'promt'\? the columns are promt, answer"):
        read_pool(path, text_column="prompt")
    pool = read_pool(put(tmp_path, jsonl(ROWS)))
    assert pool.column("task") == ("t",) * 5
    with pytest.raises(DataError, match=r"did you mean 'task'\?"):
        pool.column("tasks")


def test_take(tmp_path):
    pool = read_pool(put(tmp_path, jsonl(ROWS)))
    part = pool.take([3, 1])
    assert part.ids == ("r3", "r1") and part.line(0) == pool.line(3) and part.index_of == {"r3": 0, "r1": 1}
    assert len(pool.take([])) == 0
    for i in (-1, 5):
        with pytest.raises(IndexError):
            pool.take([i])
    with pytest.raises(UsageError):
        read_pool(tmp_path / "pool.jsonl", limit=0)
    with pytest.raises(AttributeError):
        pool.ids = ()
