"""An adapter folded into its base weights: W + s A B, in memory or as a whole model in Hugging Face format."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx

from edjax.keep.errors import UsageError
from edjax.keep.store import atomic_write, read_json, sha256_file, sha256_json, write_json, writing
from edjax.lm.adapter import adapter_notes, trained_template
from edjax.lm.checkpoint import OUTSIDE, layer_names
from edjax.lm.decoder import Array, CausalLM
from edjax.lm.linear import Linear
from edjax.lm.load import TOKENIZER, LoadedModel, digest, load, locate
from edjax.lm.lora import projections
from edjax.lm.peft import CONFIG, WEIGHTS, import_adapter
from edjax.lm.quantize import Quantized

SHARD_BYTES = 4 << 30
BESIDE = (*TOKENIZER, "special_tokens_map.json", "added_tokens.json", "generation_config.json")
CODES = {"float32": "F32", "bfloat16": "BF16"}


def merged_kernel(linear: Linear, layer: int | slice = slice(None)) -> Array:
    """W + s A B of one layer, or of the stack; computed in float32 and rounded once, to W's dtype."""
    w = linear.kernel[...][layer]
    if linear.lora_a is None or linear.lora_b is None:
        return w
    a, b = linear.lora_a[...][layer], linear.lora_b[...][layer]
    delta = jnp.einsum("...ir,...ro->...io", a, b, precision="highest")
    return (w.astype(jnp.float32) + linear.lora_scale * delta).astype(w.dtype)


def _refuse_quantised(model: CausalLM) -> None:
    for name in projections(model):
        if isinstance(w := getattr(model.layers, name).kernel[...], Quantized):
            raise UsageError(f"the model's projections are {w.kind}; merge into one that was loaded without quantize")


def merge_lora(model: CausalLM) -> CausalLM:
    """The model without its adapter and with the same outputs; `model` stays as it was.

    Raises:
      UsageError: weights that are quantised.
    """
    _refuse_quantised(model)
    graph, state = nnx.split(model)
    merged = nnx.merge(graph, state)
    for name in projections(merged):
        linear = getattr(merged.layers, name)
        if linear.lora_a is not None:
            linear.kernel = nnx.Param(merged_kernel(linear))
            linear.lora_a = linear.lora_b = nnx.data(None)
            linear.lora_scale = 0.0
    return merged


def merge(
    model: str = "smollm2",
    *,
    adapter: str | Path,
    out: str | Path,
    dtype: str = "float32",
    overwrite: bool = False,
    loaded: LoadedModel | None = None,
    log: Callable[[str], None] = lambda text: None,
) -> Path:
    """Write `model` with `adapter` folded in, as a model directory that edjax and transformers load.

    Args:
      model: a name as in `edjax.lm.load.locate`.
      adapter: a PEFT adapter directory.
      out: the directory to write.
      dtype: float32 or bfloat16 weights.
      loaded: the base model, if the caller has it already, in `dtype`.
      log: is told where the adapter does not fit what it is put on.

    Raises:
      DataError: a damaged adapter. UsageError: `out` holds something else.
    """
    directory = loaded.directory if loaded else locate(model)
    files = [p for p in (Path(adapter) / CONFIG, Path(adapter) / WEIGHTS) if p.is_file()]
    inputs = {"model": digest(directory), "adapter": sha256_json([sha256_file(p) for p in files])}
    config = {"model": model, "dtype": dtype}
    with writing(out, kind="model", config=config, inputs=inputs, overwrite=overwrite) as artifact:
        if not artifact.complete:
            loaded = loaded or load(model, dtype)
            adapted, _ = import_adapter(loaded.model, adapter)
            for said in adapter_notes(adapter, loaded):
                log(said)
            export_merged(loaded, adapted, out)
            template = trained_template(adapter)
            artifact.finish(**({"template": template} if template else {}))
    return Path(out)


class _Tensor(NamedTuple):
    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]

    @property
    def bytes(self) -> int:
        return int(np.prod(self.shape)) * self.dtype.itemsize


