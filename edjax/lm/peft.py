"""Adapters in PEFT's format: adapter_config.json and adapter_model.safetensors, out and in."""

from __future__ import annotations

import math
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from edjax.errors import DataError, UsageError
from edjax.lm.checkpoint import PROJECTIONS
from edjax.lm.decoder import CausalLM
from edjax.lm.lora import LoraConfig, adapter_of, add_lora, projections, targets
from edjax.lm.tensors import as_float
from edjax.store import atomic_write, read_json, write_json

# What PEFT writes that changes what an adapter computes beyond LoRA and rsLoRA; each must be off.
BEYOND = (
    "use_dora",
    "rank_pattern",
    "alpha_pattern",
    "modules_to_save",
    "layers_to_transform",
    "layer_replication",
    "target_parameters",
    "trainable_token_indices",
    "lora_bias",
    "fan_in_fan_out",
    "use_qalora",
    "use_bdlora",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "velora_config",
)
CHANGES_BASE = ("pissa", "corda", "olora", "mica", "loftq", "lora_ga")  # init_lora_weights that rewrite the base model
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def _key(layer: int, module: str, side: str) -> str:
    return f"base_model.model.model.layers.{layer}.{PROJECTIONS[module]}.{module}.lora_{side}.weight"


def _last(module: object) -> str:
    """PEFT names a module by its last part, or by its whole path where "all-linear" found few."""
    return str(module).rpartition(".")[2]


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
            tensors[_key(layer, module, "A")] = np.ascontiguousarray(a[layer].T)
            tensors[_key(layer, module, "B")] = np.ascontiguousarray(b[layer].T)
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

    Raises:
      DataError: no adapter there, not LoRA, features beyond plain LoRA, or tensors that do not fit the model or are
        not finite.
    """
    directory = Path(directory)
    if not (directory / CONFIG).exists() or not (directory / WEIGHTS).exists():
        raise DataError(f"{directory} is not an adapter: {CONFIG} and {WEIGHTS} are expected")
    raw = read_json(directory / CONFIG)
    unsupported = [k for k in BEYOND if raw.get(k)]
    if str(raw.get("init_lora_weights")).lower().startswith(CHANGES_BASE):
        unsupported.append(f"init_lora_weights {raw['init_lora_weights']}")
    if (bias := raw.get("bias", "none")) != "none":
        unsupported.append(f"bias {bias}")
    if raw.get("peft_type") != "LORA" or unsupported:
        found = ", ".join([str(raw.get("peft_type")), *unsupported])
        raise DataError(f"{directory / CONFIG}: only plain LoRA is read (found {found})")
    names = projections(model)
    modules = raw.get("target_modules")
    if isinstance(modules, str):  # "all-linear" or a pattern: the tensors say what it matched
        modules = sorted({key.split(".")[-3] for key in _names(directory / WEIGHTS) if key.count(".") >= 2})
    if not isinstance(modules, list) or not modules or not {_last(m) for m in modules} <= set(names):
        raise DataError(
            f"{directory / CONFIG}: target_modules is {raw.get('target_modules')!r}, of modules {modules}; "
            f"the model has {', '.join(names)}"
        )
    wanted = {_last(m) for m in modules}
    try:
        rank, alpha = raw["r"], float(raw["lora_alpha"])
        if not isinstance(rank, int) or not math.isfinite(alpha):
            raise ValueError(f"r {rank!r}, lora_alpha {alpha}")
        config = LoraConfig(rank, alpha, tuple(n for n in names if n in wanted), use_rslora=bool(raw.get("use_rslora")))
    except (KeyError, TypeError, ValueError, UsageError) as e:
        raise DataError(f"{directory / CONFIG}: r and lora_alpha cannot be read ({e})") from e
    values = _read(directory / WEIGHTS, _shapes(model, config))
    model = add_lora(model, config)
    for module, linear in targets(model, config).items():
        for side in "AB":
            value = np.stack([values.pop(_key(i, module, side)).T for i in range(linear.kernel.shape[0])])
            if not np.isfinite(value).all():
                raise DataError(f"{directory / WEIGHTS}: lora_{side} of {module} holds NaN or infinite values")
            setattr(linear, f"lora_{side.lower()}", nnx.LoRAParam(jnp.asarray(value)))
    return model, config


def _shapes(model: CausalLM, config: LoraConfig) -> dict[str, tuple[int, int]]:
    """Every tensor's name and shape in the file of an adapter."""
    shapes = {}
    for module, linear in targets(model, config).items():
        layers, n_in, n_out = linear.kernel.shape
        for i in range(layers):
            shapes[_key(i, module, "A")] = (config.lora_r, n_in)
            shapes[_key(i, module, "B")] = (n_out, config.lora_r)
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
                    raise DataError(f"{path}: tensor {name!r} {found}")
            if strangers := sorted(held.keys() - shapes.keys()):
                raise DataError(f"{path} holds tensors the model has no place for: {strangers[:3]}")
            return {name: as_float(path, name, f.get_tensor(name)).astype(np.float32) for name in shapes}
    except SafetensorError as e:
        raise DataError(f"{path} cannot be read ({e}); export or fetch the adapter again") from e
