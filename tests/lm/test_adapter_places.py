"""PEFT adapters on some layers or modules only: zeros elsewhere, as PEFT computes them; or refused in plain words."""

import json

import numpy as np
import pytest
from lm_cases import STORIES, forward, reference, reference_outputs
from safetensors.numpy import load_file, save_file

from edjax.keep.errors import DataError
from edjax.lm.peft import import_adapter

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
SOME = {
    "two layers": {"target_modules": ["q_proj", "down_proj"], "layers_to_transform": [0, 3]},
    "one layer, the first": {"target_modules": ["v_proj"], "layers_to_transform": 0},
    "named with their pattern": {
        "target_modules": ["v_proj"],
        "layers_to_transform": [2],
        "layers_pattern": "layers",
    },
    "whole paths": {"target_modules": ["model.layers.1.self_attn.q_proj", "layers.4.mlp.up_proj"]},
    "a pattern": {"target_modules": r".*layers\.(0|2)\.self_attn\.(q|o)_proj"},
    "all but some": {"target_modules": ["q_proj", "k_proj"], "exclude_modules": ["layers.1.self_attn.q_proj"]},
}


@pytest.fixture
def by_peft(stories, torch, peft, tmp_path):
    """Makes an adapter with random weights by PEFT and gives (its directory, PEFT's model)."""

    def make(**settings):
        torch.manual_seed(3)
        config = peft.LoraConfig(r=2, lora_alpha=8, init_lora_weights=False, **settings)
        model = peft.get_peft_model(reference(torch, stories.directory), config)
        model.save_pretrained(tmp_path)
        return tmp_path, model.eval()

    return make


@pytest.mark.parametrize("case", SOME)
def test_zeros_elsewhere(stories, torch, by_peft, case):
    directory, other = by_peft(**SOME[case])
    adapted, _ = import_adapter(stories.model, directory)
    ids = stories.tokenizer(STORIES[0]).input_ids
    got = forward(adapted, ids)[0]
    np.testing.assert_allclose(got, reference_outputs(torch, other, ids)[0], atol=1e-4, rtol=0)
    assert np.abs(got - forward(stories.model, ids)[0]).max() > 1e-3


def test_a_layer_that_should_be_there(stories, by_peft):
    """A list of modules with no word of layers means all of them: one without tensors is a file that is not whole."""
    directory, _ = by_peft(target_modules=["q_proj"])
    tensors = load_file(directory / WEIGHTS)
    whole = {k: v for k, v in tensors.items() if "layers.2." not in k}
    save_file(whole, directory / WEIGHTS)
    with pytest.raises(DataError, match=r"layers\.2\.self_attn\.q_proj\.lora_A\.weight' is missing, though"):
        import_adapter(stories.model, directory)


def test_half_of_a_pair(stories, by_peft):
    directory, _ = by_peft(target_modules=r".*layers\.(0|2)\.self_attn\.q_proj")
    tensors = load_file(directory / WEIGHTS)
    save_file({k: v for k, v in tensors.items() if "layers.2" not in k or "lora_A" in k}, directory / WEIGHTS)
    with pytest.raises(DataError, match=r"layers\.2\.self_attn\.q_proj\.lora_B\.weight' is missing"):
        import_adapter(stories.model, directory)


BEYOND = {
    "a rank of its own": ({"target_modules": ["q_proj", "v_proj"], "rank_pattern": {"v_proj": 4}}, "rank_pattern"),
    "a scale of its own": ({"target_modules": ["q_proj"], "alpha_pattern": {"q_proj": 4}}, "alpha_pattern"),
    "whole modules": ({"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}, "modules_to_save"),
    "DoRA": ({"target_modules": ["q_proj"], "use_dora": True}, "use_dora"),
    "embeddings": ({"target_modules": ["q_proj", "embed_tokens"]}, r"target_modules is .*embeddings, the head"),
    "the head": ({"target_modules": ["lm_head"]}, r"target_modules is .*embeddings, the head"),
}


@pytest.mark.parametrize("case", BEYOND)
def test_what_is_not_read_says_what_to_do(stories, by_peft, case):
    settings, said = BEYOND[case]
    directory, _ = by_peft(**settings)
    with pytest.raises(DataError, match=f"{said}.*merge_and_unload") as e:
        import_adapter(stories.model, directory)
    assert "\n" not in str(e.value)


def test_embeddings_saved_along(stories, by_peft):
    """PEFT saves the embedding too where a trainer made it larger."""
    directory, _ = by_peft(target_modules=["q_proj"])
    extra = {"base_model.model.model.embed_tokens.weight": np.ones((520, 64), np.float32)}
    save_file(load_file(directory / WEIGHTS) | extra, directory / WEIGHTS)
    with pytest.raises(DataError, match=r"no place for: .*embed_tokens.*merge_and_unload"):
        import_adapter(stories.model, directory)


@pytest.mark.parametrize("raw", [[], "x", {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": [3]}])
def test_configs_that_are_none(stories, by_peft, raw):
    directory, _ = by_peft(target_modules=["q_proj"])
    (directory / CONFIG).write_text(json.dumps(raw))
    with pytest.raises(DataError, match=r"adapter_config\.json"):
        import_adapter(stories.model, directory)
