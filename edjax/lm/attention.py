"""Attention of grouped queries, with what the families add to it: another scale, a softcap, a sliding window."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array


def softcapped(x: Array, cap: float | None) -> Array:
    """cap tanh(x / cap): x as it is while small, never beyond the cap (Gemma 2)."""
    return x if cap is None else cap * jnp.tanh(x / cap)


def wide(dtype: Any) -> Any:
    """The dtype of what 16 bits are too few for: float32, or float64 where the model itself is."""
    return jnp.promote_types(dtype, jnp.float32)


def attend(q: Array, k: Array, v: Array, mask: Array | None, *, scale: float, softcap: float | None = None) -> Array:
    """softmax(scale q k^T) v for q (b, t, h, d) and k, v (b, s, g, d), where g divides h.

    The queries of a group are the rows of one product with its keys, so that nothing the size of the scores is ever
    transposed.

    Args:
      mask: (b or 1, 1, t, s) bool, True where a query sees a key; None: causal, s = t.
      softcap: bounds the scores before the softmax.
    """
    if jax.default_backend() != "cpu" and softcap is None and q.dtype != jnp.float64:  # its softmax is in float32
        return jax.nn.dot_product_attention(q, k, v, mask=mask, is_causal=mask is None, scale=scale)
    (b, t, h, d), (_, s, g, _) = q.shape, k.shape
    if mask is None:
        mask = jnp.tril(jnp.ones((t, s), bool))[None, None]
    rows = q.reshape(b, t, g, -1, d).transpose(0, 2, 3, 1, 4).reshape(b, g, -1, d)
    scores = jnp.einsum("bgqd,bsgd->bgqs", rows, k, preferred_element_type=wide(q.dtype)).reshape(b, g, -1, t, s)
    scores = jnp.where(mask[:, :, None], softcapped(scale * scores, softcap), jnp.finfo(scores.dtype).min)
    shares = jax.nn.softmax(scores, axis=-1).astype(v.dtype).reshape(b, g, -1, s)
    y = jnp.einsum("bgqs,bsgd->bgqd", shares, v)
    return y.reshape(b, g, -1, t, d).transpose(0, 3, 1, 2, 4).reshape(b, t, h, d)


def within(visible: Array | None, distance: Array | None, window: Array | None) -> Array | None:
    """The mask of one layer: `visible`, and where there is a window, no key `window` or more tokens back."""
    if window is None or visible is None or distance is None:
        return visible
    return visible & (distance < window)
