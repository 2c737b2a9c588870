"""A pool and a model together: what there is to compute, and how."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from edjax.errors import UsageError
from edjax.pool import Pool
from edjax.score.forward import Forward
from edjax.score.layout import Layout, lay_out

if TYPE_CHECKING:
    from edjax.lm.load import LoadedModel

POOLINGS = ("mean", "last", "weighted_mean")


class Job(NamedTuple):
    """The encoded prompts of a pool, their layout, the model's pass, and the encoder."""

    prompts: list[list[int]]
    layout: Layout
    forward: Forward
    encoder: Any


def check(config: dict[str, Any]) -> None:
    """Refuse settings that make no sense whatever the model."""
    if config["pooling"] not in POOLINGS:
        raise UsageError(f"pooling {config['pooling']!r} is not one of {', '.join(POOLINGS)}")
    if config["max_new_tokens"] < 0 or min(config["batch_size"], config["shard_rows"], config["max_length"]) < 1:
        raise UsageError("max_new_tokens is 0 or more; batch_size, shard_rows and max_length are 1 or more")


def prepare(pool: Pool, loaded: LoadedModel, config: dict[str, Any], mesh: Any) -> Job:
    """Encode and lay out the pool's prompts.

    Raises:
      UsageError: a layer that the model does not have.
    """
    import jax

    from edjax.lm.encode import Encoder
    from edjax.lm.mesh import place

    loaded = replace(loaded, model=place(loaded.model, mesh))
    layers = loaded.model.config.num_layers
    if not -layers - 1 <= config["layer"] <= layers:
        raise UsageError(f"layer {config['layer']} is outside the model's {-layers - 1}..{layers}")
    encoder = Encoder(loaded.tokenizer, config["template"], config["max_length"])
    prompts = pool.each(lambda i: encoder.prompt(pool.messages[i], pool.tools[i]))
    layout = lay_out(prompts, config["batch_size"], config["shard_rows"], jax.default_backend())
    return Job(prompts, layout, Forward(loaded, config, mesh), encoder)
