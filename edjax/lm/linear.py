"""Projections with room for a LoRA adapter, those of one input computed together.

The backward pass is written out for the sake of XLA:CPU, whose thin products (r columns) take several times longer
with the thin side last, and which sees through a transpose unless a barrier stands before it (docs/log.md).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from edjax.lm.quantize import Quantized, dense

Array = jax.Array
KEPT = "kept"  # the name of what a layer computes by matrix products, attention's output included


@jax.custom_vjp
def lora_products(
    x: Array, w: tuple[Array | Quantized, ...], a: tuple[Array, ...], b: tuple[Array, ...]
) -> tuple[Array, ...]:
    """x W + (x A) B of each projection, with frozen W: x (..., in), w (in, out), a (in, r), b (r, out).

    The A are one product, and so are their gradients. A quantised W is kept as it is for the backward pass and made
    dense there again.
    """
    return _forward(x, w, a, b)[0]


def _forward(x: Array, w: tuple[Array | Quantized, ...], a: tuple[Array, ...], b: tuple[Array, ...]):
    low = checkpoint_name(x @ jnp.concatenate(a, axis=-1), KEPT)
    lows = jnp.split(low, _ends(a), axis=-1)
    return tuple(x @ dense(w, x.dtype) + low @ b for w, low, b in zip(w, lows, b, strict=True)), (x, low, w, a, b)


def _backward(kept, dys: tuple[Array, ...]):
    x, low, w, a, b = kept
    flat, low, *dflats = (v.reshape(-1, v.shape[-1]) for v in (x, low, *dys))
    thin = jnp.concatenate([dy @ b.T for dy, b in zip(dflats, b, strict=True)], axis=-1)
    dx = sum((dy @ dense(w, dy.dtype).T for dy, w in zip(dflats, w, strict=True)), thin @ jnp.concatenate(a, axis=-1).T)
    da = jnp.split(jax.lax.optimization_barrier(thin.T @ flat), _ends(a))
    db = [low.T @ dy for low, dy in zip(jnp.split(low, _ends(a), axis=-1), dflats, strict=True)]
    return dx.reshape(x.shape), None, tuple(d.T for d in da), tuple(db)


def _ends(a: tuple[Array, ...]) -> list[int]:
    return list(itertools.accumulate(v.shape[-1] for v in a))[:-1]


lora_products.defvjp(_forward, _backward)


def dropout(x: Array, rate: float, key: Array) -> Array:
    """x with a share `rate` of its entries 0 and the others divided by 1 - rate (Srivastava et al. 2014)."""
    return jnp.where(jax.random.bernoulli(key, 1.0 - rate, x.shape), x / (1.0 - rate), jnp.zeros((), x.dtype))


class Linear(nnx.Module):
    """y = x W (+ bias) (+ scale (x A) B): a stack of L projections, with room for a LoRA adapter.

    `kernel` is (L, in, out); `lora_a` (L, in, r) and `lora_b` (L, r, out) are None until `edjax.lm.lora.add_lora`.
    Given a key, the adapter sees x with a share `lora_dropout` of its entries left out; `lora_place` tells apart the
    projections that share a key.
    """

    def __init__(self, layers: int, n_in: int, n_out: int, *, bias: bool, rngs: nnx.Rngs):
        self.kernel = nnx.Param(0.02 * jax.random.normal(rngs.params(), (layers, n_in, n_out)))
        self.bias = nnx.Param(jnp.zeros((layers, n_out))) if bias else nnx.data(None)
        self.lora_a: nnx.LoRAParam | None = nnx.data(None)
        self.lora_b: nnx.LoRAParam | None = nnx.data(None)
        self.lora_scale, self.lora_dropout, self.lora_place = 0.0, 0.0, 0

    def __call__(self, x: Array, key: Array | None = None) -> Array:
        return project(x, (self,), key)[0]


def project(x: Array, linears: Sequence[Linear], key: Array | None = None) -> tuple[Array, ...]:
    """The outputs of projections of one input."""
    joint = [lin for lin in linears if lin.lora_a is not None and (key is None or not lin.lora_dropout)]
    ys = {}
    if joint:
        a, b = zip(*(_adapter(lin, x.dtype) for lin in joint), strict=True)
        found = lora_products(x, tuple(lin.kernel[...] for lin in joint), a, b)
        ys = {id(lin): y for lin, y in zip(joint, found, strict=True)}
    return tuple(_biased(lin, ys[id(lin)] if id(lin) in ys else _alone(lin, x, key)) for lin in linears)


def _adapter(lin: Linear, dtype) -> tuple[Array, Array]:
    """A, scaled, and B of a projection that has an adapter."""
    assert lin.lora_a is not None and lin.lora_b is not None
    return (lin.lora_scale * lin.lora_a[...]).astype(dtype), lin.lora_b[...].astype(dtype)


def _alone(lin: Linear, x: Array, key: Array | None) -> Array:
    y = x @ dense(lin.kernel[...], x.dtype)
    if lin.lora_a is None:
        return y
    assert key is not None
    a, b = _adapter(lin, x.dtype)
    return y + (dropout(x, lin.lora_dropout, jax.random.fold_in(key, lin.lora_place)) @ a) @ b


def _biased(lin: Linear, y: Array) -> Array:
    return checkpoint_name(y if lin.bias is None else y + lin.bias[...].astype(y.dtype), KEPT)
