"""An adapter put on what it was not trained with: said, and the template it was trained with is used."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from lm_cases import make_pool, tiny_model

from edjax.evaluation import evaluate
from edjax.finetuning import FinetuneConfig, finetune
from edjax.keep.errors import UsageError
from edjax.lm.adapter import adapter_digest, adapter_notes, trained_template
from edjax.lm.load import load
from edjax.lm.lora import LoraConfig, add_lora
from edjax.lm.merge import merge
from edjax.lm.peft import export_adapter

TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
POOL = make_pool([("ab cd", "ef"), ("gh", "ij kl")])
QUICK = {"max_steps": 1, "per_device_train_batch_size": 2, "max_length": 32, "save_steps": 0, "lora_r": 2}


def chat(directory, template=TEMPLATE):
    path = directory / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": template}))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A chat model, and an adapter trained on it with --template plain."""
    home = tmp_path_factory.mktemp("home")
    tiny_model(home / "model")
    chat(home / "model")
    loaded = load(str(home / "model"))
    config = FinetuneConfig(template="plain", **QUICK)
    finetune(POOL, str(home / "model"), out=home / "plain", config=config, loaded=loaded, show_progress=False)
    return home


@pytest.fixture(scope="module")
def loaded(home):
    return load(str(home / "model"))


@pytest.fixture
def bare(home, loaded, tmp_path):
    """An adapter that edjax did not train: PEFT's two files, and a base under a name of our choice."""

    def make(base):
        config = LoraConfig(2, 4.0, ("q_proj",))
        export_adapter(add_lora(loaded.model, config), config, tmp_path / "bare", base)
        return tmp_path / "bare"

    return make


def loss(loaded, **settings):
    said = []
    got = evaluate(POOL, loaded=loaded, metrics=("response_loss",), log=said.append, show_progress=False, **settings)
    return got.scores["response_loss"], said


def test_the_template_is_the_adapter_s(home, loaded):
    """No template named: the one of training. Named: that one, and a note where it is another."""
    plain, said = loss(loaded, adapter=home / "plain", template="plain")
    assert said == []
    assert loss(loaded, adapter=home / "plain") == (plain, [])
    other, said = loss(loaded, adapter=home / "plain", template="auto")
    assert abs(other - plain) > 1e-3 and len(said) == 1
    assert "was trained with --template plain, and is used with auto" in said[0]
    assert loss(loaded)[0] == loss(loaded, template="auto")[0] != loss(loaded, template="plain")[0]


def test_the_template_outlives_a_merge(home, loaded, tmp_path):
    merge(str(home / "model"), adapter=home / "plain", out=tmp_path / "merged", loaded=loaded)
    assert trained_template(tmp_path / "merged") == "plain"
    merged = load(str(tmp_path / "merged"))
    assert abs(loss(merged)[0] - loss(loaded, adapter=home / "plain")[0]) < 1e-4
    assert abs(loss(merged)[0] - loss(merged, template="chat")[0]) > 1e-3


def test_the_command_reads_it_too(home, edjax_, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"id": "a", "prompt": "ab cd", "response": "ef"}\n')
    argv = ["evaluate", rows, "--model", home / "model", "--metrics", "response_loss", "--adapter", home / "plain"]
    code, _, err = edjax_(*argv, "--out", tmp_path / "e")
    assert code == 0 and "edjax: note" not in err, err
    assert json.loads((tmp_path / "e" / "manifest.json").read_text())["config"]["template"] == "plain"
    code, _, err = edjax_(*argv, "--template", "chat")
    assert code == 0 and err.count("edjax: note: adapter") == 1


def test_another_base_is_said(home, loaded, tmp_path):
    tiny_model(tmp_path / "other", seed=5)
    chat(tmp_path / "other")
    other = load(str(tmp_path / "other"))
    assert adapter_notes(home / "plain", loaded) == []
    (said,) = adapter_notes(home / "plain", other)
    assert f"was trained on {home / 'model'}; it is put on {tmp_path / 'other'}" in said
    said = []
    merge(str(tmp_path / "other"), adapter=home / "plain", out=tmp_path / "merged", loaded=other, log=said.append)
    assert len(said) == 1 and "another model" in said[0]
    shutil.copytree(home / "model", tmp_path / "copy")
    assert adapter_notes(home / "plain", load(str(tmp_path / "copy"))) == [], "the same bytes elsewhere"


