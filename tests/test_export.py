"""Rows leave in the formats that people's tools and trainers read: kept whole, harmless, and never half-written."""

import csv
import io
import json
import xml.etree.ElementTree as ElementTree

import pytest
from handoff_cases import SHAPES, pool_file, said, selection, turn

from edjax.data.pool import read_pool
from edjax.handoff import FORMATS, export, read_chosen
from edjax.keep.errors import UsageError

TRAINERS = ("trl", "axolotl", "llama-factory")
PROMPTS = (
    "plain",
    "=cmd()|' /C calc'!A0",
    "-1\n+2",
    '"a", b; c\td',
    "שלום \u2028 \U0001f600",
    "<script>alert(1)</script>",
)


@pytest.fixture
def chosen(tmp_path):
    """Rows chosen out of a pool, in another order, with columns that edjax does not know."""
    rows = [
        {"prompt": p, "group": f"g{i}", "nested": {"a": [i]}, "flag": True, "x": None} for i, p in enumerate(PROMPTS)
    ]
    return read_chosen(selection(tmp_path, pool_file(tmp_path / "p.jsonl", rows), [3, 0, 5, 1, 2, 4]))


@pytest.fixture
def answered(tmp_path):
    rows = [
        {
            "messages": [
                turn("system", "Be brief."),
                turn("user", "Hi"),
                turn("assistant", "Hello"),
                turn("user", "Sum?"),
            ]
        }
        | {"response": "2\u2028", "group": "g0"},
        {"conversations": [said("human", "Hi"), said("gpt", "Hey")]},
        {"instruction": "Add", "input": "1 1", "output": "2"},
    ]
    return [read_chosen(pool_file(tmp_path / f"{i}.jsonl", [row])) for i, row in enumerate(rows)]


def test_label_studio(chosen, tmp_path):
    tasks, config = export(chosen, "label-studio", tmp_path / "o")
    assert (tasks.name, config.name) == ("tasks.json", "label_config.xml")
    tasks = json.loads(tasks.read_bytes())
    assert [t["data"]["id"] for t in tasks] == ["r3", "r0", "r5", "r1", "r2", "r4"]
    assert tasks[1] == {
        "data": {"id": "r0", "edjax_id": "r0", "prompt": "plain", "messages": [turn("user", "plain")]},
        "meta": {
            "order": 1,
            "gain": 5.0,
            "scores": {"mean_nll": 0.0},
            "columns": {"group": "g0", "nested": {"a": [0]}, "flag": True, "x": None},
        },
    }
    interface = ElementTree.parse(config).getroot()
    (shown,), (asked,) = interface.iter("Text"), interface.iter("TextArea")
    assert interface.tag == "View" and shown.get("value") == "$prompt"
    assert (asked.get("name"), asked.get("toName"), asked.get("maxSubmissions")) == ("response", shown.get("name"), "1")


def test_argilla(chosen, tmp_path):
    records, settings, dataset = export(chosen, "argilla", tmp_path / "my rows")
    assert [p.relative_to(tmp_path / "my rows").as_posix() for p in (records, settings, dataset)] == [
        "records.json",
        ".argilla/settings.json",
        ".argilla/dataset.json",
    ]
    records, settings, dataset = (json.loads(p.read_bytes()) for p in (records, settings, dataset))
    assert records[1] == {
        "id": "r0",
        "fields": {"prompt": "plain"},
        "metadata": {"group": "g0", "nested": '{"a": [0]}', "flag": "true", "order": 1, "gain": 5.0, "mean_nll": 0.0},
    }
    assert [f["name"] for f in settings["fields"]] == ["prompt"] and settings["allow_extra_metadata"]
    assert settings["questions"][0]["name"] == "response" and settings["questions"][0]["settings"]["type"] == "text"
    assert dataset["name"] == "my_rows"


