"""What tools' exports say beside the answer: who gave it, whether it was submitted, and which control it is of."""

import csv
import gzip
import io
import json

import pytest
from handoff_cases import pool_file, turn

from edjax.handoff import export, read_chosen
from edjax.handoff.answers import read_answers
from edjax.handoff.labels import import_labels
from edjax.keep.errors import DataError, UsageError


@pytest.fixture
def pool(tmp_path):
    return pool_file(tmp_path / "p.jsonl", [{"prompt": f"q{i}"} for i in range(3)])


@pytest.fixture
def chosen(pool):
    return read_chosen(pool)


def written(path, value):
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def texts(chosen, file, **options):
    done = import_labels(chosen, [file], **options)
    return {i: json.loads(line)["response"] for i, line in zip(done.ids, done.lines, strict=True)}


# Label Studio


def area(text, name="response"):
    return {"from_name": name, "to_name": "prompt", "type": "textarea", "value": {"text": text}}


def choice(value, name="label"):
    return {"from_name": name, "to_name": "prompt", "type": "choices", "value": {"choices": value}}


def task(i, *annotations, **more):
    """A task of a full JSON export; an annotation is its results, or a whole object."""
    made = [{"was_cancelled": False} | (a if isinstance(a, dict) else {"result": a}) for a in annotations]
    return {"id": 100 + i, "data": {"edjax_id": f"r{i}", "prompt": f"q{i}"}, "annotations": made} | more


def minimal(i, **more):
    row = {"id": 100 + i, "edjax_id": f"r{i}", "prompt": f"q{i}", "annotator": 1, "annotation_id": 7 + i}
    return row | {"lead_time": 3.1, "created_at": None} | more


def test_one_empty_submission_does_not_block_the_rest(tmp_path, pool, chosen, edjax_, fails):
    tasks = [task(0, []), task(1, [area(["b"])]), task(2, [area([" "])], [area(["c"])])]
    full = written(tmp_path / "full.json", tasks)
    small = written(tmp_path / "min.json", [minimal(0), minimal(1, response="b"), minimal(2, response="c")])
    table = ["id,prompt,edjax_id,annotation_id,annotator,lead_time,response"]
    table += [f"{100 + i},q{i},r{i},{7 + i},a@b.c,1,{text}" for i, text in enumerate(("", "b", "c"))]
    cells = written(tmp_path / "ls.csv", "\n".join(table) + "\n")
    for file, where in ((full, ": entry 1"), (small, ": entry 1"), (cells, ":2")):
        assert texts(chosen, file, partial=True) == {"r1": "b", "r2": "c"}
        out = tmp_path / "o.jsonl"
        line = fails(3, "import-labels", pool, file, "--out", out)
        assert f"row 'r0' has no answer (empty, at {file}{where}); have them answered, or --partial" in line
        code, said, err = edjax_("import-labels", pool, file, "--out", out, "--partial", "--overwrite", "--json")
        assert code == 0 and f"1 row without an answer left out, empty, at {file}{where}: r0" in err
        assert json.loads(said)["reasons"] == {"r0": "empty"}
    many = written(tmp_path / "many.json", [task(0, []), task(1, []), task(2, [area(["c"])])])
    line = fails(3, "import-labels", pool, many, "--out", tmp_path / "o2.jsonl")
    assert f"2 rows ('r0', 'r1') have no answer (empty, the first at {many}: entry 1); have them answered" in line


@pytest.mark.parametrize(
    ("results", "said"),
    [
        ([[choice(["yes"], "sentiment")]] * 3, "no text area response, found: choices sentiment"),
        (
            [[choice(["yes"]), area(["unsure"], "comment")]] * 3,
            "no text area response, found: choices label, textarea comment",
        ),
        (
            [[area(["unsure"], "comment")], [choice(["yes"])], [choice(["no"])]],
            "1 of them no text area response, found",
        ),
        ([[area(["a"], "answer"), area(["b"], "comment")]] * 3, "found: textarea answer, textarea comment"),
        ([[{"from_name": "response", "type": "number", "value": {"number": 3}}]] * 3, "found: number response"),
    ],
)
def test_a_comment_or_a_choice_is_no_answer(tmp_path, chosen, results, said):
    file = written(tmp_path / "a.json", [task(i, r) for i, r in enumerate(results)])
    with pytest.raises(DataError, match=said):
        import_labels(chosen, [file], partial=True)


