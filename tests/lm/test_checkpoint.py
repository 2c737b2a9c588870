"""Damaged and hostile model directories: refused in one line, fast, and nothing in them is ever run."""

import contextlib
import json
import os
import pickle
import struct
import time

import ml_dtypes
import numpy as np
import pytest
from lm_cases import forward, tiny_model
from safetensors.numpy import save_file

from edjax.errors import DataError, EdjaxError, EnvError, UsageError
from edjax.lm.load import load

KEY = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture
def model(tmp_path):
    """(directory, tensors) of a random model that loads."""
    return tmp_path / "m", tiny_model(tmp_path / "m")


def refused(directory, match, kind=DataError):
    start = time.monotonic()
    with pytest.raises(kind, match=match) as e:
        load(str(directory))
    assert time.monotonic() - start < 5
    assert "\n" not in str(e.value)
    return str(e.value)


def rewrite(directory, tensors):
    save_file(tensors, directory / "model.safetensors")


def shards(directory, weight_map):
    (directory / "model.safetensors").unlink()
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_the_case_itself_loads(model):
    directory, tensors = model
    loaded = load(str(directory))
    np.testing.assert_array_equal(np.asarray(loaded.model.layers.up_proj.kernel[1]), tensors[KEY].T)
    np.testing.assert_array_equal(np.asarray(loaded.model.head[...]), tensors["lm_head.weight"])


def test_sixteen_bit_weights(model):
    """bfloat16 and float16 files are read without torch, value by value."""
    directory, tensors = model
    halves = {k: v.astype(ml_dtypes.bfloat16 if i % 2 else np.float16) for i, (k, v) in enumerate(tensors.items())}
    rewrite(directory, halves)
    loaded = load(str(directory))
    np.testing.assert_array_equal(np.asarray(loaded.model.layers.up_proj.kernel[1]), halves[KEY].astype(np.float32).T)


def test_bfloat16_model(model):
    directory, _ = model
    ids = np.arange(30)
    full, half = (forward(load(str(directory), kind).model, ids)[0] for kind in ("float32", "bfloat16"))
    assert half.dtype == np.float32
    assert 0 < np.abs(full - half).max() < 0.1 * np.abs(full).max()
    with pytest.raises(UsageError, match="int8"):
        load(str(directory), "int8")


def test_end_of_turn_of_a_chat_model(model):
    """Ids that generation_config.json names end an answer too."""
    directory, _ = model
    assert load(str(directory)).eos_ids == (256,)
    (directory / "generation_config.json").write_text('{"eos_token_id": [256, 7]}')
    assert load(str(directory)).eos_ids == (7, 256)


def test_missing_tensor(model):
    directory, tensors = model
    rewrite(directory, {k: v for k, v in tensors.items() if k != KEY})
    assert KEY in refused(directory, "no tensor")


def test_wrong_shape(model):
    directory, tensors = model
    rewrite(directory, tensors | {KEY: tensors[KEY].T.copy()})
    assert KEY in refused(directory, r"has shape \(32, 48\), the config asks for \(48, 32\)")


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.bool_])
def test_integer_dtype(model, dtype):
    directory, tensors = model
    rewrite(directory, tensors | {KEY: np.ones(tensors[KEY].shape, dtype)})
    assert KEY in refused(directory, "has dtype")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("key", [KEY, "model.embed_tokens.weight", "model.norm.weight"])
def test_values_that_are_not_finite(model, value, key):
    directory, tensors = model
    bad = tensors[key].copy()
    bad.flat[5] = value
    rewrite(directory, tensors | {key: bad})
    refused(directory, "NaN or infinite")


@pytest.mark.parametrize("share", [0.0, 1e-4, 0.01, 0.5, 0.999])
def test_truncated_weights(model, share):
    directory, _ = model
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    refused(directory, "cannot be read")


def test_huge_header(model):
    directory, _ = model
    (directory / "model.safetensors").write_bytes(struct.pack("<Q", 2**31) + b"{}")
    refused(directory, "cannot be read")