def export_merged(
    loaded: LoadedModel, model: CausalLM, directory: str | Path, *, shard_bytes: int = SHARD_BYTES
) -> None:
    """Write `model`, its adapter folded in, in Hugging Face format, in the dtype of its weights.

    Weights go to safetensors of at most `shard_bytes` each, tensor by tensor, so that host memory holds one tensor
    more; tokenizer and generation settings are copied from `loaded.directory`; config.json comes last.

    Raises:
      UsageError: weights that are quantised or of another dtype; `directory` is the one the model came from.
    """
    directory = Path(directory)
    if directory.resolve() == loaded.directory.resolve():
        raise UsageError(f"{directory} holds the base model; choose another directory for the merged one")
    _refuse_quantised(model)
    tensors = list(_tensors(model))
    dtype = str(tensors[0].dtype)
    if odd := {str(t.dtype) for t in tensors} - CODES.keys():
        raise UsageError(
            f"weights of {', '.join(sorted(odd))} cannot be exported; load the model in float32 or bfloat16"
        )
    shards = _shards(tensors, shard_bytes)
    files: dict[str, str] = {}
    for i, shard in enumerate(shards):
        one = len(shards) == 1
        file = "model.safetensors" if one else f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        _write_shard(directory / file, shard)
        files |= dict.fromkeys((t.name for t in shard), file)
    if len(shards) > 1:
        total = {"total_size": sum(t.bytes for t in tensors)}
        write_json(directory / "model.safetensors.index.json", {"metadata": total, "weight_map": files})
    for path in sorted({p for pattern in BESIDE for p in loaded.directory.glob(pattern) if p.is_file()}):
        with atomic_write(directory / path.relative_to(loaded.directory)) as f:
            f.write(path.read_bytes())
    config = read_json(loaded.directory / "config.json")
    dropped = ("torch_dtype", "auto_map", "quantization_config")
    write_json(directory / "config.json", {k: v for k, v in config.items() if k not in dropped} | {"dtype": dtype})


def _tensors(model: CausalLM) -> Iterator[_Tensor]:
    """Every tensor of a checkpoint, layer by layer, each read only when it is written."""
    flat = {path: v for path, v in nnx.to_flat_state(nnx.state(model)) if not isinstance(v, nnx.LoRAParam)}
    for path, name in OUTSIDE.items():
        if path in flat:
            value = flat[path][...]
            yield _Tensor(name, np.dtype(value.dtype), value.shape, partial(np.asarray, value))
    stacks = {path: list(layer_names(path, model.config)) for path in flat if path not in OUTSIDE}
    for layer in range(model.config.num_layers):
        for path, names in stacks.items():
            value = flat[path][...]
            dtype, shape = np.dtype(value.dtype), value.shape[1:]
            if path[-1] == "kernel":
                linear = getattr(model.layers, path[1])
                yield _Tensor(names[layer], dtype, shape[::-1], partial(_kernel, linear, layer))
            else:
                yield _Tensor(names[layer], dtype, shape, partial(_layer, value, layer))


def _kernel(linear: Linear, layer: int) -> np.ndarray:
    return np.asarray(merged_kernel(linear, layer)).T


def _layer(stack: Array, layer: int) -> np.ndarray:
    return np.asarray(stack[layer])


def _shards(tensors: list[_Tensor], limit: int) -> list[list[_Tensor]]:
    """Consecutive groups of at most `limit` bytes, or of one tensor."""
    shards: list[list[_Tensor]] = [[]]
    size = 0
    for t in tensors:
        if shards[-1] and size + t.bytes > limit:
            shards.append([])
            size = 0
        shards[-1].append(t)
        size += t.bytes
    return shards


def _write_shard(path: Path, tensors: list[_Tensor]) -> None:
    """One safetensors file: the length of a JSON header as a 64-bit number, the header, the tensors' bytes."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for t in tensors:
        header[t.name] = {"dtype": CODES[str(t.dtype)], "shape": t.shape, "data_offsets": [at, at + t.bytes]}
        at += t.bytes
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    with atomic_write(path) as f:
        f.write(struct.pack("<Q", len(head)) + head)
        for t in tensors:
            f.write(np.ascontiguousarray(t.read()).tobytes())
