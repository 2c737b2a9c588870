"""Turns of weight 0 are read by the model and trained by nobody."""

import copy
import json

import pytest

from edjax.data.pool import read_pool
from edjax.finetuning import FinetuneConfig, finetune
from edjax.finetuning.examples import encode_rows, teaching
from edjax.handoff import export, read_chosen
from edjax.keep.errors import DataError
from edjax.lm.encode import Encoder

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def talk(*answers):
    """A conversation whose assistant says these, each with its weight or None for none."""
    turns = []
    for text, weight in answers:
        said = {"role": "assistant", "content": text} | ({} if weight is None else {"weight": weight})
        turns += [{"role": "user", "content": "And?"}, said]
    return {"messages": turns}


def read(path, *rows):
    path.write_text("".join(json.dumps({"id": f"r{i}"} | r) + "\n" for i, r in enumerate(rows)))
    return read_pool(path)


@pytest.fixture
def encoder(stories):
    tokenizer = copy.deepcopy(stories.tokenizer)
    tokenizer.chat_template = TEMPLATE
    return Encoder(tokenizer)


def trained(encoder, example):
    return encoder.tokenizer.decode([example.tokens[i] for i in example.trained])


@pytest.mark.parametrize(
    ("answers", "every", "last"),
    [
        ([("BAD", 0), ("good", 1)], "good", "good"),
        ([("fine", 1), ("BAD", 0.0), ("good", None)], "fine good", "good"),
        ([("fine", None), ("good", 1)], "fine good", "good"),
        ([("fine", 1), ("BAD", False)], "fine", ""),
        ([("BAD", 0), ("BAD", 0)], "", ""),
    ],
)
def test_what_is_trained(tmp_path, encoder, answers, every, last):
    pool = read(tmp_path / "p.jsonl", talk(*answers), talk(("also", 1)))
    for every_turn, want in ((True, every), (False, last)):
        kept = teaching(pool, every_turn)
        _, examples = encode_rows(kept, encoder, every_turn=every_turn)
        assert kept.ids == (("r0", "r1") if want else ("r1",))
        got = trained(encoder, examples[0]).replace("</s>", " ").split()
        assert got == (want or "also").split()
        context = encoder.tokenizer.decode(examples[0].tokens)
        assert not want or context.count("And?") == len(answers), "the model still sees every turn"


def test_a_row_that_ends_in_weight_0_is_left_out_and_noted(tmp_path, stories, edjax_, shared, fails):
    rows = [talk(("Yes.", 1)), talk(("BAD", 0)), talk(("No.", None))]
    pool = read(tmp_path / "p.jsonl", *rows)
    assert pool.notes == (
        "2 rows share a prompt with an earlier row",
        "1 row ends in an assistant turn of weight 0: no response (r1)",
    )
    config = FinetuneConfig(max_steps=1, lora_r=1, lora_target_modules=("q_proj",), save_steps=0)
    done = finetune(pool, "m", out=tmp_path / "a", config=config, loaded=stories, show_progress=False)
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    without = finetune(pool.take([0, 2]), "m", out=tmp_path / "b", config=config, loaded=stories, show_progress=False)
    assert manifest["rows"] == 2 and done.response_tokens == without.response_tokens
    assert (tmp_path / "a" / "adapter_model.safetensors").read_bytes() == (
        tmp_path / "b" / "adapter_model.safetensors"
    ).read_bytes()
    read(tmp_path / "p.jsonl", rows[1])
    model = shared / "models" / "stories260k"
    line = fails(3, "finetune", tmp_path / "p.jsonl", "--model", model, "--out", tmp_path / "c")
    assert "the last turn of every row has weight 0, so there is nothing to learn" in line
    line = fails(3, "evaluate", tmp_path / "p.jsonl", "--model", model)
    assert (
        "row 'r0' has no response to compare with, and neither refs nor an answer (its last turn has weight 0)" in line
    )


def test_rows_without_any_answer_are_still_refused(tmp_path):
    pool = read(tmp_path / "p.jsonl", talk(("BAD", 0)), {"messages": [{"role": "user", "content": "Q"}]})
    with pytest.raises(DataError, match="row 'r1' has no response to learn; label it, or leave it out"):
        teaching(pool, True)


@pytest.mark.parametrize("to", ["trl", "axolotl", "llama-factory"])
def test_weights_leave_with_their_turns(tmp_path, to, fails):
    read(tmp_path / "p.jsonl", talk(("BAD", 0), ("good", 1)))
    path = export(read_chosen(tmp_path / "p.jsonl"), to, tmp_path / to)[0]
    assert read_pool(path).messages == read_pool(tmp_path / "p.jsonl").messages
    read(tmp_path / "p.jsonl", talk(("BAD", 0)))
    line = fails(3, "export", tmp_path / "p.jsonl", "--to", to, "--out", tmp_path / "x")
    assert "row 'r0' has no response" in line