def test_the_control_that_is_the_answer(tmp_path, chosen):
    only = [task(i, [area([f"a{i}"], "reply")]) for i in range(3)]
    assert texts(chosen, written(tmp_path / "a.json", only)) == {f"r{i}": f"a{i}" for i in range(3)}
    only[0]["annotations"][0]["result"].append({"type": "relation", "from_id": "a", "to_id": "b"})
    assert texts(chosen, written(tmp_path / "r.json", only))["r0"] == "a0"
    both = [task(i, [choice(["yes"]), area(["hm"], "comment"), area([f"a{i}"])]) for i in range(3)]
    assert texts(chosen, written(tmp_path / "b.json", both)) == {f"r{i}": f"a{i}" for i in range(3)}
    picked = [task(i, [choice(["yes"], "response"), area(["hm"], "comment")]) for i in range(3)]
    assert set(texts(chosen, written(tmp_path / "c.json", picked)).values()) == {"yes"}, "as JSON-MIN has it"
    picked[0]["annotations"][0]["result"][0]["value"]["choices"] = ["yes", "no"]
    with pytest.raises(DataError, match="row 'r0' holds 2 texts; keep one answer a row"):
        import_labels(chosen, [written(tmp_path / "d.json", picked)])
    left_blank = [task(0, [choice(["yes"])]), *both[1:]]
    with pytest.raises(DataError, match=r"row 'r0' has no answer \(no text area response, found: choices label\)"):
        import_labels(chosen, [written(tmp_path / "e.json", left_blank)])
    with pytest.raises(DataError, match=r"no answer \(no text area response, found: sentiment\)"):
        import_labels(chosen, [written(tmp_path / "f.json", [minimal(i, sentiment="yes") for i in range(3)])])


def test_drafts_predictions_and_cancelled_annotations_are_named(tmp_path, chosen):
    model = [{"result": [area(["a model's"])]}]
    tasks = [
        task(0, predictions=model, drafts=[]),
        task(1, drafts=[{"result": [area(["half"])]}]),
        task(2, {"result": [area(["c"])], "was_cancelled": True}, predictions=model),
    ]
    with pytest.raises(DataError) as e:
        import_labels(chosen, [written(tmp_path / "a.json", tasks)], partial=True)
    for part in ("a prediction, not an annotation", "a draft, not submitted", "skipped by the annotator"):
        assert f"1 of them {part}" in str(e.value)


@pytest.mark.parametrize("wrap", ["list", "object", "objects"])
def test_two_lines_of_one_text_area_are_two_answers_in_every_form(tmp_path, chosen, wrap):
    """As label_studio_sdk's converter writes them: {"text": [...]}; several regions are a list."""
    lines = ["line one", "line two"]
    value = {"list": lines, "object": {"text": lines}, "objects": [{"text": lines}, "x"]}[wrap]
    rows = [minimal(0, response=value), minimal(1, response="b"), minimal(2, response={"text": ["c"]})]
    table = io.StringIO()
    w = csv.DictWriter(table, list(rows[0]))
    w.writeheader()
    for row in rows:
        cell = row["response"] if isinstance(row["response"], str) else json.dumps(row["response"])
        w.writerow(row | {"response": cell})
    files = [written(tmp_path / "a.json", rows), written(tmp_path / "a.csv", table.getvalue())]
    files = files[:1] if wrap == "list" else files  # in CSV a list of texts is one that somebody wrote
    for file in files:
        with pytest.raises(DataError, match=r"row 'r0' holds [23] texts; keep one answer a row"):
            import_labels(chosen, [file])


