"""GGUF files beyond the plain one: biases, Llama 3.1's rope scaling, parts; and what a converted copy depends on."""

import json
import shutil

import gguf
import numpy as np
import pytest
from gguf_cases import permute, refused, write_gguf
from lm_cases import TINY, forward, make_pool, reference, reference_outputs, tiny_tensors
from safetensors.numpy import load_file

from edjax.evaluation import evaluate
from edjax.keep.errors import DataError
from edjax.lm import adapter
from edjax.lm.gguf import convert, parts
from edjax.lm.gguf_rope import scaling_of
from edjax.lm.load import load, locate
from edjax.lm.rope import Rope

IDS = np.random.default_rng(2).integers(0, 256, 60)
BIASED = {
    "values alone": ("self_attn.v_proj",),
    "all of attention": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
    "the MLP's": ("mlp.gate_proj", "mlp.down_proj"),
}


def biases(modules, config=TINY):
    """Biases of the right length for these modules of every layer."""
    rng, like = np.random.default_rng(7), tiny_tensors(config)
    return {
        name.removesuffix("weight") + "bias": rng.standard_normal(len(value)).astype(np.float32)
        for name, value in like.items()
        if name.endswith(tuple(f"{m}.weight" for m in modules))
    }


@pytest.mark.parametrize("case", BIASED)
def test_biases_are_read(tmp_path, torch, case):
    """As the model's own library has them: query and key biases are stored in the order of their rows."""
    own = biases(BIASED[case])
    out = convert(write_gguf(tmp_path / "m.gguf", tiny_tensors() | own), tmp_path / "m")
    got = load_file(out / "model.safetensors")
    for name, value in own.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)
    logits = forward(load(str(out)).model, IDS)[0]
    want, _ = reference_outputs(torch, reference(torch, out), IDS)
    np.testing.assert_allclose(logits, want, atol=1e-4, rtol=0)
    plain = convert(write_gguf(tmp_path / "p.gguf", tiny_tensors()), tmp_path / "p")
    assert np.abs(logits - forward(load(str(plain)).model, IDS)[0]).max() > 0.01


def test_the_loss_of_a_biased_file(shared, tmp_path, monkeypatch):
    monkeypatch.setenv("EDJAX_CACHE", str(tmp_path))
    loaded = load(str(shared / "cases" / "gguf_bias" / "m.gguf"))
    pool = make_pool([("Once upon a time", "there")])
    got = evaluate(pool, loaded=loaded, metrics=("response_loss",), show_progress=False)
    assert abs(got.scores["response_loss"] - 17.1613) < 1e-3


@pytest.mark.parametrize("name", ["model.layers.0.input_layernorm.bias", "lm_head.bias"])
def test_a_bias_that_llama_has_not_is_refused(tmp_path, name):
    path = write_gguf(tmp_path / "m.gguf", tiny_tensors() | {name: np.ones(32, np.float32)})
    refused(path, tmp_path / "m", "unknown GGUF tensor")


def divisors(factor, context, theta=TINY["rope_theta"], dim=TINY["head_dim"]):
    """What llama.cpp's converter writes as rope_freqs.weight for Llama 3.1's scaling, by its own formula."""
    out = []
    for i in range(0, dim, 2):
        length = 2 * np.pi * theta ** (i / dim)
        if length < context / 4:
            out.append(1.0)
        elif length > context:
            out.append(factor)
        else:
            smooth = (context / length - 1) / 3
            out.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(out, np.float32)


@pytest.mark.parametrize(("factor", "context"), [(8.0, 64), (32.0, 2048), (8.0, 8192)])
def test_llama_3_scaling_is_read(tmp_path, torch, factor, context):
    written = write_gguf(tmp_path / "m.gguf", tiny_tensors() | {"rope_freqs.weight": divisors(factor, context)})
    out = convert(written, tmp_path / "m")
    assert json.loads((out / "config.json").read_text())["rope_scaling"]["rope_type"] == "llama3"
    logits = forward(load(str(out)).model, IDS)[0]
    want, _ = reference_outputs(torch, reference(torch, out), IDS)
    np.testing.assert_allclose(logits, want, atol=1e-4, rtol=0)
    plain = convert(write_gguf(tmp_path / "p.gguf", tiny_tensors()), tmp_path / "p")
    assert np.abs(logits - forward(load(str(plain)).model, IDS)[0]).max() > 1e-4


