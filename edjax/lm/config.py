"""What the decoder needs to know of a model, read from a Hugging Face config."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edjax.errors import DataError

SUPPORTED = ("llama",)


@dataclass(frozen=True)
class RopeScaling:
    """Llama 3.1's frequency scaling (`rope_type: llama3`)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int


@dataclass(frozen=True)
class LMConfig:
    """Sizes and constants of a Llama-architecture decoder. Hashable, so that it may be static under `jax.jit`."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rms_norm_eps: float
    rope_theta: float
    rope_scaling: RopeScaling | None
    max_position_embeddings: int
    tie_word_embeddings: bool
    attention_bias: bool = False
    mlp_bias: bool = False

    @classmethod
    def from_hf(cls, hf: Any) -> LMConfig:
        """Translate a `transformers` config.

        Raises:
          DataError: an architecture, activation or rope type that the decoder does not compute.
        """
        if hf.model_type not in SUPPORTED:
            raise DataError(f"model type {hf.model_type!r} is not supported; edjax runs: {', '.join(SUPPORTED)}")
        if hf.hidden_act not in ("silu", "swish"):
            raise DataError(f"activation {hf.hidden_act!r} is not supported for {hf.model_type}; silu is")
        rope = dict(getattr(hf, "rope_parameters", None) or {})
        kind = rope.get("rope_type", "default")
        scaling = None
        if kind == "llama3":
            scaling = RopeScaling(
                float(rope["factor"]),
                float(rope["low_freq_factor"]),
                float(rope["high_freq_factor"]),
                int(rope["original_max_position_embeddings"]),
            )
        elif kind != "default":
            raise DataError(f"rope type {kind!r} is not supported; edjax computes: default, llama3")
        return cls(
            vocab_size=hf.vocab_size,
            hidden_size=hf.hidden_size,
            intermediate_size=hf.intermediate_size,
            num_layers=hf.num_hidden_layers,
            num_heads=hf.num_attention_heads,
            num_kv_heads=hf.num_key_value_heads or hf.num_attention_heads,
            head_dim=getattr(hf, "head_dim", None) or hf.hidden_size // hf.num_attention_heads,
            rms_norm_eps=float(hf.rms_norm_eps),
            rope_theta=float(rope.get("rope_theta") or getattr(hf, "rope_theta", None) or 10_000.0),
            rope_scaling=scaling,
            max_position_embeddings=hf.max_position_embeddings,
            tie_word_embeddings=bool(hf.tie_word_embeddings),
            attention_bias=bool(getattr(hf, "attention_bias", False)),
            mlp_bias=bool(getattr(hf, "mlp_bias", False)),
        )
