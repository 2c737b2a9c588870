"""What `benchmarks.model.lm` runs: its cases, their ids, and the models and adapters that both sides start from."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx

from edjax.lm.decoder import CausalLM
from edjax.lm.lora import LoraConfig, add_lora, targets
from edjax.lm.peft import export_adapter
from edjax.lm.train import Batch

SEED = 0
ADAPTER = LoraConfig(8, 16.0)

TINY = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 258,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
}
ONE_BILLION = TINY | {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "vocab_size": 128_256,
    "max_position_embeddings": 4096,
}


class Case(NamedTuple):
    """What is run on (rows, tokens) of ids: "hidden", "logits", greedy "ids" or "scores" of `new` tokens, or "lora",
    a step on the last `new` tokens of each row. model: "smollm2", or "1b", random weights for a GPU."""

    kind: str
    rows: int
    tokens: int
    new: int = 0
    model: str = "smollm2"


CASES = {
    "forward-16x128": Case("hidden", 16, 128),
    "logits-16x128": Case("logits", 16, 128),
    "decode-8x64+32": Case("ids", 8, 64, 32),
    "decode-32x64+32": Case("ids", 32, 64, 32),
    "scores-8x64+32": Case("scores", 8, 64, 32),
    "scores-32x64+32": Case("scores", 32, 64, 32),
    "lora-8x128": Case("lora", 8, 128, 64),
}
GPU_CASES = {
    "1b-forward-32x512": Case("hidden", 32, 512, model="1b"),
    "1b-decode-64x64+128": Case("ids", 64, 64, 128, model="1b"),
    "1b-lora-16x512": Case("lora", 16, 512, 256, model="1b"),
}
QUICK = {
    "forward-quick": Case("hidden", 2, 16, model="tiny"),
    "logits-quick": Case("logits", 2, 16, model="tiny"),
    "decode-quick": Case("ids", 2, 16, 4, model="tiny"),
    "scores-quick": Case("scores", 2, 16, 4, model="tiny"),
    "lora-quick": Case("lora", 2, 16, 8, model="tiny"),
}
RANDOM = {"tiny": TINY, "1b": ONE_BILLION}


def ids_for(case: Case, vocabulary: int) -> np.ndarray:
    """Random ids (rows, tokens) int32, the same for every side."""
    rng = np.random.default_rng(SEED)
    return rng.integers(3, vocabulary, (case.rows, case.tokens), dtype=np.int32)


def batch_for(case: Case, vocabulary: int) -> Batch:
    """A batch whose last `new` tokens are the response."""
    tokens = ids_for(case, vocabulary)
    where = np.tile(np.arange(case.tokens - case.new - 1, case.tokens - 1, dtype=np.int32), (case.rows, 1))
    wanted = np.take_along_axis(tokens, where + 1, axis=1)
    return Batch(tokens, where, wanted, np.ones(where.shape, np.float32))


def write_adapter(model: CausalLM, directory: Path) -> Path:
    """A random adapter in PEFT's format of which neither half is zero, for both sides to start from."""
    adapted = add_lora(model, ADAPTER, SEED)
    rng = np.random.default_rng(SEED)
    for linear in targets(adapted, ADAPTER).values():
        b = 0.01 * rng.standard_normal(linear.lora_b.shape)  # type: ignore[union-attr]
        linear.lora_b = nnx.LoRAParam(jnp.asarray(b, jnp.float32))
    export_adapter(adapted, ADAPTER, directory, "base")
    return directory


def write_model(directory: Path, config: dict[str, Any], dtype: str) -> Path:
    """A random Llama in Hugging Face's format, drawn tensor by tensor."""
    from safetensors.numpy import save_file

    rng, kind = np.random.default_rng(SEED), jnp.dtype(dtype)
    d, f, k = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    q, kv = config["num_attention_heads"] * k, config["num_key_value_heads"] * k
    shapes = {
        "self_attn.q_proj": (q, d),
        "self_attn.k_proj": (kv, d),
        "self_attn.v_proj": (kv, d),
        "self_attn.o_proj": (d, q),
        "mlp.gate_proj": (f, d),
        "mlp.up_proj": (f, d),
        "mlp.down_proj": (d, f),
    }
    norms = ("input_layernorm", "post_attention_layernorm")

    def draw(shape: tuple[int, ...]) -> np.ndarray:
        return (rng.standard_normal(shape, dtype=np.float32) * shape[-1] ** -0.5).astype(kind)

    tensors = {
        "model.embed_tokens.weight": draw((config["vocab_size"], d)),
        "model.norm.weight": np.ones(d, kind),
    }
    for i in range(config["num_hidden_layers"]):
        tensors |= {f"model.layers.{i}.{name}.weight": draw(shape) for name, shape in shapes.items()}
        tensors |= {f"model.layers.{i}.{name}.weight": np.ones(d, kind) for name in norms}
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config | {"architectures": ["LlamaForCausalLM"], "dtype": dtype}))
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


@contextmanager
def model_directory(name: str, dtype: str) -> Iterator[Path]:
    """Where the weights of "smollm2", "tiny" or "1b" lie; random ones for the time of the block."""
    if name in RANDOM:
        with tempfile.TemporaryDirectory() as folder:
            yield write_model(Path(folder), RANDOM[name], dtype)
    else:
        from edjax.lm.load import locate

        yield locate(name)
