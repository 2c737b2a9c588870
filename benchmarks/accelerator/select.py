"""The strategies' orders on the features that were kept."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from itertools import groupby

import numpy as np

from benchmarks.accelerator import kept
from benchmarks.accelerator.places import pool_of, recipe_of
from benchmarks.accelerator.stage import Stage
from benchmarks.evidence.label_efficiency import name_of
from edjax.data.features import UNCERTAINTIES, Features
from edjax.study.recipe import Recipe


def features_of(stage: Stage) -> Features | None:
    """What was kept of the whole pool, or None where rows are missing."""
    have, pool = kept.read(stage.out), pool_of(stage)
    if have is None or have.pool != pool.digest or not np.array_equal(have.rows, np.arange(len(pool))):
        return None
    scores = {name: have.columns[name] for name in UNCERTAINTIES}
    facts = {name: have.columns[name] for name in kept.LENGTHS}
    return Features(tuple(pool.ids), have.x.astype(np.float32), scores, facts, have.pool)


Cell = tuple[str, int, int]  # strategy, budget, seed
Order = tuple[str, str, int, int]  # job, strategy, seed of the choice, budget


def order_for(recipe: Recipe, cell: Cell) -> Order:
    """The order that a cell is a beginning of: at the largest budget where its beginnings serve the others."""
    strategy, budget, seed = cell
    drawn = recipe.choice_seed(strategy, seed)
    of = max(recipe.budgets) if recipe.nested(strategy) else budget
    return name_of(strategy, of, drawn), strategy, drawn, of


def names_of(recipe: Recipe) -> list[Order]:
    """Every order once, those of a strategy and seed together."""
    cells = [(s, b, seed) for s in recipe.strategies for seed in recipe.seeds_of(s) for b in recipe.budgets]
    return list(dict.fromkeys(order_for(recipe, cell) for cell in cells))


def run(stage: Stage) -> bool:
    recipe = recipe_of(stage)
    features = features_of(stage)
    if features is None:
        return missing(stage)
    return ordered(stage, recipe, features, names_of(recipe))


def missing(stage: Stage) -> bool:
    """Say that there is nothing to choose by."""
    print(f"edjax: {stage.name}: the pool is not scored to the end", file=sys.stderr)
    return False


def ordered(
    stage: Stage,
    recipe: Recipe,
    features: Features,
    names: Sequence[Order],
    labelled: tuple[str, ...] = (),
    of: str = "",
) -> bool:
    """Leave those of these orders that are missing, a row each, its job beginning with `of`; whether all are there."""
    from edjax.selection.choose import Chooser, usable

    candidates = usable(features, [recipe.choice(s) for s in recipe.strategies])
    whole = True
    for (name, seed), some in groupby(names, key=lambda n: n[1:3]):
        strategy, options = recipe.choice(name, seed)
        chooser = cache(partial(Chooser, features, replace(options, labelled=labelled), candidates))

        def chosen(budget: int, strategy=strategy, chooser=chooser) -> dict:
            made = chooser().choose(strategy, [budget])[0]
            gains = None if made.gains is None else [float(f"{g:.6g}") for g in np.asarray(made.gains)]
            return {"picks": made.indices.tolist(), "gains": gains, "select_s": made.seconds}

        whole &= stage.jobs({of + job: partial(chosen, budget) for job, _, _, budget in some})
    return whole
