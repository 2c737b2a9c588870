"""Answers come back to the rows they belong to: every shape, every tool, every awkward text; or are refused by name."""

import json

import pytest
from handoff_cases import PROMPT, SHAPES, TEXTS, TOOLS, pool_file, said, selection, turn

from edjax.data.pool import read_pool
from edjax.handoff import export, read_chosen
from edjax.handoff.answers import read_answers
from edjax.handoff.labels import import_labels, with_answer


def answer_with(tmp_path, chosen, tool, answers):
    """Export rows, let a tool answer, and give the file that the tool writes."""
    to, work = TOOLS[tool]
    out = tmp_path / f"for-{to}"
    export(chosen, to, out, overwrite=True)
    name, data = work(out, answers)
    path = tmp_path / f"from-{tool.replace(' ', '-')}-{name}"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_round_trip_of_every_shape_through_every_tool(tmp_path, shape, tool):
    """What edjax.data.pool reads of the written row is the answer, character for character; the prompt is the same."""
    rows = [SHAPES[shape](f"{PROMPT} {i}") | {"kept": {"a": [i, None, "\u2028"]}} for i in range(len(TEXTS))]
    pool = pool_file(tmp_path / "pool.jsonl", rows)
    chosen = read_chosen(pool)
    answers = dict(zip(chosen.pool.ids, TEXTS.values(), strict=True))
    file = answer_with(tmp_path, chosen, tool, answers)
    done = import_labels(chosen, [file])
    assert done.formats == (TOOLS[tool][0],) and done.missing == done.skipped == ()
    out = tmp_path / "answered.jsonl"
    out.write_bytes(b"\n".join(done.lines))
    back = read_pool(out)
    assert back.ids == chosen.pool.ids and back.messages == chosen.pool.messages
    assert dict(zip(back.ids, back.responses, strict=True)) == answers
    for before, after in zip(chosen.pool.records, back.records, strict=True):
        assert list(after)[: len(before)] == list(before), "keys in order"
        assert {k: after[k] for k in ("id", "kept")} == {k: before[k] for k in ("id", "kept")}


def test_lone_surrogates_come_back_as_they_were_written(tmp_path):
    pool = tmp_path / "p.jsonl"
    pool.write_text('{"id": "r0", "prompt": "half \\ud83d a face", "x": "\\udc00"}\n')
    chosen = read_chosen(pool)
    for tool in ("label-studio", "label-studio min", "argilla", "csv", "jsonl"):
        file = answer_with(tmp_path, chosen, tool, {"r0": "fine"})
        (line,) = import_labels(chosen, [file]).lines
        assert line == b'{"id": "r0", "prompt": "half \\ud83d a face", "x": "\\udc00", "response": "fine"}'
    file = tmp_path / "a.jsonl"
    file.write_text('{"id": "r0", "response": "\\ud83d alone"}')
    (line,) = import_labels(chosen, [file]).lines
    assert json.loads(line)["response"] == "\ud83d alone"
    (tmp_path / "out.jsonl").write_bytes(line)
    assert read_pool(tmp_path / "out.jsonl").responses == ("\ufffd alone",)


@pytest.mark.parametrize(
    ("line", "shape", "after"),
    [
        (b'{"prompt":"p","n":1.50}', "prompt", b'{"prompt":"p","n":1.50,"response":"A\xc3\xa9"}'),
        (b'{ "prompt" : "p", "n": 1e5 } ', "prompt", b'{ "prompt" : "p", "n": 1e5, "response": "A\xc3\xa9"}'),
        (b'{"response": "", "prompt": "p"}', "prompt", b'{"response": "A\\u00e9", "prompt": "p"}'),
        (
            b'{"instruction":"\xc3\xa9","output":null}',
            "instruction",
            b'{"instruction":"\xc3\xa9","output":"A\xc3\xa9"}',
        ),
        (
            b'{"conversations": [{"from": "human", "value": "p"}]}',
            "conversations",
            b'{"conversations": [{"from": "human", "value": "p"}, {"from": "gpt", "value": "A\\u00e9"}]}',
        ),
        (
            b'{"messages":[{"role":"user","content":"p"}]}',
            "messages",
            b'{"messages":[{"role":"user","content":"p"},{"role":"assistant","content":"A\\u00e9"}]}',
        ),
    ],
)
def test_the_rest_of_a_row_keeps_its_bytes(line, shape, after):
    assert with_answer(line, "A\u00e9", shape) == after