def test_csv_has_no_cell_that_runs_and_opens_in_a_spreadsheet(chosen, tmp_path):
    (path,) = export(chosen, "csv", tmp_path / "table.csv")
    raw = path.read_bytes()
    assert raw.startswith(b"\xef\xbb\xbfid,prompt,response,order,gain,mean_nll,group,nested,flag,x\r\n")
    table = list(csv.DictReader(io.StringIO(raw.decode("utf-8-sig"), newline="")))
    assert not [c for row in table for c in row.values() if c[:1] in ("=", "+", "-", "@", "\t", "\r")]
    assert [row["prompt"].removeprefix("'") for row in table] == [PROMPTS[i] for i in (3, 0, 5, 1, 2, 4)]
    assert {row["response"] for row in table} == {""}
    assert table[1] == {
        "id": "r0",
        "prompt": "plain",
        "response": "",
        "order": "1",
        "gain": "5.0",
        "mean_nll": "0.0",
    } | {
        "group": "g0",
        "nested": '{"a": [0]}',
        "flag": "true",
        "x": "",
    }


def test_csv_marks_every_name_and_text_and_shows_no_response(tmp_path):
    row = {"prompt": "p", "response": "secret", "=col": "@x", "tab": "\tx", "cr": "\rx", "quote": "'x", "n": -1}
    chosen = read_chosen(pool_file(tmp_path / "p.jsonl", [{"id": "=1+1"} | row], ids=False))
    (path,) = export(chosen, "csv", tmp_path / "a.csv")
    header, cells = csv.reader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline=""))
    assert header[4:] == ["'=col", "tab", "cr", "quote", "n"]
    assert cells == ["'=1+1", "p", "", "0", "'@x", "'\tx", "'\rx", "''x", "-1"]
    assert b"secret" not in path.read_bytes()


def test_jsonl_is_byte_for_byte_and_carries_ids(chosen, tmp_path):
    (path,) = export(chosen, "jsonl", tmp_path / "o")
    assert path.read_bytes() == (tmp_path / "chosen" / "selected.jsonl").read_bytes()
    bare = tmp_path / "bare.jsonl"
    bare.write_bytes(b'{"prompt":"a"}\n  { "prompt": "b" }\n')
    (path,) = export(read_chosen(bare), "jsonl", tmp_path / "bare")
    assert path.read_bytes() == b'{"id": "row-000001", "prompt":"a"}\n{"id": "row-000002",  "prompt": "b" }\n'


def test_trl(answered, tmp_path):
    (path,) = export(answered[0], "trl", tmp_path / "o.jsonl")
    (row,) = map(json.loads, path.read_bytes().splitlines())
    assert row == {
        "id": "r0",
        "prompt": [turn("system", "Be brief."), turn("user", "Hi"), turn("assistant", "Hello"), turn("user", "Sum?")],
        "completion": [turn("assistant", "2\u2028")],
        "group": "g0",
    }


def test_axolotl(answered, tmp_path):
    import yaml

    path, config = export(answered[0], "axolotl", tmp_path / "o")
    (row,) = map(json.loads, path.read_bytes().splitlines())
    assert [t.pop("train") for t in row["messages"]] == [False, False, False, False, True], "the last turn alone"
    assert row["messages"][-1] == turn("assistant", "2\u2028") and len(row["messages"]) == 5 and row["group"] == "g0"
    (dataset,) = yaml.safe_load(config.read_text())["datasets"]
    assert (
        dataset["path"] == str(path) and dataset["type"] == "chat_template" and dataset["field_messages"] == "messages"
    )
    assert (dataset["message_field_training"], dataset["train_on_eos"]) == ("train", "turn")
    assert dataset["roles_to_train"] == []


def test_llama_factory(answered, tmp_path):
    data, info = export(answered[0], "llama-factory", tmp_path / "o")
    about = json.loads(info.read_bytes())["edjax"]
    assert about["file_name"] == data.name and about["formatting"] == "sharegpt"
    (row,) = json.loads(data.read_bytes())
    turns = row[about["columns"]["messages"]]
    assert [t["from"] for t in turns] == ["human", "gpt", "human", "gpt"] and turns[-1]["value"] == "2\u2028"
    assert row[about["columns"]["system"]] == "Be brief." and row["group"] == "g0"


