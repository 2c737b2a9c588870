"""The decoder against transformers' torch models: hidden states, logits, greedy continuations."""

import json
from itertools import islice

import jax
import numpy as np
import pytest
from lm_cases import STORIES, STORY, STORY_GOES_ON, forward, reference, reference_outputs

from edjax.data.pool import read_pool
from edjax.lm.batching import pad
from edjax.lm.checkpoint import load_weights
from edjax.lm.config import LMConfig
from edjax.lm.decode import decode
from edjax.lm.encode import Encoder


@jax.jit
def continue_32(model, tokens, lengths):
    hidden, _, cache = model.prefill(tokens)
    return decode(model, hidden, cache, lengths, max_new_tokens=32, eos_ids=(2,), statistics=False)


def greedy_text(loaded, text):
    tokens, lengths = pad([loaded.tokenizer(text).input_ids], 1)
    out = continue_32(loaded.model, tokens, lengths)
    return loaded.tokenizer.decode(np.asarray(out.tokens[0])[np.asarray(out.mask[0])], skip_special_tokens=True)


def test_stories_all_layers(stories, torch):
    other = reference(torch, stories.directory)
    for text in STORIES:
        ids = stories.tokenizer(text).input_ids
        logits, states = reference_outputs(torch, other, ids)
        np.testing.assert_allclose(forward(stories.model, ids)[0], logits, atol=1e-4, rtol=0)
        for layer, state in enumerate(states):
            np.testing.assert_allclose(forward(stories.model, ids, layer)[1], state, atol=1e-4, rtol=0)


def test_story_goes_on(stories):
    tokens, lengths = pad([stories.tokenizer(STORY).input_ids], 1)
    hidden, _, cache = stories.model.prefill(tokens)
    out = decode(stories.model, hidden, cache, lengths, max_new_tokens=70, eos_ids=(2,), statistics=False)
    ids = [*tokens[0, : lengths[0]].tolist(), *np.asarray(out.tokens[0])[np.asarray(out.mask[0])].tolist()]
    assert stories.tokenizer.decode(ids, skip_special_tokens=True).startswith(STORY + STORY_GOES_ON)


@pytest.fixture(scope="module")
def real_prompts(shared, smollm2):
    """Five prompts of five tasks, as the chat template puts them."""
    pool = read_pool(shared / "data" / "ci_pool.jsonl.gz")
    first = {}
    for i, record in enumerate(pool.records):
        first.setdefault(record["task"], i)
    encoder = Encoder(smollm2.tokenizer, max_length=192)
    return [encoder.prompt(pool.messages[i]) for i in islice(first.values(), 0, None, max(1, len(first) // 5))][:5]


@pytest.mark.real_model
def test_smollm2(smollm2, torch, real_prompts):
    assert len(real_prompts) == 5
    other = reference(torch, smollm2.directory)
    tokens, lengths = pad(real_prompts, 5)
    out = continue_32(smollm2.model, tokens, lengths)
    logits = jax.jit(lambda m, t: m.logits(m.prefill(t)[0]))(smollm2.model, tokens)
    agree = 0
    for i, ids in enumerate(real_prompts):
        want, _ = reference_outputs(torch, other, ids)
        np.testing.assert_allclose(np.asarray(logits[i, : len(ids)]), want, atol=1e-3, rtol=0)
        with torch.no_grad():
            row = other.generate(
                torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long), do_sample=False,
                max_new_tokens=32, eos_token_id=2, pad_token_id=2,
            )  # fmt: skip
        ours = np.asarray(out.tokens[i])[np.asarray(out.mask[i])].tolist()
        agree += ours == row[0, len(ids) :].tolist()
    assert agree >= 4


@pytest.mark.real_model
def test_paris(smollm2):
    assert greedy_text(smollm2, "The capital of France is").startswith(" Paris")


BASE = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 56,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
CONFIGS = {
    "plain": {},
    "grouped queries": {"num_key_value_heads": 2},
    "one key head": {"num_key_value_heads": 1, "rms_norm_eps": 1e-3},
    "llama3 rope": {"rope_parameters": LLAMA3},
    "untied head": {"tie_word_embeddings": False},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "own head size": {"head_dim": 24, "num_key_value_heads": 2},
}


def random_llama(torch, overrides):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(7)
    model = LlamaForCausalLM(LlamaConfig(**(BASE | overrides), attn_implementation="eager")).eval()
    with torch.no_grad():
        for p in model.parameters():  # norms and biases too: as initialised, they would hide a mistake
            p.add_(0.15 * torch.randn_like(p))
    return model


def read_back(directory):
    from transformers import AutoConfig

    return load_weights(directory, LMConfig.from_hf(AutoConfig.from_pretrained(directory)))


@pytest.mark.parametrize("name", CONFIGS)
def test_random_llama(name, torch, tmp_path):
    other = random_llama(torch, CONFIGS[name])
    other.save_pretrained(tmp_path)
    ids = np.random.default_rng(1).integers(0, BASE["vocab_size"], 100)
    want, states = reference_outputs(torch, other, ids)
    got, state = forward(read_back(tmp_path), ids, 2)
    np.testing.assert_allclose(got, want, atol=1e-4, rtol=0)
    np.testing.assert_allclose(state, states[2], atol=1e-4, rtol=0)


def test_rope_scaling_matters_there(torch, tmp_path):
    """The llama3 case above would fail if the scaling were left out."""
    other = random_llama(torch, CONFIGS["llama3 rope"])
    other.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": LLAMA3["rope_theta"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    ids = np.random.default_rng(1).integers(0, BASE["vocab_size"], 100)
    assert np.abs(forward(read_back(tmp_path), ids)[0] - reference_outputs(torch, other, ids)[0]).max() > 1e-2


def test_sharded(torch, tmp_path):
    other = random_llama(torch, CONFIGS["untied head"])
    other.save_pretrained(tmp_path / "one")
    other.save_pretrained(tmp_path / "many", max_shard_size="30KB")
    assert len(list((tmp_path / "many").glob("model-*.safetensors"))) >= 3
    ids = np.random.default_rng(1).integers(0, BASE["vocab_size"], 40)
    one, many = (forward(read_back(tmp_path / name), ids)[0] for name in ("one", "many"))
    np.testing.assert_array_equal(one, many)
    np.testing.assert_allclose(many, reference_outputs(torch, other, ids)[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_half_precision_files(torch, tmp_path, kind):
    """Weights kept in 16 bits are read exactly: the reference computes in float32 from the same rounded values."""
    random_llama(torch, CONFIGS["grouped queries"]).to(getattr(torch, kind)).save_pretrained(tmp_path)
    ids = np.random.default_rng(1).integers(0, BASE["vocab_size"], 40)
    want, _ = reference_outputs(torch, reference(torch, tmp_path), ids)
    np.testing.assert_allclose(forward(read_back(tmp_path), ids)[0], want, atol=1e-4, rtol=0)