def test_another_text_column_and_another_id_column(tmp_path, edjax_):
    pool = pool_file(tmp_path / "p.jsonl", [{"uid": i, "question": f"q{i}"} for i in range(3)], ids=False)
    options = ["--text-column", "question", "--id-column", "uid"]
    assert edjax_("export", pool, "--to", "jsonl", "--out", tmp_path / "x", *options)[0] == 0
    assert (tmp_path / "x" / "rows.jsonl").read_bytes() == pool.read_bytes()
    file = tmp_path / "a.csv"
    file.write_text("uid,response\n2,c\n0,a\n1,b\n")
    assert edjax_("import-labels", pool, file, "--out", tmp_path / "o.jsonl", *options)[0] == 0
    back = read_pool(tmp_path / "o.jsonl", text_column="question", id_column="uid")
    assert (back.ids, back.responses) == (("0", "1", "2"), ("a", "b", "c"))


def test_a_selection_keeps_its_order_and_the_names_its_rows_had_in_the_pool(tmp_path):
    pool = pool_file(tmp_path / "p.jsonl", [{"prompt": f"q{i}"} for i in range(9)], ids=False)
    chosen = read_chosen(selection(tmp_path, pool, [7, 2, 5]))
    assert chosen.pool.ids == ("row-000008", "row-000003", "row-000006")
    assert chosen.facts[1] == {"order": 1, "gain": 2.0, "scores": {"mean_nll": 0.25}}
    assert chosen.facts[0] == {"order": 0, "scores": {"mean_nll": 0.875}}, "the first gain of k_center is infinite"
    for tool in TOOLS:
        file = answer_with(tmp_path, chosen, tool, {i: f"to {i}" for i in reversed(chosen.pool.ids)})
        lines = import_labels(chosen, [file]).lines
        assert lines[0] == b'{"id": "row-000008", "prompt": "q7", "response": "to row-000008"}'


def test_answers_in_several_files_and_some_missing(tmp_path, edjax_, fails):
    pool = pool_file(tmp_path / "p.jsonl", [{"prompt": f"q{i}"} for i in range(9)])
    chosen = read_chosen(pool)
    one = answer_with(tmp_path, chosen, "label-studio", {"r1": "one", "r3": "three"})
    two = answer_with(tmp_path, chosen, "csv", {"r3": "three", "r0": "zero"})
    out = tmp_path / "o.jsonl"
    line = fails(3, "import-labels", pool, one, two, "--out", out)
    assert "6 rows ('r2', 'r4', 'r5', 'r6', 'r7', ...) have no answer; have them answered, or --partial" in line
    assert not out.exists()
    code, said, err = edjax_("import-labels", pool, one, two, "--out", out, "--partial")
    assert code == 0 and said.startswith("3 of 9 rows answered (label-studio, csv)")
    assert err == "edjax: note: 6 rows without an answer left out: r2, r4, r5, r6, r7, ...\n"
    assert read_pool(out).responses == ("zero", "one", "three")
    code, said, _ = edjax_("import-labels", pool, one, two, "--out", out, "--partial", "--json")
    record = json.loads(said)
    assert code == 0 and record["rows"] == 3 and record["missing"][0] == "r2" and record["out"] == str(out)
    assert "no answer; have them answered" in fails(3, "import-labels", pool, one, "--out", tmp_path / "p2.jsonl")


def test_what_an_annotator_skipped_is_missing_and_counted(tmp_path, edjax_, fails):
    pool = pool_file(tmp_path / "p.jsonl", [{"prompt": f"q{i}"} for i in range(4)])
    chosen, out = read_chosen(pool), tmp_path / "o.jsonl"
    file = answer_with(tmp_path, chosen, "label-studio", {"r0": "a", "r1": "b", "r2": "c"})
    tasks = json.loads(file.read_bytes())
    tasks[1]["annotations"][0]["was_cancelled"] = True
    tasks[2]["annotations"].insert(0, {"was_cancelled": True, "result": []})
    file.write_text(json.dumps(tasks))
    line = fails(3, "import-labels", pool, file, "--out", out)
    assert "2 rows ('r1', 'r3') have no answer (1 of them skipped by the annotator)" in line
    code, said, err = edjax_("import-labels", pool, file, "--out", out, "--partial", "--json")
    assert (code, json.loads(said)["skipped"]) == (0, ["r1"])
    assert "2 rows without an answer left out, 1 of them skipped by the annotator: r1, r3" in err
    file = answer_with(tmp_path, chosen, "argilla", {"r0": "a", "r1": "b"})
    records = json.loads(file.read_bytes())
    records[1]["responses"]["response"][0]["status"] = "discarded"
    records[2]["suggestions"] = {"response": {"value": "a model's", "score": 1, "agent": "m"}}
    file.write_text(json.dumps(records))
    done = import_labels(chosen, [file], partial=True)
    assert (done.ids, done.missing, done.skipped) == (("r0",), ("r1", "r2", "r3"), ("r1",))


