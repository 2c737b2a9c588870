"""A Llama-architecture decoder in Flax NNX: layers stacked along a leading axis and run by one `lax.scan`.

Shapes: b rows, t tokens, L layers, h query heads, g key-value heads, k head size, d hidden size. Padding is on the
right, so causal attention alone keeps real tokens from seeing it: every output at a real position is the same whatever
the padding or the rest of the batch.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from edjax.lm.config import LMConfig

Array = jax.Array


class Cache(NamedTuple):
    """Keys (already rotated) and values of every layer, each (L, b, slots, g, k)."""

    k: Array
    v: Array

    def grow(self, slots: int) -> Cache:
        """The same cache with `slots` empty places more."""
        pad = ((0, 0), (0, 0), (0, slots), (0, 0), (0, 0))
        return Cache(jnp.pad(self.k, pad), jnp.pad(self.v, pad))


@jax.custom_vjp
def lora_product(x: Array, w: Array, a: Array, b: Array) -> Array:
    """x W + (x A) B, with a frozen W: x (..., in), w (in, out), a (in, r), b (r, out).

    The backward pass is written out for the sake of XLA:CPU, which runs thin products several times faster when the
    thin side comes first and tokens are one axis: a LoRA step takes 3.2 instead of 4.0 CPU seconds on SmolLM2.
    """
    return x @ w + (x @ a) @ b


def _lora_forward(x: Array, w: Array, a: Array, b: Array):
    low = x @ a
    return x @ w + low @ b, (x, low, w, a, b)


def _lora_backward(kept, dy: Array):
    x, low, w, a, b = kept
    flat, low, dflat = (v.reshape(-1, v.shape[-1]) for v in (x, low, dy))
    thin = dflat @ b.T
    dx = (dflat @ w.T + thin @ a.T).reshape(x.shape)
    return dx, None, (thin.T @ flat).T, low.T @ dflat


lora_product.defvjp(_lora_forward, _lora_backward)


class Linear(nnx.Module):
    """y = x W (+ bias) (+ scale (x A) B): a stack of L projections, with room for a LoRA adapter.

    `kernel` is (L, in, out); `lora_a` (L, in, r) and `lora_b` (L, r, out) are None until `edjax.lm.lora.add_lora`.
    """

    def __init__(self, layers: int, n_in: int, n_out: int, *, bias: bool, rngs: nnx.Rngs):
        self.kernel = nnx.Param(0.02 * jax.random.normal(rngs.params(), (layers, n_in, n_out)))
        self.bias = nnx.Param(jnp.zeros((layers, n_out))) if bias else nnx.data(None)
        self.lora_a: nnx.LoRAParam | None = nnx.data(None)
        self.lora_b: nnx.LoRAParam | None = nnx.data(None)
        self.lora_scale = 0.0

    def __call__(self, x: Array) -> Array:
        w = self.kernel[...].astype(x.dtype)
        if self.lora_a is not None and self.lora_b is not None:
            a = (self.lora_scale * self.lora_a[...]).astype(x.dtype)
            y = lora_product(x, w, a, self.lora_b[...].astype(x.dtype))
        else:
            y = x @ w
        if self.bias is not None:
            y = y + self.bias[...].astype(x.dtype)
        return y


class RMSNorm(nnx.Module):
    """x / rms(x) * weight, computed in float32 (Zhang & Sennrich 2019)."""

    def __init__(self, shape: tuple[int, ...], eps: float):
        self.weight = nnx.Param(jnp.ones(shape))
        self.eps = eps

    def __call__(self, x: Array) -> Array:
        x32 = x.astype(jnp.float32)
        x32 = x32 * jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + self.eps)
        return self.weight[...].astype(x.dtype) * x32.astype(x.dtype)


class Block(nnx.Module):
    """L transformer layers as one stack; inside the scan, `self` is one of them."""

    def __init__(self, c: LMConfig, rngs: nnx.Rngs):
        n, d, q, kv = c.num_layers, c.hidden_size, c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim
        self.head_dim = c.head_dim
        self.input_layernorm = RMSNorm((n, d), c.rms_norm_eps)
        self.q_proj = Linear(n, d, q, bias=c.attention_bias, rngs=rngs)
        self.k_proj = Linear(n, d, kv, bias=c.attention_bias, rngs=rngs)
        self.v_proj = Linear(n, d, kv, bias=c.attention_bias, rngs=rngs)
        self.o_proj = Linear(n, q, d, bias=c.attention_bias, rngs=rngs)
        self.post_attention_layernorm = RMSNorm((n, d), c.rms_norm_eps)
        self.gate_proj = Linear(n, d, c.intermediate_size, bias=c.mlp_bias, rngs=rngs)
        self.up_proj = Linear(n, d, c.intermediate_size, bias=c.mlp_bias, rngs=rngs)
        self.down_proj = Linear(n, c.intermediate_size, d, bias=c.mlp_bias, rngs=rngs)

    def qkv(self, x: Array, rope: tuple[Array, Array]) -> tuple[Array, Array, Array]:
        b, t, _ = x.shape
        x = self.input_layernorm(x)
        q = self.q_proj(x).reshape(b, t, -1, self.head_dim)
        k = self.k_proj(x).reshape(b, t, -1, self.head_dim)
        v = self.v_proj(x).reshape(b, t, -1, self.head_dim)
        return rotate(q, rope), rotate(k, rope), v

    def finish(self, x: Array, attended: Array) -> Array:
        """Output projection and MLP, each added to the stream."""
        x = x + self.o_proj(attended.reshape(*x.shape[:2], -1))
        y = self.post_attention_layernorm(x)
        return x + self.down_proj(jax.nn.silu(self.gate_proj(y)) * self.up_proj(y))


class CausalLM(nnx.Module):
    """Token embedding, the layer stack, final norm, and the output head (tied to the embedding or its own)."""

    def __init__(self, config: LMConfig, *, rngs: nnx.Rngs):
        self.config = config
        table = 0.02 * jax.random.normal(rngs.params(), (config.vocab_size, config.hidden_size))
        self.embed = nnx.Param(table)
        self.layers = Block(config, rngs)
        self.norm = RMSNorm((config.hidden_size,), config.rms_norm_eps)
        head = 0.02 * jax.random.normal(rngs.params(), (config.vocab_size, config.hidden_size))
        self.head = nnx.data(None) if config.tie_word_embeddings else nnx.Param(head)

    def hidden(self, tokens: Array, *, remat: bool = False) -> Array:
        """Final hidden states (b, t, d) of right-padded tokens (b, t); no cache is kept. For training.

        `remat` recomputes each layer in the backward pass instead of keeping its activations.
        """
        x = self.embed[...][tokens]
        rope = self._rope(tokens, x.dtype)

        def step(x, block):
            q, k, v = block.qkv(x, rope)
            return block.finish(x, jax.nn.dot_product_attention(q, k, v, is_causal=True)), None

        x, _ = jax.lax.scan(jax.checkpoint(step, prevent_cse=False) if remat else step, x, self.layers)
        return self.norm(x)

    def _rope(self, tokens: Array, dtype) -> tuple[Array, Array]:
        return rope_tables(self.config, jnp.arange(tokens.shape[1])[None], dtype)

    def prefill(self, tokens: Array, *, layer: int = -1) -> tuple[Array, Array, Cache]:
        """Run whole sequences and keep their keys and values.

        Args:
          tokens: (b, t) int32, right-padded.
          layer: whose hidden states to hand back beside the last ones, as `transformers` counts `hidden_states`:
            0 the embeddings, i the output of layer i, -1 or L the last, after the final norm.

        Returns:
          (hidden (b, t, d) after the final norm, hidden states of `layer` (b, t, d), cache of t slots).
        """
        c = self.config
        wanted = layer % (c.num_layers + 1)
        x = self.embed[...][tokens]
        rope = self._rope(tokens, x.dtype)

        def step(carry, scanned):
            (x, kept), (block, index) = carry, scanned
            q, k, v = block.qkv(x, rope)
            x = block.finish(x, jax.nn.dot_product_attention(q, k, v, is_causal=True))
            if wanted != c.num_layers:
                kept = jnp.where(index + 1 == wanted, x, kept)
            return (x, kept), (k, v)

        kept = x if wanted != c.num_layers else jnp.zeros((), x.dtype)
        (x, kept), (k, v) = jax.lax.scan(step, (x, kept), (self.layers, jnp.arange(c.num_layers)))
        hidden = self.norm(x)
        return hidden, hidden if wanted == c.num_layers else kept, Cache(k, v)

    def extend(self, tokens: Array, cache: Cache, slot: Array | int, positions: Array, valid: Array):
        """Run further tokens of sequences whose beginning is in the cache.

        Args:
          tokens: (b, t) int32; they may see each other causally.
          cache: written in place at slots [slot, slot + t).
          slot: the first slot to write, the same for every row.
          positions: (b, t) int32, the tokens' places in their own sequences (for the rotation).
          valid: (b, slots) bool, which slots written earlier hold real tokens.

        Returns:
          (hidden (b, t, d) after the final norm, the cache).
        """
        t, slots = tokens.shape[1], cache.k.shape[2]
        x = self.embed[...][tokens]
        rope = rope_tables(self.config, positions, x.dtype)
        place = jnp.arange(slots)
        ahead = place[None, :] - slot - jnp.arange(t)[:, None]
        own = (place >= slot)[None, :] & (ahead <= 0)
        mask = ((valid & (place < slot))[:, None, None, :]) | own[None, None]

        def step(carry, scanned):
            (x, cache), (block, index) = carry, scanned
            q, k, v = block.qkv(x, rope)
            at = (index, 0, slot, 0, 0)
            cache = Cache(
                jax.lax.dynamic_update_slice(cache.k, k[None], at), jax.lax.dynamic_update_slice(cache.v, v[None], at)
            )
            k = jax.lax.dynamic_index_in_dim(cache.k, index, keepdims=False)
            v = jax.lax.dynamic_index_in_dim(cache.v, index, keepdims=False)
            return (block.finish(x, jax.nn.dot_product_attention(q, k, v, mask=mask)), cache), None

        (x, cache), _ = jax.lax.scan(step, (x, cache), (self.layers, jnp.arange(self.config.num_layers)))
        return self.norm(x), cache

    def logits(self, hidden: Array) -> Array:
        """Float32 logits (..., vocabulary) of final hidden states (..., d)."""
        table = self.embed[...] if self.head is None else self.head[...]
        return jnp.einsum("...d,vd->...v", hidden, table.astype(hidden.dtype), preferred_element_type=jnp.float32)


def rope_tables(c: LMConfig, positions: Array, dtype) -> tuple[Array, Array]:
    """cos and sin of the rotary embedding at `positions` (b, t): each (b, t, 1, k), computed in float32."""
    freq = 1.0 / (c.rope_theta ** (jnp.arange(0, c.head_dim, 2, dtype=jnp.float32) / c.head_dim))
    if (s := c.rope_scaling) is not None:
        wavelength = 2 * jnp.pi / freq
        ratio = s.original_max_position_embeddings / wavelength
        smooth = (ratio - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor)
        smooth = jnp.clip(smooth, 0.0, 1.0)
        freq = (1 - smooth) * freq / s.factor + smooth * freq
    angle = positions[..., None].astype(jnp.float32) * freq
    angle = jnp.concatenate([angle, angle], axis=-1)[:, :, None, :]
    return jnp.cos(angle).astype(dtype), jnp.sin(angle).astype(dtype)


def rotate(x: Array, rope: tuple[Array, Array]) -> Array:
    """Rotary position embedding (Su et al. 2021) in the half-split layout of Hugging Face checkpoints."""
    cos, sin = rope
    a, b = jnp.split(x, 2, axis=-1)
    return x * cos + jnp.concatenate([-b, a], axis=-1) * sin