def test_overlapping_offsets(model):
    directory, _ = model
    entry = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    head = json.dumps({"a": entry, "b": {**entry, "data_offsets": [8, 24]}}).encode()
    (directory / "model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + bytes(24))
    refused(directory, "cannot be read")


class Bomb:
    def __reduce__(self):
        return os.putenv, ("EDJAX_PICKLE_WAS_LOADED", "1")


def test_pickled_weights(model):
    directory, _ = model
    (directory / "model.safetensors").unlink()
    for name in ("pytorch_model.bin", "consolidated.00.pth"):
        (directory / name).write_bytes(pickle.dumps(Bomb()))
    refused(directory, "pickled weights only")


def test_no_weights(model):
    directory, _ = model
    (directory / "model.safetensors").unlink()
    refused(directory, r"no model\.safetensors")


@pytest.mark.parametrize("name", ["../x.safetensors", "/tmp/x.safetensors", "sub/x.safetensors", "..", "."])
def test_index_stays_inside(model, name):
    directory, tensors = model
    save_file(tensors, directory.parent / "x.safetensors")
    shards(directory, dict.fromkeys(tensors, name))
    refused(directory, "refused")


def test_index_names_a_missing_shard(model):
    directory, tensors = model
    shards(directory, dict.fromkeys(tensors, "model-00001-of-00001.safetensors"))
    refused(directory, "is missing")


def test_truncated_shard(model):
    directory, tensors = model
    whole = (directory / "model.safetensors").read_bytes()
    (directory / "a.safetensors").write_bytes(whole)
    (directory / "b.safetensors").write_bytes(whole[:-100])
    shards(directory, {k: "b.safetensors" if k == KEY else "a.safetensors" for k in tensors})
    refused(directory, "cannot be read")


def test_shard_without_its_tensor(model):
    directory, tensors = model
    save_file({k: v for k, v in tensors.items() if k != KEY}, directory / "a.safetensors")
    shards(directory, dict.fromkeys(tensors, "a.safetensors"))
    assert KEY in refused(directory, "cannot be read")


@pytest.mark.parametrize(
    "text", ["", "[]", '{"weight_map": []}', '{"weight_map": {"a": 5}}', "{}", '{"weight_map": null}']
)
def test_damaged_index(model, text):
    directory, _ = model
    (directory / "model.safetensors").unlink()
    (directory / "model.safetensors.index.json").write_text(text)
    refused(directory, "cannot be read")


@pytest.mark.parametrize("file", ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("text", ["", "{", "[]", "\0"])
def test_damaged_json(model, file, text):
    directory, _ = model
    (directory / file).write_text(text)
    refused(directory, "cannot be read")


def configured(directory, **changes):
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"model_type": "gpt2"}, "'gpt2' is not supported"),
        ({"hidden_act": "gelu"}, "'gelu' is not supported"),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, "rope type 'dynamic'"),
        ({"model_type": "no_such_model"}, "cannot be read"),
        ({"hidden_size": 64}, "the config asks for"),
        ({"num_hidden_layers": 3}, "no tensor"),
    ],
)
def test_other_configs(model, changes, match):
    directory, _ = model
    configured(directory, **changes)
    refused(directory, match)


@pytest.mark.parametrize("where", ["config.json", "tokenizer_config.json"])
def test_code_in_a_model_directory_never_runs(model, where, tmp_path):
    directory, _ = model
    ran = tmp_path / "ran"
    code = f"open({str(ran)!r}, 'w')\nfrom transformers import LlamaConfig as C, PreTrainedTokenizerFast as T\n"
    for name in ("modeling_own.py", "tokenization_own.py", "configuration_own.py", "__init__.py", "conftest.py"):
        (directory / name).write_text(code)
    path = directory / where
    auto = {
        "AutoConfig": "configuration_own.C",
        "AutoModelForCausalLM": "modeling_own.C",
        "AutoTokenizer": ["tokenization_own.T", "tokenization_own.T"],
    }
    path.write_text(json.dumps({**json.loads(path.read_text()), "auto_map": auto}))
    with contextlib.suppress(EdjaxError):  # refusing is as good as ignoring
        load(str(directory))
    assert not ran.exists()


def test_hostile_chat_template(model, tmp_path):
    from edjax.lm.encode import Encoder

    directory, _ = model
    ran = tmp_path / "ran"
    hostile = "{{ cycler.__init__.__globals__.os.system('touch " + str(ran) + "') }}"
    (directory / "chat_template.jinja").write_text(hostile)
    loaded = load(str(directory))
    assert loaded.tokenizer.chat_template == hostile
    with pytest.raises(DataError, match="chat template"):
        Encoder(loaded.tokenizer).prompt([{"role": "user", "content": "hi"}])
    assert not ran.exists()


def test_hub_id_offline():
    message = refused("no-such-org/no-such-model", "could not be fetched from the hub", EnvError)
    assert "HF_HUB_OFFLINE" in message


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "nothing", "x.gguf"])
def test_names_that_are_nothing(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    refused(name, "not found|does not exist")


def test_directory_without_a_config(tmp_path):
    refused(tmp_path, r"no config\.json")
