"""How the loss of every row of a batch changes along directions of one of its adapter's tensors."""

from __future__ import annotations

from collections.abc import Collection

import jax
import jax.numpy as jnp

from edjax.keep.errors import UsageError
from edjax.lm.attention import wide
from edjax.lm.batch import Batch
from edjax.lm.decoder import Array, CausalLM
from edjax.lm.head import token_nll
from edjax.lm.lora import adapter_of, projections


def values_shape(model: CausalLM) -> tuple[int, int]:
    """(r, g k): the shape of the last layer's B of the values, of v_proj or of the values' columns of qkv_proj.

    Raises:
      UsageError: the model has no adapter there.
    """
    c = model.config
    adapted = [name for name in projections(model) if getattr(model.layers, name).lora_b is not None]
    linear = getattr(model.layers, values_among(model, adapted))
    return adapter_of(linear)[1].shape[1], c.num_kv_heads * c.head_dim


def values_among(model: CausalLM, adapted: Collection[str]) -> str:
    """The projection of the values, by name, which must be one of those that have, or will have, an adapter.

    Raises:
      UsageError: it is not.
    """
    name = "qkv_proj" if model.config.fused_projections else "v_proj"
    if name not in adapted:
        raise UsageError(
            f"rows are compared by their slope in the last layer's {name} adapter, and there is none: "
            f"add {name} to lora_target_modules, or take all-linear"
        )
    return name


def value_slopes(model: CausalLM, batch: Batch, directions: Array) -> tuple[Array, Array]:
    """(l, c): the loss of every row, -ln P of its trained tokens in nats, (b,), and its slopes (b, z) along directions
    of the last layer's B of the values.

    c_iz = d/de l_i(B + e Z_z) at e = 0, exactly: no step has to be chosen, and nothing cancels in 16 bits. With x the
    layer's normed input and dv = d l_i / d values, c_iz = sum_t <dv_t, x_t A Z_z>. So one pass forward and one back
    through the last layer and the head give the slopes of all directions; forward mode would give the same numbers with
    a pass each, and has no rule for attention and head, which have a backward pass of their own.

    Args:
      model: with an adapter on the values (`values_shape`); there is no dropout here.
      batch: without an axis of micro-batches, unpacked.
      directions: (z, r, g k) float32.

    Cost: a forward pass, about one more of the last layer and the head, and b t r g k multiplications a direction.
    """
    last = model.last_values(jnp.asarray(batch.tokens))

    def nll(values: Array) -> Array:
        states = jnp.take_along_axis(last.hidden(values), batch.where[..., None], axis=1)
        return (token_nll(model, states, jnp.asarray(batch.targets)) * batch.weights).sum(1)

    losses, pull = jax.vjp(nll, last.values)
    exact = wide(last.values.dtype)
    (slope,) = pull(jnp.ones_like(losses))
    slope = slope.reshape(*slope.shape[:2], -1).astype(exact)
    assert last.linear.lora_a is not None
    low = (last.seen @ (last.linear.lora_scale * last.linear.lora_a[...]).astype(last.seen.dtype)).astype(exact)

    def along(direction: Array) -> Array:
        return jnp.sum(slope * (low @ direction.astype(exact)), axis=(1, 2))

    return losses, jax.lax.map(along, directions).T
