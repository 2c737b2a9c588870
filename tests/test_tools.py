"""Tool calls and the functions on offer: carried into the chat template and into exports, or refused with the row."""

import copy
import json

import pytest

from edjax.data.pool import read_pool
from edjax.finetuning.examples import encode_rows
from edjax.handoff import export, read_chosen
from edjax.handoff.labels import import_labels
from edjax.keep.errors import DataError
from edjax.lm.encode import Encoder
from edjax.scoring.job import prepare

SCHEMA = {"name": "look_up", "parameters": {"type": "object", "properties": {"item": {"type": "string"}}}}
TOOL = {"type": "function", "function": SCHEMA}
CALL = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": {"item": "pears"}}}
AS_TEXT = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": '{"item": "pears"}'}}
BARE = {"name": "look_up", "arguments": '{"item": "pears"}'}
ASKED, ANSWER = {"role": "user", "content": "How many?"}, {"role": "assistant", "content": "One is left."}
FOUND = {"role": "tool", "tool_call_id": "c1", "content": '{"count": 1}'}

TEMPLATE = """\
{% if tools %}{% for t in tools %}[{{ t.function.name }}: {{ t.function.parameters | tojson }}]{% endfor %}{% endif %}
{% for m in messages %}<{{ m.role }}>{{ m.content }}{% for c in m.tool_calls or [] %}\
[calls {{ c.function.name }} with {{ c.function.arguments | tojson }}]{% endfor %}</s>
{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"""


def calling(**call):
    return {"role": "assistant", "content": None, **call}


def mid(tools=None, call=None, **more):
    messages = [ASKED, calling(**(call or {"tool_calls": [AS_TEXT]})), FOUND, ANSWER]
    return {"id": "t1", "messages": messages, "tools": [TOOL] if tools is None else tools, **more}


def last(**more):
    return {"id": "t2", "messages": [ASKED, calling(tool_calls=[AS_TEXT])], "tools": [TOOL], **more}


def pool_file(path, *rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


@pytest.fixture
def tokenizer(stories):
    """The stories model's, with a chat template of ours."""

    def with_template(template=TEMPLATE):
        made = copy.deepcopy(stories.tokenizer)
        made.chat_template = template
        return made

    return with_template


FORMS = {  # OpenAI now and before, without wrapping, as JSON text; a later row's nulls
    "arguments as text": mid(),
    "arguments as an object": mid(call={"tool_calls": [CALL]}),
    "function_call": mid(call={"function_call": BARE}),
    "bare": mid(tools=[SCHEMA], call={"tool_calls": [BARE]}),
    "all as text": mid(tools=json.dumps([SCHEMA]), call={"tool_calls": json.dumps([AS_TEXT])}),
    "functions": mid(tools=[], functions=[SCHEMA]),
    "parameters as text": mid(
        tools=[{"type": "function", "function": SCHEMA | {"parameters": json.dumps(SCHEMA["parameters"])}}]
    ),
    "nulls": mid(call={"tool_calls": [AS_TEXT], "function_call": None, "weight": None, "name": None}),
    "sharegpt": {
        "conversations": [
            {"from": "human", "value": "How many?"},
            {"from": "function_call", "value": json.dumps(BARE)},
            {"from": "observation", "value": '{"count": 1}'},
            {"from": "gpt", "value": "One is left."},
        ],
        "tools": json.dumps([SCHEMA]),
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_one_form_whatever_wrote_it(tmp_path, form, tokenizer):
    pool = read_pool(pool_file(tmp_path / "p.jsonl", FORMS[form]))
    assert pool.tools == ((TOOL,),)
    asked, calls, found = pool.messages[0]
    (call,) = calls["tool_calls"]
    assert call["function"] == CALL["function"] and call["type"] == "function" and calls["content"] == ""
    assert (asked, found["content"]) == (ASKED, FOUND["content"]) and pool.responses == ("One is left.",)
    made = tokenizer()
    text = made.decode(Encoder(made).prompt(pool.messages[0], pool.tools[0]))
    for part in ('[look_up: {"type": "object"', '[calls look_up with {"item": "pears"}]', '<tool>{"count": 1}'):
        assert part in text


@pytest.mark.parametrize("container", ["parquet", "datasets"])
def test_columns_of_functions(tmp_path, container, tokenizer):
    """Of two functions Parquet makes one type with the keys of both; a function gets none of the other's."""
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    other = {
        "type": "function",
        "function": {"name": "add", "parameters": {"type": "object", "properties": {"n": {"type": "number"}}}},
    }
    sums = {"type": "function", "function": {"name": "add", "arguments": {"n": 2}}, "id": "c2"}
    rows = [mid(call={"tool_calls": [CALL]}), mid([other], {"tool_calls": [sums]}) | {"id": "t3"}]
    if container == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path := tmp_path / "p.parquet")
    else:
        datasets.Dataset.from_list(rows).save_to_disk(path := tmp_path / "d")
    pool = read_pool(path)
    assert pool.tools == ((TOOL,), (other,))
    assert [m[1]["tool_calls"] for m in pool.messages] == [[CALL], [sums]]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (mid(tools="hammer"), "the column 'tools' is text that is not JSON"),
        (mid(tools=["hammer"]), "entry 1 of the column 'tools' is no function with a name"),
        (mid(tools=7), "the column 'tools' is int, not a list of functions"),
        (mid(call={"tool_calls": [{"id": "c1"}]}), "turn 2 has a tool call without a function's name"),
        (
            mid(call={"tool_calls": [BARE | {"arguments": "{"}]}),
            "the arguments of 'look_up' in turn 2 is text that is not",
        ),
        (mid(call={"tool_calls": [BARE | {"arguments": "[1]"}]}), "the arguments of 'look_up' in turn 2 are list"),
        ({"messages": [ASKED | {"tool_calls": [CALL]}]}, "turn 1 calls tools and is of role 'user'"),
    ],
)
def test_what_is_no_call_is_refused_with_the_row(tmp_path, row, said):
    with pytest.raises(DataError, match=rf"p\.jsonl:1: {said}"):
        read_pool(pool_file(tmp_path / "p.jsonl", row))


