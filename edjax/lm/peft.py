"""Adapters in PEFT's format: adapter_config.json and adapter_model.safetensors, out and in."""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from edjax.keep.errors import DataError
from edjax.keep.store import atomic_write, write_json
from edjax.lm.checkpoint import PROJECTIONS
from edjax.lm.decoder import CausalLM
from edjax.lm.lora import LoraConfig, adapter_of, add_lora, projections, targets
from edjax.lm.peft_config import MERGE, Places, lora_key, read_config
from edjax.lm.tensors import as_float

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def export_adapter(model: CausalLM, config: LoraConfig, directory: str | Path, base_model: str) -> None:
    """Write the adapter of `model` so that `peft.PeftModel.from_pretrained` reads it.

    PEFT keeps A as (r, in) and B as (out, r), one pair a layer, in float32.

    Args:
      base_model: what PEFT, and harnesses on top of it, load the base model by: `LoadedModel.base_model`. For
        "smollm2" and a .gguf file that is the directory of the converted model in edjax's cache, since its dequantised
        weights are those the adapter was trained on; on another machine, name the hub id it came from there
        (HuggingFaceTB/SmolLM2-135M-Instruct, whose weights are not quantised) or a copy of the directory.
    """
    directory = Path(directory)
    tensors = {}
    for module, linear in targets(model, config).items():
        a, b = (np.asarray(v[...]) for v in adapter_of(linear))
        for layer in range(a.shape[0]):
            tensors[lora_key(layer, PROJECTIONS[module], module, "A")] = np.ascontiguousarray(a[layer].T)
            tensors[lora_key(layer, PROJECTIONS[module], module, "B")] = np.ascontiguousarray(b[layer].T)
    with atomic_write(directory / WEIGHTS) as f:
        f.write(save(dict(sorted(tensors.items())), metadata={"format": "pt"}))
    write_json(
        directory / CONFIG,
        {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base_model,
            "r": config.lora_r,
            "lora_alpha": config.lora_alpha,
            "lora_dropout": config.lora_dropout,
            "target_modules": list(targets(model, config)),
            "bias": "none",
            "fan_in_fan_out": False,
            "use_rslora": config.use_rslora,
            "inference_mode": True,
        },
    )


def import_adapter(model: CausalLM, directory: str | Path) -> tuple[CausalLM, LoraConfig]:
    """The model with the PEFT adapter of `directory` in place. Its `lora_dropout` has no part in what it computes.

    Layers that the adapter leaves out (`layers_to_transform`, paths of single modules, a pattern) get zeros, which
    change nothing.

    Raises:
      DataError: no adapter there, not LoRA, features beyond plain LoRA, or tensors that do not fit the model or are
        not finite.
    """
    directory = Path(directory)
    if not (directory / CONFIG).exists() or not (directory / WEIGHTS).exists():
        raise DataError(f"{directory} is not an adapter: {CONFIG} and {WEIGHTS} are expected")
    names = {name: PROJECTIONS[name] for name in projections(model)}
    held = set(_names(directory / WEIGHTS))
    config, places = read_config(directory / CONFIG, names, model.config.num_layers, held)
    values = _read(directory / WEIGHTS, _shapes(model, config, places))
    model = add_lora(model, config)
    for module, linear in targets(model, config).items():
        for side, like in zip("AB", adapter_of(linear), strict=True):
            value = np.zeros(like.shape, np.float32)
            for layer in places[module]:
                value[layer] = values.pop(lora_key(layer, PROJECTIONS[module], module, side)).T
            if not np.isfinite(value).all():
                raise DataError(f"{directory / WEIGHTS}: lora_{side} of {module} holds NaN or infinite values")
            setattr(linear, f"lora_{side.lower()}", nnx.LoRAParam(jnp.asarray(value)))
    return model, config


def _shapes(model: CausalLM, config: LoraConfig, places: Places) -> dict[str, tuple[int, int]]:
    """Every tensor's name and shape in the file of an adapter."""
    shapes = {}
    for module, linear in targets(model, config).items():
        _, n_in, n_out = linear.kernel.shape
        for i in places[module]:
            shapes[lora_key(i, PROJECTIONS[module], module, "A")] = (config.lora_r, n_in)
            shapes[lora_key(i, PROJECTIONS[module], module, "B")] = (n_out, config.lora_r)
    return shapes


def _names(path: Path) -> list[str]:
    """What the tensors of a file are called."""
    try:
        with safe_open(path, "np") as f:
            return list(f.keys())
    except SafetensorError as e:
        raise DataError(f"{path} cannot be read ({e}); export or fetch the adapter again") from e


def _read(path: Path, shapes: dict[str, tuple[int, int]]) -> dict[str, np.ndarray]:
    """Exactly the tensors of these names and shapes, in float32; nothing is read before all of them are found right."""
    try:
        with safe_open(path, "np") as f:
            held = {name: tuple(f.get_slice(name).get_shape()) for name in f.keys()}  # noqa: SIM118
            for name, shape in shapes.items():
                if held.get(name) != shape:
                    found = f"has shape {held[name]}, expected {shape}" if name in held else "is missing"
                    found += "" if name in held else f", though {CONFIG} adapts its module there"
                    raise DataError(f"{path}: tensor {name!r} {found}")
            if strangers := sorted(held.keys() - shapes.keys()):
                raise DataError(f"{path} holds tensors the model has no place for: {strangers[:3]}; {MERGE}")
            return {name: as_float(path, name, f.get_tensor(name)).astype(np.float32) for name in shapes}
    except SafetensorError as e:
        raise DataError(f"{path} cannot be read ({e}); export or fetch the adapter again") from e
