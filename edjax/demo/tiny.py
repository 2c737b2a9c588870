"""A model small enough to be made in place: two random layers over bytes, for trying the road and not for results."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from edjax.keep.store import atomic_write, write_json

END = "<|end|>"
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 257,  # the bytes, and the end of a text
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "attention_bias": False,
    "mlp_bias": False,
    "bos_token_id": None,
    "eos_token_id": 256,
    "dtype": "float32",
}


def write_tiny_model(directory: str | Path, seed: int = 0) -> Path:
    """Write a Llama of random weights, about 30,000 of them, with a tokenizer of bytes, as Hugging Face lays it out.

    Raises:
      EnvError: the directory cannot be written.
    """
    from safetensors.numpy import save

    out = Path(directory)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "config.json", CONFIG)
    with atomic_write(out / "model.safetensors") as f:
        f.write(save(_tensors(np.random.default_rng(seed)), {"format": "pt"}))
    _write_tokenizer(out)
    return out


def _tensors(rng: np.random.Generator) -> dict[str, np.ndarray]:
    d, wide, heads, keys, size = 32, 64, 4, 2, 8
    matrices = {
        "self_attn.q_proj": (heads * size, d),
        "self_attn.k_proj": (keys * size, d),
        "self_attn.v_proj": (keys * size, d),
        "self_attn.o_proj": (d, heads * size),
        "mlp.gate_proj": (wide, d),
        "mlp.up_proj": (wide, d),
        "mlp.down_proj": (d, wide),
    }
    found = {"model.embed_tokens.weight": (0.3 * rng.standard_normal((257, d))).astype(np.float32)}
    for layer in range(2):
        at = f"model.layers.{layer}"
        for name, shape in matrices.items():
            found[f"{at}.{name}.weight"] = (rng.standard_normal(shape) / shape[1] ** 0.5).astype(np.float32)
        for name in ("input_layernorm", "post_attention_layernorm"):
            found[f"{at}.{name}.weight"] = np.ones(d, np.float32)
    return found | {"model.norm.weight": np.ones(d, np.float32)}


def _write_tokenizer(out: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(END, special=True, normalized=False)])
    with atomic_write(out / "tokenizer.json", "w") as f:
        f.write(tokenizer.to_str())
    with atomic_write(out / "tokenizer_config.json", "w") as f:
        f.write(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END}))