def test_lone_surrogates_reach_no_tokenizer(tmp_path, tokenizer):
    half = "\ud83d"
    row = mid([SCHEMA | {"description": half}], {"tool_calls": [BARE | {"arguments": json.dumps({"item": half})}]})
    pool = read_pool(pool_file(tmp_path / "p.jsonl", row))
    assert pool.messages[0][1]["tool_calls"][0]["function"]["arguments"] == {"item": "\ufffd"}
    assert pool.tools[0][0]["function"]["description"] == "\ufffd"
    assert len(encode_rows(pool, Encoder(tokenizer()))[0]) == 1


# Templates


LEAVES_OUT = {
    "tools": (TEMPLATE.replace("{% if tools %}", "{% if false %}"), "leaves out the tools on offer"),
    "calls": (TEMPLATE.replace("m.tool_calls or []", "[]"), "leaves out a tool call of turn 2"),
    "all calls but one": (TEMPLATE.replace("m.tool_calls or []", "(m.tool_calls or [])[:1]"), "a tool call of turn 2"),
    "results": (
        TEMPLATE.replace("{% for m in messages %}", "{% for m in messages if m.role != 'tool' %}"),
        "turn 3, of",
    ),
}


@pytest.mark.parametrize("case", LEAVES_OUT)
def test_a_template_that_leaves_tools_out_is_refused_with_the_row(tmp_path, case, tokenizer):
    template, said = LEAVES_OUT[case]
    two = mid(call={"tool_calls": [CALL, CALL | {"id": "c2", "function": {"name": "look_up", "arguments": {}}}]})
    pool = read_pool(pool_file(tmp_path / "p.jsonl", {"id": "plain", "prompt": "Hi", "messages": [ASKED, ANSWER]}, two))
    with pytest.raises(DataError, match=f"row 't1': the model's chat template .*{said}"):
        encode_rows(pool, Encoder(tokenizer(template)))
    assert len(encode_rows(pool, Encoder(tokenizer()))[0]) == 2


def test_a_plain_prompt_has_no_place_for_tools(tmp_path, stories, fails, shared):
    pool = read_pool(pool_file(tmp_path / "p.jsonl", {"id": "a", "messages": [ASKED, ANSWER]}, mid()))
    said = "row 't1': it offers tools, which only a chat template lays out; use --template chat"
    with pytest.raises(DataError, match=said):
        encode_rows(pool, Encoder(stories.tokenizer))
    settings = {"layer": -1, "template": "plain", "max_length": 64, "batch_size": 4, "shard_rows": 8}
    with pytest.raises(DataError, match=said):
        prepare(pool, stories, settings, None)
    line = fails(3, "evaluate", tmp_path / "p.jsonl", "--model", shared / "models" / "stories260k")
    assert said in line
    with pytest.raises(DataError, match="row 't1': it calls tools"):
        bare = read_pool(pool_file(tmp_path / "b.jsonl", mid(tools=[])))
        encode_rows(bare, Encoder(stories.tokenizer))


def test_the_real_template_has_no_place_for_them(tmp_path, smollm2):
    pool = read_pool(pool_file(tmp_path / "p.jsonl", mid()))
    with pytest.raises(DataError, match="row 't1': the model's chat template leaves out the tools on offer"):
        encode_rows(pool, Encoder(smollm2.tokenizer))


def test_a_call_is_trained_with_every_turn(tmp_path, tokenizer):
    made = tokenizer()
    pool = read_pool(pool_file(tmp_path / "p.jsonl", mid()))
    _, (example,) = encode_rows(pool, Encoder(made), every_turn=True)
    text = made.decode([example.tokens[i] for i in example.trained])
    assert "calls look_up with" in text and "One is left." in text and "count" not in text and "How many" not in text


# A last turn that calls


