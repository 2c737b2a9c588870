"""Weights from a Hugging Face directory (safetensors, one file or an index of shards) into the decoder."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec
from safetensors import SafetensorError, safe_open

from edjax.errors import DataError
from edjax.lm.config import LMConfig
from edjax.lm.decoder import Array, CausalLM
from edjax.lm.families import FAMILIES
from edjax.lm.mesh import Mesh, check, spec_of

ATTENTION = ("q_proj", "k_proj", "v_proj", "qkv_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "gate_up_proj", "down_proj")
PROJECTIONS = {**dict.fromkeys(ATTENTION, "self_attn"), **dict.fromkeys(MLP, "mlp")}
PARENTS = {**PROJECTIONS, "q_norm": "self_attn", "k_norm": "self_attn"}
OUTSIDE = {
    ("embed",): "model.embed_tokens.weight",
    ("head",): "lm_head.weight",
    ("norm", "weight"): "model.norm.weight",
}
FLOATS = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
SCRATCH = 1 << 18  # values read from a file at a time
Sharding = NamedSharding | None


def shard_of(directory: Path) -> dict[str, Path]:
    """Which safetensors file holds each tensor. Only names inside the directory are followed."""
    single, index = directory / "model.safetensors", directory / "model.safetensors.index.json"
    try:
        if single.exists():
            with safe_open(single, "np") as f:
                return dict.fromkeys(f.keys(), single)
        if index.exists():
            table = json.loads(index.read_text())["weight_map"]
            for name in set(table.values()):
                if Path(name).name != name or name == "..":
                    raise DataError(f"{index} points outside its directory ({name!r}); refused")
                if not (directory / name).exists():
                    raise DataError(f"{directory / name} is missing, though {index.name} lists it")
            return {key: directory / name for key, name in table.items()}
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise DataError(f"{directory}: the weights cannot be read ({e}); fetch or convert the model again") from e
    if any(directory.glob("*.bin")) or any(directory.glob("*.pt*")):
        raise DataError(f"{directory} holds pickled weights only; edjax reads safetensors: convert them first")
    raise DataError(f"{directory} holds no model.safetensors and no model.safetensors.index.json")


class _Reader:
    """Tensors by name, one at a time, each shape checked.

    The files' headers are the safetensors library's to check; their data is read here, since a mapped file counts as
    memory of the process, and the library's tensors are copies of one.
    """

    def __init__(self, directory: Path, model_type: str):
        self.directory, self.where, self.model_type = directory, shard_of(directory), model_type
        self.headers: dict[Path, tuple[int, dict[str, Any]]] = {}

    def __call__(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """A new array of this dtype; beside it, SCRATCH values of the file are held."""
        if name not in self.where:
            raise DataError(f"{self.directory} has no tensor {name!r}; is it a complete {self.model_type} checkpoint?")
        path = self.where[name]
        damaged = f"{path}: tensor {name!r} cannot be read ({{}}); fetch or convert the model again"
        try:
            start, header = self.headers.get(path) or self.headers.setdefault(path, _header(path))
            entry = header[name]
        except (OSError, SafetensorError) as e:
            raise DataError(damaged.format(e)) from e
        except KeyError as e:
            raise DataError(damaged.format("it is not in the file")) from e
        if tuple(entry["shape"]) != shape:
            raise DataError(f"{path}: tensor {name!r} has shape {tuple(entry['shape'])}, the config asks for {shape}")
        if entry["dtype"] not in FLOATS:
            raise DataError(f"{path}: tensor {name!r} has dtype {entry['dtype']}; float32, float16 or bfloat16 is read")
        out, kind = _aligned(math.prod(shape), dtype), np.dtype(FLOATS[entry["dtype"]])
        with open(path, "rb", buffering=0) as f:
            f.seek(start + entry["data_offsets"][0])
            for at in range(0, len(out), SCRATCH):
                part = out[at : at + SCRATCH]
                values = np.fromfile(f, kind, len(part))
                if len(values) != len(part):
                    raise DataError(damaged.format("the file ends too early"))
                part[:] = values
        return out.reshape(shape)


def _header(path: Path) -> tuple[int, dict[str, Any]]:
    """Where a file's data begins, and its JSON header, once the library has found it sound."""
    with safe_open(path, "np"), open(path, "rb") as f:
        n = int.from_bytes(f.read(8), "little")
        return 8 + n, json.loads(f.read(n))


def _aligned(n: int, dtype: np.dtype) -> np.ndarray:
    """n values at an address that XLA:CPU can take over as it is."""
    raw = np.empty(n * dtype.itemsize + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + n * dtype.itemsize].view(dtype)


def load_weights(directory: Path, config: LMConfig, dtype: Any = jnp.float32, mesh: Mesh | None = None) -> CausalLM:
    """Read a checkpoint into a `CausalLM`, tensor by tensor, each put where it belongs before the next is read.

    Beside the model the host holds one tensor of the checkpoint (of one layer, for the layers' own), in `dtype`. On a
    mesh every process reads each tensor and hands its devices their parts.

    Args:
      mesh: the devices to lay the weights on (`edjax.lm.mesh`); None: jax's default device.

    Raises:
      DataError: a missing tensor, another shape or dtype than the config says, a value that is not finite, or
        pickled weights (never loaded).
      UsageError: a mesh that does not fit the model.
    """
    check(config, mesh)
    graph, state = nnx.split(nnx.eval_shape(lambda: CausalLM(config, rngs=nnx.Rngs(0))))
    read, to = _Reader(directory, config.model_type), np.dtype(dtype)
    flat = dict(nnx.to_flat_state(state))
    for path, variable in flat.items():
        lies = None if mesh is None else NamedSharding(mesh, spec_of(path, variable.shape, mesh))
        flat[path] = variable.replace(_parameter(path, variable.shape, config, read, to, lies))
    return nnx.merge(graph, nnx.from_flat_state(list(flat.items())))


def _parameter(path: tuple, shape: tuple, c: LMConfig, read: _Reader, dtype: np.dtype, lies: Sharding) -> Array:
    """One parameter of the decoder: a tensor, or the same tensor of every layer."""
    if path[-1] == "kernel":
        stack, piece = jnp.zeros(shape, dtype, device=lies), lies and _transposed(lies)
        for layer, name in enumerate(_names(path, c)):
            stack, finite = _fill(stack, _put(read(name, shape[:0:-1], dtype), piece), layer, lies)
            _refuse(read, name, finite)  # waits for the device, so that one tensor is under way at a time
        return stack
    if path[0] == "layers":
        name = ".".join(map(str, path))
        whole = np.stack([read(each, shape[1:], dtype) for each in _names(path, c)])
    else:
        name = OUTSIDE[path]
        whole = read(name, shape, dtype)
    value = _put(whole, lies)
    _refuse(read, name, _finite(value))
    return value


def _refuse(read: _Reader, name: str, finite: Array) -> None:
    if not bool(finite):
        raise DataError(f"{read.directory}: tensor {name} holds NaN or infinite values")


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
    return stack if lies is None else jax.lax.with_sharding_constraint(stack, lies), _finite(value)


@jax.jit
def _finite(value: Array) -> Array:
    return jnp.isfinite(value).all()


def _names(path: tuple, c: LMConfig) -> Iterator[str]:
    _, module, leaf = path
    suffix = "bias" if leaf == "bias" else "weight"
    name = FAMILIES[c.model_type].tensors.get(module, module)
    middle = f"{PARENTS[name]}.{name}" if name in PARENTS else name
    return (f"model.layers.{i}.{middle}.{suffix}" for i in range(c.num_layers))
