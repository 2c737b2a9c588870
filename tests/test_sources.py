"""What a pool may be named by: files, packed or not, patterns, directories, a pipe; and what stands between cells."""

import bz2
import gzip
import io
import json
import lzma
import os
import shlex
from pathlib import Path

import pytest

from edjax.data.delimited import table_rows
from edjax.data.pool import read_pool, write_rows
from edjax.data.reading import Reading
from edjax.data.sources import size_of
from edjax.keep.errors import DataError, EnvError, UsageError

ROWS = [{"id": f"r{i}", "prompt": f"Question {i}; or {i}, é?", "response": f"Answer {i}."} for i in range(6)]


def jsonl(rows):
    return b"".join(json.dumps(r, ensure_ascii=False).encode() + b"\n" for r in rows)


def cells(rows, delimiter=","):
    quoted = [delimiter.join('"' + v.replace('"', '""') + '"' for v in row.values()) for row in rows]
    return "\n".join([delimiter.join(rows[0]), *quoted, ""]).encode()


def put(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def table(path, rows):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def zstd(data):
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as f:
        f.write(data)
    return sink.getvalue().to_pybytes()


PACK = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstd}


def same(pool, rows=ROWS):
    return pool.ids == tuple(r["id"] for r in rows) and pool.records == tuple(rows)


# A file


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "tsv"])
def test_packed_files(tmp_path, kind, packing):
    data = {"jsonl": jsonl(ROWS), "json": json.dumps(ROWS).encode(), "csv": cells(ROWS), "tsv": cells(ROWS, "\t")}[kind]
    pool = read_pool(put(tmp_path / f"p.{kind}.{packing}", PACK[packing](data)))
    assert same(pool)
    assert pool.digest == read_pool(put(tmp_path / f"p.{kind}", data)).digest
    twice = PACK[packing](data) + PACK[packing](b"\n")  # as `cat a.gz b.gz` makes it
    assert same(read_pool(put(tmp_path / f"p.{kind}.{packing}", twice)))


@pytest.mark.parametrize("packing", PACK)
def test_packed_files_that_are_damaged(tmp_path, packing):
    whole = PACK[packing](b"".join(b'{"prompt": "%s"}\n' % os.urandom(40).hex().encode() for _ in range(60)))
    for data in (whole[:-9], b"never packed at all, not by anything", whole[:40] + b"\xff" * 60 + whole[100:]):
        path = put(tmp_path / f"p.jsonl.{packing}", data)
        with pytest.raises(DataError, match="damaged or cut short") as e:
            read_pool(path)
        assert str(path) in str(e.value)


def test_a_file_that_nobody_may_read(tmp_path, monkeypatch):
    path = put(tmp_path / "p.jsonl.gz", gzip.compress(jsonl(ROWS)))

    def refused(*args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(EnvError, match=r"cannot read .*Permission denied"):
        read_pool(path)


@pytest.mark.parametrize("coding", ["utf-16", "utf-16-be", "utf-8-sig"])
@pytest.mark.parametrize("kind", ["jsonl", "json", "csv"])
def test_byte_order_marks(tmp_path, kind, coding):
    text = {"jsonl": jsonl(ROWS), "json": json.dumps(ROWS).encode(), "csv": cells(ROWS)}[kind].decode()
    data = (("\ufeff" if coding == "utf-16-be" else "") + text).encode(coding)
    assert same(read_pool(put(tmp_path / f"p.{kind}", data)))
    assert same(read_pool(put(tmp_path / f"p.{kind}.gz", gzip.compress(data))))


def test_utf16_rows_are_written_as_utf8(tmp_path):
    pool = read_pool(put(tmp_path / "p.jsonl", jsonl(ROWS).decode().encode("utf-16")))
    write_rows(tmp_path / "out.jsonl", pool, range(6))
    assert (tmp_path / "out.jsonl").read_bytes() == jsonl(ROWS)
    with pytest.raises(DataError, match=r"p\.jsonl: not UTF-16, which its byte order mark says it is \(byte 5\)"):
        read_pool(put(tmp_path / "p.jsonl", b"\xff\xfe{\x00\x00\xdc\x00\xd8"))


# What stands between cells


def read(text, delimiter=None):
    return [(row.record, row.bad) for row in table_rows(text.encode(), "p.csv", delimiter)]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ('id;prompt;response\n1;"hello; you";x\n2;bye, now;y\n', [("1", "hello; you", "x"), ("2", "bye, now", "y")]),
        ("id\tprompt\tresponse\n1\ta;b\tx,y\n", [("1", "a;b", "x,y")]),
        ("id,prompt,response\n1,a;b;c;d,x\n2,e;f;g;h,y\n", [("1", "a;b;c;d", "x"), ("2", "e;f;g;h", "y")]),
        ('"id";"prompt, with a comma";response\n1;a;b\n', [("1", "a", "b")]),
        ("id,prompt (a; b; c; d),response\n1,a,b\n", [("1", "a", "b")]),
        ("id;prompt, or so;response\n1;a;b\n2;c, d;e\n", [("1", "a", "b"), ("2", "c, d", "e")]),
        ("prompt; or so\na\nb\n", [("a",), ("b",)]),
        ('"a;b",c\n1,2\n', [("1", "2")]),
        ("\r\nid;prompt\r\n1;a\r\n", [("1", "a")]),
        ("prompt\nhello; you\nbye\tnow\n", [("hello; you",), ("bye\tnow",)]),
    ],
)
def test_what_stands_between_cells(text, rows):
    assert [tuple(record.values()) for record, bad in read(text) if not bad] == rows


