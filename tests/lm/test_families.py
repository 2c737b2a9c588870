"""Every model type against transformers' torch model of it, and LoRA on each; tiny random weights."""

import json
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
import pytest
from lm_cases import pair_batch, reference_outputs, write_tokenizer
from safetensors.numpy import load_file

from edjax.keep.errors import DataError, UsageError
from edjax.lm.batching import pad
from edjax.lm.config import LMConfig
from edjax.lm.decode import decode
from edjax.lm.families import FAMILIES
from edjax.lm.load import load
from edjax.lm.lora import LoraConfig, add_lora, projections
from edjax.lm.merge import export_merged
from edjax.lm.peft import export_adapter, import_adapter
from edjax.lm.train import Trainer

TOL = {"atol": 1e-4, "rtol": 0}
LENGTHS = (40, 23, 9)  # beyond and around the sliding window
NEW = 12
BASE = {
    "vocab_size": 262,
    "hidden_size": 64,
    "intermediate_size": 88,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": None,
    "eos_token_id": 256,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
LINEAR = {"rope_type": "linear", "rope_theta": 1e4, "factor": 3.0}
GEMMA = {"head_dim": 24, "tie_word_embeddings": True}
SLIDING = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2}
FULL = ["full_attention"]
# name -> (transformers' class, its settings, changes each of which must change the logits)
CASES: dict[str, tuple[str, dict, list[dict]]] = {
    "llama": ("Llama", {"rope_parameters": LLAMA3}, [{"rope_parameters": LINEAR}]),
    "llama-linear": ("Llama", {"rope_parameters": LINEAR, "attention_bias": True, "mlp_bias": True}, []),
    "mistral": ("Mistral", {"sliding_window": 8}, [{"sliding_window": None}]),
    "qwen2": ("Qwen2", {**SLIDING, "tie_word_embeddings": True}, [{"layer_types": FULL * 4}]),
    "qwen3": ("Qwen3", {**SLIDING, "head_dim": 24}, [{"layer_types": FULL * 4}]),
    "gemma": ("Gemma", GEMMA, [{"rope_parameters": LINEAR}]),
    "gemma2": (
        "Gemma2",
        {
            **GEMMA,
            "sliding_window": 8,
            "query_pre_attn_scalar": 10,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 3.0,
        },
        [
            {"layer_types": FULL * 4},
            {"query_pre_attn_scalar": 24},
            {"attn_logit_softcapping": None},
            {"final_logit_softcapping": None},
        ],
    ),
    "gemma3_text": (
        "Gemma3",
        {
            **GEMMA,
            "num_hidden_layers": 6,
            "sliding_window": 8,
            "query_pre_attn_scalar": 10,
            "rope_parameters": {
                "full_attention": {**LINEAR, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e2},
            },
        },
        [
            {"layer_types": FULL * 6},
            {"query_pre_attn_scalar": 24},
            {
                "rope_parameters": {
                    "full_attention": {"rope_type": "default", "rope_theta": 1e2},
                    "sliding_attention": {"rope_type": "default", "rope_theta": 1e2},
                }
            },
        ],
    ),
    "olmo2": ("Olmo2", {"tie_word_embeddings": False}, [{"rope_parameters": LINEAR}]),
    "phi3": (
        "Phi3",
        {
            "sliding_window": 8,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5},
        },
        [
            {"sliding_window": None},
            {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 1.0}},
        ],
    ),
    "smollm3": (
        "SmolLM3",
        {"use_sliding_window": True, "sliding_window": 8, "no_rope_layer_interval": 2},
        [
            {"layer_types": FULL * 4},
            {"no_rope_layers": [1] * 4, "layer_types": ["full_attention", "sliding_attention"] * 2},
        ],
    ),
}


def random_model(torch, name, **changes):
    """transformers' model of a case, its norms and biases random too: as initialised, they would hide a mistake."""
    import transformers

    kind, settings, _ = CASES[name]
    prefix = f"{kind}Text" if kind == "Gemma3" else kind
    config = getattr(transformers, f"{prefix}Config")(
        **deepcopy(BASE | settings | changes), attn_implementation="eager"
    )
    torch.manual_seed(7)
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model


