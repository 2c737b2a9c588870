"""Adapters in PEFT's format: adapter_config.json and adapter_model.safetensors, out and in."""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from edjax.errors import DataError, UsageError
from edjax.lm.checkpoint import PROJECTIONS
from edjax.lm.decoder import CausalLM
from edjax.lm.lora import LoraConfig, adapter_of, add_lora, projections, targets
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
            "lora_dropout": 0.0,
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
    try:
        tensors = load_file(directory / WEIGHTS)
    except SafetensorError as e:
        raise DataError(f"{directory / WEIGHTS} cannot be read ({e})") from e
    names = projections(model)
    modules = raw.get("target_modules")
    if isinstance(modules, str):  # "all-linear" or a pattern: the tensors say what it matched
        modules = sorted({key.split(".")[-3] for key in tensors if key.count(".") >= 2})
    if not isinstance(modules, list) or not modules or not {_last(m) for m in modules} <= set(names):
        raise DataError(
            f"{directory / CONFIG}: target_modules is {raw.get('target_modules')!r}, of modules {modules}; "
            f"the model has {', '.join(names)}"
        )
    wanted = {_last(m) for m in modules}
    try:
        config = LoraConfig(
            int(raw["r"]),
            float(raw["lora_alpha"]),
            tuple(n for n in names if n in wanted),
            use_rslora=bool(raw.get("use_rslora")),
        )
    except (KeyError, TypeError, ValueError, UsageError) as e:
        raise DataError(f"{directory / CONFIG}: r and lora_alpha cannot be read ({e})") from e
    model = add_lora(model, config)
    for module, linear in targets(model, config).items():
        for side, variable in zip("AB", adapter_of(linear), strict=True):
            layers, n_in, n_out = variable.shape
            value = np.empty((layers, n_in, n_out), np.float32)
            for i in range(layers):
                t = tensors.pop(_key(i, module, side), None)
                if t is None or t.shape != (n_out, n_in):
                    found = "is missing" if t is None else f"has shape {t.shape}, expected {(n_out, n_in)}"
                    raise DataError(f"{directory / WEIGHTS}: tensor {_key(i, module, side)!r} {found}")
                value[i] = t.T
            if not np.isfinite(value).all():
                raise DataError(f"{directory / WEIGHTS}: lora_{side} of {module} holds NaN or infinite values")
            setattr(linear, f"lora_{side.lower()}", nnx.LoRAParam(jnp.asarray(value)))
    if tensors:
        raise DataError(f"{directory / WEIGHTS} holds tensors the model has no place for: {sorted(tensors)[:3]}")
    return model, config
