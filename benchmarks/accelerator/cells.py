"""The cells of the label-efficiency grid: many adapters at once, in an order whose every beginning is an experiment."""

from __future__ import annotations

import gc
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accelerator.places import held_out_of, pool_of, recipe_of
from benchmarks.accelerator.record import Row
from benchmarks.accelerator.stage import Stage
from edjax.batching import chunks
from edjax.evaluate import Evaluation
from edjax.recipe import Recipe

BASE = "base"
PLACES = {"response_loss": 5}  # digits behind the point that a row's value keeps; the others are 0, 1 or shares

Cell = tuple[str, int, int]  # strategy, budget, seed


def planned(recipe: Recipe) -> list[list[Cell]]:
    """Groups of cells to train together: all strategies at one budget and seed before the next budget, all budgets
    before the next seed."""
    seeds = sorted({seed for s in recipe.trained for seed in recipe.seeds_of(s)})
    groups = [
        [(s, budget, seed) for s in recipe.trained if seed in recipe.seeds_of(s)]
        for seed in seeds
        for budget in sorted(recipe.budgets)
    ]
    return [g for g in groups if g]


def name_of(cell: Cell) -> str:
    strategy, budget, seed = cell
    return f"{strategy}-b{budget}-s{seed}"


def order_of(recipe: Recipe, orders: dict[str, Row], cell: Cell) -> list[int]:
    """The pool's rows of a cell, from what the stage select left."""
    strategy, budget, seed = cell
    drawn = recipe.choice_seed(strategy, seed)
    of = max(recipe.budgets) if recipe.choice(strategy)[1].nested else budget
    return orders[f"{strategy}-b{of}-s{drawn}"]["picks"][:budget]


def run(stage: Stage) -> bool:
    """Every cell whose order is there, and the model before finetuning."""
    from edjax.finetune.room import cells_at_once
    from edjax.lm.load import load

    recipe = recipe_of(stage)
    orders = stage.record.done("select")
    missing = [name_of(c) for group in planned(recipe) for c in group if not _has(recipe, orders, c)]
    if missing:
        print(f"edjax: cells: {missing[0]} has no order yet, and {len(missing) - 1} others", file=sys.stderr)
    pool, held_out = pool_of(stage), held_out_of(stage, recipe)
    loaded = load(recipe.model, recipe.dtype)
    whole = not missing
    whole &= stage.job(BASE, lambda: measured(recipe, _evaluated(recipe, loaded, held_out, [None])[0]))
    at_once = recipe.cells_at_once or cells_at_once(loaded.model.config, recipe.finetune_config(0))
    for group in planned(recipe):
        passed_over = {*stage.done(), *missing}
        left = [c for c in group if name_of(c) not in passed_over]
        for part in chunks(np.arange(len(left)), at_once):
            whole &= _trained(stage, recipe, pool, held_out, loaded, orders, [left[i] for i in part])
    return whole


def _has(recipe: Recipe, orders: dict[str, Row], cell: Cell) -> bool:
    try:
        return bool(order_of(recipe, orders, cell))
    except KeyError:
        return False


def _trained(
    stage: Stage, recipe: Recipe, pool: Any, held_out: Any, loaded: Any, orders: dict[str, Row], cells: list[Cell]
) -> bool:
    """Train some cells at once and evaluate them, one row each; fewer at once where memory does not do."""
    from edjax.finetune import Job, finetune_together

    def both() -> dict[Cell, tuple[Any, Evaluation]]:
        homes = [stage.work / "cells" / name_of(c) for c in cells]
        jobs = [
            Job(pool.take(order_of(recipe, orders, c)), home / "adapter", recipe.finetune_config(c[2]))
            for c, home in zip(cells, homes, strict=True)
        ]
        trained = finetune_together(jobs, recipe.model, show_progress=False, loaded=loaded)
        found = _evaluated(recipe, loaded, held_out, [job.out for job in jobs])
        return dict(zip(cells, zip(trained, found, strict=True), strict=True))

    try:
        made, failed = both(), ""
    except Exception as e:
        made, failed = {}, f"{type(e).__name__}: {e}"[:500]
    if failed and len(cells) > 1:  # out of the handler, so that nothing of the attempt is held any more
        gc.collect()
        print(f"edjax: cells: {len(cells)} at once: {failed}; in halves", file=sys.stderr, flush=True)
        halves = cells[: len(cells) // 2], cells[len(cells) // 2 :]
        return sum([_trained(stage, recipe, pool, held_out, loaded, orders, half) for half in halves]) == 2
    if failed:
        stage.leave(name_of(cells[0]), failed=failed)
        return False

    def row(cell: Cell) -> dict[str, Any]:
        done, found = made[cell]
        strategy, budget, seed = cell
        return {
            "strategy": strategy,
            "budget": budget,
            "seed": seed,
            "train_loss": done.train_loss,
            "response_tokens": done.response_tokens,
            "finetune_s": done.seconds,
            "at_once": len(cells),
            **measured(recipe, found),
        }

    return stage.jobs({name_of(c): partial(row, c) for c in cells})


def _evaluated(recipe: Recipe, loaded: Any, held_out: Any, adapters: list[Path | None]) -> list[Evaluation]:
    from edjax.evaluate import evaluate_together

    settings: dict[str, Any] = {
        "metrics": recipe.metrics,
        "max_new_tokens": recipe.evaluation_max_new_tokens,
        "template": recipe.template,
        "max_length": recipe.finetune_config(0).max_length,
        "batch_size": recipe.evaluation_batch_size,
        "dtype": recipe.dtype,
        "show_progress": False,
        "loaded": loaded,
    }
    return evaluate_together(held_out, adapters, recipe.model, at_once=recipe.cells_at_once, **settings)


def measured(recipe: Recipe, found: Evaluation) -> dict[str, Any]:
    """The means and every row's values, short enough to bring back."""
    values = {
        m: [None if r.get(m) is None else round(r[m], PLACES.get(m, 4)) for r in found.rows]
        for m in recipe.metrics
        if m in found.scores
    }
    return {"scores": found.scores, "values": values, "evaluate_s": found.seconds}
