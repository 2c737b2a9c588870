"""What the adapter_config.json of a PEFT adapter asks for: rank, scale, and which modules of which layers it adapts."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from edjax.keep.errors import DataError, UsageError
from edjax.keep.store import read_json
from edjax.lm.lora import LoraConfig

# What PEFT writes that changes what an adapter computes beyond LoRA and rsLoRA; each must be off.
BEYOND = (
    "use_dora",
    "rank_pattern",
    "alpha_pattern",
    "modules_to_save",
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
MERGE = "merge it into its base with PEFT (merge_and_unload, save_pretrained) and give the result as --model"
KEY = re.compile(r"base_model\.model\.model\.layers\.(\d{1,9})\.(\w+)\.(\w+)\.lora_[AB]\.weight")

Places = dict[str, tuple[int, ...]]  # a projection -> the layers in which it is adapted


def lora_key(layer: int, parent: str, module: str, side: str) -> str:
    """What PEFT calls A or B of a module of a layer."""
    return f"base_model.model.model.layers.{layer}.{parent}.{module}.lora_{side}.weight"


def read_config(path: Path, names: Mapping[str, str], layers: int, held: Collection[str]) -> tuple[LoraConfig, Places]:
    """The adapter that a config describes, and where it lies.

    Args:
      names: the model's projections and the module each is in (q_proj in self_attn).
      layers: how many the model has.
      held: what the tensors of the adapter are called; where the config names modules by a pattern they say what it
        matched.

    Raises:
      DataError: not LoRA, features beyond plain LoRA, modules that the model does not have, no rank or scale.
    """
    raw = read_json(path)
    if not isinstance(raw, dict):
        raise DataError(f"{path} is no adapter's config: a JSON object is expected")
    unsupported = [k for k in BEYOND if raw.get(k)]
    if str(raw.get("init_lora_weights")).lower().startswith(CHANGES_BASE):
        unsupported.append(f"init_lora_weights {raw['init_lora_weights']}")
    if (bias := raw.get("bias", "none")) != "none":
        unsupported.append(f"bias {bias}")
    if (pattern := raw.get("layers_pattern")) and "layers" not in ([pattern] if isinstance(pattern, str) else pattern):
        unsupported.append(f"layers_pattern {pattern}")
    if raw.get("peft_type") != "LORA" or unsupported:
        found = ", ".join([str(raw.get("peft_type")), *unsupported])
        raise DataError(f"{path}: only plain LoRA is read (found {found}); {MERGE}")
    places = _places(raw, path, names, layers, held)
    try:
        rank, alpha = raw["r"], float(raw["lora_alpha"])
        if not isinstance(rank, int) or not math.isfinite(alpha):
            raise ValueError(f"r {rank!r}, lora_alpha {alpha}")
        config = LoraConfig(rank, alpha, tuple(n for n in names if n in places), use_rslora=bool(raw.get("use_rslora")))
    except (KeyError, TypeError, ValueError, UsageError) as e:
        raise DataError(f"{path}: r and lora_alpha cannot be read ({e})") from e
    return config, places


def _places(raw: dict[str, Any], path: Path, names: Mapping[str, str], layers: int, held: Collection[str]) -> Places:
    """Where the adapter lies, by PEFT's rules: a module of the list is the end of a path, such as q_proj,
    self_attn.q_proj or model.layers.0.self_attn.q_proj."""
    asked, excluded = raw.get("target_modules"), raw.get("exclude_modules") or []
    ends: dict[str, set[tuple[str, int]]] = {}
    for name, parent in names.items():
        for layer in range(layers):
            parts = ("model", "layers", str(layer), parent, name)
            for n in range(len(parts)):
                ends.setdefault(".".join(parts[n:]), set()).add((name, layer))
    there = {(m[3], int(m[1])) for m in map(KEY.fullmatch, held) if m}
    if asked == "all-linear":
        of = {name for name, _ in there}
        found = {place for name in of for place in ends.get(name, ())}
    elif isinstance(asked, str):
        found = there & set().union(*ends.values())
    elif isinstance(asked, list) and all(isinstance(m, str) and m in ends for m in asked):
        found = set().union(*(ends[m] for m in asked))
    else:
        found = set()
    if not found:
        raise DataError(
            f"{path}: target_modules is {asked!r}; edjax adapts the model's {', '.join(names)} and no other module "
            f"(embeddings, the head): {MERGE}"
        )
    if isinstance(excluded, str):
        found &= there
    else:
        found -= set().union(*(ends.get(str(m), set()) for m in excluded))
    if (only := raw.get("layers_to_transform")) not in (None, []):
        wanted = only if isinstance(only, list) else [only]
        found = {place for place in found if place[1] in wanted}
    if not found:
        raise DataError(
            f"{path}: exclude_modules {excluded!r} and layers_to_transform {only!r} leave nothing of a model with "
            f"layers 0 to {layers - 1}"
        )
    return {name: tuple(sorted(i for n, i in found if n == name)) for name in names if name in {n for n, _ in found}}
