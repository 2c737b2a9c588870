"""The strategies' orders on the features that were kept."""

from __future__ import annotations

import sys

import numpy as np

from benchmarks.accelerator import kept
from benchmarks.accelerator.places import pool_of, recipe_of
from benchmarks.accelerator.stage import Stage
from edjax.features import SCORES, Features
from edjax.recipe import Recipe


def features_of(stage: Stage) -> Features | None:
    """What was kept of the whole pool, or None where rows are missing."""
    have, pool = kept.read(stage.out), pool_of(stage)
    if have is None or have.pool != pool.digest or not np.array_equal(have.rows, np.arange(len(pool))):
        return None
    scores = {name: have.columns[name] for name in SCORES}
    facts = {name: have.columns[name] for name in kept.LENGTHS}
    return Features(tuple(pool.ids), have.x.astype(np.float32), scores, facts, have.pool)


def names_of(recipe: Recipe) -> list[tuple[str, str, int, int]]:
    """(job, strategy, seed, budget) of every order: at the largest budget where its beginnings serve the others."""
    made = []
    for name in recipe.strategies:
        nested = recipe.choice(name)[1].nested
        for seed in dict.fromkeys(recipe.choice_seed(name, s) for s in recipe.seeds_of(name)):
            for budget in [max(recipe.budgets)] if nested else recipe.budgets:
                made.append((f"{name}-b{budget}-s{seed}", name, seed, budget))
    return made


def run(stage: Stage) -> bool:
    from edjax.select import Chooser, usable

    recipe = recipe_of(stage)
    features = features_of(stage)
    if features is None:
        print("edjax: select: the pool is not scored to the end", file=sys.stderr)
        return False
    candidates = usable(features, [recipe.choice(s) for s in recipe.strategies])
    whole = True
    for job, name, seed, budget in names_of(recipe):

        def chosen(name=name, seed=seed, budget=budget) -> dict:
            strategy, options = recipe.choice(name, seed)
            made = Chooser(features, options, candidates).choose(strategy, [budget])[0]
            gains = None if made.gains is None else [float(f"{g:.6g}") for g in np.asarray(made.gains)]
            return {"picks": made.indices.tolist(), "gains": gains, "select_s": made.seconds}

        whole &= stage.job(job, chosen)
    return whole