def test_a_row_of_another_length_is_named_whatever_stands_between(tmp_path):
    with pytest.raises(DataError, match=r"p\.csv: row 2: 3 cells where the header has 2"):
        read_pool(put(tmp_path / "p.csv", b"id;prompt\n1;a\n2;b;c\n3;d\n"))
    with pytest.raises(DataError, match=r"p\.csv:2: not valid CSV"):
        read_pool(put(tmp_path / "p.csv", b'id;prompt\n1;"a\n'))
    assert read("id\tprompt\n1\ta;b\n", "\t") == [({"id": "1", "prompt": "a;b"}, "")]


def test_lists_in_cells(tmp_path):
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hey; you"}]
    rows = [{"id": "1", "messages": json.dumps(turns), "choices": '["a", "b"]', "note": "[1, 2]"}]
    pool = read_pool(put(tmp_path / "p.csv", cells(rows)))
    assert pool.messages[0] == (turns[0],) and pool.responses == ("hey; you",)
    assert pool.records == ({"id": "1", "messages": turns, "choices": ["a", "b"], "note": "[1, 2]"},)
    write_rows(tmp_path / "s.jsonl", pool, [0])
    assert read_pool(tmp_path / "s.jsonl").messages == pool.messages
    rows = [{"prompt": "And?", "history": '[["Hi", "Hey"]]', "tools": '[{"name": "f", "parameters": {}}]'}]
    pool = read_pool(put(tmp_path / "p.csv", cells(rows)))
    assert len(pool.messages[0]) == 3 and pool.tools[0][0]["function"]["name"] == "f"
    pool = read_pool(put(tmp_path / "p.csv", cells([{"prompt": "[1, 2]?", "choices": "[a] b"}])))
    assert pool.prompt_text(0) == "[1, 2]?" and pool.records[0]["choices"] == "[a] b"
    with pytest.raises(DataError, match=r"p\.csv: row 1: 'messages' holds a list that is not JSON; .*json\.dumps"):
        read_pool(put(tmp_path / "p.csv", cells([{"messages": str(turns)}])))


# Several files


def shards(path, rows=ROWS, names=("part-0.jsonl", "part-1.jsonl")):
    half = len(rows) // 2
    for name, part in zip(names, (rows[:half], rows[half:]), strict=True):
        put(path / name, jsonl(part))
    return path


def test_files_that_follow_each_other(tmp_path, monkeypatch):
    shards(tmp_path / "d")
    put(tmp_path / "d" / "_SUCCESS", b"")
    put(tmp_path / "d" / ".part-0.jsonl.crc", b"crc")
    put(tmp_path / "d" / "README.md", b"# shards")
    put(tmp_path / "d" / "dataset_info.json", b"{}")
    whole = read_pool(put(tmp_path / "whole.jsonl", jsonl(ROWS)))
    parts = [tmp_path / "d" / f"part-{i}.jsonl" for i in (0, 1)]
    monkeypatch.chdir(tmp_path)
    for source in (tmp_path / "d", "d", "d/*.jsonl", "d/part-?.jsonl", "**/part-*", parts, [str(p) for p in parts]):
        pool = read_pool(source)
        assert same(pool) and pool.digest == whole.digest and pool.lines == whole.lines, source
        assert len(read_pool(source, limit=4)) == 4
        assert read_pool(pool.named).digest == pool.digest == pool.take(range(6)).digest
    assert pool.source == f"{parts[0]} and 1 more" and pool.named == [str(p) for p in parts]
    assert pool.take([0]).named == pool.named
    assert read_pool(parts[::-1]).digest != whole.digest
    assert size_of("d") > size_of(parts) == size_of("d/*.jsonl") == size_of("whole.jsonl") == len(jsonl(ROWS))
    assert size_of("org/name") == size_of("-") == 0


