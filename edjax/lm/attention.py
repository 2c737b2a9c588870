"""Attention of grouped queries, with what the families add to it: another scale, a softcap, a sliding window."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from edjax.lm.linear import KEPT

Array = jax.Array


def softcapped(x: Array, cap: float | None) -> Array:
    """cap tanh(x / cap): x as it is while small, never beyond the cap (Gemma 2)."""
    return x if cap is None else cap * jnp.tanh(x / cap)


def wide(dtype: Any) -> Any:
    """The dtype of what 16 bits are too few for: float32, or float64 where the model itself is."""
    return jnp.promote_types(dtype, jnp.float32)


def attend(q: Array, k: Array, v: Array, mask: Array | None, *, scale: float, softcap: float | None = None) -> Array:
    """softmax(scale q k^T) v for q (b, t, h, d) and k, v (b, s, g, d), where g divides h.

    Args:
      mask: (b or 1, 1, t, s) bool, True where a query sees a key; None: causal, s = t.
      softcap: bounds the scores before the softmax.
    """
    # jax's own knows no softcap, has its softmax in float32, and on a CPU transposes the scores (docs/log.md).
    if jax.default_backend() != "cpu" and softcap is None and q.dtype != jnp.float64:
        y = jax.nn.dot_product_attention(q, k, v, mask=mask, is_causal=mask is None, scale=scale)
        return checkpoint_name(y, KEPT)
    if mask is None:
        mask = jnp.tril(jnp.ones((q.shape[1], k.shape[1]), bool))[None, None]
    return _grouped(q, k, v, mask, scale, softcap)


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _grouped(q: Array, k: Array, v: Array, mask: Array, scale: float, softcap: float | None) -> Array:
    """Attention whose backward pass has the softmax from its largest score and its sum instead of finding it again,
    and what all of a query's shares have in common from its output: two passes over the scores in place of six.

    The queries of a group are the rows of one product with its keys, so that nothing the size of the scores is ever
    transposed.
    """
    return _forward(q, k, v, mask, scale, softcap)[0]


def _forward(q: Array, k: Array, v: Array, mask: Array, scale: float, softcap: float | None):
    scores = _bounded(_products(_rows(q, k), k, q.shape[1]), mask, scale, softcap)
    top = scores.max(axis=-1, keepdims=True)
    shares = jnp.exp(scores - top)
    total = shares.sum(axis=-1, keepdims=True)
    shares = (shares / total).astype(v.dtype).reshape(*shares.shape[:2], -1, shares.shape[-1])
    y = _tokens(jnp.einsum("bgqs,bsgd->bgqd", shares, v), q.shape[1])
    # With q, k and v these are all that the backward pass needs; the shares, t s numbers a head, are found again.
    y, top, total = (checkpoint_name(kept, KEPT) for kept in (y, top, total))
    return y, (q, k, v, mask, y, top, total)


def _backward(scale: float, softcap: float | None, kept, dy: Array):
    q, k, v, mask, y, top, total = kept
    t, rows, drows = q.shape[1], _rows(q, k), _rows(dy, k)
    # Of shares p with gradient g the scores' gradient is p (g - sum p g), and sum p g over the keys is dy . y
    # (Dao et al. 2022, appendix B.2): so neither sum takes a pass over the scores.
    common = _rows((dy.astype(top.dtype) * y).sum(axis=-1, keepdims=True), k).reshape(top.shape)
    scores, pull = jax.vjp(lambda raw: _bounded(raw, mask, scale, softcap), _products(rows, k, t))
    shares = jnp.exp(scores - top) / total
    (dscores,) = pull(shares * (_products(drows, v, t) - common))
    shares, dscores = (s.astype(q.dtype).reshape(*s.shape[:2], -1, s.shape[-1]) for s in (shares, dscores))
    dq = _tokens(jnp.einsum("bgqs,bsgd->bgqd", dscores, k), t)
    return dq, jnp.einsum("bgqs,bgqd->bsgd", dscores, rows), jnp.einsum("bgqs,bgqd->bsgd", shares, drows), None


_grouped.defvjp(_forward, _backward)


def _rows(x: Array, k: Array) -> Array:
    """(b, t, h, d) as (b, g, h / g t, d)."""
    (b, t, _, d), g = x.shape, k.shape[2]
    return x.reshape(b, t, g, -1, d).transpose(0, 2, 3, 1, 4).reshape(b, g, -1, d)


def _tokens(rows: Array, t: int) -> Array:
    """What `_rows` undoes."""
    b, g, _, d = rows.shape
    return rows.reshape(b, g, -1, t, d).transpose(0, 3, 1, 2, 4).reshape(b, t, -1, d)


def _products(rows: Array, k: Array, t: int) -> Array:
    """rows k^T, (b, g, h / g, t, s)."""
    found = jnp.einsum("bgqd,bsgd->bgqs", rows, k, preferred_element_type=wide(rows.dtype))
    return found.reshape(*rows.shape[:2], -1, t, k.shape[1])


def _bounded(raw: Array, mask: Array, scale: float, softcap: float | None) -> Array:
    # Not minus infinity: a query that sees no key would then have the scores -inf - -inf, which is NaN.
    return jnp.where(mask[:, :, None], softcapped(scale * raw, softcap), jnp.finfo(raw.dtype).min)


def within(visible: Array | None, distance: Array | None, window: Array | None) -> Array | None:
    """The mask of one layer: `visible`, and where there is a window, no key `window` or more tokens back."""
    if window is None or visible is None or distance is None:
        return visible
    return visible & (distance < window)
