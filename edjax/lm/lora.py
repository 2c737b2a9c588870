"""LoRA (Hu et al. 2021): a trainable low-rank addition to frozen projections."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from edjax.keep.errors import UsageError
from edjax.lm.checkpoint import PROJECTIONS
from edjax.lm.decoder import CausalLM
from edjax.lm.linear import Linear

ALL_LINEAR = "all-linear"


@dataclass(frozen=True)
class LoraConfig:
    """Rank, scale and places of an adapter; names and defaults are PEFT's where it has them.

    `lora_target_modules` names projections of the model, or is ("all-linear",): every one of its layers'.
    y = x W + s x A B with A (in, r) drawn from U(-1/sqrt(in), 1/sqrt(in)) and B (r, out) zero, so a fresh adapter
    changes nothing. The scale s is lora_alpha / lora_r, or with `use_rslora` lora_alpha / sqrt(lora_r), which keeps
    the adapter's effect the same at every rank (Kalajdzievski 2023). In training A sees x with a share `lora_dropout`
    of its entries left out.
    """

    lora_r: int = 8
    lora_alpha: float = 16.0
    lora_target_modules: tuple[str, ...] = (ALL_LINEAR,)
    lora_dropout: float = 0.0
    use_rslora: bool = False

    def __post_init__(self):
        if self.lora_r < 1:
            raise UsageError(f"lora_r is {self.lora_r}; a rank is 1 or more")
        if not 0 <= self.lora_dropout < 1:
            raise UsageError(f"lora_dropout is {self.lora_dropout}; it must be at least 0 and below 1")
        known = [ALL_LINEAR, *PROJECTIONS]
        if unknown := [m for m in self.lora_target_modules if m not in known]:
            raise UsageError(f"lora_target_modules {unknown} are unknown; the projections are {known}")
        if not self.lora_target_modules:
            raise UsageError(f"lora_target_modules is empty; name some of {known}")

    @property
    def scale(self) -> float:
        """lora_alpha / lora_r, or / sqrt(lora_r) with rsLoRA."""
        return self.lora_alpha / (math.sqrt(self.lora_r) if self.use_rslora else self.lora_r)


def projections(model: CausalLM) -> list[str]:
    """The projections of a model's layers by their checkpoint names, in a fixed order."""
    return [name for name in PROJECTIONS if hasattr(model.layers, name)]


def targets(model: CausalLM, config: LoraConfig) -> dict[str, Linear]:
    """The projections an adapter touches, by their PEFT names, in a fixed order.

    Raises:
      UsageError: one is named that the model does not have.
    """
    names = projections(model)
    wanted = names if ALL_LINEAR in config.lora_target_modules else config.lora_target_modules
    if missing := [name for name in wanted if name not in names]:
        raise UsageError(
            f"lora_target_modules {missing} are not in a {model.config.model_type} model; its projections are {names}"
        )
    return {name: getattr(model.layers, name) for name in names if name in wanted}


def adapter_of(linear: Linear) -> tuple[nnx.LoRAParam, nnx.LoRAParam]:
    """A and B of a projection that has an adapter."""
    if linear.lora_a is None or linear.lora_b is None:
        raise ValueError("this projection carries no adapter; add_lora puts one there")
    return linear.lora_a, linear.lora_b


def add_lora(model: CausalLM, config: LoraConfig, seed: int = 0) -> CausalLM:
    """A model with a fresh float32 adapter; base weights are shared with `model`, which stays as it was."""
    graph, state = nnx.split(model)
    adapted = nnx.merge(graph, state)
    key = jax.random.key(seed)
    for i, linear in enumerate(targets(adapted, config).values()):
        layers, n_in, n_out = linear.kernel.shape
        bound = 1.0 / math.sqrt(n_in)  # what PEFT's kaiming_uniform_(a=sqrt(5)) comes to
        a = jax.random.uniform(
            jax.random.fold_in(key, i), (layers, n_in, config.lora_r), jnp.float32, minval=-bound, maxval=bound
        )
        linear.lora_a = nnx.LoRAParam(a)
        linear.lora_b = nnx.LoRAParam(jnp.zeros((layers, config.lora_r, n_out), jnp.float32))
        # The scale is no part of A or B, so that an export holds them as PEFT would, which scales again.
        linear.lora_scale, linear.lora_dropout, linear.lora_place = config.scale, config.lora_dropout, i
    return adapted


def has_dropout(model: CausalLM) -> bool:
    """Whether any of the model's adapters drops entries in training."""
    return any(getattr(model.layers, name).lora_dropout > 0 for name in projections(model))
