"""Where choosing pays, by finetuning: the settings of `benchmarks.evidence.trials_settings` that are of a GPU's size.

Setting by setting, so that a short loan ends in one question answered rather than in parts of five; within one every
beginning is an experiment (`together.planned`), and an order is made when the first of its cells is due. The features
are those that the stage score kept.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accelerator.places import pool_of, recipe_of
from benchmarks.accelerator.record import Row
from benchmarks.accelerator.select import Cell, features_of, missing, names_of, order_for, ordered
from benchmarks.accelerator.stage import Stage
from benchmarks.accelerator.together import BASE, Grid, planned
from benchmarks.evidence.label_efficiency import name_of
from benchmarks.evidence.trials_settings import ON_A_GPU, SETTINGS, Setting
from benchmarks.harness import cost
from edjax.data.features import Features
from edjax.data.pool import Pool, read_pool
from edjax.selection.prepared import take
from edjax.selection.selection import with_pool_column
from edjax.study.recipe import Recipe, make_recipe
from edjax.study.warm import warm_rows

DRAWN, ORDER = "drawn", "order "
RATE = 5e13  # FLOP/s of small adapters side by side: a guess, 5 % of an H100's peak, until a card has said otherwise
SMOLLM2 = cost.Model(30, 576, 576, 30 * 576 * (2 * 576 + 2 * 192 + 3 * 1536), 49_152 * 576)
PROMPT_TOKENS, RESPONSE_TOKENS, HELD_OUT = 140, 10, 1673  # means of a row; rows


def recipe_for(stage: Stage, setting: Setting) -> Recipe:
    """A setting's recipe with the pool that was scored, the embeddings it was scored for and the sizes of this
    walk."""
    scored = recipe_of(stage)
    same = ("pool", "evaluation", "model", "template", "layer", "pooling", "max_new_tokens")
    own = {k: getattr(scored, k) for k in same} | {"out": str(stage.work / stage.name)}
    return make_recipe(setting.recipe | own | stage.sizes.trials[setting.name], stage.work, setting.name)


def foretold(recipe: Recipe, cells: Iterable[Cell]) -> str:
    """How long these cells take at `RATE`, compiling and choosing not counted."""
    jobs = [
        cost.Job(
            prompts=0,
            prompt_tokens=PROMPT_TOKENS,
            new_tokens=0,
            budget=budget + (recipe.warm_start or 0),
            response_tokens=RESPONSE_TOKENS,
            epochs=recipe.finetune_config(0).num_train_epochs,
            evaluation_rows=HELD_OUT,
        )
        for _, budget, _ in cells
    ]
    work = [cost.flops(SMOLLM2, job, "random") for job in jobs]
    return f"about {sum(w['finetune'] + w['evaluate'] for w in work) / RATE:.0f} s"


def plan() -> list[str]:
    """Every setting in a line, as the stage walks them."""
    lines = []
    for setting in ON_A_GPU:
        recipe = make_recipe(setting.recipe | dict.fromkeys(("pool", "evaluation", "out"), "-"), Path(), setting.name)
        cells = [cell for group in planned(recipe) for cell in group]
        lines.append(f"{setting.name}: {len(cells)} cells, {foretold(recipe, cells)}: {setting.said}")
    return lines


def run(stage: Stage) -> bool:
    """Every setting, in order."""
    from edjax.lm.load import load

    features = features_of(stage)
    if features is None:
        return missing(stage)
    loaded, whole = cache(load), True
    for name in stage.sizes.trials:
        whole &= _walked(stage, SETTINGS[name], features, loaded)
    return whole


def _walked(stage: Stage, setting: Setting, features: Features, loaded: Callable[..., Any]) -> bool:
    """A setting's cells, and the model before finetuning on what evaluates them."""
    recipe, of = recipe_for(stage, setting), f"{setting.name}: "
    groups, done = planned(recipe), stage.done()
    left = [c for group in groups for c in group if of + name_of(*c) not in done]
    if not left and of + BASE in done:
        return True
    print(f"edjax: {stage.name}: {of}{len(left)} cells left, {foretold(recipe, left)}", file=sys.stderr)
    pool, held_out = setting.draw(pool_of(stage), read_pool(recipe.evaluation))
    labelled = warm_rows(pool, recipe)
    grid = Grid(stage, recipe, pool, held_out, loaded(recipe.model, recipe.dtype), of, tuple(labelled))
    _same(grid)
    place = pool_of(stage).index_of
    features = _columns(take(features, np.asarray([place[i] for i in pool.ids])), pool, recipe)
    ids, whole = tuple(pool.ids[i] for i in labelled), grid.base()
    for group in groups:
        due = {order_for(recipe, c)[1:3] for c in grid.left(group)}
        names = [n for n in names_of(recipe) if n[1:3] in due]
        whole &= ordered(stage, recipe, features, names, ids, of + ORDER)
        orders = orders_of(stage, of)
        whole &= grid.train([c for c in group if order_for(recipe, c)[0] in orders], orders)
    return whole


def orders_of(stage: Stage, of: str) -> dict[str, Row]:
    """By name, the orders that a setting has."""
    start = of + ORDER
    return {job.removeprefix(start): row for job, row in stage.done().items() if job.startswith(start)}


def _same(grid: Grid) -> None:
    """Leave what was drawn; orders that were left before are of these very rows.

    Raises:
      SystemExit: they are of others.
    """
    held_out = {"rows": len(grid.held_out), "digest": grid.held_out.digest, "groups": len(set(grid.groups or ()))}
    drawn = {"pool": {"rows": len(grid.pool), "digest": grid.pool.digest}, "evaluation": held_out}
    before = grid.stage.done().get(grid.of + DRAWN)
    if before is not None and any(before[k] != v for k, v in drawn.items()):
        raise SystemExit(f"{grid.stage.out} keeps {grid.of}orders of another pool; name another folder")
    grid.stage.job(grid.of + DRAWN, lambda: drawn)


def _columns(features: Features, pool: Pool, recipe: Recipe) -> Features:
    """With the pool's columns that arms group by."""
    for column in dict.fromkeys(recipe.choice(s)[1].group_column for s in recipe.strategies):
        features = features if column is None else with_pool_column(features, pool, column)
    return features
