"""Every tensor of a checkpoint is used, known to be of no account, or refused by name."""

import json

import numpy as np
import pytest
from lm_cases import TINY, tiny_model, tiny_tensors
from safetensors.numpy import save_file

from edjax.keep.errors import DataError
from edjax.lm.load import load

EMBED = "model.embed_tokens.weight"
EXTRA = {
    "a bias that the config does not speak of": ("model.layers.0.self_attn.q_proj.bias", "set attention_bias"),
    "a bias of the MLP": ("model.layers.1.mlp.down_proj.bias", "mlp_bias"),
    "a layer more than the config has": ("model.layers.2.mlp.up_proj.weight", "settings of config.json"),
    "a norm of another family": ("model.layers.0.self_attn.q_norm.weight", "another architecture"),
    "scales of quantised weights": ("model.layers.0.mlp.up_proj.weight_scale", "before they were quantised"),
    "parts of an adapter": ("model.layers.0.mlp.up_proj.lora_A.weight", "merge the adapter"),
    "a classifier's head": ("score.weight", "another architecture"),
}


@pytest.mark.parametrize("case", EXTRA)
def test_a_tensor_without_a_place_is_refused(tmp_path, case):
    name, remedy = EXTRA[case]
    tensors = tiny_model(tmp_path) | {name: np.ones(4, np.float32), "model.layers.9.z": np.ones(1, np.float32)}
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(DataError, match=r"model\.safetensors: tensor '\S+' and 1 more has no place.*llama") as e:
        load(str(tmp_path))
    del tensors["model.layers.9.z"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(DataError, match=f"tensor {name!r} has no place.*{remedy}") as e:
        load(str(tmp_path))
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    "name", ["model.layers.0.self_attn.rotary_emb.inv_freq", "model.rotary_emb.inv_freq", "v_head.summary.weight"]
)
def test_what_no_logit_depends_on_is_passed_over(tmp_path, name):
    tensors = tiny_model(tmp_path)
    save_file(tensors | {name: np.ones(4, np.float32)}, tmp_path / "model.safetensors")
    load(str(tmp_path))


def test_the_head_of_a_tied_model(tmp_path):
    """A copy of the embedding is one and the same; another head would be lost (transformers uses it)."""
    tensors = tiny_model(tmp_path, tie_word_embeddings=True)
    copied = tensors | {"lm_head.weight": tensors[EMBED].copy()}
    save_file(copied, tmp_path / "model.safetensors")
    load(str(tmp_path))
    for other in (tensors[EMBED] + np.float32(1e-3), tensors[EMBED].astype(np.float16), tensors[EMBED][:-1].copy()):
        save_file(copied | {"lm_head.weight": other}, tmp_path / "model.safetensors")
        with pytest.raises(DataError, match=r"'lm_head\.weight' has no place.*tie_word_embeddings to false"):
            load(str(tmp_path))


def test_a_tensor_that_the_index_does_not_list(tmp_path):
    tensors = tiny_model(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "a.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": dict.fromkeys(tensors, "a.safetensors")})
    )
    load(str(tmp_path))
    save_file(tensors | {"model.layers.0.self_attn.v_proj.bias": np.ones(16, np.float32)}, tmp_path / "a.safetensors")
    with pytest.raises(DataError, match=r"a\.safetensors: tensor 'model\.layers\.0\.self_attn\.v_proj\.bias'"):
        load(str(tmp_path))


def test_biases_that_the_config_speaks_of_are_used(tmp_path):
    tiny_model(tmp_path, attention_bias=True)
    tensors = tiny_tensors(TINY)
    more = {
        f"model.layers.{i}.self_attn.{m}.bias": np.full(n, 0.5, np.float32)
        for i in range(2)
        for m, n in (("q_proj", 32), ("k_proj", 16), ("v_proj", 16), ("o_proj", 32))
    }
    save_file(tensors | more, tmp_path / "model.safetensors")
    load(str(tmp_path))
    del more["model.layers.1.self_attn.o_proj.bias"]
    save_file(tensors | more, tmp_path / "model.safetensors")
    with pytest.raises(DataError, match=r"no tensor 'model\.layers\.1\.self_attn\.o_proj\.bias'"):
        load(str(tmp_path))
