"""GGUF to a Hugging Face directory: the order of query and key rows, configuration, tokenizer, refusals."""

import json
import math

import gguf
import jax
import numpy as np
import pytest
from flax import nnx
from gguf_cases import permute, refused, write_gguf
from lm_cases import EOS, TINY, forward, reference, reference_outputs, tiny_tensors
from safetensors.numpy import load_file

from edjax.keep.errors import DataError
from edjax.keep.store import sha256_file
from edjax.lm.gguf import convert, unpermute
from edjax.lm.load import load

PROSE = (
    "The harbour was quiet in the early morning, before the first ferry came in. A few fishermen sat on the wall and "
    "mended their nets, talking in low voices about the weather and the price of diesel. Behind them, in the narrow "
    "streets, the baker had already opened his shop, and the smell of fresh bread drifted down to the water. When the "
    "sun rose above the hills, the gulls woke up and began to cry, and within an hour the whole town was on its feet. "
    "Children ran to school with their bags on their backs, and the old men took their usual places in front of the "
    "cafe."
)
TEXTS = (
    "Hello, world!",
    "  two leading spaces and a trailing one ",
    "tabs\tand\nnew\n\nlines\r\n",
    "3.14159 and 1,000,000 or 2026-11-23",
    "naïve café, Größe, señor",
    "日本語のテキスト",
    "שלום עולם",
    "👩‍👩‍👧‍👦 🇩🇪 e\u0301",
    "\u2028line\u2028separators\u00a0",
    "x = [i**2 for i in range(10)]  # code",
)


@pytest.mark.parametrize(("heads", "size"), [(1, 2), (3, 8), (9, 64)])
def test_unpermute_undoes_llama_cpp(heads, size):
    w = np.arange(heads * size * 5, dtype=np.float32).reshape(heads * size, 5)
    np.testing.assert_array_equal(unpermute(permute(w, heads), heads), w)
    if size > 2:
        assert not np.array_equal(permute(w, heads), w)


def bits_per_byte(model, ids, text):
    logits, _ = forward(model, ids)
    logp = np.asarray(jax.nn.log_softmax(logits, axis=-1))
    return -sum(logp[i, t] for i, t in enumerate(ids[1:])) / math.log(2) / len(text.encode())


@pytest.mark.real_model
def test_wrong_order_is_measurable(smollm2):
    """A wrong un-permute raises no error, it only makes prose unlikely."""
    c = smollm2.model.config
    ids = smollm2.tokenizer("<|endoftext|>" + PROSE).input_ids
    right = bits_per_byte(smollm2.model, ids, PROSE)
    graph, state = nnx.split(smollm2.model)
    wrong = nnx.merge(graph, state)
    for module, heads in ((wrong.layers.q_proj, c.num_heads), (wrong.layers.k_proj, c.num_kv_heads)):
        kernel = np.asarray(module.kernel[...])
        as_stored = np.stack([permute(k.T, heads).T for k in kernel])
        module.kernel = nnx.Param(jax.numpy.asarray(as_stored))
    assert abs(right - 0.966) < 0.01
    assert bits_per_byte(wrong, ids, PROSE) > 1.4


