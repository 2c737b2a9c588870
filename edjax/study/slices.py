"""The rows of a pool that a recipe takes."""

from __future__ import annotations

import numpy as np

from edjax.data.pool import Pool
from edjax.keep.errors import DataError
from edjax.study.recipe import Recipe


def slice_of(pool: Pool, rows: int | None, recipe: Recipe) -> Pool:
    """The rows of a pool that a recipe takes: its random slice of the prompts that are short enough, in the pool's
    order."""
    if limit := recipe.max_prompt_characters:
        short = [i for i in range(len(pool)) if len(pool.prompt_text(i)) <= limit]
        if not short:
            raise DataError(f"{pool.source}: no prompt has at most {limit} characters; raise max_prompt_characters")
        pool = pool.take(short) if len(short) < len(pool) else pool
    if rows is None or rows >= len(pool):
        return pool
    chosen = np.random.Generator(np.random.PCG64(recipe.slice_seed)).permutation(len(pool))[:rows]
    return pool.take(sorted(int(i) for i in chosen))