@pytest.mark.parametrize(("factor", "theta", "dim"), [(8.0, 500_000.0, 128), (32.0, 500_000.0, 64)])
def test_the_settings_of_real_models(factor, theta, dim):
    """Llama 3.1 8B and 3.2 1B: every frequency as from the settings in their config.json."""
    got = scaling_of(divisors(factor, 8192, theta, dim), theta, dim)
    assert got["factor"] == factor and got["original_max_position_embeddings"] == 8192
    rope = Rope(theta, **got)
    np.testing.assert_allclose(
        rope.frequencies(dim), Rope(theta).frequencies(dim) / divisors(factor, 8192, theta, dim), rtol=1e-5
    )


def test_divisors_of_ones_scale_nothing(tmp_path):
    path = write_gguf(tmp_path / "m.gguf", tiny_tensors() | {"rope_freqs.weight": np.ones(4, np.float32)})
    assert "rope_scaling" not in json.loads((convert(path, tmp_path / "m") / "config.json").read_text())


@pytest.mark.parametrize("values", [[1, 1, 3, 2], [1, 1, 1], [1, 1, 1, np.nan], [1.05, 1.1, 1.3, 9]])
def test_divisors_of_another_scaling_are_refused(tmp_path, values):
    path = write_gguf(tmp_path / "m.gguf", tiny_tensors() | {"rope_freqs.weight": np.array(values, np.float32)})
    refused(path, tmp_path / "m", r"rope_freqs\.weight are not those of Llama 3\.1.*use the safetensors")


def split(path, count=2):
    """The file in parts, as llama-gguf-split makes them: the settings are in the first."""
    reader = gguf.GGUFReader(str(path))
    made = []
    for part in range(count):
        name = path.with_name(f"{path.stem}-{part + 1:05d}-of-{count:05d}.gguf")
        w = gguf.GGUFWriter(name, "llama")
        for field in reader.fields.values() if part == 0 else ():
            if not field.name.startswith("GGUF.") and field.name != "general.architecture":
                kind = field.types[0]
                w.add_key_value(field.name, field.contents(), kind, field.types[-1] if len(field.types) > 1 else None)
        w.add_key_value("split.no", part, gguf.GGUFValueType.UINT16)
        w.add_key_value("split.count", count, gguf.GGUFValueType.UINT16)
        w.add_key_value("split.tensors.count", len(reader.tensors), gguf.GGUFValueType.INT32)
        for i, t in enumerate(reader.tensors):
            if i * count // len(reader.tensors) == part:
                w.add_tensor(t.name, np.asarray(t.data).reshape(t.shape[::-1]))
        w.write_header_to_file()
        w.write_kv_data_to_file()
        w.write_tensors_to_file()
        w.close()
        made.append(name)
    return made


@pytest.fixture
def pieces(tmp_path):
    whole = write_gguf(tmp_path / "m.gguf", tiny_tensors())
    made = split(whole, 3)
    whole.unlink()
    return made


@pytest.mark.parametrize("which", [0, 2])
def test_a_split_file_is_read_by_any_part(pieces, which, tmp_path, monkeypatch):
    monkeypatch.setenv("EDJAX_CACHE", str(tmp_path / "cache"))
    assert parts(pieces[which]) == pieces
    out = locate(str(pieces[which]))
    assert out.name.startswith("m-") and out == locate(str(pieces[0]))
    got, want = load_file(out / "model.safetensors"), tiny_tensors()
    assert got.keys() == want.keys()
    for name, value in want.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)


def test_a_missing_part_is_named(pieces, tmp_path):
    pieces[1].unlink()
    with pytest.raises(DataError, match=r"one of 3 parts, and m-00002-of-00003\.gguf is not beside it"):
        locate(str(pieces[0]))