@pytest.mark.parametrize("to", TRAINERS)
def test_a_trainer_s_files_say_the_same_to_edjax(answered, tmp_path, to):
    for n, chosen in enumerate(answered):
        name = "edjax.json" if to == "llama-factory" else "train.jsonl"
        export(chosen, to, tmp_path / f"{to}-{n}")
        back = read_pool(tmp_path / f"{to}-{n}" / name)
        assert (back.ids, back.responses) == (chosen.pool.ids, chosen.pool.responses)
        assert back.messages[0] == chosen.pool.messages[0]


@pytest.mark.parametrize("to", TRAINERS)
def test_rows_without_a_response_are_refused_by_name(tmp_path, fails, to):
    rows = [{"prompt": f"q{i}", "response": "a" if i == 1 else None} for i in range(9)]
    line = fails(3, "export", pool_file(tmp_path / "p.jsonl", rows), "--to", to, "--out", tmp_path / "o")
    assert "8 rows ('r0', 'r2', 'r3', 'r4', 'r5', ...) have no response" in line and "`edjax import-labels`" in line
    assert not (tmp_path / "o").exists()


def test_turns_that_llama_factory_would_drop_are_refused(tmp_path, fails):
    good = {"messages": [turn("user", "a"), turn("assistant", "b")]}
    odd = {"messages": [turn("user", "a"), turn("user", "b"), turn("assistant", "c")]}
    late = {
        "messages": [turn("user", "a"), turn("assistant", "b"), turn("system", "c"), turn("user", "d")],
        "response": "e",
    }
    pool = pool_file(tmp_path / "p.jsonl", [good, odd, late])
    line = fails(3, "export", pool, "--to", "llama-factory", "--out", tmp_path / "o")
    assert "the turns of row 'r1' do not alternate" in line and "(2 such rows)" in line and "--to trl" in line
    assert len(export(read_chosen(pool), "trl", tmp_path / "t")) == 1


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_kept_with_its_turns(tmp_path, shape):
    chosen = read_chosen(pool_file(tmp_path / "p.jsonl", [SHAPES[shape]("What?")]))
    export(chosen, "label-studio", tmp_path / "o")
    (task,) = json.loads((tmp_path / "o" / "tasks.json").read_bytes())
    assert task["data"]["messages"] == list(chosen.pool.messages[0])
    for message in chosen.pool.messages[0]:
        assert message["content"] in task["data"]["prompt"]
    if len(chosen.pool.messages[0]) > 1:
        assert "user: What?" in task["data"]["prompt"]


def test_values_that_json_has_not_and_lone_surrogates(tmp_path):
    pool = tmp_path / "p.jsonl"
    pool.write_text('{"id": "r0", "prompt": "p", "response": "a", "x": NaN, "y": [Infinity], "z": "\\ud800"}\n')
    chosen = read_chosen(pool)
    for to in FORMATS:
        for path in export(chosen, to, tmp_path / to):
            path.read_bytes().decode()
            if to not in ("jsonl", "csv") and path.suffix == ".json":
                json.loads(path.read_bytes(), parse_constant=lambda name: pytest.fail(name))
    assert b"\\ud800" in (tmp_path / "trl" / "train.jsonl").read_bytes()


# The verb


def test_a_file_or_a_directory(chosen, tmp_path):
    assert export(chosen, "csv", tmp_path / "a.CSV") == [tmp_path / "a.CSV"]
    assert export(chosen, "csv", tmp_path / "b") == [tmp_path / "b" / "annotate.csv"]
    assert export(chosen, "label-studio", tmp_path / "c.json") == [tmp_path / "c.json", tmp_path / "c.label_config.xml"]
    with pytest.raises(UsageError, match="unknown format 'xml'; known are label-studio, argilla"):
        export(chosen, "xml", tmp_path / "d")


def test_every_format_is_offered_and_explained(edjax_):
    from edjax.cli import handoff

    assert handoff.FORMATS == tuple(FORMATS) == tuple(handoff.NEXT)
    text = edjax_("export", "--help")[1]
    assert all(f"  {name} " in text for name in FORMATS) and "Reads   SELECTION" in text


