"""Adapters that were trained, here or by torch PEFT, give the other side the same logits; and lm-eval loads ours."""

import json
from pathlib import Path

import numpy as np
import pytest
from lm_cases import STORIES, forward, log_softmax, reference, reference_outputs, story_pool

from edjax.finetuning import FinetuneConfig, finetune
from edjax.lm.load import LoadedModel
from edjax.lm.peft import import_adapter

TRAINED = FinetuneConfig(
    num_train_epochs=1,
    per_device_train_batch_size=2,
    learning_rate=5e-3,
    lr_scheduler_type="constant",
    warmup_ratio=0.0,
    lora_r=4,
    max_length=16,
    save_steps=0,
)


def trained_here(loaded, out, rows=8):
    return finetune(story_pool(rows), loaded.name, out=out, config=TRAINED, loaded=loaded, show_progress=False).model


def harness(torch, peft, pretrained, adapter):
    """(model, tokenizer), by the calls that lm-eval 0.4.13 makes for `pretrained=...,peft=...` and nothing else.

    lm_eval/models/huggingface.py, HFLM: _get_config, _create_tokenizer, _create_model, and what __init__ does after.
    """
    import transformers

    common = {"revision": "main", "trust_remote_code": False}
    config = transformers.AutoConfig.from_pretrained(pretrained, **common, gguf_file=None, subfolder="")
    assert config.model_type in transformers.models.auto.modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    tokenizer = transformers.AutoTokenizer.from_pretrained(pretrained, **common, use_fast=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        pretrained, **common, dtype="auto", gguf_file=None, quantization_config=None, subfolder=""
    )
    if model.config.vocab_size != len(tokenizer):
        model.resize_token_embeddings(len(tokenizer))
    model = peft.PeftModel.from_pretrained(model, adapter, revision="main")
    model.eval()
    model.tie_weights()
    return model, tokenizer


def test_lm_eval_loads_what_was_trained_here(stories, torch, peft, tmp_path):
    adapted = trained_here(stories, tmp_path / "a")
    model, tokenizer = harness(torch, peft, str(stories.directory), str(tmp_path / "a"))
    for text in STORIES[:3]:
        ids = tokenizer(text).input_ids
        assert ids == stories.tokenizer(text).input_ids
        got = forward(adapted, ids)[0]
        want = reference_outputs(torch, model, ids)[0]
        np.testing.assert_allclose(got, want, atol=1e-4, rtol=0)
        np.testing.assert_allclose(log_softmax(got), log_softmax(want), atol=1e-4, rtol=0)
        assert np.abs(got - forward(stories.model, ids)[0]).max() > 0.1


def test_the_adapter_alone_finds_its_base(stories, torch, peft, tmp_path):
    """base_model_name_or_path is something that transformers and PEFT resolve, from any directory."""
    import transformers

    adapted = trained_here(stories, tmp_path / "a", rows=2)
    config = peft.PeftConfig.from_pretrained(tmp_path / "a")
    assert Path(config.base_model_name_or_path) == stories.directory.resolve()
    ids = stories.tokenizer(STORIES[1]).input_ids
    for load in (peft.AutoPeftModelForCausalLM, transformers.AutoModelForCausalLM):
        model = load.from_pretrained(str(tmp_path / "a")).eval()
        np.testing.assert_allclose(forward(adapted, ids)[0], reference_outputs(torch, model, ids)[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("name", "directory", "want"),
    [
        ("smollm2", "/cache/models/smollm2-135m-instruct-bcc81830d10c", None),
        ("m/model.gguf", "/cache/models/model-0123456789ab", None),
        ("org/model", "/hub/models--org--model/snapshots/5f0c", "org/model"),
    ],
)
def test_what_the_base_is_called(name, directory, want):
    assert LoadedModel(None, None, (2,), Path(directory), name).base_model == (want or directory)


def test_a_relative_directory_becomes_absolute(tmp_path, monkeypatch):
    (tmp_path / "org" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    found = LoadedModel(None, None, (2,), Path("org/model"), "org/model").base_model
    assert Path(found) == (tmp_path / "org" / "model").resolve()


def trained_by_peft(torch, peft, base, rows, directory, steps=4):
    """A few updates of AdamW by torch on (prompt ids, response ids), the way PEFT's own examples do it."""
    torch.manual_seed(5)
    model = peft.get_peft_model(base, peft.LoraConfig(r=4, lora_alpha=12, target_modules="all-linear"))
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    losses = []
    for _ in range(steps):
        for prompt, response in rows:
            ids = torch.tensor([[*prompt, *response]])
            labels = torch.tensor([[-100] * len(prompt) + [*response]])
            loss = model(input_ids=ids, labels=labels).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    model.save_pretrained(directory)
    assert np.mean(losses[-len(rows) :]) < np.mean(losses[: len(rows)])
    return model.eval()


def encoded(loaded, pairs):
    t = loaded.tokenizer
    return [(t(p).input_ids, [*t(r, add_special_tokens=False).input_ids, t.eos_token_id]) for p, r in pairs]


def test_trained_by_peft(stories, torch, peft, tmp_path):
    rows = encoded(stories, [(STORIES[1], "They ran and ran."), (STORIES[2], "sat.")])
    other = trained_by_peft(torch, peft, reference(torch, stories.directory), rows, tmp_path)
    adapted, config = import_adapter(stories.model, tmp_path)
    assert (config.lora_r, config.lora_alpha) == (4, 12.0)
    for text in STORIES[:3]:
        ids = stories.tokenizer(text).input_ids
        got = forward(adapted, ids)[0]
        np.testing.assert_allclose(got, reference_outputs(torch, other, ids)[0], atol=1e-4, rtol=0)
        assert np.abs(got - forward(stories.model, ids)[0]).max() > 0.1


@pytest.mark.real_model
def test_smollm2_both_ways(smollm2, torch, peft, tmp_path):
    """Real weights: an adapter trained here, as lm-eval loads it, then trained on by PEFT and read back."""
    ids = smollm2.tokenizer(STORIES[1]).input_ids
    adapted = trained_here(smollm2, tmp_path / "ours", rows=4)
    base = json.loads((tmp_path / "ours" / "adapter_config.json").read_text())["base_model_name_or_path"]
    model, tokenizer = harness(torch, peft, base, str(tmp_path / "ours"))
    assert tokenizer(STORIES[1]).input_ids == ids
    got = forward(adapted, ids)[0]
    np.testing.assert_allclose(got, reference_outputs(torch, model, ids)[0], atol=1e-4, rtol=0)
    assert np.abs(got - forward(smollm2.model, ids)[0]).max() > 0.1
    rows = encoded(smollm2, [(STORIES[2], "sat.")])
    other = trained_by_peft(torch, peft, model.unload(), rows, tmp_path / "theirs", steps=2)
    back, _ = import_adapter(smollm2.model, tmp_path / "theirs")
    got = forward(back, ids)[0]
    np.testing.assert_allclose(got, reference_outputs(torch, other, ids)[0], atol=1e-4, rtol=0)
    assert np.abs(got - forward(smollm2.model, ids)[0]).max() > 0.1