def test_another_base_of_a_foreign_adapter(home, loaded, bare, tmp_path):
    shutil.copytree(home / "model", tmp_path / "org--copy")
    tiny_model(tmp_path / "other", seed=5)
    for base in ("", str(home / "model"), str(tmp_path / "org--copy"), "hub/model", "hub/Model", loaded.base_model):
        assert adapter_notes(bare(base), loaded) == [], base
    for base in ("hub/another", str(tmp_path / "other"), "unsloth/model-bnb-4bit"):
        (said,) = adapter_notes(bare(base), loaded)
        assert f"was trained on {base}; it is put on" in said


@pytest.mark.parametrize(
    ("name", "directory", "base"),
    [
        ("smollm2", "/c/smollm2-135m-instruct-bcc81830d10c", "HuggingFaceTB/SmolLM2-135M-Instruct"),
        ("/hub/models--org--tiny/snapshots/5f0c", "/hub/models--org--tiny/snapshots/5f0c", "org/tiny"),
        ("files/tiny.gguf", "/c/tiny-0123", "org/tiny"),
        ("org/tiny", "/hub/models--org--tiny/snapshots/5f0c", "/elsewhere/models--org--tiny/snapshots/77aa"),
    ],
)
def test_the_same_base_under_another_name(bare, loaded, name, directory, base):
    assert adapter_notes(bare(base), replace(loaded, name=name, directory=Path(directory))) == []
    assert len(adapter_notes(bare("org/other"), replace(loaded, name=name, directory=Path(directory)))) == 1


def test_a_tokenizer_of_its_own_is_said(home, loaded, bare):
    directory = bare(str(home / "model"))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(home / "model" / name, directory)
    assert adapter_notes(directory, loaded) == [], "trainers save a copy as a matter of course"
    chat(directory, "{{ messages[0]['content'] }}")
    (said,) = adapter_notes(directory, loaded)
    assert "brings a tokenizer of its own, and the model's is used: it has another chat template" in said
    state = json.loads((directory / "tokenizer.json").read_text())
    state["added_tokens"].append(state["added_tokens"][0] | {"id": 258, "content": "<|new|>"})
    (directory / "tokenizer.json").write_text(json.dumps(state))
    assert "1 of its 259 tokens are not the model's ('<|new|>')" in adapter_notes(directory, loaded)[0]
    (directory / "tokenizer.json").write_text("{")
    assert "it cannot be read" in adapter_notes(directory, loaded)[0]


def test_the_scale_of_an_adapter_is_part_of_its_evaluation(home, loaded, tmp_path):
    """Changed by hand, adapter_config.json is another adapter; the base's place on this disk is no part of it."""
    path = tmp_path / "a"
    shutil.copytree(home / "plain", path)
    first = adapter_digest(path)
    assert first == json.loads((path / "manifest.json").read_text())["files"]["adapter_model.safetensors"]["sha256"]
    loss(loaded, adapter=path, out=tmp_path / "e")
    config = json.loads((path / "adapter_config.json").read_text())
    (path / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 999}))
    with pytest.raises(UsageError, match="adapter: "):
        loss(loaded, adapter=path, out=tmp_path / "e")
    bare = [adapter_digest(path)]
    for changes in ({"lora_alpha": 999, "base_model_name_or_path": "/elsewhere"}, {"lora_alpha": 998}):
        (path / "adapter_config.json").write_text(json.dumps(config | changes))
        bare.append(adapter_digest(path))
    assert bare[0] == bare[1] != bare[2] and first not in bare


def test_the_last_adapter_of_a_run_with_validation(home, loaded, tmp_path):
    config = FinetuneConfig(template="plain", validation_split=0.5, **QUICK)
    finetune(POOL, str(home / "model"), out=tmp_path / "v", config=config, loaded=loaded, show_progress=False)
    assert trained_template(tmp_path / "v" / "last") == "plain" and adapter_notes(tmp_path / "v" / "last", loaded) == []
    assert np.isfinite(loss(loaded, adapter=tmp_path / "v" / "last")[0])