def test_what_the_verb_says(tmp_path, edjax_):
    pool = pool_file(tmp_path / "p.jsonl", [{"prompt": "q"}, {"prompt": "r"}])
    code, out, err = edjax_("export", pool, "--to", "label-studio", "--out", tmp_path / "o")
    assert (code, err) == (0, "") and out.startswith(f"2 rows for label-studio in {tmp_path}/o/tasks.json, ")
    assert f"edjax import-labels {pool} ANSWERS --out answered.jsonl" in out
    code, out, _ = edjax_("export", pool, "--to", "csv", "--out", tmp_path / "o", "--json")
    assert json.loads(out) == {"rows": 2, "format": "csv", "files": [f"{tmp_path}/o/annotate.csv"]}
    pool_file(tmp_path / "my pool.jsonl", [{"uid": 1, "question": "q"}])
    options = ["--text-column", "question", "--id-column", "uid"]
    code, out, _ = edjax_(
        "export", tmp_path / "my pool.jsonl", "--to", "csv", "--out", tmp_path / "o", "--overwrite", *options
    )
    assert f"'{tmp_path}/my pool.jsonl' ANSWERS --out answered.jsonl --text-column question --id-column uid" in out
    for to in FORMATS:
        pool_file(tmp_path / "p.jsonl", [{"prompt": "q", "response": "a"}])
        assert edjax_("export", pool, "--to", to, "--out", tmp_path / "all" / to)[0] == 0


def test_a_directory_of_another_verb_is_left_alone(chosen, tmp_path, fails):
    for out in (tmp_path / "chosen", tmp_path / "chosen" / "tasks.json"):
        line = fails(2, "export", tmp_path / "chosen", "--to", "label-studio", "--out", out, "--overwrite")
        assert "is a directory of edjax's own, whose files a manifest names; choose another --out" in line
    assert len(list((tmp_path / "chosen").iterdir())) == 5


def test_files_in_the_way_stay(tmp_path, edjax_, fails):
    pool = pool_file(tmp_path / "p.jsonl", [{"prompt": "q"}])
    out = tmp_path / "a.csv"
    argv = ["export", pool, "--to", "csv", "--out", out]
    assert edjax_(*argv)[0] == 0
    before = out.stat().st_mtime_ns
    assert edjax_(*argv)[0] == 0 and out.stat().st_mtime_ns == before
    out.write_text("id,response\nr0,filled in\n")
    assert "a.csv exists and holds something else; choose another --out, or --overwrite" in fails(2, *argv)
    assert "filled in" in out.read_text()
    assert edjax_(*argv, "--overwrite")[0] == 0 and "filled in" not in out.read_text()


@pytest.mark.parametrize(
    ("argv", "code", "said_"),
    [
        (["none.jsonl"], 3, "does not exist"),
        (["several"], 2, "holds several selections; name one: several/a, several/b"),
        (["unfinished"], 3, "is not complete"),
        (["features"], 3, "holds 'features', not 'selection'"),
        (["empty"], 3, "is a selection of 0 rows"),
        (["p.jsonl", "--to", "xml"], 2, "'xml' is not one of"),
    ],
)
def test_what_can_not_be_exported(tmp_path, fails, monkeypatch, argv, code, said_):
    from edjax.keep.store import writing

    monkeypatch.chdir(tmp_path)
    pool = pool_file(tmp_path / "p.jsonl", [{"prompt": "q"}])
    for name in ("several/a", "several/b"):
        selection(tmp_path / name, pool, [0]).rename(tmp_path / name / "x")
        (tmp_path / name / "x" / "selected.jsonl").rename(tmp_path / name / "selected.jsonl")
    for kind in ("unfinished", "features"):
        with writing(tmp_path / kind, kind=kind, config={}, inputs={}) as artifact:
            if kind == "features":
                artifact.finish()
    selection(tmp_path, pool, []).rename(tmp_path / "empty")
    out = tmp_path / "o"
    assert said_ in fails(code, "export", *(argv if "--to" in argv else [*argv, "--to", "csv"]), "--out", out)
    assert not out.exists()
