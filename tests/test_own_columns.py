"""No column of a row's own is overwritten or lost when a format has one of that name; what became turns is in them."""

import csv
import io
import json

import pytest

from edjax.data.pool import read_pool
from edjax.handoff import FORMATS, export, read_chosen

TALK = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hey"}]
OWN = ("id", "prompt", "completion", "conversations", "tools", "order", "edjax_id", "original_id", "category")


def pool_file(path, *rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def values(path):
    """Every leaf of what was written."""
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix == ".csv":
        return [c for row in csv.DictReader(io.StringIO(text, newline="")) for c in row.values()]
    value = json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.splitlines()]

    def leaves(v):
        inner = v.values() if isinstance(v, dict) else v if isinstance(v, list) else None
        return [v] if inner is None else [x for one in inner for x in leaves(one)]

    return leaves(value)


@pytest.mark.parametrize("to", ["trl", "axolotl", "llama-factory", "label-studio", "argilla", "csv"])
def test_every_value_is_still_there(tmp_path, to):
    own = {name: f"own {name}" for name in OWN if name != "tools"} | {"tools": []}
    row = {"uid": "u1", "messages": TALK, **own}
    chosen = read_chosen(pool_file(tmp_path / "p.jsonl", row), id_column="uid")
    written = values(export(chosen, to, tmp_path / to)[0])
    for name in set(OWN) - FORMATS[to].acts_on:
        assert name == "tools" or f"own {name}" in written, name
    assert "u1" in written


def test_a_name_that_is_taken_gets_another(tmp_path):
    row = {"id": "r", "messages": TALK, "prompt": "own", "original_prompt": "too", "completion": 1}
    chosen = read_chosen(pool_file(tmp_path / "p.jsonl", row))
    (written,) = map(json.loads, export(chosen, "trl", tmp_path / "o.jsonl")[0].read_bytes().splitlines())
    assert written["prompt"] == TALK[:1] and written["completion"] == TALK[1:]
    own = {k: v for k, v in written.items() if k.startswith("original")}
    assert own == {"original_prompt": "too", "original_original_prompt": "own", "original_completion": 1}


@pytest.mark.parametrize("to", ["trl", "axolotl", "llama-factory"])
def test_a_system_column_is_the_system_turn(tmp_path, to):
    talk = [{"from": "human", "value": "Name a fish."}, {"from": "gpt", "value": "Cod."}]
    pool = pool_file(
        tmp_path / "p.jsonl",
        {"id": "a", "conversations": talk, "system": "Answer in one word.", "tools": "[]"},
        {"id": "b", "conversations": talk, "system": "", "tools": "[]"},
    )
    path = export(read_chosen(pool), to, tmp_path / to)[0]
    back, rows = read_pool(path), read_pool(path).records
    assert back.messages == read_pool(pool).messages and back.messages[0][0]["content"] == "Answer in one word."
    assert [r.get("system") for r in rows] == (["Answer in one word.", ""] if to == "llama-factory" else [None, None])
    assert [r["tools"] for r in rows] == ["[]", "[]"]


@pytest.mark.parametrize("to", ["trl", "axolotl", "llama-factory"])
def test_context_history_and_several_completions_are_in_the_turns(tmp_path, to):
    for n, row in enumerate(
        (
            {"instruction": "When?", "context": "In 1900.", "response": "1900", "category": "qa"},
            {"instruction": "And?", "input": "", "output": "x", "system": "s", "history": [["Hi", "Hey"]]},
            {"prompt": TALK[:1], "completion": [TALK[1], {"role": "user", "content": "And?"}, TALK[1]]},
        )
    ):
        pool = pool_file(tmp_path / "p.jsonl", row)
        path = export(read_chosen(pool), to, tmp_path / f"{to}{n}")[0]
        back = read_pool(path)
        assert (back.messages, back.responses) == (read_pool(pool).messages, read_pool(pool).responses)
        assert not {"context", "history", "input"} & set(back.records[0])
        assert n or back.records[0]["category"] == "qa"