def test_rows_without_ids_are_named_after_their_file(tmp_path, monkeypatch):
    bare = [{"prompt": r["prompt"]} for r in ROWS]
    shards(tmp_path / "d", bare[:4])
    names = ["part-0.jsonl:row-000001", "part-0.jsonl:row-000002", "part-1.jsonl:row-000001", "part-1.jsonl:row-000002"]
    monkeypatch.chdir(tmp_path)
    for source in ("d", "d/*", "./d/", ["d/part-0.jsonl", "d/part-1.jsonl"]):
        assert list(read_pool(source).ids) == names
    put(tmp_path / "d" / "a-new.jsonl", jsonl(bare[4:]))
    assert set(names) < set(read_pool("d").ids) and len(read_pool("d")) == 6, "a further file renames no row"
    assert read_pool("d/part-1*").ids == tuple(names[2:])
    assert read_pool("d/part-1.jsonl").ids == read_pool(["d/part-1.jsonl"]).ids == ("row-000001", "row-000002")
    for day in ("1", "2"):
        put(tmp_path / "days" / day / "p.jsonl", jsonl(bare[:1]))
    assert read_pool("days/*/p.jsonl").ids == ("1/p.jsonl:row-000001", "2/p.jsonl:row-000001")


def test_names_of_rows_do_not_hang_on_links_or_on_further_files(tmp_path, monkeypatch):
    bare = jsonl([{"prompt": "q"}])
    for name in ("a/p.jsonl", "b/p.jsonl", "b/q.jsonl", "store/one/x", "store/two/deep/y"):
        put(tmp_path / name, bare)
    monkeypatch.chdir(tmp_path)
    two = read_pool(["a/p.jsonl", "b/q.jsonl"]).ids
    assert two == ("p.jsonl:row-000001", "q.jsonl:row-000001")
    three = read_pool(["a/p.jsonl", "b/p.jsonl", "b/q.jsonl"]).ids
    assert three == ("a/p.jsonl:row-000001", "b/p.jsonl:row-000001", "q.jsonl:row-000001")
    for place, target in (("a", "one/x"), ("b", "two/deep/y")):
        (tmp_path / place / "p.jsonl").unlink()
        (tmp_path / place / "p.jsonl").symlink_to(tmp_path / "store" / target)
    assert read_pool(["a/p.jsonl", "b/p.jsonl", "b/q.jsonl"]).ids == three


def test_a_link_to_a_shard_that_is_not_there(tmp_path, monkeypatch):
    shards(tmp_path / "d")
    monkeypatch.chdir(tmp_path)
    for name in ("part-2.jsonl", "notes.md", ".part-3.jsonl", "_part-4.jsonl"):
        (tmp_path / "d" / name).symlink_to("gone")
    for source in ("d", "d/*", "d/part-*", "d/part-2.jsonl", "d/part-2*"):
        with pytest.raises(DataError, match=r"^d/part-2\.jsonl is a link to a file that is not there; fetch it$"):
            read_pool(source)
    (tmp_path / "d" / "part-2.jsonl").unlink()
    assert same(read_pool("d")) and same(read_pool("d/*"))
    with pytest.raises(DataError, match=r"d/part-2\.jsonl does not exist; did you mean d/part-"):
        read_pool("d/part-2.jsonl")


def test_lines_beside_cells_stay_as_they_came(tmp_path):
    odd = b'{"prompt":"a",   "id": "x"}'
    put(tmp_path / "a.jsonl", odd + b"\n")
    put(tmp_path / "b.csv", b"id,prompt\ny,b\n")
    pool = read_pool([tmp_path / "a.jsonl", tmp_path / "b.csv"])
    assert pool.lines == (odd, b'{"id":"y","prompt":"b"}') and pool.line(0) == odd
    write_rows(tmp_path / "out.jsonl", pool, [1, 0])
    assert (tmp_path / "out.jsonl").read_bytes() == pool.line(1) + b"\n" + odd + b"\n"
    assert read_pool(tmp_path / "b.csv").lines is None