def test_json_that_somebody_wrote_is_an_answer(tmp_path, chosen):
    wrote = ['{"text": ["a"]}', '["a", "b"]', "{not json"]
    table = io.StringIO()
    w = csv.DictWriter(table, list(minimal(0, response="")))
    w.writeheader()
    w.writerows(minimal(i, response=text) for i, text in enumerate(wrote))
    assert list(texts(chosen, written(tmp_path / "a.csv", table.getvalue())).values()) == wrote
    plain = "id,response\n" + "".join(f'r{i},"{{""text"": [""a"", ""b""]}}"\n' for i in range(3))
    assert set(texts(chosen, written(tmp_path / "b.csv", plain)).values()) == {'{"text": ["a", "b"]}'}


# Several annotators


def annotated(*given, **more):
    """Three tasks, the first with these annotations: (text, person, day, ground truth)."""
    made = [
        {"id": 50 + n, "result": [area([text])], "completed_by": by, "created_at": day, "ground_truth": truth}
        for n, (text, by, day, truth) in enumerate(given)
    ]
    return [task(0, *made), task(1, [area(["b"])]), task(2, [area(["c"])])]


ANN, BEN = {"id": 4, "email": "ann@x.org"}, 9
LATE, EARLY = "2026-05-02T10:00:00Z", "2026-05-01T10:00:00Z"
TWO = [("ann's", ANN, LATE, False), ("ben's", BEN, EARLY, False)]


def test_two_annotators_are_refused_and_both_are_named(tmp_path, pool, chosen, fails):
    file = written(tmp_path / "a.json", annotated(*TWO))
    line = fails(3, "import-labels", pool, file, "--out", tmp_path / "o.jsonl", "--partial")
    ben, ann = f"{file}: entry 1, annotation 51 (by 9)", f"{file}: entry 1, annotation 50 (by 4)"
    assert f"{ben}: another answer to row 'r0' than {ann} has" in line
    assert "keep one of them, or say which with --annotator first, last or NAME" in line


@pytest.mark.parametrize(
    ("given", "annotator", "text", "note"),
    [
        (TWO, "first", "ben's", "row 'r0' has several answers: --annotator first decided 1"),
        (TWO, "last", "ann's", "--annotator last decided 1"),
        (TWO, "ann@x.org", "ann's", "--annotator ann@x.org decided 1"),
        (TWO, "4", "ann's", "--annotator 4 decided 1"),
        (TWO, "9", "ben's", "--annotator 9 decided 1"),
        ([(t, b, None, g) for t, b, _, g in TWO], "first", "ann's", "--annotator first decided 1"),  # by place
        ([TWO[0], ("ben's", BEN, EARLY, True)], None, "ben's", "ground truth decided 1"),
        ([TWO[0], ("ben's", BEN, EARLY, True)], "ann@x.org", "ben's", "ground truth decided 1"),
        ([("x", 1, EARLY, True), ("y", 2, LATE, True), ("z", 3, LATE, False)], "last", "y", "--annotator last decided"),
        ([("same", 1, EARLY, False), ("same", 2, LATE, False)], None, "same", ""),
    ],
)
def test_what_decides_between_them(tmp_path, pool, edjax_, given, annotator, text, note):
    file, out = written(tmp_path / "a.json", annotated(*given)), tmp_path / "o.jsonl"
    more = ["--annotator", annotator] if annotator else []
    code, _, err = edjax_("import-labels", pool, file, "--out", out, *more)
    assert code == 0 and json.loads(out.read_text().splitlines()[0])["response"] == text
    assert note in err and (note or not err)


