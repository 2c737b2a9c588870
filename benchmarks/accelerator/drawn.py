"""Models of any shape with random weights, drawn on the device; and the same weights in torch."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from benchmarks.accelerator.sizes import LLAMA_7B
from benchmarks.model import lm, lm_cases
from edjax.lm.checkpoint import OUTSIDE, layer_names
from edjax.lm.config import LMConfig
from edjax.lm.decoder import CausalLM

SHAPES: dict[str, dict[str, Any]] = {"tiny": lm_cases.TINY, "1b": lm_cases.ONE_BILLION, "7b": lm_cases.TINY | LLAMA_7B}
SPREAD = 0.02
SEED = 0


def hf_config(name: str) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(**{k: v for k, v in SHAPES[name].items() if k != "model_type"})


class Drawn(lm.Ours):
    """A model of a shape's name as edjax runs it. Norms are ones, all else normal with deviation `SPREAD`."""

    def __init__(self, name: str, dtype: str):
        config = LMConfig.from_hf(hf_config(name))
        graph, state = nnx.split(nnx.eval_shape(lambda: CausalLM(config, rngs=nnx.Rngs(0))))
        flat, key = dict(nnx.to_flat_state(state)), jax.random.key(SEED)
        for i, (path, leaf) in enumerate(flat.items()):
            flat[path] = leaf.replace(_leaf(path, leaf.shape, jnp.dtype(dtype), jax.random.fold_in(key, i)))
        self.model = nnx.merge(graph, nnx.from_flat_state(list(flat.items())))


def _leaf(path: tuple, shape: tuple[int, ...], dtype: Any, key: jax.Array) -> jax.Array:
    if path[-1] == "weight":
        return jnp.ones(shape, dtype)
    if path[-1] == "kernel":  # a layer at a time: the draw's temporaries are several times the size of the result
        keys = jax.random.split(key, shape[0])
        return jax.lax.map(lambda k: (SPREAD * jax.random.normal(k, shape[1:], jnp.float32)).astype(dtype), keys)
    return (SPREAD * jax.random.normal(key, shape, jnp.float32)).astype(dtype)


def in_torch(name: str, dtype: str, model: CausalLM) -> Any:
    """A `transformers` model of the same shape with the same weights, on torch's device."""
    import torch
    from transformers import AutoModelForCausalLM

    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.device(device), torch.no_grad():
        other = AutoModelForCausalLM.from_config(hf_config(name), dtype=getattr(torch, dtype))
        places = dict(other.named_parameters())
        for path, leaf in nnx.to_flat_state(nnx.state(model)):
            values = torch.from_dlpack(leaf[...]).to(device)
            if path in OUTSIDE:
                places[OUTSIDE[path]].copy_(values)
                continue
            for value, key in zip(values, layer_names(path, model.config), strict=True):
                places[key].copy_(value.T if value.ndim == 2 else value)
    return other.eval()
