"""Weights from a Hugging Face directory (safetensors, one file or an index of shards) into the decoder."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from edjax.keep.errors import DataError
from edjax.lm.config import LMConfig
from edjax.lm.decoder import Array, CausalLM
from edjax.lm.families import FAMILIES
from edjax.lm.mesh import Mesh, check, spec_of
from edjax.lm.quantize import Quantized, quantized
from edjax.lm.tensors import Reader

ATTENTION = ("q_proj", "k_proj", "v_proj", "qkv_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "gate_up_proj", "down_proj")
PROJECTIONS = {**dict.fromkeys(ATTENTION, "self_attn"), **dict.fromkeys(MLP, "mlp")}
PARENTS = {**PROJECTIONS, "q_norm": "self_attn", "k_norm": "self_attn"}
OUTSIDE = {
    ("embed",): "model.embed_tokens.weight",
    ("head",): "lm_head.weight",
    ("norm", "weight"): "model.norm.weight",
}
Sharding = NamedSharding | None


def load_weights(
    directory: Path,
    config: LMConfig,
    dtype: Any = jnp.float32,
    quantize: str | None = None,
    mesh: Mesh | None = None,
) -> CausalLM:
    """Read a checkpoint into a `CausalLM`, tensor by tensor, each put where it belongs before the next is read.

    Beside the model the host holds one tensor of the checkpoint (of one layer, for the layers' own), in `dtype`. On a
    mesh every process reads each tensor and hands its devices their parts.

    Args:
      quantize: "int8" or "nf4" stores projections in 8 or 4 bits (`edjax.lm.quantize`), one stack of them dense on the
        device at a time; None: as they are.
      mesh: the devices to lay the weights on (`edjax.lm.mesh`); None: jax's default device.

    Raises:
      DataError: a missing tensor, one that has no place in the model, another shape or dtype than the config says, a
        value that is not finite, or pickled weights (never loaded).
      UsageError: a mesh that does not fit the model.
    """
    check(config, mesh)
    graph, state = nnx.split(nnx.eval_shape(lambda: CausalLM(config, rngs=nnx.Rngs(0))))
    read = Reader(directory, config.model_type)
    flat = dict(nnx.to_flat_state(state))
    used: set[str] = set()
    for path, variable in flat.items():
        names, each = _tensors(path, variable.shape, config)
        for name in names:
            read.check(name, each)  # before there is memory taken for any
        used.update(names)
    read.refuse_others(used)
    for path, variable in flat.items():
        lies = None if mesh is None else NamedSharding(mesh, spec_of(path, variable.shape, mesh))
        flat[path] = variable.replace(_parameter(path, variable.shape, config, read, np.dtype(dtype), quantize, lies))
    return nnx.merge(graph, nnx.from_flat_state(list(flat.items())))


def _tensors(path: tuple, shape: tuple[int, ...], c: LMConfig) -> tuple[list[str], tuple[int, ...]]:
    """The checkpoint's names of one parameter of the decoder, and the shape of each there."""
    return ([OUTSIDE[path]], shape) if path in OUTSIDE else (list(layer_names(path, c)), shape[:0:-1])


def _parameter(
    path: tuple,
    shape: tuple[int, ...],
    c: LMConfig,
    read: Reader,
    dtype: np.dtype,
    quantize: str | None,
    lies: Sharding,
) -> Array | Quantized:
    """One parameter of the decoder: a tensor, or the same tensor of every layer."""
    names, each = _tensors(path, shape, c)
    if path[-1] == "kernel":
        if quantize:
            return quantized(_stack(shape, names, each, read, np.dtype(np.float32), lies), quantize)
        return _stack(shape, names, each, read, dtype, lies)
    values = [read(name, each, dtype) for name in names]
    for name, value in zip(names, values, strict=True):
        _refuse(read, name, dtype, np.isfinite(value.sum(dtype=np.float64)))
    return _put(values[0] if path in OUTSIDE else np.stack(values), lies)


def _stack(
    shape: tuple[int, ...], names: list[str], each: tuple[int, ...], read: Reader, dtype: np.dtype, lies: Sharding
) -> Array:
    """The kernels of all layers, filled in on the device layer by layer."""
    stack, piece = jnp.zeros(shape, dtype, device=lies), lies and _transposed(lies)
    for layer, name in enumerate(names):
        stack, finite = _fill(stack, _put(read(name, each, dtype), piece), layer, lies)
        _refuse(read, name, dtype, finite)  # waits for the device, so that one tensor is under way at a time
    return stack


def _refuse(read: Reader, name: str, dtype: np.dtype, finite: Any) -> None:
    if not bool(finite):
        raise DataError(f"{read.where[name]}: tensor {name!r} holds NaN or infinite values as {dtype}")


def _put(value: np.ndarray, lies: Sharding) -> Array:
    return jax.device_put(value) if lies is None else jax.make_array_from_callback(value.shape, lies, value.__getitem__)


def _transposed(lies: NamedSharding) -> NamedSharding:
    """Where a layer's (out, in) tensor goes, so that it need not move to become (in, out) of the stack."""
    _, n_in, n_out = (*lies.spec, None, None, None)[:3]
    return NamedSharding(lies.mesh, PartitionSpec(n_out, n_in))


@functools.partial(jax.jit, donate_argnums=0, static_argnums=3)
def _fill(stack: Array, value: Array, layer: Array, lies: Sharding) -> tuple[Array, Array]:
    """The stack with value.T at `layer`, written in place, and whether all of it is finite."""
    stack = jax.lax.dynamic_update_index_in_dim(stack, value.T, layer, 0)
    return stack if lies is None else jax.lax.with_sharding_constraint(stack, lies), jnp.isfinite(value).all()


def layer_names(path: tuple, c: LMConfig) -> Iterator[str]:
    """The checkpoint's names of one stack of the decoder, layer by layer; kernels lie transposed there."""
    _, module, leaf = path
    suffix = "bias" if leaf == "bias" else "weight"
    name = FAMILIES[c.model_type].tensors.get(module, module)
    middle = f"{PARENTS[name]}.{name}" if name in PARENTS else name
    return (f"model.layers.{i}.{middle}.{suffix}" for i in range(c.num_layers))