def test_an_annotator_decides_and_does_not_filter(tmp_path, chosen, pool, fails):
    file = written(tmp_path / "a.json", annotated(*TWO))
    assert texts(chosen, file, annotator="9") == {"r0": "ben's", "r1": "b", "r2": "c"}
    three = written(tmp_path / "b.json", [*annotated(*TWO)[:2], task(2, {"result": [area(["c"])], "completed_by": 7})])
    with pytest.raises(DataError, match=r"\(by 9\): another answer to row 'r0'"):
        import_labels(chosen, [three], annotator="7")
    line = fails(2, "import-labels", pool, file, "--out", tmp_path / "o", "--annotator", "zoe")
    assert "no answer of annotator 'zoe'; the annotators are 4, 9, ann@x.org" in line
    bare = written(tmp_path / "c.csv", "id,response\nr0,a\nr0,b\nr1,c\nr2,d\n")
    with pytest.raises(UsageError, match="no answer of annotator 'zoe'; no record says who answered it"):
        import_labels(chosen, [bare], annotator="zoe")
    assert texts(chosen, bare, annotator="last")["r0"] == "b"


def test_annotators_of_the_other_forms(tmp_path, chosen):
    rest = [minimal(1, response="b"), minimal(2, response="c")]
    # JSON-MIN has the latest annotation first
    rows = [minimal(0, response=t, annotator=b, created_at=d) for t, b, d in (("new", 2, LATE), ("old", 1, EARLY))]
    file = written(tmp_path / "a.json", [*rows, *rest])
    assert [texts(chosen, file, annotator=a)["r0"] for a in ("first", "last", "1")] == ["old", "new", "old"]
    file = written(tmp_path / "a.csv", "id,response,annotator\nr0,x,ann\nr0,y,ben\nr1,b,ann\nr2,c,ben\n")
    assert [texts(chosen, file, annotator=a)["r0"] for a in ("ann", "ben")] == ["x", "y"]
    lines = [{"id": "r0", "response": t, "annotator": a} for t, a in (("x", "ann"), ("y", "ben"))]
    file = written(tmp_path / "c.jsonl", "".join(json.dumps(r) + "\n" for r in lines))
    assert [texts(chosen, file, annotator=a, partial=True)["r0"] for a in ("ann", "ben")] == ["x", "y"]
    flat = {
        "id": "r0",
        "response.responses": ["x", "y"],
        "response.responses.users": ["u1", "u2"],
        "response.responses.status": ["submitted", "submitted"],
    }
    file = written(tmp_path / "b.json", [flat])
    assert [texts(chosen, file, annotator=a, partial=True)["r0"] for a in ("u1", "u2")] == ["x", "y"]


# Argilla


def record(i, *given, status="pending", **more):
    """A record as argilla 2.8's `Dataset.to_disk` writes it: the status of a response is not in it."""
    said = {"response": [{"value": v, "user_id": f"u{n}"} for n, v in enumerate(given)]} if given else {}
    row = {"id": f"r{i}", "fields": {"prompt": f"q{i}"}, "metadata": {}, "suggestions": {}, "responses": said}
    return row | {"vectors": {}, "status": status, "_server_id": None} | more


def test_only_completed_records_count_where_responses_have_no_status(tmp_path, pool, chosen, fails):
    records = [record(0, "done", status="completed"), record(1, "half a dra"), record(2, "x", "y", status="completed")]
    file = written(tmp_path / "records.json", records)
    assert texts(chosen, file, partial=True) == {"r0": "done"}
    line = fails(3, "import-labels", pool, file, "--out", tmp_path / "o.jsonl")
    assert "1 of them status pending, and the file does not say which responses are drafts; export it as" in line
    assert "1 of them several responses, and the file does not say" in line and "to_list(flatten=True)" in line
    records[2] = record(2, "x", "x", status="completed")
    assert texts(chosen, written(tmp_path / "b.json", records), partial=True) == {"r0": "done", "r2": "x"}
    older = [{k: v for k, v in r.items() if k != "status"} for r in records]  # argilla 2.0 has no status at all
    with pytest.raises(DataError, match="status None, and the file does not say"):
        import_labels(chosen, [written(tmp_path / "c.json", older)], partial=True)


