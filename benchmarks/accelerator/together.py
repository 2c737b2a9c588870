"""Cells trained and evaluated many adapters at once, in an order whose every beginning is an experiment."""

from __future__ import annotations

import gc
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accelerator.record import Row
from benchmarks.accelerator.select import Cell, order_for
from benchmarks.accelerator.stage import Stage
from benchmarks.evidence.label_efficiency import name_of
from edjax.data.pool import Pool
from edjax.evaluation import Evaluation
from edjax.lm.batching import chunks
from edjax.study.recipe import Recipe

BASE = "base"
PLACES = {"response_loss": 5}  # digits behind the point that a row's value keeps; the others are 0, 1 or shares


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


@dataclass
class Grid:
    """The cells of one recipe in a stage.

    of: what its jobs begin with. warm: rows of the pool that every cell is trained on beside what it chose.
    """

    stage: Stage
    recipe: Recipe
    pool: Pool
    held_out: Pool
    loaded: Any
    of: str = ""
    warm: tuple[int, ...] = ()

    @cached_property
    def at_once(self) -> int:
        from edjax.finetuning.room import cells_at_once

        return self.recipe.cells_at_once or cells_at_once(self.loaded.model.config, self.recipe.finetune_config(0))

    @cached_property
    def groups(self) -> tuple[str, ...] | None:
        """Of the rows held out, where the recipe names a column whose values count alike."""
        from edjax.data.groups import groups_of

        column = self.recipe.evaluation_group_by
        return None if column is None else groups_of(self.held_out, column)

    @cached_property
    def warm_tokens(self) -> int:
        from edjax.study.warm import warm_tokens

        return warm_tokens(self.pool, list(self.warm), self.recipe, self.loaded)

    def left(self, cells: list[Cell]) -> list[Cell]:
        """Those that are not done."""
        done = self.stage.done()
        return [c for c in cells if self.of + name_of(*c) not in done]

    def base(self) -> bool:
        """Evaluate the model before finetuning."""
        return self.stage.job(self.of + BASE, lambda: self._measured(self._evaluated([None])[0]))

    def train(self, cells: list[Cell], orders: Mapping[str, Row]) -> bool:
        """Those that are not done, as many at once as there is room for; whether all are done.

        Args:
          orders: by the name of an order, what was left of it.
        """
        left, whole = self.left(cells), True
        for part in chunks(np.arange(len(left)), self.at_once):
            whole &= self._together([left[i] for i in part], orders)
        return whole

    def _together(self, cells: list[Cell], orders: Mapping[str, Row]) -> bool:
        """Train some cells at once and evaluate them, one row each; fewer at once where memory does not do."""
        from edjax.finetuning import Job, finetune_together

        def both() -> dict[Cell, tuple[Any, Evaluation]]:
            home = Path(self.stage.work, self.stage.name, self.of.partition(":")[0])
            jobs = [
                Job(
                    self.pool.take([*self.warm, *picks_of(self.recipe, orders, c)]),
                    home / name_of(*c) / "adapter",
                    self.recipe.finetune_config(c[2]),
                )
                for c in cells
            ]
            trained = finetune_together(jobs, self.recipe.model, show_progress=False, loaded=self.loaded)
            found = self._evaluated([job.out for job in jobs])
            return dict(zip(cells, zip(trained, found, strict=True), strict=True))

        try:
            made, failed = both(), ""
        except Exception as e:
            made, failed = {}, f"{type(e).__name__}: {e}"[:500]
        if failed and len(cells) > 1:  # out of the handler, so that nothing of the attempt is held any more
            gc.collect()
            print(f"edjax: {self.stage.name}: {len(cells)} at once: {failed}; in halves", file=sys.stderr, flush=True)
            halves = cells[: len(cells) // 2], cells[len(cells) // 2 :]
            return sum([self._together(half, orders) for half in halves]) == 2
        if failed:
            self.stage.leave(self.of + name_of(*cells[0]), failed=failed)
            return False

        def row(cell: Cell) -> dict[str, Any]:
            done, found = made[cell]
            strategy, budget, seed = cell
            return {
                "strategy": strategy,
                "budget": budget,
                "seed": seed,
                "train_loss": done.train_loss,
                "response_tokens": done.response_tokens - self.warm_tokens,
                "finetune_s": done.seconds,
                "at_once": len(cells),
                **self._measured(found),
            }

        return self.stage.jobs({self.of + name_of(*c): partial(row, c) for c in cells})

    def _evaluated(self, adapters: list[Path | None]) -> list[Evaluation]:
        from edjax.evaluation import evaluate_together

        recipe = self.recipe
        settings: dict[str, Any] = {
            "metrics": recipe.metrics,
            "max_new_tokens": recipe.evaluation_max_new_tokens,
            "template": recipe.template,
            "max_length": recipe.finetune_config(0).max_length,
            "batch_size": recipe.evaluation_batch_size,
            "dtype": recipe.dtype,
            "show_progress": False,
            "loaded": self.loaded,
        }
        return evaluate_together(self.held_out, adapters, recipe.model, at_once=recipe.cells_at_once, **settings)

    def _measured(self, found: Evaluation) -> dict[str, Any]:
        """The means, over groups too where there are some, and every row's values, short enough to bring back."""
        from edjax.evaluation.grouping import macro_scores

        values = {
            m: [None if r.get(m) is None else round(r[m], PLACES.get(m, 4)) for r in found.rows]
            for m in self.recipe.metrics
            if m in found.scores
        }
        macro = {} if self.groups is None else {"macro": macro_scores(found.rows, self.groups, self.recipe.metrics)}
        return {"scores": found.scores, **macro, "values": values, "evaluate_s": found.seconds}


def picks_of(recipe: Recipe, orders: Mapping[str, Row], cell: Cell) -> list[int]:
    """The pool's rows that a cell chose.

    Raises:
      KeyError: its order is not there yet.
    """
    return orders[order_for(recipe, cell)[0]]["picks"][: cell[1]]
