"""Rotary position embeddings (Su et al. 2021) in the half-split layout of Hugging Face checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from edjax.lm.attention import wide

Array = jax.Array
ROPE_TYPES = ("default", "linear", "llama3")


@dataclass(frozen=True)
class Rope:
    """The base of a rotary embedding, and how its frequencies are scaled.

    `rope_type` is "default" (not at all), "linear" (all divided by `factor`) or "llama3" (Llama 3.1: the low ones
    divided, the high ones kept, those between blended).
    """

    rope_theta: float
    rope_type: str = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: float = 8192.0

    def frequencies(self, dim: int, dtype=jnp.float32) -> Array:
        """Radians per position, (dim / 2,)."""
        freq = 1.0 / (self.rope_theta ** (jnp.arange(0, dim, 2, dtype=dtype) / dim))
        if self.rope_type == "linear":
            return freq / self.factor
        if self.rope_type == "llama3":
            ratio = self.original_max_position_embeddings / (2 * jnp.pi / freq)
            smooth = (ratio - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
            smooth = jnp.clip(smooth, 0.0, 1.0)
            return (1 - smooth) * freq / self.factor + smooth * freq
        return freq


def rope_tables(ropes: Sequence[Rope | None], dim: int, positions: Array, dtype) -> tuple[Array, Array]:
    """cos and sin of each rotary embedding at `positions` (b, t): each (ropes, b, t, 1, dim), found in float32 or more.

    None stands for no rotation (NoPE): cos 1, sin 0.
    """
    exact = wide(dtype)
    freq = jnp.stack([jnp.zeros(dim // 2, exact) if r is None else r.frequencies(dim, exact) for r in ropes])
    angle = positions[None, :, :, None].astype(exact) * freq[:, None, None, :]
    angle = jnp.concatenate([angle, angle], axis=-1)[:, :, :, None, :]
    return jnp.cos(angle).astype(dtype), jnp.sin(angle).astype(dtype)


def rotate(x: Array, rope: tuple[Array, Array]) -> Array:
    """Rotate x (b, t, heads, k) by cos and sin (b, t, 1, dim); coordinates from `dim` on stay as they are."""
    cos, sin = rope
    dim = cos.shape[-1]
    if dim < x.shape[-1]:
        return jnp.concatenate([rotate(x[..., :dim], rope), x[..., dim:]], axis=-1)
    a, b = jnp.split(x, 2, axis=-1)
    return x * cos + jnp.concatenate([-b, a], axis=-1) * sin
