"""The warm start: labelled rows that every cell of a run is trained on, and that no strategy chooses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from edjax.data.pool import Pool
    from edjax.study.recipe import Recipe


def warm_rows(pool: Pool, recipe: Recipe) -> list[int]:
    """Which rows of the pool they are, ascending: `warm_start` of them, drawn with `slice_seed` beside the slice."""
    drawn = np.random.Generator(np.random.PCG64([recipe.slice_seed, 1])).permutation(len(pool))
    return sorted(int(i) for i in drawn[: recipe.warm_start or 0])


def warm_tokens(pool: Pool, rows: list[int], recipe: Recipe, loaded: Any, date: str | None = None) -> int:
    """How many response tokens of each cell are theirs."""
    if not rows:
        return 0
    from edjax.finetuning.examples import encode_rows, teaching
    from edjax.lm.encode import Encoder

    config = recipe.finetune_config(0)
    taught = teaching(pool.take(rows), config.assistant_only_loss)
    encoder = Encoder.by(loaded, vars(config), date)
    return sum(len(e.trained) for e in encode_rows(taught, encoder, every_turn=config.assistant_only_loss)[1])