@dataclass(frozen=True)
class Case:
    """A family's torch model, the same read by edjax, prompts, and the torch model's outputs for them."""

    name: str
    other: Any
    loaded: Any
    prompts: list
    want: list


@pytest.fixture(scope="module", params=CASES)
def case(request, torch, tmp_path_factory):
    other = random_model(torch, request.param)
    directory = tmp_path_factory.mktemp(request.param)
    other.save_pretrained(directory, max_shard_size="100KB")
    assert len(list(directory.glob("model-*.safetensors"))) > 1
    write_tokenizer(directory)
    rng = np.random.default_rng(1)
    prompts = [rng.integers(0, 256, n).tolist() for n in LENGTHS]
    want = [reference_outputs(torch, other, ids) for ids in prompts]
    return Case(request.param, other, load(str(directory)), prompts, want)


@partial(jax.jit, static_argnames="layer")
def whole(model, tokens, layer=-1):
    hidden, wanted, cache = model.prefill(tokens, layer=layer)
    return model.logits(hidden), hidden, wanted, cache


@pytest.mark.parametrize("case", ["llama", "gemma3_text"], indirect=True)
def test_hidden_states_of_all_layers_in_one_pass(case):
    """As transformers counts them, padded and not; in any order, and twice."""
    n = case.loaded.model.config.num_layers
    tokens, lengths = batch_of(case.prompts)
    layers = (*range(n + 1), 2, -1, -2)
    _, _, padded, _ = whole(case.loaded.model, tokens, layer=layers)
    _, _, alone, _ = whole(case.loaded.model, np.asarray(case.prompts[:1], np.int32), layer=layers)
    assert len(padded) == len(alone) == n + 4
    for at, layer in enumerate(layers):
        np.testing.assert_allclose(alone[at][0], case.want[0][1][layer], **TOL)
        for i, (m, (_, states)) in enumerate(zip(lengths, case.want, strict=True)):
            np.testing.assert_allclose(padded[at][i, :m], states[layer], **TOL)


def batch_of(prompts):
    tokens, lengths = pad(prompts, len(prompts))
    return np.where(np.arange(tokens.shape[1]) < lengths[:, None], tokens, 77).astype(np.int32), lengths


def test_the_table_is_covered():
    assert {name.partition("-")[0] for name in CASES} == set(FAMILIES)


@pytest.mark.parametrize("name", [name for name, (_, _, changes) in CASES.items() if changes])
def test_every_option_of_a_case_matters(name, torch):
    """So that a decoder which ignored one would fail below."""
    ids = np.random.default_rng(1).integers(0, 256, LENGTHS[0])
    base = random_model(torch, name)
    want = reference_outputs(torch, base, ids)[0]
    for changes in CASES[name][2]:
        other = random_model(torch, name, **changes)
        other.load_state_dict(base.state_dict())
        assert np.abs(reference_outputs(torch, other, ids)[0] - want).max() > 1e-2, changes


def test_logits_and_hidden_states(case):
    """A padded batch with rubbish in the padding, one row alone and unpadded; the third layer's output too."""
    tokens, lengths = batch_of(case.prompts)
    logits, hidden, third, _ = whole(case.loaded.model, tokens, layer=3)
    for i, (n, (want, states)) in enumerate(zip(lengths, case.want, strict=True)):
        np.testing.assert_allclose(logits[i, :n], want, **TOL)
        np.testing.assert_allclose(hidden[i, :n], states[-1], **TOL)
        np.testing.assert_allclose(third[i, :n], states[3], **TOL)
    alone, last, _, _ = whole(case.loaded.model, np.asarray(case.prompts[:1], np.int32))
    np.testing.assert_allclose(alone[0], case.want[0][0], **TOL)
    np.testing.assert_allclose(last[0], case.want[0][1][-1], **TOL)