def test_argilla_s_flattened_records(tmp_path):
    chosen = read_chosen(pool_file(tmp_path / "p.jsonl", [{"prompt": f"q{i}"} for i in range(2)]))
    flat = {
        "prompt": "q0",
        "response.responses": ["draft", "final"],
        "response.responses.status": ["draft", "submitted"],
    }
    rows = [{"id": "r0", "status": "completed"} | flat, {"id": "r1", "prompt": "q1", "response.responses": None}]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    done = import_labels(chosen, [tmp_path / "a.json"], partial=True)
    assert done.formats == ("argilla",) and [json.loads(x)["response"] for x in done.lines] == ["final"]
    rows[0]["prompt"] = "q9"
    (tmp_path / "a.json").write_text(json.dumps(rows))
    with pytest.raises(Exception, match="the prompt of row 'r0' is not the one that was chosen"):
        import_labels(chosen, [tmp_path / "a.json"], partial=True)


REFUSED = {
    "an unknown id": ("id,response\nr0,a\nx7,b\nx8,c\n", ":3: no row 'x7' in ", "(2 such: 'x7', 'x8')"),
    "a changed prompt": ("id,prompt,response\nr0,q0,a\nr1,q7,b\n", ":3: the prompt of row 'r1' is not the one", "very"),
    "two answers": ("id,response\nr0,a\nr1,b\nr0,c\n", ":4: another answer to row 'r0' than ", ":2 has; keep one"),
    "an empty answer": ("id,response\nr0,\nr1, \n", "have no answer (1 of them empty, at ", ":3); have them"),
    "no id column": ("name,response\nr0,a\n", ":2: no column 'id'; the columns are name, response", ""),
    "no response column": ("id,answer\nr0,a\n", ":2: no column 'response'; the columns are id, answer", ""),
    "a cell too few": ("id,response\nr0,a\nr1\n", ":3: 1 cells where the header has 2", "mend the row"),
    "an open quote": ('id,response\nr0,a\nr1,"b\n', ":3: not valid CSV", "mend the file"),
    "a header alone": ("id,response\n", "holds no answers", ""),
    "nothing": ("", "holds no answers", ""),
    "latin-1": (b"id,response\nr0,a\nr1,caf\xe9\n", ":3: not UTF-8 (byte 0xe9)", "save it again as `CSV UTF-8`"),
    "utf-16": ("id,response\nr0,a\n".encode("utf-16"), "this is UTF-16", "save it as `CSV UTF-8`"),
    "a cut JSON line": ('{"id": "r0", "response": "a"}\n{"id": "r1", ', ":2: not valid JSON", "mend the file"),
    "a cut JSON array": ('[{"id": "r0", "response": "a"},\n{"id"', ": not valid JSON (", "line 2"),
    "an array of text": ('["a"]', ": entry 1: an answer must be a JSON object", ""),
    "JSON without ids": ('{"response": "a"}\n', ":1: no id (column 'id')", "joined by the id"),
    "an answer that is no text": ('{"id": "r0", "response": {"a": 1}}\n', ":1: the answer of row 'r0' is dict", ""),
    "a changed prompt in JSON": ('{"id": "r0", "prompt": "other", "response": "a"}', ":1: the prompt of row 'r0'", ""),
    "two texts": (
        '[{"id": 1, "data": {"edjax_id": "r0"}, "annotations": [{"result": [{"type": "textarea", "from_name": '
        '"response", "value": {"text": ["a", "b"]}}]}]}]',
        ": entry 1: row 'r0' holds 2 texts",
        "keep one answer a row",
    ),
    "two annotators": (
        '[{"data": {"edjax_id": "r0"}, "annotations": [{"result": [{"type": "textarea", "value": {"text": ["a"]}}]},'
        '{"result": [{"type": "textarea", "value": {"text": "b"}}]}]}]',
        ": entry 1: another answer to row 'r0'",
        "keep one of them, or say which with --annotator first, last or NAME",
    ),
    "a submitted nothing": (
        '[{"data": {"id": "r0"}, "annotations": [{"result": []}]}]',
        "have no answer (1 of them empty, at ",
        ": entry 1); have them answered",
    ),
    "tasks of somebody else": ('[{"data": {"text": "x"}, "annotations": []}]', "neither edjax_id nor id", ""),
    "a broken task": (
        '[{"data": {"id": "r0"}, "annotations": [7]}]',
        "does not hold what label-studio exports",
        "--from",
    ),
    "nested too deep": ("[" * 100_000, "not readable JSON", ""),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_names_the_place_the_id_and_the_remedy(tmp_path, fails, case):
    content, said, remedy = REFUSED[case]
    pool = pool_file(tmp_path / "p.jsonl", [{"prompt": f"q{i}"} for i in range(2)])
    file = tmp_path / "answers"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    line = fails(3, "import-labels", pool, file, "--out", tmp_path / "o.jsonl", "--partial")
    assert str(file) in line and said in line and remedy in line
    assert not (tmp_path / "o.jsonl").exists()


def test_files_and_formats_that_are_not_there(tmp_path, fails):
    pool, out = pool_file(tmp_path / "p.jsonl", [{"prompt": "q"}]), tmp_path / "o.jsonl"
    assert "does not exist" in fails(3, "import-labels", pool, tmp_path / "none.csv", "--out", out)
    assert "is no file of answers" in fails(3, "import-labels", pool, tmp_path, "--out", out)
    assert "'xml' is not one of" in fails(2, "import-labels", pool, pool, "--out", out, "--from", "xml")
    assert "Missing argument 'ANSWERS" in fails(2, "import-labels", pool, "--out", out)
    file = tmp_path / "a.jsonl"
    file.write_text('{"id": "r0", "response": "a"}')
    assert "holds no answers" in fails(3, "import-labels", pool, file, "--out", out, "--from", "csv")


def test_an_answered_file_is_not_lost(tmp_path, edjax_, fails):
    pool, out = pool_file(tmp_path / "p.jsonl", [{"prompt": "q"}]), tmp_path / "o.jsonl"
    for name in ("a", "b"):
        (tmp_path / f"{name}.csv").write_text(f"id,response\nr0,{name}\n")
    assert edjax_("import-labels", pool, tmp_path / "a.csv", "--out", out)[0] == 0
    before = out.stat()
    assert edjax_("import-labels", pool, tmp_path / "a.csv", "--out", out)[0] == 0
    assert out.stat().st_mtime_ns == before.st_mtime_ns
    line = fails(2, "import-labels", pool, tmp_path / "b.csv", "--out", out)
    assert "exists and holds something else; choose another --out, or --overwrite" in line
    assert read_pool(out).responses == ("a",)
    assert edjax_("import-labels", pool, tmp_path / "b.csv", "--out", out, "--overwrite")[0] == 0
    assert read_pool(out).responses == ("b",)


@pytest.mark.parametrize(
    "text",
    [
        "id,response\r\nr0,a\r\n",
        "\ufeffid;response;note\nr0;a;\n",
        "id\tresponse\nr0\ta\n",
        "\n\nid,response\n\nr0,a\n,\n",
        "id,response\rr0,a\r",
        ' id , response \nr0,"a"\n',
        "id,prompt,response\nr0,q  \r\n,a\n".replace("\r\n", ""),
    ],
)
def test_spreadsheets_save_csv_in_many_ways(tmp_path, text):
    chosen = read_chosen(pool_file(tmp_path / "p.jsonl", [{"prompt": "q"}]))
    (tmp_path / "a.csv").write_bytes(text.encode())
    assert json.loads(import_labels(chosen, [tmp_path / "a.csv"]).lines[0])["response"] == "a"


def test_ids_that_a_spreadsheet_would_rewrite_are_marked(tmp_path):
    ids = ["007", "1e5", "1-2", "3/4", "12345678901234567890", "=x", "-1", "'a", "''", "12", "0", "a7", ".5", "2e"]
    pool = tmp_path / "p.jsonl"
    pool.write_text("".join(json.dumps({"id": i, "prompt": f"q {i}"}) + "\n" for i in ids))
    chosen = read_chosen(pool)
    (file,) = export(chosen, "csv", tmp_path / "a.csv")
    cells = [line.split(",")[0] for line in file.read_text("utf-8-sig").splitlines()[1:]]
    assert cells == [i if i in ("12", "0", "a7") else f"'{i}" for i in ids]
    filled = file.read_text("utf-8-sig").splitlines()
    rows = [[*line.split(",")[:2], f"to {i}", "0"] for line, i in zip(filled[1:], ids, strict=True)]
    file.write_text("\n".join([filled[0], *map(",".join, rows)]), "utf-8")
    assert [json.loads(x)["response"] for x in import_labels(chosen, [file]).lines] == [f"to {i}" for i in ids]


def test_a_prompt_that_excel_cut_is_still_the_prompt(tmp_path):
    chosen = read_chosen(pool_file(tmp_path / "p.jsonl", [{"prompt": "x" * 40_000}]))
    (tmp_path / "a.csv").write_text(f"id,prompt,response\nr0,{'x' * 32_767},a\n")
    assert import_labels(chosen, [tmp_path / "a.csv"]).ids == ("r0",)


def test_json_lines_whose_rows_gained_a_turn(tmp_path):
    rows = [{"messages": [turn("user", f"q{i}")]} for i in range(2)]
    chosen = read_chosen(pool_file(tmp_path / "p.jsonl", rows))
    answered = [{"id": f"r{i}", "messages": [*r["messages"], turn("assistant", f"a{i}")]} for i, r in enumerate(rows)]
    pool_file(tmp_path / "a.jsonl", answered, ids=False)
    assert [json.loads(x)["messages"][-1]["content"] for x in import_labels(chosen, [tmp_path / "a.jsonl"]).lines] == [
        "a0",
        "a1",
    ]
    answered[1]["messages"][0]["content"] = "another"
    pool_file(tmp_path / "a.jsonl", answered, ids=False)
    with pytest.raises(Exception, match=":2: the prompt of row 'r1' is not the one that was chosen"):
        import_labels(chosen, [tmp_path / "a.jsonl"])


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("messages", [turn("user", "q"), turn("assistant", [{"type": "text", "text": "yes"}])]),
        ("completion", [said("gpt", "yes")]),
        ("completion", turn("assistant", "yes")),
        ("completion", [turn("assistant", "no"), turn("user", "sure?"), turn("model", "yes")]),
        ("response", [said("gpt", "yes")]),
        ("output", 3.0),
    ],
)
def test_an_answer_in_every_shape_that_a_pool_has(tmp_path, column, value):
    row = {"instruction": "q"} if column == "output" else {} if column == "messages" else {"prompt": "q"}
    path = pool_file(tmp_path / "a.jsonl", [row | {column: value}])
    ((name, text),) = [(a.id, a.text) for a in read_answers(path)[1]]
    assert name == "r0" and text == read_pool(path).responses[0] is not None


@pytest.mark.parametrize("more", [{"weight": 0}, {"tool_calls": [{"function": {"name": "f", "arguments": {}}}]}])
def test_a_turn_that_is_not_learned_is_no_answer(tmp_path, more):
    path = pool_file(tmp_path / "a.jsonl", [{"messages": [turn("user", "q"), turn("assistant", "x") | more]}])
    assert read_answers(path)[1][0].text is read_pool(path).responses[0] is None


def test_columns_that_only_look_like_answers(tmp_path):
    row = {"id": "r0", "prompt": "q", "output": {"score": 1}, "answer": ["x"]}
    chosen = read_chosen(pool_file(tmp_path / "p.jsonl", [row], ids=False))
    pool_file(tmp_path / "a.jsonl", [row | {"response": "a"}], ids=False)
    assert json.loads(import_labels(chosen, [tmp_path / "a.jsonl"]).lines[0]) == row | {"response": "a"}


def test_numbers_are_answers_and_one_object_is_a_file(tmp_path):
    (tmp_path / "a").write_text('{\n "id": 7,\n "response": 42\n}\n')
    kind, answers = read_answers(tmp_path / "a")
    assert kind == "jsonl" and [(a.id, a.text) for a in answers] == [("7", "42")]
