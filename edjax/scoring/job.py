"""A pool and a model together: what there is to compute, and how; and what a probe is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from edjax.data.pool import Pool
from edjax.keep.errors import UsageError
from edjax.lm.bounds import Row, notes_on
from edjax.scoring.layout import Layout, lay_out

if TYPE_CHECKING:
    from edjax.lm.load import LoadedModel
    from edjax.lm.session import Session
    from edjax.scoring.forward import Forward


class Job(NamedTuple):
    """The encoded rows of a pool and their prompts, the prompts' layout, the model's pass, the encoder, and what was
    asked for, as `ScoreConfig.record` says it."""

    rows: list[Row]
    prompts: list[list[int]]
    layout: Layout
    forward: Forward
    encoder: Any
    settings: Mapping[str, Any]

    def notes(self, ids: Sequence[str]) -> list[str]:
        """What a person should know of prompts that the model does not see as they were written."""
        return notes_on(self.rows, ids, self.encoder.bounds)


class Asked(NamedTuple):
    """What a probe is given: the pool and the job of it; the session and the settings of the pass; the adapters of a
    training's way, in its order, where there are any; where to say what there is to note; and what the manifest is to
    hold beside, to which a probe adds."""

    pool: Pool
    job: Job
    session: Session
    config: dict[str, Any]
    adapters: Sequence[Path]
    log: Callable[[str], None]
    facts: dict[str, Any]


Measure = Callable[[np.ndarray], dict[str, np.ndarray]]  # the pool's rows (r,) -> columns (r, ...)


def prepare(pool: Pool, loaded: LoadedModel, config: dict[str, Any], mesh: Any) -> Job:
    """Encode and lay out the pool's prompts.

    Raises:
      UsageError: a layer that the model does not have.
    """
    import jax

    from edjax.lm.encode import Encoder
    from edjax.lm.mesh import place
    from edjax.scoring.forward import Forward

    loaded = replace(loaded, model=place(loaded.model, mesh))
    layers = loaded.model.config.num_layers
    if not -layers - 1 <= config["layer"] <= layers:
        raise UsageError(f"layer {config['layer']} is outside the model's {-layers - 1}..{layers}")
    encoder = Encoder.by(loaded, config, config.get("date"))
    rows = encoder.rows(pool.ids, pool.messages, tools=pool.tools, source=pool.source)
    prompts = [row.prompt for row in rows]
    layout = lay_out(prompts, config["batch_size"], config["shard_rows"], jax.default_backend())
    return Job(rows, prompts, layout, Forward(loaded, config, mesh), encoder, config)
