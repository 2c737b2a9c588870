"""Gradients of the training loss with respect to an adapter: against torch PEFT's, and against finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from lm_cases import STORIES, pair_batch, reference

from edjax.lm.checkpoint import load_weights
from edjax.lm.config import LMConfig
from edjax.lm.decoder import CausalLM
from edjax.lm.lora import LoraConfig, add_lora, targets
from edjax.lm.peft import import_adapter
from edjax.lm.train import Trainer

VOCAB = 96
MLP = ("gate_proj", "up_proj", "down_proj", "gate_up_proj")
H = 1e-6  # of the differences; their own error falls with its square, and is 1e-8 here
BASE = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 56,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": 0,
    "tie_word_embeddings": True,
}
CASES = {
    "llama": ("LlamaConfig", {"tie_word_embeddings": False}),
    "qwen2": ("Qwen2Config", {}),
    "gemma2": (
        "Gemma2Config",
        {
            "head_dim": 12,
            "sliding_window": 6,
            "query_pre_attn_scalar": 10,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 3.0,
        },
    ),
    "phi3": ("Phi3Config", {"sliding_window": 6}),
}


def config_of(name):
    import transformers

    kind, changes = CASES[name]
    return getattr(transformers, kind)(**(BASE | changes))


def random_rows(seed=2):
    """Prompts and responses of several lengths, so that there is padding, and prompt tokens that carry no loss."""
    rng = np.random.default_rng(seed)
    return [tuple(rng.integers(1, VOCAB, n).tolist() for n in lengths) for lengths in ((9, 6), (4, 3), (1, 8))]


# Against torch PEFT


def peft_adapter(torch, peft, base, directory):
    """`base` with an adapter of which neither half is zero, which is also written to `directory`."""
    torch.manual_seed(5)
    settings = peft.LoraConfig(r=4, lora_alpha=12, target_modules="all-linear", init_lora_weights=False)
    model = peft.get_peft_model(base, settings)
    with torch.no_grad():  # peft draws B as large as the base weights, and float32 itself is then off by 3e-4
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.mul_(0.1)
    model.save_pretrained(directory)
    return model.train()  # no dropout in it; it is what peft trains with


def torch_gradients(torch, model, rows):
    """transformers' own loss with the prompt's labels at -100, and its gradient of every adapter tensor."""
    width = max(len(p) + len(r) for p, r in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    labels, attention = torch.full_like(ids, -100), torch.zeros_like(ids)
    for i, (prompt, response) in enumerate(rows):
        n = len(prompt) + len(response)
        ids[i, :n] = torch.tensor([*prompt, *response])
        labels[i, len(prompt) : n] = torch.tensor(response)
        attention[i, :n] = 1
    loss = model(input_ids=ids, attention_mask=attention, labels=labels).loss
    loss.backward()
    return loss.item(), {n: p.grad.numpy() for n, p in model.named_parameters() if p.requires_grad}


def same_gradients(torch, peft, model, base, rows, directory):
    other = peft_adapter(torch, peft, base, directory)
    adapted, _ = import_adapter(model, directory)
    trainer = Trainer(adapted)
    loss, grads = trainer.gradients(trainer.state.lora, trainer.frozen, pair_batch(rows, len(rows)))
    torch_loss, wanted = torch_gradients(torch, other, rows)
    assert abs(float(loss) - torch_loss) < 1e-4
    compared = 0
    for (_, module, leaf), value in nnx.to_flat_state(grads):
        for layer, ours in enumerate(np.asarray(value[...], np.float64)):
            end = f"layers.{layer}.{'mlp' if module in MLP else 'self_attn'}.{module}.lora_{leaf[-1].upper()}"
            (key,) = (n for n in wanted if n.endswith(f"{end}.default.weight"))
            theirs = wanted[key].T.astype(np.float64)
            size = np.linalg.norm(theirs)
            assert size > 1e-5, key
            assert (ours * theirs).sum() / (np.linalg.norm(ours) * size) > 0.9999, key
            assert np.linalg.norm(ours - theirs) / size < 1e-3, key
            compared += 1
    assert compared == len(wanted)


@pytest.mark.parametrize("name", CASES)
def test_against_peft(name, torch, peft, tmp_path):
    from transformers import AutoModelForCausalLM

    config = config_of(name)
    config._attn_implementation = "eager"
    torch.manual_seed(7)
    base = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for p in base.parameters():  # norms and biases too: as initialised, they would hide a mistake
            p.add_(0.1 * torch.randn_like(p))
    base.save_pretrained(tmp_path / "base")
    model = load_weights(tmp_path / "base", LMConfig.from_hf(config))
    same_gradients(torch, peft, model, base, random_rows(), tmp_path / "adapter")


def encoded(loaded, pairs):
    t = loaded.tokenizer
    return [(t(p).input_ids, [*t(r, add_special_tokens=False).input_ids, t.eos_token_id]) for p, r in pairs]


PAIRS = [(STORIES[0], "He was happy."), (STORIES[1], "They ran and ran."), (STORIES[2], "sat."), (STORIES[5], "Mom")]


def test_stories_against_peft(stories, torch, peft, tmp_path):
    base = reference(torch, stories.directory)
    same_gradients(torch, peft, stories.model, base, encoded(stories, PAIRS), tmp_path)


@pytest.mark.real_model
def test_smollm2_against_peft(smollm2, torch, peft, tmp_path):
    base = reference(torch, smollm2.directory)
    same_gradients(torch, peft, smollm2.model, base, encoded(smollm2, PAIRS[1:3]), tmp_path)


# Against finite differences, in float64


def float64_model(name):
    """A random model of a family and an adapter of which neither half is zero, every number in float64."""
    config = LoraConfig(2, 6.0)
    model = add_lora(CausalLM(LMConfig.from_hf(config_of(name)), rngs=nnx.Rngs(0)), config)
    for linear in targets(model, config).values():
        linear.lora_b = nnx.LoRAParam(jnp.zeros(linear.lora_b.shape))
    graph, state = nnx.split(model)
    rng = np.random.default_rng(1)
    noisy = jax.tree.map(lambda v: jnp.asarray(np.asarray(v, np.float64) + 0.15 * rng.standard_normal(v.shape)), state)
    return nnx.merge(graph, noisy)


@pytest.mark.parametrize(("name", "remat"), [("llama", False), *((name, True) for name in CASES)])
def test_against_finite_differences(name, remat):
    """d loss / d tensor in a random direction, for every A and every B, is (loss(+h) - loss(-h)) / 2h."""
    with jax.enable_x64():
        trainer = Trainer(float64_model(name), remat=remat)
        batch = pair_batch(random_rows(), 4)
        lora, frozen = trainer.state.lora, trainer.frozen
        loss, grads = trainer.gradients(lora, frozen, batch)
        assert loss.dtype == jnp.float64
        values, tree = jax.tree.flatten(lora)
        slopes = jax.tree.leaves(grads)
        rng = np.random.default_rng(3)
        for i, (value, slope) in enumerate(zip(values, slopes, strict=True)):
            assert value.dtype == slope.dtype == jnp.float64
            direction = rng.standard_normal(value.shape)

            def at(step, i=i, direction=direction):
                moved = [*values[:i], values[i] + step * direction, *values[i + 1 :]]
                return float(trainer.gradients(jax.tree.unflatten(tree, moved), frozen, batch)[0])

            got, want = float((slope * direction).sum()), (at(H) - at(-H)) / (2 * H)
            assert abs(got - want) < 1e-6 * abs(want), (i, got, want)