@pytest.mark.real_model
def test_smollm2_directory(smollm2):
    config = json.loads((smollm2.directory / "config.json").read_text())
    known = {"hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3}
    known |= {"head_dim": 64, "rope_theta": 100000.0, "rms_norm_eps": 1e-5, "tie_word_embeddings": True}
    assert {k: config[k] for k in known} == known
    tokenizer = smollm2.tokenizer
    assert "<|im_start|>" in tokenizer.chat_template
    assert smollm2.eos_ids == (tokenizer.convert_tokens_to_ids("<|im_end|>"),)


@pytest.mark.real_model
def test_smollm2_is_kept_under_a_name_of_its_file_alone(smollm2):
    """No version of the converter is in it: one that makes other bytes of this file must change the name."""
    made = {name: sha256_file(smollm2.directory / name)[:12] for name in ("config.json", "model.safetensors")}
    assert made == {"config.json": "df188d29b267", "model.safetensors": "a672150fb4f9"}


@pytest.mark.real_model
def test_smollm2_tokenizer(smollm2):
    t = smollm2.tokenizer
    for text in TEXTS:
        assert t.decode(t(text).input_ids) == text
    assert t.convert_ids_to_tokens(t("12 345").input_ids) == ["1", "2", "Ġ", "3", "4", "5"]
    ids = t("<|im_start|>user\nhi<|im_end|>").input_ids
    assert t.convert_ids_to_tokens([ids[0], ids[-1]]) == ["<|im_start|>", "<|im_end|>"]
    assert len(ids) == 5
    assert t.decode(ids, skip_special_tokens=True) == "user\nhi"


@pytest.mark.parametrize("tied", [True, False])
def test_written_file_comes_back(tmp_path, tied):
    config = TINY | {"tie_word_embeddings": tied}
    tensors = tiny_tensors(config)
    out = convert(write_gguf(tmp_path / "m.gguf", tensors, config), tmp_path / "m")
    got = load_file(out / "model.safetensors")
    assert got.keys() == tensors.keys()
    for name, value in tensors.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)
    written = json.loads((out / "config.json").read_text())
    assert {k: written[k] for k in config} == config
    loaded = load(str(out))
    assert loaded.eos_ids == (256,)
    assert loaded.tokenizer(f"a1 to{EOS}").input_ids == [64, 16, 257, 78, 256]
    assert loaded.tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False) == "hi"


def test_written_file_against_torch(tmp_path, torch):
    out = convert(write_gguf(tmp_path / "m.gguf", tiny_tensors()), tmp_path / "m")
    ids = np.random.default_rng(2).integers(0, 256, 60)
    want, _ = reference_outputs(torch, reference(torch, out), ids)
    np.testing.assert_allclose(forward(load(str(out)).model, ids)[0], want, atol=1e-4, rtol=0)


def test_no_key_head_count_means_as_many_as_query_heads(tmp_path):
    config = TINY | {"num_key_value_heads": 4}
    tensors = tiny_tensors(config)
    path = write_gguf(tmp_path / "m.gguf", tensors, config, leave_out=("head_count_kv",))
    got = load_file(convert(path, tmp_path / "m") / "model.safetensors")
    name = "model.layers.1.self_attn.k_proj.weight"
    np.testing.assert_array_equal(got[name], tensors[name])


def test_other_architecture_is_refused(tmp_path):
    refused(write_gguf(tmp_path / "m.gguf", tiny_tensors(), arch="gpt2"), tmp_path / "m", "architecture 'gpt2'")


def test_text_file_is_refused(tmp_path):
    (tmp_path / "m.gguf").write_text("not a model\n" * 100)
    refused(tmp_path / "m.gguf", tmp_path / "m", "not a readable GGUF")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.2, 0.9, 0.999])
def test_truncated_file_is_refused(tmp_path, share):
    path = write_gguf(tmp_path / "m.gguf", tiny_tensors())
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    refused(path, tmp_path / "m", "not a readable GGUF")


def test_missing_setting_is_refused(tmp_path):
    path = write_gguf(tmp_path / "m.gguf", tiny_tensors(), leave_out=("head_count",))
    refused(path, tmp_path / "m", "head_count")


def test_scaled_rope_is_refused(tmp_path):
    """Nothing would say so otherwise: the logits would just be off."""
    scaling = {"add_rope_scaling_type": gguf.RopeScalingType.LINEAR, "add_rope_scaling_factor": 4.0}
    refused(write_gguf(tmp_path / "m.gguf", tiny_tensors(), **scaling), tmp_path / "m", "rope scaling 'linear'")


def test_unknown_tokenizer_is_refused(tmp_path):
    refused(write_gguf(tmp_path / "m.gguf", tiny_tensors(), pre="qwen2"), tmp_path / "m", "put the model's tokenizer")


def test_unknown_tensor_is_refused(tmp_path):
    tensors = tiny_tensors() | {"model.layers.0.strange.weight": np.ones(4, np.float32)}
    with pytest.raises(DataError, match=r"blk\.0\.strange\.weight"):
        convert(write_gguf(tmp_path / "m.gguf", tensors), tmp_path / "m")
