"""The model types that the decoder computes: what each sets beyond Llama's defaults, and its tensors' own names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edjax.keep.errors import DataError
from edjax.lm.rope import ROPE_TYPES, Rope

Options = dict[str, Any]
LLAMA3 = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")


@dataclass(frozen=True)
class Family:
    """`options` turns a `transformers` config into fields of LMConfig that differ from Llama's; `tensors` maps the
    decoder's name of a module to the checkpoint's, where they differ."""

    options: Callable[[Any], Options]
    tensors: Mapping[str, str]


def head_dim_of(hf: Any) -> int:
    """The size of an attention head."""
    return getattr(hf, "head_dim", None) or hf.hidden_size // hf.num_attention_heads


def rope_of(hf: Any, parameters: Mapping[str, Any] | None, *, partial: bool = False) -> Rope:
    """The rotary embedding that `rope_parameters` describe.

    Raises:
      DataError: a scaling that is not computed; partial rotation where the family knows none (`partial`).
    """
    given = dict(parameters or {})
    kind = given.get("rope_type", "default")
    if kind not in ROPE_TYPES:
        raise DataError(
            f"rope type {kind!r} is not supported for {hf.model_type}; edjax computes: {', '.join(ROPE_TYPES)}"
        )
    if any(isinstance(v, Mapping) for v in given.values()):
        raise DataError(f"rope_parameters by layer type are not supported for {hf.model_type}; gemma3_text has them")
    if not partial and given.get("partial_rotary_factor", 1.0) not in (1, None):
        raise DataError(f"partial_rotary_factor is not supported for {hf.model_type}; phi3 has it")
    theta = float(given.get("rope_theta") or getattr(hf, "rope_theta", None) or 10_000.0)
    numbers = {"default": (), "linear": ("factor",), "llama3": LLAMA3}[kind]
    if missing := [name for name in numbers if given.get(name) is None]:
        raise DataError(f"rope_parameters of type {kind!r} lack {', '.join(missing)}")
    return Rope(theta, kind, **{name: float(given[name]) for name in numbers})


def _windows(hf: Any) -> Options:
    """Sliding windows where `layer_types` has them."""
    kinds = list(hf.layer_types)
    if unknown := sorted(set(kinds) - {"full_attention", "sliding_attention"}):
        raise DataError(
            f"layer types {unknown} are not supported for {hf.model_type}; "
            "edjax computes: full_attention, sliding_attention"
        )
    if "sliding_attention" in kinds and not hf.sliding_window:
        raise DataError(f"layer_types has sliding_attention, but sliding_window is {hf.sliding_window}")
    return {"sliding_windows": tuple(hf.sliding_window if k == "sliding_attention" else None for k in kinds)}


def _one_window(hf: Any) -> Options:
    return {"sliding_windows": (hf.sliding_window,) * hf.num_hidden_layers}


def _biases(hf: Any) -> Options:
    attention = bool(getattr(hf, "attention_bias", False))
    return {"qkv_bias": attention, "o_bias": attention, "mlp_bias": bool(getattr(hf, "mlp_bias", False))}


def _qwen2(hf: Any) -> Options:
    return {"qkv_bias": True} | _windows(hf)


def _qwen3(hf: Any) -> Options:
    return {"qk_norm": "head"} | _biases(hf) | _windows(hf)


def _gemma(hf: Any) -> Options:
    return {"norm_offset": 1.0, "embed_scale": hf.hidden_size**0.5} | _biases(hf)


def _gemma2(hf: Any) -> Options:
    own = {
        "norm_placement": "both",
        "attention_scale": hf.query_pre_attn_scalar**-0.5,
        "attn_logit_softcapping": hf.attn_logit_softcapping,
        "final_logit_softcapping": hf.final_logit_softcapping,
    }
    return _gemma(hf) | _windows(hf) | own


def _gemma3(hf: Any) -> Options:
    if hf.attn_logit_softcapping is not None:
        raise DataError("attn_logit_softcapping is not supported for gemma3_text; gemma2 has it")
    of_type = {kind: rope_of(hf, hf.rope_parameters[kind]) for kind in set(hf.layer_types)}
    return _gemma2(hf) | {"qk_norm": "head", "ropes": tuple(of_type[kind] for kind in hf.layer_types)}


def _olmo2(hf: Any) -> Options:
    return {"norm_placement": "post", "qk_norm": "full"} | _biases(hf)


def _phi3(hf: Any) -> Options:
    rotated = int(head_dim_of(hf) * (hf.rope_parameters.get("partial_rotary_factor") or 1.0))
    return {"fused_projections": True, "rotary_dim": rotated} | _one_window(hf)


def _smollm3(hf: Any) -> Options:
    rope = rope_of(hf, hf.rope_parameters)
    rotated = hf.no_rope_layers[: hf.num_hidden_layers]
    return {"ropes": tuple(rope if used else None for used in rotated)} | _biases(hf) | _windows(hf)


PRE_NORM = {"pre_feedforward_layernorm": "post_attention_layernorm"}
FAMILIES = {
    "llama": Family(_biases, PRE_NORM),
    "mistral": Family(_one_window, PRE_NORM),
    "qwen2": Family(_qwen2, PRE_NORM),
    "qwen3": Family(_qwen3, PRE_NORM),
    "gemma": Family(_gemma, PRE_NORM),
    "gemma2": Family(_gemma2, {}),
    "gemma3_text": Family(_gemma3, {}),
    "olmo2": Family(_olmo2, {}),
    "phi3": Family(_phi3, PRE_NORM),
    "smollm3": Family(_smollm3, PRE_NORM),
}