def test_places_in_several_files(tmp_path, monkeypatch):
    shards(tmp_path / "d")
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "d" / "part-2.jsonl", b'\n{"prompt": "ok"}\nno row\n{"id": "r1", "prompt": "twice"}\n')
    with pytest.raises(DataError, match=r"^d/part-2\.jsonl:3: not valid JSON"):
        read_pool("d")
    with pytest.raises(DataError, match=r"d/part-2\.jsonl:4: the id 'r1' is taken by d/part-0\.jsonl:2; make"):
        read_pool("d", skip_bad_lines=True)
    put(tmp_path / "d" / "part-2.jsonl", b"no row\n\n")
    note = read_pool("d", skip_bad_lines=True).notes[0]
    assert note.startswith("1 malformed line skipped: d/part-2.jsonl:1 (the first: not valid JSON")
    put(tmp_path / "d" / "part-2.jsonl", b"")
    assert same(read_pool("d")), "an empty shard is one"
    with pytest.raises(DataError, match=r"more/part-1\.jsonl:1: no column 'prompt', which the rows before have"):
        put(tmp_path / "more" / "part-1.jsonl", b'{"text": "a"}\n')
        read_pool(["d/part-0.jsonl", "more/part-1.jsonl"])


def test_what_is_said_of_kinds_and_bodies(tmp_path):
    put(tmp_path / "d" / "a.json", b"[]")
    table(tmp_path / "d" / "b.parquet", ROWS)
    with pytest.raises(DataError, match=r"several kinds \(\.json, \.parquet\); name those to read: '.*/d/\*\.json'$"):
        read_pool(tmp_path / "d")
    with pytest.raises(DataError, match=r"columns custom_id, body \(its body has no list of messages\); accepted"):
        read_pool(put(tmp_path / "b.jsonl", b'{"custom_id": "a", "body": {"input": "q"}}\n'))


def test_several_files_that_are_no_pool(tmp_path, monkeypatch):
    shards(tmp_path / "d")
    monkeypatch.chdir(tmp_path)
    for source in (["d", "d/part-0.jsonl"], ["d/*", "d"], ["d/part-0.jsonl", "./d/part-0.jsonl"]):
        with pytest.raises(UsageError, match=r"part-0\.jsonl is named twice"):
            read_pool(source)
    with pytest.raises(DataError, match=r"no file matches d/\*\.parquet"):
        read_pool("d/*.parquet")
    with pytest.raises(UsageError, match="no source is named"):
        read_pool([])
    put(tmp_path / "e" / "a.txt", b"x")
    with pytest.raises(DataError, match=r"e holds no files of rows.*save_to_disk.*known are .jsonl"):
        read_pool("e")
    with pytest.raises(DataError, match=r"holds no files of rows.*name one below it: d$"):
        read_pool(".")
    put(tmp_path / "d" / "part-2.csv", cells(ROWS))
    with pytest.raises(DataError, match=r"d holds files of several kinds \(\.csv, \.jsonl\); name those to read"):
        read_pool("d")
    with pytest.raises(UsageError, match=r"--split train applies to .*; d/part-0.jsonl and 1 more are files"):
        read_pool(["d/part-0.jsonl", "d/part-1.jsonl"], split="train")
    with pytest.raises(UsageError, match=r"--revision v1 applies to a hub id, and d/part-0.jsonl is none"):
        read_pool("d/part-0.jsonl", revision="v1")


def test_a_directory_named_after_splits(tmp_path):
    rows = ROWS
    for name, part in (("train-00000-of-00002", rows[:2]), ("train-00001-of-00002", rows[2:4]), ("test-0", rows[4:])):
        table(tmp_path / "d" / f"{name}.parquet", part)
    with pytest.raises(UsageError, match="holds the splits test, train; choose one with --split"):
        read_pool(tmp_path / "d")
    assert same(read_pool(tmp_path / "d", split="train"), rows[:4]) and same(
        read_pool(tmp_path / "d", split="test"), rows[4:]
    )
    with pytest.raises(UsageError, match="holds the splits test, train; there is no 'dev'"):
        read_pool(tmp_path / "d", split="dev")
    shards(tmp_path / "e", names=("pool.jsonl", "eval.jsonl"))
    with pytest.raises(UsageError, match="holds the splits eval and other files; choose one"):
        read_pool(tmp_path / "e")
    shards(tmp_path / "f", names=("training.jsonl", "testimony.jsonl"))
    assert len(read_pool(tmp_path / "f")) == 6
    with pytest.raises(UsageError, match="f holds no splits; there is no 'train'"):
        read_pool(tmp_path / "f", split="train")