def test_a_part_under_another_name_is_no_model(pieces, tmp_path):
    pieces[0].rename(tmp_path / "first.gguf")
    for p in pieces[1:]:
        p.unlink()
    refused(tmp_path / "first.gguf", tmp_path / "m", "one of 3 parts of a split file.*llama-gguf-split --merge")


SETTINGS = {
    "linear scaling of old files": {"llama.rope.scale_linear": 4.0},
    "a factor without a type": {"llama.rope.scaling.factor": 2.0},
    "a sliding window": {"llama.attention.sliding_window": 64},
    "clamped attention": {"llama.attention.clamp_kqv": 8.0},
    "part of a head rotated": {"llama.rope.dimension_count": 4},
    "experts": {"llama.expert_count": 8},
}


@pytest.mark.parametrize("case", SETTINGS)
def test_settings_that_would_change_the_logits_are_refused(tmp_path, monkeypatch, case):
    ((key, value),) = SETTINGS[case].items()
    kind = gguf.GGUFValueType.FLOAT32 if isinstance(value, float) else gguf.GGUFValueType.UINT32
    monkeypatch.setattr(gguf.GGUFWriter, "extra", lambda w, v: w.add_key_value(key, v, kind), raising=False)
    path = write_gguf(tmp_path / "m.gguf", tiny_tensors(), extra=value)
    refused(path, tmp_path / "m", key)


@pytest.mark.parametrize("heads", [0, 3, 64])
def test_heads_that_do_not_divide_the_rows(tmp_path, heads):
    path = write_gguf(tmp_path / "m.gguf", tiny_tensors(), leave_out=("head_count",), add_head_count=heads)
    refused(path, tmp_path / "m", "is no plain Llama|cannot be read")


def test_an_adapter_in_gguf_is_no_model(tmp_path):
    path = write_gguf(tmp_path / "m.gguf", tiny_tensors(), add_type="adapter")
    refused(path, tmp_path / "m", "of type 'adapter'")


def test_another_tokenizer_beside_the_file_makes_another_copy(tmp_path, monkeypatch):
    monkeypatch.setenv("EDJAX_CACHE", str(tmp_path / "cache"))
    path = write_gguf(tmp_path / "m.gguf", tiny_tensors())
    rebuilt = locate(str(path))
    assert locate(str(path)) == rebuilt
    state = json.loads((rebuilt / "tokenizer.json").read_text())
    state["model"]["merges"] = []
    beside = tmp_path / "tokenizer.json"
    beside.write_text(json.dumps(state))
    assert load(str(path)).tokenizer("a to").input_ids == [64, 220, 83, 78]
    beside.unlink()
    assert locate(str(path)) == rebuilt and load(str(path)).tokenizer("a to").input_ids == [64, 257, 78]


def test_another_converter_makes_another_copy(tmp_path, monkeypatch):
    monkeypatch.setenv("EDJAX_CACHE", str(tmp_path / "cache"))
    path = write_gguf(tmp_path / "m.gguf", tiny_tensors())
    first = locate(str(path))
    monkeypatch.setattr("edjax.lm.gguf.CONVERTER", -1)
    assert locate(str(path)) != first


def test_the_same_file_elsewhere_is_the_same_copy(tmp_path, monkeypatch):
    monkeypatch.setenv("EDJAX_CACHE", str(tmp_path / "cache"))
    path = write_gguf(tmp_path / "m.gguf", tiny_tensors())
    (tmp_path / "there").mkdir()
    assert locate(str(path)) == locate(shutil.copy(path, tmp_path / "there"))


def test_a_suffix_in_upper_case(tmp_path, monkeypatch):
    monkeypatch.setenv("EDJAX_CACHE", str(tmp_path / "cache"))
    path = write_gguf(tmp_path / "m.gguf", tiny_tensors())
    assert locate(shutil.copy(path, tmp_path / "m.GGUF")) == locate(str(path))
    assert adapter._called("there/m.GGUF") == adapter._called("m.gguf") == {"m"}


def test_the_order_of_a_bias_is_that_of_its_rows():
    from edjax.lm.gguf import unpermute

    b = np.arange(24, dtype=np.float32)
    np.testing.assert_array_equal(unpermute(permute(b, 3), 3), b)