def test_a_last_turn_that_calls_is_no_text(tmp_path, fails, shared):
    path = pool_file(tmp_path / "p.jsonl", last())
    pool = read_pool(path)
    assert pool.messages == ((ASKED,),) and pool.responses == (None,)
    assert pool.withheld == ({"role": "assistant", "content": "", "tool_calls": [CALL]},)
    assert pool.notes == ("1 row ends in a turn that calls tools: no response (t2)",)
    model = shared / "models" / "stories260k"
    line = fails(3, "finetune", path, "--model", model, "--out", tmp_path / "a")
    assert "row 't2' has no response to learn (its last turn calls tools); label it, or leave it out" in line
    line = fails(3, "evaluate", path, "--model", model)
    assert (
        "row 't2' has no response to compare with, and neither refs nor an answer (its last turn calls tools)" in line
    )


def test_an_answer_in_its_place(tmp_path):
    """Who answers a row that ended in a call, or in a turn that is not to be trained, replaces that turn."""
    idle = {"id": "w", "messages": [ASKED, ANSWER, ASKED, {"role": "assistant", "content": "BAD", "weight": 0}]}
    talk = [{"from": "human", "value": "How many?"}, {"from": "function_call", "value": json.dumps(BARE)}]
    ended = {"prompt": "q", "completion": [calling(tool_calls=[CALL])]}
    groups = [last(), idle], [{"id": "s", "conversations": talk}], [{"id": "c"} | ended]
    for rows in groups:
        chosen = read_chosen(pool_file(tmp_path / "p.jsonl", *rows))
        pool_file(tmp_path / "a.jsonl", *({"id": r["id"], "response": f"to {r['id']}"} for r in rows))
        lines = import_labels(chosen, [tmp_path / "a.jsonl"]).lines
        (tmp_path / "out.jsonl").write_bytes(b"\n".join(lines))
        back = read_pool(tmp_path / "out.jsonl")
        assert back.responses == tuple(f"to {i}" for i in chosen.pool.ids)
        assert back.messages == chosen.pool.messages and not any(back.withheld)


# Exports


def exported(tmp_path, to, *rows):
    chosen = read_chosen(pool_file(tmp_path / "p.jsonl", *rows))
    path = export(chosen, to, tmp_path / to)[0]
    return chosen.pool, read_pool(path), path


@pytest.mark.parametrize("to", ["trl", "axolotl", "llama-factory"])
def test_a_trainer_s_files_hold_calls_and_functions(tmp_path, to):
    plain = {"id": "plain", "messages": [ASKED, ANSWER], "tools": []}
    pool, back, path = exported(tmp_path, to, mid(), last(), plain)

    def without_ids(pool):
        turns = [*pool.messages, [t for t in pool.withheld if t]]
        drop = ("id", "tool_call_id") if to == "llama-factory" else ()
        return json.loads(json.dumps(turns), object_hook=lambda o: {k: v for k, v in o.items() if k not in drop})

    assert without_ids(back) == without_ids(pool)
    assert back.tools == pool.tools and back.responses == pool.responses and back.ids == pool.ids
    rows = (
        json.loads(path.read_bytes())
        if to == "llama-factory"
        else [json.loads(x) for x in path.read_bytes().splitlines()]
    )
    if to == "trl":
        assert rows[1]["completion"] == [{"role": "assistant", "content": "", "tool_calls": [CALL]}]
        assert json.loads(rows[0]["tools"]) == [TOOL] and rows[2]["tools"] is None
    elif to == "axolotl":
        assert rows[0]["messages"][1]["tool_calls"] == [AS_TEXT]
        assert json.loads(rows[0]["tools"][0]["function"]["parameters"]) == SCHEMA["parameters"]
    else:
        assert rows[0]["conversations"][1] == {"from": "function_call", "value": json.dumps(CALL["function"])}
        assert json.loads(rows[0]["tools"]) == [SCHEMA] and rows[2]["tools"] == ""
        about = json.loads((path.parent / "dataset_info.json").read_bytes())
        assert about["edjax"]["columns"]["tools"] == "tools"


def test_text_and_calls_in_one_turn_are_none_of_llama_factory_s(tmp_path, fails):
    both = mid() | {"messages": [ASKED, {"role": "assistant", "content": "Wait.", "tool_calls": [CALL]}, FOUND, ANSWER]}
    line = fails(3, "export", pool_file(tmp_path / "p.jsonl", both), "--to", "llama-factory", "--out", tmp_path / "o")
    assert "the turns of row 't1' hold text and tool calls in one" in line and "--to trl" in line


def test_people_see_calls_and_functions(tmp_path):
    chosen = read_chosen(pool_file(tmp_path / "p.jsonl", mid() | {"messages": mid()["messages"][:3]}))
    export(chosen, "label-studio", tmp_path / "o")
    (task,) = json.loads((tmp_path / "o" / "tasks.json").read_bytes())
    assert 'assistant: look_up({"item": "pears"})\n\ntool: {"count": 1}' in task["data"]["prompt"]
    assert task["data"]["messages"] == list(chosen.pool.messages[0]) and task["meta"]["columns"]["tools"] == [TOOL]
    for to in ("csv", "argilla"):
        text = export(chosen, to, tmp_path / to)[0].read_text()
        assert "look_up(" in text and "parameters" in text
