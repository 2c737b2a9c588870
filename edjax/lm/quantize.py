"""Frozen base weights in 8 or 4 bits: QLoRA's way (Dettmers et al. 2023), with adapters in float32 on top.

`qwix.quantize_model` cannot do this to the decoder: it swaps parameters while the forward pass is traced, and flax
refuses that inside `lax.scan` ("Cannot mutate 'Linear' from different trace level"). So each stack of projections is
quantised on its own when it is read, stays so in memory, and one layer at a time becomes dense inside the scan.
Embedding, output head, norms and biases stay as they are.
"""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from edjax.keep.errors import DataError, EnvError, UsageError

Array = jax.Array
KINDS = ("int8", "nf4")
BLOCK = 64  # rows that share a scale in nf4


@functools.partial(jax.tree_util.register_dataclass, data_fields=("codes", "scale"), meta_fields=("kind",))
@dataclass(frozen=True)
class Quantized:
    """A kernel (..., in, out) as codes and float32 scales.

    int8: `codes` (..., in, out) int8, `scale` (..., 1, out); w = code x scale.
    nf4: `codes` (..., in / 2, out) uint8, rows i and i + in/2 in the low and high four bits, `scale` (..., in / block,
    out); w = table[code] x scale, with the 16 quantiles of a normal distribution as table.
    """

    codes: Array
    scale: Array
    kind: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the dense kernel."""
        *rest, n_in, n_out = self.codes.shape
        return (*rest, n_in * (2 if self.kind == "nf4" else 1), n_out)

    def __getitem__(self, layer: Any) -> Quantized:
        """One layer of a stack; `...` is the stack."""
        return jax.tree.map(lambda a: a[layer], self)


def check(kind: str) -> None:
    """Refuse what cannot be done before a model is read.

    Raises:
      UsageError: an unknown kind. EnvError: qwix is missing.
    """
    if kind == "none":
        return
    if kind not in KINDS:
        raise UsageError(f"quantize {kind!r} is not one of none, {', '.join(KINDS)}")
    if importlib.util.find_spec("qwix") is None:
        raise EnvError(f"quantize {kind} needs the package qwix: pip install 'edjax[quant]'")


def quantized(kernel: Array, kind: str) -> Quantized:
    """A stack of kernels (L, in, out) rounded to the nearest code; scales are the largest magnitude they cover.

    Raises:
      DataError: nf4 of an odd number of inputs.
    """
    import qwix

    n_in = kernel.shape[1]
    kernel = kernel.astype(jnp.float32)
    if kind == "int8":
        q = qwix.quantize(kernel, jnp.int8, channelwise_axes=(0, 2))
        return Quantized(q.qvalue, q.scale, kind)
    if n_in % 2:
        raise DataError(f"nf4 packs two inputs into a byte, and a projection of this model has {n_in}; use int8")
    # QLoRA's 64 where it divides: qwix cuts an axis into equal tiles only.
    block = max(d for d in range(1, BLOCK + 1) if n_in % d == 0)
    q = qwix.quantize(kernel, kind, channelwise_axes=(0, 2), tiled_axes={1: block})
    # Halves and not neighbours share a byte: then unpacking is a concatenation, and nothing is interleaved.
    low, high = jnp.split(q.qvalue.astype(jnp.uint8), 2, axis=1)
    return Quantized(low | (high << 4), q.scale, kind)


def dense(kernel: Array | Quantized, dtype: Any) -> Array:
    """The kernel as an array of this dtype."""
    if not isinstance(kernel, Quantized):
        return kernel.astype(dtype)
    import qwix

    codes = kernel.codes
    if kernel.kind == "nf4":
        codes = jnp.concatenate([codes & 15, codes >> 4], axis=-2).astype(jnp.uint4)
    qtype = codes.dtype if kernel.kind == "int8" else kernel.kind
    return qwix.dequantize(qwix.QArray(codes, kernel.scale, None, qtype)).astype(dtype)