def test_parquet_shards_and_data_sets_beside_files(tmp_path):
    import datasets

    table(tmp_path / "d" / "part-00000-c000.snappy.parquet", ROWS[:3])
    table(tmp_path / "d" / "part-00001-c000.snappy.parquet", ROWS[3:])
    assert same(read_pool(tmp_path / "d"))
    datasets.Dataset.from_list(ROWS[:3]).save_to_disk(tmp_path / "saved")
    more = put(tmp_path / "more.csv", cells(ROWS[3:], ";"))
    pool = read_pool([tmp_path / "saved", more])
    assert same(pool) and pool.lines is None
    assert read_pool([tmp_path / "saved", more], id_column=None).ids[2:4] == ("saved:row-000003", "more.csv:row-000001")


def test_a_revision_of_a_hub_id(monkeypatch, tmp_path):
    import datasets

    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: asked.append(k) or datasets.Dataset.from_list(ROWS))
    pool = read_pool("org/name", revision="v1.0")
    assert asked == [{"split": "train", "revision": "v1.0"}]
    remembered = pool.reading.record()
    assert remembered == {"revision": "v1.0"}
    assert Reading.of({}, remembered, "org/name").revision == "v1.0"
    assert Reading.of({}, remembered | {"split": "a"}, put(tmp_path / "p.jsonl", b"")) == Reading()


# A pipe


@pytest.fixture
def piped(monkeypatch):
    def pipe(data):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))

    return pipe


def test_standard_input(tmp_path, piped):
    texts = [jsonl(ROWS), json.dumps(ROWS).encode(), cells(ROWS), cells(ROWS, "\t"), cells(ROWS, ";")]
    texts += [table(tmp_path / "p.parquet", ROWS).read_bytes(), jsonl(ROWS).decode().encode("utf-16")]
    texts += [b"\xef\xbb\xbf" + texts[0], cells(ROWS).decode().encode("utf-16")]
    for data in (*texts, *(pack(text) for text in texts[:3] for pack in PACK.values())):
        piped(data)
        assert same(read_pool("-")), data[:20]
    piped(jsonl(ROWS))
    assert read_pool("-").digest == read_pool(put(tmp_path / "p.jsonl", jsonl(ROWS))).digest
    piped(jsonl(ROWS[:1]) + b"no row\n")
    with pytest.raises(DataError, match="standard input:2: not valid JSON"):
        read_pool("-")
    piped(b"")
    with pytest.raises(DataError, match="holds no rows"):
        read_pool("-")
    piped(gzip.compress(jsonl(ROWS))[:-10])
    with pytest.raises(DataError, match="standard input: the gzip file is damaged or cut short"):
        read_pool("-")


