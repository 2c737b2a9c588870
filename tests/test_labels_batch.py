"""Output of OpenAI's batch API as answers, and answers where a row of any format has its own."""

import json

import pytest
from handoff_cases import pool_file

from edjax.handoff import read_chosen
from edjax.handoff.answers import read_answers
from edjax.handoff.labels import import_labels
from edjax.keep.errors import DataError


def choice(text, end="stop", **message):
    return {"index": 0, "message": {"role": "assistant", "content": text} | message, "finish_reason": end}


def line(name, *choices, status=200, error=None, model="m-1"):
    body = {"id": "chatcmpl-1", "object": "chat.completion", "model": model, "choices": list(choices)}
    response = {"status_code": status, "request_id": "r", "body": body}
    return {"id": f"batch_req_{name}", "custom_id": name, "response": None if error else response, "error": error}


def message(*texts):
    content = [{"type": "output_text", "text": text, "annotations": []} for text in texts]
    return {"type": "message", "role": "assistant", "content": content}


def output(name, *items, status="completed", error=None, model="m-1"):
    """A line of /v1/responses."""
    body = {"id": "resp_1", "object": "response", "status": status, "error": error, "model": model}
    made = line(name)
    made["response"]["body"] = body | {"output": list(items)}
    return made


@pytest.fixture
def chosen(tmp_path):
    return read_chosen(pool_file(tmp_path / "p.jsonl", [{"id": f"p{i}", "prompt": f"q{i}"} for i in range(3)]))


def written(path, *rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def test_output_of_a_batch(tmp_path, chosen):
    file = written(tmp_path / "out.jsonl", *(line(f"p{i}", choice(f"to {i}")) for i in (2, 0, 1)))
    assert read_answers(file)[0] == "openai-batch"
    done = import_labels(chosen, [file])
    assert [json.loads(x)["response"] for x in done.lines] == ["to 0", "to 1", "to 2"]
    assert done.formats == ("openai-batch",)
    assert import_labels(chosen, [file], annotator="m-1").lines == done.lines


def test_output_of_responses_and_of_parts(tmp_path, chosen):
    parts = [{"type": "text", "text": "to "}, {"type": "text", "text": "1"}]
    thought = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}
    lines = (
        output("p0", thought, message("to ", "0")),
        line("p1", choice(parts)),
        line("p2", choice("to 2"), status="200"),
    )
    done = import_labels(chosen, [written(tmp_path / "out.jsonl", *lines)], annotator="m-1")
    assert [json.loads(x)["response"] for x in done.lines] == ["to 0", "to 1", "to 2"]


WRONG = {  # a line that holds no whole answer, and what is said of it
    "expired": (
        line("p1", error={"code": "batch_expired", "message": "not in time"}),
        "the request failed .not in time",
    ),
    "refused by the server": (line("p1", status=400), "the request failed .status 400"),
    "cut": (line("p1", choice("to", "length")), "not a whole answer .finish_reason length"),
    "filtered": (line("p1", choice("to", "content_filter")), "not a whole answer .finish_reason content_filter"),
    "refusal": (line("p1", choice(None, refusal="No.")), "the model refused"),
    "calls": (line("p1", choice(None, "tool_calls", tool_calls=[{"function": {"name": "f"}}])), "it calls tools"),
    "empty": (line("p1", choice(" ")), "empty"),
    "embeddings": (line("p1"), "the response holds neither choices nor output"),
    "cut output": (output("p1", message("to"), status="incomplete"), "not a whole answer .status incomplete"),
    "failed output": (output("p1", error={"message": "overloaded"}, status="failed"), "the request failed .overloaded"),
    "refused output": (
        output("p1", {"type": "message", "content": [{"type": "refusal", "refusal": "No."}]}),
        "the model refused",
    ),
    "calling output": (output("p1", {"type": "function_call", "name": "f"}), "it calls tools"),
    "no output": (output("p1", {"type": "reasoning", "summary": []}), "empty"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_whole_answer_is_none(tmp_path, chosen, case):
    wrong, why = WRONG[case]
    file = written(tmp_path / "out.jsonl", line("p0", choice("to 0")), wrong, line("p2", choice("to 2")))
    with pytest.raises(DataError, match=f"row 'p1' has no answer .{why}"):
        import_labels(chosen, [file])
    done = import_labels(chosen, [file], partial=True)
    assert done.ids == ("p0", "p2") and done.missing == ("p1",)
    assert import_labels(chosen, [file, written(tmp_path / "again.jsonl", line("p1", choice("at last")))]).missing == ()


def test_several_choices_are_several_answers(tmp_path, chosen):
    rows = [line("p0", choice("a"), choice("b")), line("p1", choice("c"), choice("c")), line("p2", choice("d"))]
    file = written(tmp_path / "out.jsonl", *rows)
    with pytest.raises(DataError, match="another answer to row 'p0'"):
        import_labels(chosen, [file])
    done = import_labels(chosen, [file], annotator="first")
    assert [json.loads(x)["response"] for x in done.lines] == ["a", "c", "d"]


def test_completions_and_lines_of_nobody(tmp_path, chosen):
    plain = {"index": 0, "text": "to it", "finish_reason": "stop"}
    file = written(tmp_path / "out.jsonl", *(line(f"p{i}", plain) for i in range(3)))
    assert json.loads(import_labels(chosen, [file]).lines[0])["response"] == "to it"
    with pytest.raises(DataError, match=r"out\.jsonl:1: no row 'p9'"):
        import_labels(chosen, [written(tmp_path / "out.jsonl", line("p9", choice("x")))])
    with pytest.raises(DataError, match=r"out\.jsonl:1: no custom_id"):
        import_labels(chosen, [written(tmp_path / "out.jsonl", line(None, choice("x")))])


def test_the_verb(tmp_path, chosen, edjax_):
    file = written(tmp_path / "out.jsonl", *(line(f"p{i}", choice(f"to {i}")) for i in range(3)))
    argv = ("import-labels", tmp_path / "p.jsonl", file, "--from", "openai-batch", "--out", tmp_path / "done.jsonl")
    code, out, err = edjax_(*argv)
    assert code == 0 and "3 of 3 rows answered (openai-batch)" in out, err


def test_answers_in_the_rows_own_place(tmp_path):
    rows = [{"id": "a", "conversations": ["Q?"]}, {"id": "b", "conversations": ["Q?", "old", "R?", "old"]}]
    chosen = read_chosen(written(tmp_path / "p.jsonl", *rows))
    rows = [{"id": "a", "conversations": ["Q?", "A."]}, {"id": "b", "conversations": ["Q?", "old", "R?", "B."]}]
    assert [json.loads(x) for x in import_labels(chosen, [written(tmp_path / "a.jsonl", *rows)]).lines] == rows
    body = {"messages": [{"role": "user", "content": "Q?"}]}
    chosen = read_chosen(written(tmp_path / "p.jsonl", {"custom_id": "a", "body": body}))
    answered = {"custom_id": "a", "body": {"messages": [*body["messages"], {"role": "assistant", "content": "A."}]}}
    file = written(tmp_path / "a.jsonl", answered)
    assert json.loads(import_labels(chosen, [file], id_column="custom_id").lines[0]) == answered
    rows = [{"id": "a", "ask": "Q?", "gold": None}]
    chosen = read_chosen(written(tmp_path / "p.jsonl", *rows), text_column="ask", response_column="gold")
    done = import_labels(chosen, [written(tmp_path / "a.jsonl", rows[0] | {"gold": "A."})])
    assert json.loads(done.lines[0]) == rows[0] | {"gold": "A."}