def test_argilla_s_own_export_of_one_submitted_one_draft_and_one_discarded(shared):
    """Its nested form cannot tell them apart, so nothing of it counts; the flattened one can."""
    chosen = read_chosen(shared / "cases" / "pool3.jsonl")
    with pytest.raises(DataError, match=r"no answer \(status pending, and the file does not say which .*flatten=True"):
        import_labels(chosen, [shared / "cases" / "argreal_records.json"], partial=True)
    done = import_labels(chosen, [shared / "cases" / "argreal_flat.json"], partial=True)
    assert done.ids == ("p0",)
    assert done.reasons == {"p1": "a draft, not submitted", "p2": "skipped by the annotator"}


def test_records_of_argilla_1_and_of_other_questions(tmp_path, chosen):
    first = [
        {
            "id": f"uuid-{i}",
            "external_id": f"r{i}",
            "fields": {"prompt": f"q{i}"},
            "responses": [{"user_id": "u", "status": status, "values": {"response": {"value": f"a{i}"}}}],
        }
        for i, status in enumerate(("submitted", "draft", "discarded"))
    ]
    file = written(tmp_path / "v1.json", first)
    assert texts(chosen, file, partial=True) == {"r0": "a0"}
    other = [record(i, status="completed", responses={"quality": [{"value": 4}]}) for i in range(3)]
    with pytest.raises(DataError, match=r"no answer \(no question response, found: quality\)"):
        import_labels(chosen, [written(tmp_path / "o.json", other)])
    flat = [{"id": f"r{i}", "prompt": f"q{i}", "quality.responses": [4]} for i in range(3)]
    with pytest.raises(DataError, match=r"no answer \(no question response, found: quality\)"):
        import_labels(chosen, [written(tmp_path / "f.json", flat)])
    listed = [record(i, ["a", "b"], status="completed") for i in range(3)]
    with pytest.raises(DataError, match="entry 1: the answer of row 'r0' is list, not text"):
        import_labels(chosen, [written(tmp_path / "l.json", listed)])


# Files


def test_a_first_record_that_nobody_answered_does_not_hide_the_format(tmp_path):
    done = {"id": "r1", "prompt": "q1", "response.responses": ["a"], "response.responses.status": ["submitted"]}
    bare = [{"id": "r0", "prompt": "q0"}, {"id": 100, "edjax_id": "r0", "prompt": "q0"}]
    for kind, records in (("argilla", [bare[0], done]), ("label-studio", [bare[1], minimal(1, response="a")])):
        found, answers = read_answers(written(tmp_path / "a.json", records))
        assert found == kind and [(a.id, a.text) for a in answers] == [("r0", None), ("r1", "a")]


@pytest.mark.parametrize("kind", ["jsonl", "csv", "json"])
def test_gzipped_answers_are_read_whatever_they_are_called(tmp_path, chosen, kind):
    content = {
        "jsonl": "".join(json.dumps({"id": f"r{i}", "response": f"a{i}"}) + "\n" for i in range(3)),
        "csv": "\ufeffid,response\n" + "".join(f"r{i},a{i}\n" for i in range(3)),
        "json": json.dumps([minimal(i, response=f"a{i}") for i in range(3)]),
    }[kind]
    for name in (f"answers.{kind}.gz", "answers"):
        (tmp_path / name).write_bytes(gzip.compress(content.encode()))
        assert texts(chosen, tmp_path / name) == {f"r{i}": f"a{i}" for i in range(3)}
    whole = (tmp_path / "answers").read_bytes()
    for damaged in (whole[:-9], whole[:12] + b"\xff\xff" + whole[14:], b"\x1f\x8b"):
        (tmp_path / "answers").write_bytes(damaged)
        with pytest.raises(DataError, match="the gzip file is damaged or cut short"):
            read_answers(tmp_path / "answers")
    (tmp_path / "a.xlsx").write_bytes(b"PK\x03\x04" + b"\0" * 50)
    with pytest.raises(DataError, match="is a workbook or another zip file; save its sheet as `CSV UTF-8`"):
        read_answers(tmp_path / "a.xlsx")


OWN = ["'-1' is right", "'=A1' adds", "'quoted' word"]