def test_nothing_is_piped(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for stdin in (Terminal(), None):
        monkeypatch.setattr("sys.stdin", stdin)
        with pytest.raises(UsageError, match="- is standard input, and nothing is piped into it"):
            read_pool("-")


def test_standard_input_stands_alone(tmp_path, piped):
    from edjax.data.names import piped as is_piped

    file = str(put(tmp_path / "p.jsonl", jsonl(ROWS)))
    piped(jsonl(ROWS))
    for source in (["-", file], [file, "-"], ["-", "-"]):
        with pytest.raises(UsageError, match="- is standard input, and stands alone"):
            read_pool(source)
        assert is_piped(source)
    assert is_piped("-") and not is_piped(None) and not is_piped([file])


def test_a_split_is_remembered_of_what_has_splits(tmp_path, monkeypatch):
    shards(tmp_path / "plain")
    shards(tmp_path / "named", names=("train-0.jsonl", "test-0.jsonl"))
    put(tmp_path / "saved" / "a" / "state.json", b"{}")
    monkeypatch.chdir(tmp_path)
    kept = {"split": "train", "revision": "v1"}
    for source in ("plain", "plain/*.jsonl", "-", "plain/part-0.jsonl", "n*/*.jsonl", ["plain/part-0.jsonl", "n*/*"]):
        assert Reading.of({}, kept, source) == Reading(), source
        assert Reading.of({"split": "test"}, kept, source).split == "test"
    for source in ("named", "saved/a", "saved/*"):
        assert Reading.of({}, kept, source) == Reading(split="train"), source
    assert Reading.of({}, kept, "org/name") == Reading(split="train", revision="v1")
    assert same(read_pool("plain/*.jsonl"))


# The verbs


def pasted(out):
    return next(line.removeprefix("next: edjax ") for line in out.splitlines() if line.startswith("next: edjax "))


@pytest.fixture
def ok(edjax_, tmp_path, monkeypatch):
    """Runs a command that must succeed, in the directory of the test; gives what it says."""
    monkeypatch.chdir(tmp_path)

    def call(*argv):
        code, out, err = edjax_(*argv)
        assert code == 0, err
        return out, err

    return call


@pytest.fixture
def few(shared):
    return ["--max-new-tokens", "0", "--batch-size", "4", "--model", shared / "models" / "stories260k"]


def test_verbs_over_several_files(ok, few, tmp_path):
    shards(tmp_path / "d", [{"prompt": r["prompt"]} for r in ROWS])
    out, _ = ok("score", "d/part-0.jsonl", "d/part-1.jsonl", *few, "--out", "f")
    manifest = json.loads((tmp_path / "f" / "manifest.json").read_text())
    assert (manifest["pool"] == ["d/part-0.jsonl", "d/part-1.jsonl"] and "reading" not in manifest) or manifest[
        "reading"
    ] == {}
    line = pasted(out)
    assert "--pool d/part-0.jsonl --pool d/part-1.jsonl" in line
    argv = shlex.split(line.replace("--budget 10% --out DIR", "--strategy random --budget 3 --out chosen"))
    ok(*argv)
    ok("select", "f", "--strategy", "random", "--budget", "3", "--out", "again")
    ok("select", "f", "--pool", "d", "--strategy", "random", "--budget", "3", "--out", "third")
    texts = {(tmp_path / s / "selected.jsonl").read_bytes() for s in ("chosen", "again", "third")}
    assert len(texts) == 1
    ok("select", "f", "--strategy", "random", "--budget", "3", "--dry-run")
    ok("report", "f", "chosen", "--out", "page.html")
    out, _ = ok("export", "d/*.jsonl", "--to", "jsonl", "--out", "todo")
    assert "import-labels 'd/*.jsonl' ANSWERS" in out


def test_verbs_after_a_pipe(ok, few, tmp_path, piped):
    piped(jsonl(ROWS))
    out, _ = ok("score", "-", *few, "--out", "g")
    assert "select g --pool FILE --budget" in out
    _, err = ok("select", "g", "--strategy", "random", "--budget", "2", "--out", "ids")
    assert "g was scored from standard input" in err and not (tmp_path / "ids" / "selected.jsonl").exists()
    ok(
        "select",
        "g",
        "--pool",
        put(tmp_path / "p.jsonl", jsonl(ROWS)),
        "--strategy",
        "random",
        "--budget",
        "2",
        "--out",
        "s",
    )
    _, err = ok("report", "g", "s", "--out", "page2.html")
    assert "does not say which pool it is of; --pool names it" in err


def test_a_recipe_takes_a_pattern(tmp_path):
    from edjax.study.recipe import make_recipe

    shards(tmp_path / "d")
    recipe = make_recipe({"pool": "d/*.jsonl", "evaluation": "org/name", "out": "o"}, tmp_path)
    odd = shards(tmp_path / "v[1]" / "d").parent
    for name in ("d/*.jsonl", "../v[[]1]/d/part-*", "d"):
        asked = make_recipe({"pool": name, "evaluation": "org/name", "out": "o"}, odd)
        assert same(read_pool(asked.pool)), asked.pool
    with pytest.raises(UsageError, match=r"pool holds \['d/a\.jsonl'\], which is not text"):
        make_recipe({"pool": ["d/a.jsonl"], "evaluation": "org/name", "out": "o"}, tmp_path)
    assert recipe.pool == f"{tmp_path}/d/*.jsonl" and recipe.evaluation == "org/name" and same(read_pool(recipe.pool))


CASES = {"messages_json_in.csv": 1, "semicolon.csv": 2, "utf16.csv": 1, "tabs.tsv": 1, "shards": 4, "shards/*": 4}


@pytest.mark.parametrize("name", CASES)
def test_files_that_users_asked_for(shared, name):
    if not (shared / "cases").is_dir():
        pytest.skip("the cases are not there")
    pool = read_pool(str(shared / "cases" / name))
    assert len(pool) == CASES[name] and pool.ids[0] in ("1", "p0")