@jax.jit
def continued(model, tokens, lengths, rest):
    _, _, cache = model.prefill(tokens)
    (_, t), n = tokens.shape, rest.shape[1]
    valid = np.arange(t + n)[None] < lengths[:, None]
    positions = lengths[:, None] + np.arange(n)[None]
    hidden, _ = model.extend(rest, cache.grow(n), t, positions, valid)
    return model.logits(hidden), hidden


def test_cache(case):
    """Prompts of unequal length, padded, then six tokens more of each over the cache: as in one forward."""
    tokens, lengths = batch_of([ids[:-6] for ids in case.prompts])
    logits, hidden = continued(case.loaded.model, tokens, lengths, np.asarray([p[-6:] for p in case.prompts]))
    for i, (want, states) in enumerate(case.want):
        np.testing.assert_allclose(logits[i], want[-6:], **TOL)
        np.testing.assert_allclose(hidden[i], states[-1][-6:], **TOL)


@partial(jax.jit, static_argnames="eos_ids")
def greedy(model, tokens, lengths, eos_ids):
    hidden, _, cache = model.prefill(tokens)
    return decode(model, hidden, cache, lengths, max_new_tokens=NEW, eos_ids=eos_ids, statistics=False)


def test_greedy_decoding_is_generate(case, torch):
    """A padded batch of ours against transformers' generate, row by row."""
    assert case.loaded.eos_ids == (256,)
    tokens, lengths = batch_of(case.prompts)
    out = greedy(case.loaded.model, tokens, lengths, case.loaded.eos_ids)
    for i, ids in enumerate(case.prompts):
        with torch.no_grad():
            row = case.other.generate(
                torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long), do_sample=False,
                max_new_tokens=NEW, eos_token_id=256, pad_token_id=0,
            )  # fmt: skip
        assert np.asarray(out.tokens[i])[np.asarray(out.mask[i])].tolist() == row[0, len(ids) :].tolist()


# LoRA


def peft_model(peft, other, modules):
    config = peft.LoraConfig(r=2, lora_alpha=6, init_lora_weights=False, target_modules=modules)
    return peft.get_peft_model(other, config)


def test_all_linear_is_what_peft_adapts(case, torch, peft, tmp_path):
    """The names in an exported adapter, and their shapes, are those that PEFT writes for all-linear."""
    config = LoraConfig(2, 6.0)
    export_adapter(add_lora(case.loaded.model, config), config, tmp_path / "ours", "base")
    peft_model(peft, random_model(torch, case.name), "all-linear").save_pretrained(tmp_path / "theirs")
    ours, theirs = (load_file(tmp_path / d / "adapter_model.safetensors") for d in ("ours", "theirs"))
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}
    named = json.loads((tmp_path / "ours" / "adapter_config.json").read_text())["target_modules"]
    assert named == projections(case.loaded.model)


@pytest.mark.parametrize(
    ("case", "modules"),
    [
        ("qwen2", "all-linear"),
        ("qwen2", ["q_proj", "down_proj"]),
        ("phi3", "all-linear"),
        ("phi3", ["qkv_proj", "gate_up_proj"]),
    ],
    indirect=["case"],
)
def test_adapters_go_both_ways(case, modules, torch, peft, tmp_path):
    """PEFT's adapter computes the same here, and written by edjax it is the same adapter to PEFT."""
    torch.manual_seed(5)
    other = peft_model(peft, random_model(torch, case.name), modules).eval()
    with torch.no_grad():  # peft draws B as large as the base weights
        for name, p in other.named_parameters():
            if "lora_B" in name:
                p.mul_(0.1)
    other.save_pretrained(tmp_path / "theirs")
    adapted, config = import_adapter(case.loaded.model, tmp_path / "theirs")
    export_adapter(adapted, config, tmp_path / "ours", "base")
    back = peft.PeftModel.from_pretrained(random_model(torch, case.name), tmp_path / "ours").eval()
    got = whole(adapted, np.asarray(case.prompts[:1], np.int32))[0][0]
    for model in (other, back):
        np.testing.assert_allclose(got, reference_outputs(torch, model, case.prompts[0])[0], **TOL)
    assert np.abs(got - case.want[0][0]).max() > 0.05


