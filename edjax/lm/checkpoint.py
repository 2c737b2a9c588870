"""Weights from a Hugging Face directory (safetensors, one file or an index of shards) into the decoder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from flax import nnx
from safetensors import SafetensorError, safe_open

from edjax.errors import DataError
from edjax.lm.config import LMConfig
from edjax.lm.decoder import CausalLM
from edjax.lm.families import FAMILIES
from edjax.lm.quantize import quantized

ATTENTION = ("q_proj", "k_proj", "v_proj", "qkv_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "gate_up_proj", "down_proj")
PROJECTIONS = {**dict.fromkeys(ATTENTION, "self_attn"), **dict.fromkeys(MLP, "mlp")}
PARENTS = {**PROJECTIONS, "q_norm": "self_attn", "k_norm": "self_attn"}
OUTSIDE = {
    ("embed",): "model.embed_tokens.weight",
    ("head",): "lm_head.weight",
    ("norm", "weight"): "model.norm.weight",
}


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


def as_float(path: Path, name: str, value: np.ndarray) -> np.ndarray:
    """The tensor itself, if its dtype is one that weights have."""
    if not np.issubdtype(value.dtype, np.floating) and value.dtype != ml_dtypes.bfloat16:
        raise DataError(f"{path}: tensor {name!r} has dtype {value.dtype}; float32, float16 or bfloat16 is read")
    return value


class _Reader:
    """Tensors by name, one at a time, each shape checked."""

    def __init__(self, directory: Path, model_type: str):
        self.directory, self.where, self.model_type = directory, shard_of(directory), model_type
        self.open: dict[Path, Any] = {}

    def check(self, name: str, shape: tuple[int, ...]) -> Path:
        """The file of a tensor, which is there and has this shape; nothing of it is read."""
        if name not in self.where:
            raise DataError(f"{self.directory} has no tensor {name!r}; is it a complete {self.model_type} checkpoint?")
        path = self.where[name]
        try:
            if path not in self.open:
                self.open[path] = safe_open(path, "np")
            found = tuple(self.open[path].get_slice(name).get_shape())
        except SafetensorError as e:
            raise DataError(f"{path}: tensor {name!r} cannot be read ({e}); fetch or convert the model again") from e
        if found != shape:
            raise DataError(f"{path}: tensor {name!r} has shape {found}, the config asks for {shape}")
        return path

    def __call__(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        path = self.check(name, shape)
        return as_float(path, name, self.open[path].get_tensor(name))


def load_weights(directory: Path, config: LMConfig, dtype: Any = jnp.float32, quantize: str | None = None) -> CausalLM:
    """Read a checkpoint into a `CausalLM`, tensor by tensor.

    Host memory holds one stacked projection at a time beside what is already on the device. `quantize` stores each in
    8 or 4 bits there (`edjax.lm.quantize`).

    Raises:
      DataError: a missing tensor, another shape or dtype than the config says, a value that is not finite, or
        pickled weights (never loaded).
    """
    graph, state = nnx.split(nnx.eval_shape(lambda: CausalLM(config, rngs=nnx.Rngs(0))))
    read = _Reader(directory, config.model_type)
    flat = dict(nnx.to_flat_state(state))
    for path, variable in flat.items():
        names, shape = _sources(path, variable.shape, config)
        low = quantize is not None and path[-1] == "kernel"  # from the checkpoint's own values
        value = _tensor(names, shape, variable.shape, read, np.dtype(jnp.float32 if low else dtype))
        array = jax.device_put(value)
        if not bool(jnp.isfinite(jnp.sum(jnp.abs(array), dtype=jnp.float32))):
            name = next((n for n in names if not np.isfinite(read(n, shape).astype(np.float32)).all()), names[0])
            raise DataError(f"{read.where[name]}: tensor {name!r} holds NaN or infinite values as {value.dtype}")
        flat[path] = variable.replace(quantized(array, quantize) if quantize and low else array)
    return nnx.merge(graph, nnx.from_flat_state(list(flat.items())))


def _tensor(
    names: Sequence[str], shape: tuple[int, ...], whole: tuple[int, ...], read: _Reader, dtype: np.dtype
) -> np.ndarray:
    """The tensors of these names, each of this shape, as one array; kernels are transposed, layers stacked."""
    for name in names:
        read.check(name, shape)  # before there is memory taken for them
    if whole == shape:
        return read(names[0], shape).astype(dtype)
    out = np.empty(whole, dtype)
    for i, name in enumerate(names):
        out[i] = read(name, shape).T
    return out


def _sources(path: tuple, whole: tuple[int, ...], c: LMConfig) -> tuple[list[str], tuple[int, ...]]:
    """The checkpoint's names of the tensors that make up one array of the decoder, and the shape of each."""
    return ([OUTSIDE[path]], whole) if path in OUTSIDE else (list(layer_names(path, c)), whole[:0:-1])


def layer_names(path: tuple, c: LMConfig) -> Iterator[str]:
    """The checkpoint's names of one stack of the decoder, layer by layer; kernels lie transposed there."""
    _, module, leaf = path
    suffix = "bias" if leaf == "bias" else "weight"
    name = FAMILIES[c.model_type].tensors.get(module, module)
    middle = f"{PARENTS[name]}.{name}" if name in PARENTS else name
    return (f"model.layers.{i}.{middle}.{suffix}" for i in range(c.num_layers))
