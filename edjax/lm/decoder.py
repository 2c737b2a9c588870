"""A config-driven decoder in Flax NNX: layers stacked along a leading axis and run by one `lax.scan`.

What sets the families apart are fields of `LMConfig`; what differs from layer to layer (sliding window, rotary
embedding) is scanned beside the weights.

Shapes: b rows, t tokens, L layers, h query heads, g key-value heads, k head size, d hidden size. Padding is on the
right, so causal attention alone keeps real tokens from seeing it: every output at a real position is the same whatever
the padding or the rest of the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from edjax.lm.attention import attend, softcapped, wide, within
from edjax.lm.config import ACTIVATIONS, LMConfig
from edjax.lm.linear import KEPT, Linear, project
from edjax.lm.mesh import ROWS, TENSOR, constrain, gather_layer, gather_table, rows
from edjax.lm.rope import Rope, rope_tables, rotate

Array = jax.Array


class Cache(NamedTuple):
    """Keys (already rotated) and values of every layer, each (L, b, slots, g, k)."""

    k: Array
    v: Array

    def grow(self, slots: int) -> Cache:
        """The same cache with `slots` empty places more."""
        pad = ((0, 0), (0, 0), (0, slots), (0, 0), (0, 0))
        return Cache(jnp.pad(self.k, pad), jnp.pad(self.v, pad))


class RMSNorm(nnx.Module):
    """x / rms(x) * (offset + weight), computed in float32 or more (Zhang & Sennrich 2019)."""

    def __init__(self, shape: tuple[int, ...], c: LMConfig):
        self.weight = nnx.Param(jnp.full(shape, 1.0 - c.norm_offset))
        self.eps, self.offset = c.rms_norm_eps, c.norm_offset

    def __call__(self, x: Array) -> Array:
        y = x.astype(wide(x.dtype))
        y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + self.eps)
        # In 16 bits the order shows: Gemma, whose norms have the offset, multiplies and then rounds to the model's
        # dtype; Llama rounds and then multiplies.
        if self.offset:
            return ((self.offset + self.weight[...].astype(y.dtype)) * y).astype(x.dtype)
        return self.weight[...].astype(x.dtype) * y.astype(x.dtype)


class Block(nnx.Module):
    """L transformer layers as one stack; inside the scan, `self` is one of them."""

    def __init__(self, c: LMConfig, rngs: nnx.Rngs):
        n, d, f = c.num_layers, c.hidden_size, c.intermediate_size
        q, kv = c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim

        def linear(n_in: int, n_out: int, bias: bool) -> Linear:
            return Linear(n, n_in, n_out, bias=bias, rngs=rngs)

        def norm(wanted: bool, width: int):
            return RMSNorm((n, width), c) if wanted else nnx.data(None)

        self.config = c
        before, after = c.norm_placement in ("pre", "both"), c.norm_placement in ("post", "both")
        self.input_layernorm = norm(before, d)
        if c.fused_projections:
            self.qkv_proj = linear(d, q + 2 * kv, c.qkv_bias)
        else:
            self.q_proj = linear(d, q, c.qkv_bias)
            self.k_proj = linear(d, kv, c.qkv_bias)
            self.v_proj = linear(d, kv, c.qkv_bias)
        self.q_norm = norm(c.qk_norm is not None, q if c.qk_norm == "full" else c.head_dim)
        self.k_norm = norm(c.qk_norm is not None, kv if c.qk_norm == "full" else c.head_dim)
        self.o_proj = linear(q, d, c.o_bias)
        self.post_attention_layernorm = norm(after, d)
        self.pre_feedforward_layernorm = norm(before, d)
        if c.fused_projections:
            self.gate_up_proj = linear(d, 2 * f, c.mlp_bias)
        else:
            self.gate_proj = linear(d, f, c.mlp_bias)
            self.up_proj = linear(d, f, c.mlp_bias)
        self.down_proj = linear(f, d, c.mlp_bias)
        self.post_feedforward_layernorm = norm(after, d)

    def qkv(self, x: Array, rope: tuple[Array, Array], key: Array | None = None) -> tuple[Array, Array, Array]:
        """Queries (b, t, h, k), keys and values (b, t, g, k) of the stream; queries and keys are rotated.

        `key`, here and below, is for the adapter's dropout; None: there is none.
        """
        c, (b, t, _) = self.config, x.shape
        x = _normed(self.input_layernorm, x)
        if c.fused_projections:
            ends = (c.num_heads * c.head_dim, (c.num_heads + c.num_kv_heads) * c.head_dim)
            q, k, v = jnp.split(self.qkv_proj(x, key), ends, axis=-1)
        else:
            q, k, v = project(x, (self.q_proj, self.k_proj, self.v_proj), key)
        # "full" norms all heads of a token as one vector, so before they are told apart; "head" each by itself.
        if c.qk_norm == "full":
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = (constrain(y.reshape(b, t, -1, c.head_dim), ROWS, None, TENSOR) for y in (q, k, v))
        if c.qk_norm == "head":
            q, k = self.q_norm(q), self.k_norm(k)
        # Attention's backward pass needs queries and keys rotated; v was kept where it was projected.
        return checkpoint_name(rotate(q, rope), KEPT), checkpoint_name(rotate(k, rope), KEPT), v

    def attend(self, x: Array, q: Array, k: Array, v: Array, mask: Array | None, key: Array | None = None) -> Array:
        """The stream after attention and MLP, each added to it."""
        c = self.config
        y = attend(q, k, v, mask, scale=c.attention_scale, softcap=c.attn_logit_softcapping)
        x = x + _normed(self.post_attention_layernorm, self.o_proj(y.reshape(*x.shape[:2], -1), key))
        y = self._mlp(_normed(self.pre_feedforward_layernorm, x), key)
        return rows(x + _normed(self.post_feedforward_layernorm, y))

    def _mlp(self, x: Array, key: Array | None) -> Array:
        if self.config.fused_projections:
            gate, up = jnp.split(self.gate_up_proj(x, key), 2, axis=-1)
        else:
            gate, up = project(x, (self.gate_proj, self.up_proj), key)
        gate, up = (constrain(y, ROWS, None, TENSOR) for y in (gate, up))
        return self.down_proj(ACTIVATIONS[self.config.hidden_act](gate) * up, key)


def _normed(norm: RMSNorm | None, x: Array) -> Array:
    return x if norm is None else norm(x)


class PerLayer(NamedTuple):
    """What differs from layer to layer, (L,) each; None where nothing does.

    `window` is how many tokens a token sees, itself included; `rope` a place in the tables of `Sight.ropes`.
    """

    window: Array | None
    rope: Array | None

    @classmethod
    def of(cls, c: LMConfig, length: int) -> PerLayer:
        """For sequences of at most `length` tokens."""
        # No window is one that reaches beyond any row: layers with and without one are then steps of one scan.
        far, kinds = jnp.iinfo(jnp.int32).max, _distinct(c.ropes)
        return cls(
            jnp.asarray([w or far for w in c.sliding_windows], jnp.int32) if c.windowed(length) else None,
            jnp.asarray([kinds.index(rope) for rope in c.ropes]) if len(kinds) > 1 else None,
        )


class Sight(NamedTuple):
    """What tokens see: cos and sin of each rotary embedding, (ropes, b, t, 1, k); the mask without windows, (b or 1,
    1, t, s), None where it is plainly causal; and how many tokens back a key is, of the same shape."""

    ropes: tuple[Array, Array]
    visible: Array | None
    distance: Array | None

    def of(self, layer: PerLayer) -> tuple[tuple[Array, Array], Array | None]:
        """(cos, sin) and the mask of one layer."""
        cos, sin = self.ropes
        which = 0 if layer.rope is None else layer.rope
        return (cos[which], sin[which]), within(self.visible, self.distance, layer.window)


def _distinct(ropes: tuple[Rope | None, ...]) -> list[Rope | None]:
    return list(dict.fromkeys(ropes))


class LastValues(NamedTuple):
    """The last layer on the way: the projection that makes its values, what that sees (b, t, d), the values
    (b, t, g, k), and the final hidden states as a function of values."""

    linear: Linear
    seen: Array
    values: Array
    hidden: Callable[[Array], Array]


class CausalLM(nnx.Module):
    """Token embedding, the layer stack, final norm, and the output head (tied to the embedding or its own)."""

    def __init__(self, config: LMConfig, *, rngs: nnx.Rngs):
        self.config = config
        table = 0.02 * jax.random.normal(rngs.params(), (config.vocab_size, config.hidden_size))
        self.embed = nnx.Param(table)
        self.layers = Block(config, rngs)
        self.norm = RMSNorm((config.hidden_size,), config)
        head = 0.02 * jax.random.normal(rngs.params(), (config.vocab_size, config.hidden_size))
        self.head = nnx.data(None) if config.tie_word_embeddings else nnx.Param(head)

    def hidden(
        self, tokens: Array, *, segments: Array | None = None, remat: bool = False, key: Array | None = None
    ) -> Array:
        """Final hidden states (b, t, d) of right-padded tokens (b, t); no cache is kept. For training.

        Args:
          segments: (b, t) int32, which of the sequences packed into a row a token belongs to; tokens see their own
            sequence only and are numbered from its beginning. None: a row is one sequence.
          remat: recompute each layer in the backward pass instead of keeping its activations. Without it the results
            of matrix products are kept and the rest, which costs next to nothing, is computed again: keeping
            everything takes three times the memory and, where that must be fetched from the system first, as on a
            CPU, longer.
          key: for the adapter's dropout; None: no dropout.
        """
        x = self._embedded(tokens)
        sight, layers = self._whole(tokens, x.dtype, segments)
        keys = None if key is None else jax.random.split(key, self.config.num_layers)

        def step(x, scanned):
            block, layer, key = scanned
            block = gather_layer(block)
            rope, mask = sight.of(layer)
            return block.attend(x, *block.qkv(x, rope, key), mask, key), None

        # Inside a scan the forward and the backward pass are loops of their own, so XLA cannot merge what is computed
        # again with what was computed first, and the barriers that would keep it from that only cost.
        policy = None if remat else jax.checkpoint_policies.save_only_these_names(KEPT)
        step = jax.checkpoint(step, prevent_cse=False, policy=policy)
        x, _ = jax.lax.scan(step, x, (self.layers, layers, keys))
        return self.norm(x)

    def last_values(self, tokens: Array) -> LastValues:
        """Run whole sequences, right-padded tokens (b, t), up to the values of the last layer; on one device."""
        last = self.config.num_layers - 1
        x = self._embedded(tokens)
        sight, layers = self._whole(tokens, x.dtype)

        def at(i: Array | int) -> tuple[Block, PerLayer]:
            return jax.tree.map(lambda v: jax.lax.dynamic_index_in_dim(v, i, keepdims=False), (self.layers, layers))

        def step(i: Array, x: Array) -> Array:
            block, own = at(i)
            rope, mask = sight.of(own)
            return block.attend(x, *block.qkv(x, rope), mask)

        # A scan over all layers but one would copy their weights first.
        x = jax.lax.fori_loop(0, last, step, x)
        block, own = at(last)
        rope, mask = sight.of(own)
        q, k, v = block.qkv(x, rope)
        linear = block.qkv_proj if self.config.fused_projections else block.v_proj
        return LastValues(
            linear, _normed(block.input_layernorm, x), v, lambda v: self.norm(block.attend(x, q, k, v, mask))
        )

    def _embedded(self, tokens: Array) -> Array:
        x = rows(gather_table(self.embed[...])[tokens])
        # Gemma's factor is rounded to the model's dtype itself: 55.5 in bfloat16 where sqrt(3072) is 55.43.
        return x if self.config.embed_scale == 1.0 else x * jnp.asarray(self.config.embed_scale, x.dtype)

    def _ropes(self, positions: Array, dtype) -> tuple[Array, Array]:
        return rope_tables(_distinct(self.config.ropes), self.config.rotary_dim, positions, dtype)

    def _whole(self, tokens: Array, dtype, segments: Array | None = None) -> tuple[Sight, PerLayer]:
        """What tokens of whole sequences see."""
        place = jnp.arange(tokens.shape[1])
        positions, layers = place[None], PerLayer.of(self.config, tokens.shape[1])
        distance = None if layers.window is None else (place[:, None] - place)[None, None]
        visible = None if distance is None else distance >= 0
        if segments is not None:
            # The latest beginning at or before a token is its own sequence's. `distance` stands as it is: inside a
            # sequence, places in the row are as far apart as positions. Padding is segment 0 and sees padding, so no
            # token has an empty row of the mask.
            first = jnp.pad(segments[:, 1:] != segments[:, :-1], ((0, 0), (1, 0)))
            positions = place - jax.lax.cummax(jnp.where(first, place, 0), axis=1)
            visible = (segments[:, None, :, None] == segments[:, None, None, :]) & (place[:, None] >= place)
        return Sight(self._ropes(positions, dtype), visible, distance), layers

    def prefill(self, tokens: Array, *, layer: int | tuple[int, ...] = -1) -> tuple[Array, Any, Cache]:
        """Run whole sequences and keep their keys and values.

        Args:
          tokens: (b, t) int32, right-padded.
          layer: whose hidden states to hand back beside the last ones, as `transformers` counts `hidden_states`:
            0 the embeddings, i the output of layer i, -1 or L the last, after the final norm. Several in one pass
            may be asked for.

        Returns:
          (hidden (b, t, d) after the final norm, hidden states of `layer` (b, t, d), or a tuple of them where a tuple
          was asked for, cache of t slots).
        """
        c = self.config
        wanted = [i % (c.num_layers + 1) for i in ((layer,) if isinstance(layer, int) else layer)]
        inner = sorted({*wanted} - {0, c.num_layers})
        # The ends of the stack are at hand outside the scan. States in between go into as many places of the carry:
        # as outputs of the scan those of every layer would be kept. A place beyond the last is dropped.
        place = jnp.asarray([inner.index(i) if i in inner else len(inner) for i in range(1, c.num_layers + 1)])
        x = self._embedded(tokens)
        sight, layers = self._whole(tokens, x.dtype)

        def step(carry, scanned):
            (x, kept), (block, own, at) = carry, scanned
            block = gather_layer(block)
            rope, mask = sight.of(own)
            q, k, v = block.qkv(x, rope)
            x = block.attend(x, q, k, v, mask)
            return (x, kept.at[at].set(x, mode="drop") if inner else kept), (k, v)

        first, kept = x, jnp.zeros((len(inner), *x.shape), x.dtype)
        (x, kept), (k, v) = jax.lax.scan(step, (x, kept), (self.layers, layers, place))
        hidden = self.norm(x)
        states = {0: first, c.num_layers: hidden} | {i: kept[at] for at, i in enumerate(inner)}
        found = tuple(states[i] for i in wanted)
        return hidden, found[0] if isinstance(layer, int) else found, Cache(k, v)

    def extend(self, tokens: Array, cache: Cache, slot: Array | int, positions: Array, valid: Array):
        """Run further tokens of sequences whose beginning is in the cache.

        Args:
          tokens: (b, t) int32; they may see each other causally.
          cache: written in place at slots [slot, slot + t).
          slot: the first slot to write, the same for every row.
          positions: (b, t) int32, the tokens' places in their own sequences (for the rotation).
          valid: (b, slots) bool, which slots written earlier hold real tokens: all of the row's, in order.

        Returns:
          (hidden (b, t, d) after the final norm, the cache).
        """
        t, slots = tokens.shape[1], cache.k.shape[2]
        x = self._embedded(tokens)
        place = jnp.arange(slots)
        ahead = place[None, :] - slot - jnp.arange(t)[:, None]
        own = (place >= slot)[None, :] & (ahead <= 0)
        earlier = valid & (place < slot)  # what `valid` says of slots that are written here is not looked at
        layers, distance = PerLayer.of(self.config, slots), None
        if layers.window is not None:
            # Prompts of unlike length share slots, so a slot is no position: that of a key is how many real ones lie
            # before it in its row.
            where = jnp.cumsum(earlier | (place >= slot), axis=1) - 1
            distance = (positions[:, :, None] - where[:, None, :])[:, None]
        sight = Sight(self._ropes(positions, x.dtype), earlier[:, None, None, :] | own[None, None], distance)

        def step(carry, scanned):
            (x, cache), (block, layer, index) = carry, scanned
            block = gather_layer(block)
            rope, mask = sight.of(layer)
            q, k, v = block.qkv(x, rope)
            at = (index, 0, slot, 0, 0)  # the cache is carried and not scanned over: outputs would be a second one
            cache = Cache(
                jax.lax.dynamic_update_slice(cache.k, k[None], at), jax.lax.dynamic_update_slice(cache.v, v[None], at)
            )
            k = jax.lax.dynamic_index_in_dim(cache.k, index, keepdims=False)
            v = jax.lax.dynamic_index_in_dim(cache.v, index, keepdims=False)
            return (block.attend(x, q, k, v, mask), cache), None

        (x, cache), _ = jax.lax.scan(step, (x, cache), (self.layers, layers, jnp.arange(self.config.num_layers)))
        return self.norm(x), cache

    def logits(self, hidden: Array, *, vocabulary_first: bool = False) -> Array:
        """Logits (..., vocabulary), or (vocabulary, ...), float32 or more, of final hidden states (..., d)."""
        table = self.embed[...] if self.head is None else self.head[...]
        table, exact = gather_table(table).astype(hidden.dtype), wide(hidden.dtype)
        if vocabulary_first:
            scores = jnp.einsum("vd,...d->v...", table, hidden, preferred_element_type=exact)
        else:
            scores = jnp.einsum("...d,vd->...v", hidden, table, preferred_element_type=exact)
        return softcapped(scores, self.config.final_logit_softcapping)