@pytest.mark.parametrize("case", ["qwen2", "gemma3_text", "olmo2", "phi3"], indirect=True)
def test_a_merged_model_is_read_by_transformers(case, torch, tmp_path):
    """Biases, tied heads, norms of every placement and fused projections, in several shards."""
    from transformers import AutoModelForCausalLM

    adapted = add_lora(case.loaded.model, LoraConfig(2, 4.0))
    for name in projections(adapted):
        linear = getattr(adapted.layers, name)
        linear.lora_b[...] = 0.05 * jax.random.normal(jax.random.key(1), linear.lora_b.shape)
    export_merged(case.loaded, adapted, tmp_path, shard_bytes=100_000)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    got = whole(adapted, np.asarray(case.prompts[:1], np.int32))[0][0]
    other = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32, attn_implementation="eager").eval()
    np.testing.assert_allclose(got, reference_outputs(torch, other, case.prompts[0])[0], **TOL)
    assert np.abs(got - case.want[0][0]).max() > 0.05
    ours = whole(load(str(tmp_path)).model, np.asarray(case.prompts[:1], np.int32))[0][0]
    np.testing.assert_allclose(ours, got, **TOL)


@pytest.mark.parametrize("case", ["gemma2", "phi3"], indirect=True)
def test_training(case):
    """A few steps on two rows: the loss falls with softcaps, windows and fused projections too."""
    trainer = Trainer(add_lora(case.loaded.model, LoraConfig(2, 4.0)))
    batch = pair_batch([(p[:12], [*p[12:20], 256]) for p in case.prompts[:2]], 2)
    losses = [trainer.step(batch, 1e-2)[0] for _ in range(6)]
    assert losses[-1] < losses[0] - 0.05


def test_projections_of_another_family(case):
    fused = case.name == "phi3"
    with pytest.raises(UsageError, match="its projections are") as e:
        add_lora(case.loaded.model, LoraConfig(2, 4.0, ("q_proj",) if fused else ("qkv_proj",)))
    assert ("gate_up_proj" if fused else "gate_proj") in str(e.value)


# What is refused


def config_of(kind, **changes):
    import transformers

    return getattr(transformers, f"{kind}Config")(**deepcopy(BASE | changes))


LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "partial_rotary_factor": 1.0,
    "short_factor": [1.0] * 8,
    "long_factor": [2.0] * 8,
    "original_max_position_embeddings": 64,
}


@pytest.mark.parametrize(
    ("kind", "changes", "match"),
    [
        ("Mixtral", {}, "model type 'mixtral' is not supported; edjax runs: llama, mistral, qwen2"),
        ("Qwen3Moe", {}, "model type 'qwen3_moe' is not supported"),
        (
            "Llama",
            {"rope_parameters": {**LINEAR, "rope_type": "dynamic"}},
            "'dynamic' is not supported for llama",
        ),
        ("Qwen2", {"rope_parameters": {**LINEAR, "rope_type": "yarn"}}, "'yarn' is not supported for qwen2"),
        ("Phi3", {"rope_parameters": LONGROPE}, "'longrope' is not supported for phi3"),
        ("Llama", {"rope_parameters": {**LINEAR, "partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ("Qwen3", {"hidden_act": "relu"}, "'relu' is not supported for qwen3; edjax computes: silu"),
        ("Gemma2", {"hidden_activation": "gelu"}, "'gelu' is not supported for gemma2"),
        ("Gemma", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ("Gemma3Text", {"attn_logit_softcapping": 5.0}, "attn_logit_softcapping"),
        ("Qwen2", {"layer_types": ["chunked_attention"] * 4}, "chunked_attention"),
        ("Qwen3", {"layer_types": ["sliding_attention"] * 4}, "sliding_window is None"),
    ],
)
def test_refused(kind, changes, match):
    with pytest.raises(DataError, match=match) as e:
        LMConfig.from_hf(config_of(kind, **changes))
    assert "\n" not in str(e.value)
