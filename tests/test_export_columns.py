"""What of a row's further columns leaves with it: everything, but for what a trainer would act on."""

import json

import pytest
from handoff_cases import pool_file, turn

from edjax.handoff import FORMATS, export, read_chosen

OWN = {"group": "g", "score": 1.5, "label": 2, "tools_used": ["x"], "messages_old": 1}
ACTED_ON = {
    "trl": {
        "input_ids": [5],
        "attention_mask": [1],
        "labels": [1],
        "completion_mask": [1],
        "assistant_masks": [1],
        "position_ids": [0],
        "seq_lengths": [1],
        "image": None,
        "images": [],
        "chat_template_kwargs": {},
        "text": "other text",
        "messages": [],
        "conversations": [],
        "chosen": "a",
        "rejected": "b",
    },
    "axolotl": {"input_ids": [5], "attention_mask": [1], "labels": [1], "images": []},
    "llama-factory": {},  # reads the columns that dataset_info.json names, and no other
}


def rows_of(paths):
    text = paths[0].read_text("utf-8")
    return json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("to", ACTED_ON)
def test_columns_that_a_trainer_acts_on_are_left_out_with_a_note(tmp_path, edjax_, to):
    further = {k: v for k, v in (ACTED_ON["trl"] | ACTED_ON[to]).items() if k not in ("messages", "conversations")}
    row = {"prompt": "A", "response": "x"} | OWN
    pool = pool_file(tmp_path / "p.jsonl", [row, row | {"prompt": "B"} | further])
    code, _, err = edjax_("export", pool, "--to", to, "--out", tmp_path / "o")
    left = sorted(further.keys() & ACTED_ON[to].keys())
    assert code == 0 and err == (
        f"edjax: note: left out, since {to} would act on them: {', '.join(left)}\n" * bool(left)
    )
    plain, full = rows_of(sorted((tmp_path / "o").glob("*.json*"), reverse=True))
    assert set(OWN) <= set(plain) and full.keys() - plain.keys() == further.keys() - set(left)


def test_a_text_pool_with_messages_for_trl(tmp_path):
    """`messages` beside `prompt`: which of the two would be trained is TRL's to say, so one goes by another name."""
    row = {"text": "What?", "response": "x", "chosen": "y"}
    turns = {"messages": [turn("user", "What?")], "response": "x", "prompt": "another"}
    notes = []
    paths = export(read_chosen(pool_file(tmp_path / "p.jsonl", [row])), "trl", tmp_path / "o", log=notes.append)
    assert rows_of(paths) == [{"id": "r0", "prompt": [turn("user", "What?")], "completion": [turn("assistant", "x")]}]
    assert notes == ["left out, since trl would act on them: chosen"], "the prompt's own column is not left out"
    paths = export(read_chosen(pool_file(tmp_path / "m.jsonl", [turns])), "trl", tmp_path / "m", log=notes.append)
    (row,) = rows_of(paths)
    assert row["prompt"] == turns["messages"] and row["original_prompt"] == "another" and len(notes) == 1


@pytest.mark.parametrize("to", [f for f in FORMATS if not FORMATS[f].answered])
def test_what_people_see_keeps_every_column(tmp_path, to):
    row = {"prompt": "A"} | ACTED_ON["axolotl"]
    notes = []
    export(read_chosen(pool_file(tmp_path / "p.jsonl", [row])), to, tmp_path / "o", log=notes.append)
    written = "".join(p.read_text("utf-8") for p in (tmp_path / "o").rglob("*") if p.is_file())
    assert not notes and all(name in written for name in ACTED_ON["axolotl"])


def test_axolotl_trains_the_last_answer_of_a_conversation_alone(tmp_path):
    """Each turn says so: its loader drops an empty `roles_to_train` and takes every assistant turn."""
    import yaml

    turns = [turn("system", "s"), turn("user", "a"), turn("assistant", "b"), turn("user", "c"), turn("assistant", "d")]
    chosen = read_chosen(pool_file(tmp_path / "p.jsonl", [{"messages": turns}, {"messages": turns[3:]}]))
    paths = export(chosen, "axolotl", tmp_path / "o")
    (dataset,) = yaml.safe_load(paths[1].read_text())["datasets"]
    flag = dataset["message_field_training"]
    many, one = (row[dataset["field_messages"]] for row in rows_of(paths))
    assert [t[flag] for t in many] == [False] * 4 + [True] and [t[flag] for t in one] == [False, True]
    assert [{k: t[k] for k in ("role", "content")} for t in many] == turns
