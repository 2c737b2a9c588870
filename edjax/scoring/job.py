"""A pool and a model together: what there is to compute, and how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from edjax.data.pool import Pool
from edjax.keep.errors import UsageError
from edjax.lm.bounds import Bounds, Row, notes_on
from edjax.scoring.forward import Forward
from edjax.scoring.layout import Layout, lay_out

if TYPE_CHECKING:
    from edjax.lm.load import LoadedModel

POOLINGS = ("mean", "last", "weighted_mean")


class Job(NamedTuple):
    """The encoded rows of a pool and their prompts, the prompts' layout, the model's pass, and the encoder."""

    rows: list[Row]
    prompts: list[list[int]]
    layout: Layout
    forward: Forward
    encoder: Any

    def notes(self, ids: Sequence[str]) -> list[str]:
        """What a person should know of prompts that the model does not see as they were written."""
        return notes_on(self.rows, ids, self.encoder.bounds)


def check(config: dict[str, Any]) -> None:
    """Refuse settings that make no sense whatever the model."""
    if config["pooling"] not in POOLINGS:
        raise UsageError(f"pooling {config['pooling']!r} is not one of {', '.join(POOLINGS)}")
    if config["max_new_tokens"] < 0 or min(config["batch_size"], config["shard_rows"]) < 1:
        raise UsageError("max_new_tokens is 0 or more; batch_size and shard_rows are 1 or more")
    Bounds.of(config["max_length"])


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
    encoder = Encoder.of(loaded, config["template"], config["max_length"], config.get("date"))
    rows = encoder.rows(pool.ids, pool.messages, tools=pool.tools, source=pool.source)
    prompts = [row.prompt for row in rows]
    layout = lay_out(prompts, config["batch_size"], config["shard_rows"], jax.default_backend())
    return Job(rows, prompts, layout, Forward(loaded, config, mesh), encoder)
