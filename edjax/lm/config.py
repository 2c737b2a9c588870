"""What the decoder needs to know of a model, read from a Hugging Face config."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax

from edjax.keep.errors import DataError
from edjax.lm.families import FAMILIES, head_dim_of, rope_of
from edjax.lm.rope import Rope

SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_layers",
    "num_heads",
    "num_kv_heads",
    "head_dim",
    "rotary_dim",
    "max_position_embeddings",
)
ACTIVATIONS = {"silu": jax.nn.silu, "swish": jax.nn.silu, "gelu_pytorch_tanh": jax.nn.gelu}


@dataclass(frozen=True)
class LMConfig:
    """Sizes, constants and options of a decoder. Hashable, so that it may be static under `jax.jit`.

    `ropes` and `sliding_windows` have one entry a layer: its rotary embedding (None: none) and how many tokens, itself
    included, a token sees (None: all before it). `rotary_dim` coordinates of each head are rotated. `norm_placement`
    says whether attention and MLP have their norm before them ("pre"), after ("post") or both; `qk_norm` whether
    queries and keys are normed, each head for itself ("head") or across heads ("full"). Norms multiply by
    `norm_offset` + weight, embeddings by `embed_scale`, attention scores by `attention_scale`. With
    `fused_projections` one matrix yields queries, keys and values, and one the MLP's gate and up.
    """

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rotary_dim: int
    rms_norm_eps: float
    hidden_act: str
    max_position_embeddings: int
    tie_word_embeddings: bool
    attention_scale: float
    ropes: tuple[Rope | None, ...]
    sliding_windows: tuple[int | None, ...]
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    fused_projections: bool = False
    qk_norm: str | None = None
    norm_placement: str = "pre"
    norm_offset: float = 0.0
    embed_scale: float = 1.0
    attn_logit_softcapping: float | None = None
    final_logit_softcapping: float | None = None

    def __post_init__(self):
        for name in SIZES:
            if not isinstance(value := getattr(self, name), int) or value < 1:
                raise DataError(f"{name} is {value!r} in the model's config; it must be a whole number of 1 or more")
        numbers = {"rms_norm_eps": self.rms_norm_eps, "attention_scale": self.attention_scale}
        numbers |= {"rope_theta": min((r.rope_theta for r in self.ropes if r), default=1.0)}
        for name, number in numbers.items():
            if not 0 < number < float("inf"):
                raise DataError(f"{name} is {number!r} in the model's config; it must be above 0 and finite")

    @classmethod
    def from_hf(cls, hf: Any) -> LMConfig:
        """Translate a `transformers` config.

        Raises:
          DataError: an architecture, activation, rope type or other option that the decoder does not compute; a
            value that makes no sense.
        """
        try:
            return cls._translated(hf)
        except (TypeError, ValueError, KeyError, AttributeError, ArithmeticError) as e:
            raise DataError(f"the model's config makes no sense ({type(e).__name__}: {e}); fetch it again") from e

    @classmethod
    def _translated(cls, hf: Any) -> LMConfig:
        name = hf.model_type
        if name not in FAMILIES:
            raise DataError(f"model type {name!r} is not supported; edjax runs: {', '.join(FAMILIES)}")
        act = getattr(hf, "hidden_activation", None) or hf.hidden_act
        if act not in ACTIVATIONS:
            raise DataError(f"activation {act!r} is not supported for {name}; edjax computes: {', '.join(ACTIVATIONS)}")
        if getattr(hf, "use_bidirectional_attention", None):
            raise DataError(f"use_bidirectional_attention is not supported for {name}; edjax runs causal decoders")
        layers, head_dim = hf.num_hidden_layers, head_dim_of(hf)
        own = FAMILIES[name].options(hf)
        if "ropes" not in own:
            own["ropes"] = (rope_of(hf, getattr(hf, "rope_parameters", None), partial="rotary_dim" in own),) * layers
        common = {
            "model_type": name,
            "vocab_size": hf.vocab_size,
            "hidden_size": hf.hidden_size,
            "intermediate_size": hf.intermediate_size,
            "num_layers": layers,
            "num_heads": hf.num_attention_heads,
            "num_kv_heads": hf.num_key_value_heads or hf.num_attention_heads,
            "head_dim": head_dim,
            "rotary_dim": head_dim,
            "rms_norm_eps": float(hf.rms_norm_eps),
            "hidden_act": act,
            "max_position_embeddings": hf.max_position_embeddings,
            "tie_word_embeddings": bool(hf.tie_word_embeddings),
            "attention_scale": head_dim**-0.5,
            "sliding_windows": (None,) * layers,
        }
        return cls(**(common | own))

    def windowed(self, length: int) -> bool:
        """Whether any layer's sliding window hides something in a sequence of this length."""
        return any(w is not None and w < length for w in self.sliding_windows)