def test_an_apostrophe_of_one_s_own_is_kept(tmp_path, chosen):
    """Only in a file with the columns of an export is it a mark; there, somebody may have used it as such."""
    for column in ("id", "edjax_id"):
        table = f"{column},prompt,response\n" + "".join(f"r{i},q{i},{text}\n" for i, text in enumerate(OWN))
        assert list(texts(chosen, written(tmp_path / "a.csv", table)).values()) == OWN
    (file,) = export(chosen, "csv", tmp_path / "ours.csv")
    rows = list(csv.reader(io.StringIO(file.read_text("utf-8-sig"), newline="")))
    for row, text in zip(rows[1:], ("'=1+1", "'tis", "-5"), strict=True):
        row[2] = text
    out = io.StringIO(newline="")
    csv.writer(out).writerows(rows)
    assert list(texts(chosen, written(tmp_path / "b.csv", out.getvalue())).values()) == ["=1+1", "'tis", "-5"]


def test_ids_and_prompts_that_a_spreadsheet_spells_otherwise(tmp_path):
    rows = [{"id": 0, "prompt": "=1+1"}, {"id": "007", "prompt": "'x"}, {"id": "'a", "prompt": "b"}]
    chosen = read_chosen(pool_file(tmp_path / "p.jsonl", rows, ids=False))
    table = "id,prompt,response\n0.0,'=1+1,a\n'007,'x,b\n'a,b,c\n"
    assert texts(chosen, written(tmp_path / "a.csv", table)) == {"0": "a", "007": "b", "'a": "c"}
    lines = '{"id": 0.0, "response": "a"}\n{"id": "007", "response": "b"}\n{"id": "\'a", "response": "c"}\n'
    assert texts(chosen, written(tmp_path / "a.jsonl", lines)) == {"0": "a", "007": "b", "'a": "c"}
    with pytest.raises(DataError, match=r"no row '1\.0' in"):
        import_labels(chosen, [written(tmp_path / "b.csv", "id,response\n1.0,a\n")])


def test_rows_of_turns_with_an_id_that_is_null(tmp_path, edjax_):
    """One column `id`, which holds the name; what edjax writes it reads."""
    rows = [
        {"id": None, "messages": [turn("user", "é")]},
        {"messages": [turn("user", "b")], "id": ""},
        {"id": "x", "messages": [turn("user", "c")]},
        {"messages": [turn("user", "d")]},
    ]
    pool = pool_file(tmp_path / "p.jsonl", rows, ids=False, ensure_ascii=False)
    assert edjax_("export", pool, "--to", "jsonl", "--out", tmp_path / "o")[0] == 0
    lines = (tmp_path / "o" / "rows.jsonl").read_text("utf-8").splitlines()
    assert lines[0] == '{"id": "row-000001", "messages": [{"role": "user", "content": "é"}]}'
    assert lines[1].endswith('"id": "row-000002"}') and lines[2] == pool.read_text("utf-8").splitlines()[2]
    assert all(line.count('"id"') == 1 for line in lines)
    chosen = read_chosen(pool)
    assert read_chosen(tmp_path / "o" / "rows.jsonl").pool.ids == chosen.pool.ids
    answered = [json.loads(line) | {"response": "a"} for line in lines]
    assert len(import_labels(chosen, [pool_file(tmp_path / "a.jsonl", answered, ids=False)]).ids) == 4


def test_an_id_of_another_column_that_is_null_is_filled_in(tmp_path):
    rows = [{"id": 5, "uid": None, "prompt": "a"}, {"id": 5, "uid": "u2", "prompt": "b"}]
    pool = pool_file(tmp_path / "p.jsonl", rows, ids=False)
    chosen = read_chosen(pool, id_column="uid")
    (path,) = export(chosen, "jsonl", tmp_path / "o")
    first, second = map(json.loads, path.read_text().splitlines())
    assert first == rows[0] | {"uid": "row-000001"} and second == rows[1]
    file = pool_file(tmp_path / "a.jsonl", [r | {"response": "x"} for r in (first, second)], ids=False)
    assert import_labels(chosen, [file], id_column="uid").ids == ("row-000001", "u2")
