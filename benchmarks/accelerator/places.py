"""Where models, pools and recipes lie: in what was packed, else beside the checkout."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import yaml

from benchmarks.accelerator.stage import Stage
from benchmarks.harness.runner import ROOT
from edjax.data.pool import Pool, read_pool
from edjax.study.recipe import Recipe, make_recipe
from edjax.study.sections import flat
from edjax.study.slices import slice_of


def shared(data: Path, what: str) -> Path:
    """ "models" or "data": of the packed folder, or of shared/ beside the checkout."""
    return found if (found := data / what).is_dir() else ROOT.parent / "shared" / what


def model_of(stage: Stage, name: str) -> str:
    return str(shared(stage.data, "models") / name) if name == "stories260k" else name


def recipe_of(stage: Stage) -> Recipe:
    """The recipe of the cells, with its files where they are and the sizes of this walk."""
    data = shared(stage.data, "data")
    path = ROOT / "recipes" / stage.sizes.recipe
    own = {k: str(data / v) for k, v in zip(("pool", "evaluation"), stage.sizes.prompts, strict=True)}
    own |= stage.sizes.overrides | {"model": model_of(stage, stage.sizes.scored)}
    return make_recipe(flat(yaml.safe_load(path.read_text()), str(path)) | own, path.parent, str(path))


def pool_of(stage: Stage) -> Pool:
    """The pool that is scored and chosen from."""
    return _pool(shared(stage.data, "data") / stage.sizes.prompts[0], stage.sizes.rows)


@cache
def _pool(path: Path, rows: int | None) -> Pool:
    pool = read_pool(str(path))
    if rows is None:
        return pool
    short = np.argsort([len(pool.prompt_text(i)) for i in range(len(pool))], kind="stable")[:rows]
    return pool.take(sorted(short.tolist()))


def held_out_of(stage: Stage, recipe: Recipe) -> Pool:
    return slice_of(read_pool(recipe.evaluation), recipe.evaluation_rows, recipe)
