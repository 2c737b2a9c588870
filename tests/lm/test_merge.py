"""Merging: the same outputs as the adapter applied, a checkpoint with the base's tensors, safe to write."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from lm_cases import STORIES, forward, tiny_model
from safetensors.numpy import load_file

import edjax.cli
from edjax.keep.errors import DataError, UsageError
from edjax.lm.load import load
from edjax.lm.lora import LoraConfig, add_lora, targets
from edjax.lm.merge import export_merged, merge, merge_lora
from edjax.lm.peft import export_adapter

SOME = ("q_proj", "down_proj")


def noisy(model, config):
    adapted = add_lora(model, config, 3)
    rng = np.random.default_rng(3)
    for linear in targets(adapted, config).values():
        b = linear.lora_b
        linear.lora_b = nnx.LoRAParam(jnp.asarray(0.05 * rng.standard_normal(b.shape), jnp.float32))
    return adapted


@pytest.mark.parametrize(
    "config", [LoraConfig(4, 12.0), LoraConfig(4, 12.0, SOME), LoraConfig(4, 6.0, use_rslora=True)]
)
def test_merged_equals_applied(stories, config):
    adapted = noisy(stories.model, config)
    before = np.array(adapted.layers.q_proj.kernel[...])
    merged = merge_lora(adapted)
    assert not list(nnx.to_flat_state(nnx.state(merged, nnx.LoRAParam)))
    for text in STORIES:
        ids = stories.tokenizer(text).input_ids
        got, want = forward(merged, ids)[0], forward(adapted, ids)[0]
        assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()
        assert np.abs(got - forward(stories.model, ids)[0]).max() > 0.1
    np.testing.assert_array_equal(adapted.layers.q_proj.kernel[...], before)
    assert adapted.layers.q_proj.lora_a is not None


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tiny")
    tensors = tiny_model(directory / "base")
    (directory / "base" / "generation_config.json").write_text(json.dumps({"eos_token_id": [256, 257]}))
    (directory / "base" / "modeling.py").write_text("raise SystemExit")
    loaded = load(str(directory / "base"))
    config = LoraConfig(2, 8.0)
    export_adapter(noisy(loaded.model, config), config, directory / "adapter", "base")
    return directory, tensors, loaded


@pytest.mark.parametrize("shard_bytes", [1 << 30, 20_000, 1])
def test_without_an_adapter_the_tensors_come_back(tiny, tmp_path, shard_bytes):
    _, tensors, loaded = tiny
    export_merged(loaded, loaded.model, tmp_path, shard_bytes=shard_bytes)
    found, files = {}, sorted(tmp_path.glob("*.safetensors"))
    for file in files:
        part = load_file(file)
        assert len(part) == 1 or sum(v.nbytes for v in part.values()) <= shard_bytes
        found |= part
    assert len(files) == {1 << 30: 1, 1: len(tensors)}.get(shard_bytes, len(files))
    assert found.keys() == tensors.keys()
    for name, value in tensors.items():
        assert found[name].tobytes() == value.tobytes(), name
    names = {p.name for p in tmp_path.iterdir() if p.suffix != ".safetensors"}
    index = {"model.safetensors.index.json"} if shard_bytes != 1 << 30 else set()
    assert names == {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"} | index
    again = load(str(tmp_path))
    assert again.eos_ids == loaded.eos_ids
    np.testing.assert_array_equal(forward(again.model, [5, 6, 7])[0], forward(loaded.model, [5, 6, 7])[0])


def test_bfloat16(tiny, tmp_path):
    """Merged in float32, rounded once: within half a unit in the last place of the exact sum."""
    directory, tensors, _ = tiny
    merge(str(directory / "base"), adapter=directory / "adapter", out=tmp_path / "m", dtype="bfloat16")
    assert json.loads((tmp_path / "m" / "config.json").read_text())["dtype"] == "bfloat16"
    adapter = {
        k.rsplit("model.", 1)[1]: v for k, v in load_file(directory / "adapter/adapter_model.safetensors").items()
    }
    name = "layers.1.mlp.down_proj"
    got = load_file(tmp_path / "m" / "model.safetensors")[f"model.{name}.weight"]
    assert got.dtype == jnp.bfloat16
    low = tensors[f"model.{name}.weight"].astype(jnp.bfloat16).astype(np.float64)
    want = low + 4.0 * adapter[f"{name}.lora_B.weight"].astype(np.float64) @ adapter[f"{name}.lora_A.weight"]
    assert (np.abs(got.astype(np.float64) - want) <= 2.0**-8 * np.abs(want) + 1e-6).all()


def test_the_verb(tiny, tmp_path, capsys):
    directory, _, loaded = tiny
    out = tmp_path / "m"
    argv = ["merge", "--model", str(directory / "base"), "--adapter", str(directory / "adapter"), "--out", str(out)]
    for _ in range(2):  # the second time nothing is left to do
        with pytest.raises(SystemExit) as e:
            edjax.cli.main(argv)
        assert not e.value.code, capsys.readouterr().err
        assert f"merged model in {out}" in capsys.readouterr().out
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["kind"] == "model"
    assert "model.safetensors" in manifest["files"]
    merged = load(str(out))
    from edjax.lm.peft import import_adapter

    applied, _ = import_adapter(loaded.model, directory / "adapter")
    np.testing.assert_allclose(forward(merged.model, [5, 9, 7])[0], forward(applied, [5, 9, 7])[0], atol=1e-5)


def test_refused(tiny, tmp_path):
    directory, _, loaded = tiny
    with pytest.raises(UsageError, match="holds the base model"):
        export_merged(loaded, loaded.model, directory / "base")
    with pytest.raises(DataError, match="is not an adapter"):
        merge(str(directory / "base"), adapter=tmp_path / "none", out=tmp_path / "m")
    half = dataclasses.replace(loaded, model=load(str(directory / "base"), "bfloat16").model)
    odd = merge_lora(half.model)
    odd.norm.weight = nnx.Param(odd.norm.weight[...].astype(jnp.float16))
    with pytest.raises(UsageError, match="float16 cannot be exported"):
        export_merged(half, odd, tmp_path / "odd")
