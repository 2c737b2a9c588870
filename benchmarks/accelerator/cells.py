"""The cells of the label-efficiency grid."""

from __future__ import annotations

import sys

from benchmarks.accelerator.places import held_out_of, pool_of, recipe_of
from benchmarks.accelerator.select import order_for
from benchmarks.accelerator.stage import Stage
from benchmarks.accelerator.together import Grid, planned
from benchmarks.evidence.label_efficiency import name_of


def run(stage: Stage) -> bool:
    """Every cell whose order is there, and the model before finetuning."""
    from edjax.lm.load import load

    recipe = recipe_of(stage)
    orders = stage.record.done("select")
    groups = planned(recipe)
    missing = [name_of(*c) for group in groups for c in group if order_for(recipe, c)[0] not in orders]
    if missing:
        print(f"edjax: cells: {missing[0]} has no order yet, and {len(missing) - 1} others", file=sys.stderr)
    grid = Grid(stage, recipe, pool_of(stage), held_out_of(stage, recipe), load(recipe.model, recipe.dtype))
    whole = grid.base() and not missing
    for group in groups:
        whole &= grid.train([c for c in group if name_of(*c) not in missing], orders)
    return whole
