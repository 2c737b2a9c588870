"""Does choosing save labels? Strategies x budgets x seeds on the FLAN-like pool, and what was chosen.

    python -m benchmarks.evidence.label_efficiency               # the reduced grid: under three hours on two CPU cores
    python -m benchmarks.evidence.label_efficiency --grid gpu    # the whole pool, every evaluation set on every cell

A grid is a recipe of recipes/, walked by `edjax.run`: one scoring pass, and cells that are not done again when the
command is. Beside the recipe's own evaluation stand sets the pool's tasks are not in.
`python -m benchmarks.evidence.reanalyse` works curves, differences and savings out anew from the cells of a
results file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np

from benchmarks.evidence.chosen import properties
from benchmarks.harness import runner
from edjax.data.pool import read_pool
from edjax.evaluation import HIGHER_IS_BETTER, Evaluation, evaluate, read_evaluation
from edjax.study.analysis import INTERVAL, STATISTIC, Cell, analyse
from edjax.study.recipe import Recipe, read_recipe
from edjax.study.run import run, slice_of

RECIPES = runner.ROOT / "recipes"
Cells = dict[tuple[str, int, int, int | None], Evaluation]  # by strategy, budget, seed and response tokens, if known


class Held(NamedTuple):
    """A set to evaluate on beside the recipe's own; `budgets` and `seeds` None: every cell, else those alone."""

    name: str
    file: str
    metrics: tuple[str, ...]
    rows: int | None = None
    max_new_tokens: int = 16
    budgets: tuple[int, ...] | None = None
    seeds: tuple[int, ...] | None = None


class Grid(NamedTuple):
    recipe: str
    held: tuple[Held, ...]
    reduction: str = ""


_LAST = {"budgets": (128,), "seeds": (0,)}
GRIDS = {
    "cpu": Grid(
        "label_efficiency_cpu.yaml",
        (
            Held("pool_val", "pool_val.parquet", ("exact_match", "rouge_l"), 60, **_LAST),
            Held("niv1_test", "eval_niv1_test.parquet", ("rouge_l",), 40, **_LAST),
            Held("bbh", "eval_bbh.parquet", ("choice_accuracy",), 81, **_LAST),
            Held("mmlu_dev", "eval_mmlu_dev.parquet", ("choice_accuracy",), 57, **_LAST),
        ),
        "a seeded slice of the prompts of at most 400 characters; every cell evaluated by its loss on pool_val, the "
        "other metrics and sets at the largest budget and the first seed alone, on slices",
    ),
    "gpu": Grid(
        "label_efficiency.yaml",
        (
            Held("niv1_test", "eval_niv1_test.parquet", ("rouge_l",), max_new_tokens=48),
            Held("bbh", "eval_bbh.parquet", ("choice_accuracy",)),
            Held("mmlu_dev", "eval_mmlu_dev.parquet", ("choice_accuracy",)),
        ),
    ),
}


def walk(grid: Grid, recipe: Recipe, data: Path, show: bool = True) -> dict[str, Any]:
    """Every cell of a grid on every set: what the results file holds beside the machine."""
    found = run(recipe, show_progress=show)
    sets, held = {"pool_val": of_recipe(recipe, found)}, {}
    for h in grid.held:
        done, base = evaluated(recipe, found, h, data, show)
        sets[h.name] = sets.get(h.name, {}) | compared(done, base, h.metrics)
        for key, e in done.items():
            held.setdefault(key, {}).setdefault(h.name, {}).update(e.scores)
    cells = [
        {"job": name_of(c["strategy"], c["budget"], c["seed"]), **{k: v for k, v in c.items() if k != "rows"}}
        | ({"held": held[key]} if (key := key_of(c)) in held else {})
        for c in found["cells"]
    ]
    return {
        "rows": cells,
        "recipe": found["recipe"] | {k: Path(found["recipe"][k]).name for k in ("pool", "evaluation")},
        "reduction": grid.reduction,
        "interval": INTERVAL,
        "statistic": STATISTIC,
        "base": found["base"],
        "sets": sets,
        "chosen": properties(recipe),
        "stages": found["stages"],
        "overhead": found["overhead"],
        "pool": found["pool"] | {"source": Path(found["pool"]["source"]).name},
    }


def name_of(strategy: str, budget: int, seed: int) -> str:
    return f"{strategy}-b{budget}-s{seed}"


def key_of(cell: dict[str, Any]) -> tuple[str, int, int, int | None]:
    return cell["strategy"], cell["budget"], cell["seed"], cell["response_tokens"]


def of_recipe(recipe: Recipe, found: dict[str, Any]) -> dict[str, Any]:
    """By metric, what all cells give on the recipe's own evaluation."""
    out = Path(recipe.out)
    cells: Cells = {
        key_of(c): read_evaluation(out / "cells" / name_of(c["strategy"], c["budget"], c["seed"]) / "evaluation")
        for c in found["cells"]
    }
    return compared(cells, read_evaluation(out / "base" / "evaluation"), recipe.metrics)


def evaluated(recipe: Recipe, found: dict[str, Any], held: Held, data: Path, show: bool) -> tuple[Cells, Evaluation]:
    """The cells and the base model on one more set; those that were evaluated before are read."""
    out = Path(recipe.out)
    pool = slice_of(read_pool(str(data / held.file)), held.rows, recipe)
    wanted = [
        c
        for c in found["cells"]
        if (held.budgets is None or c["budget"] in held.budgets) and (held.seeds is None or c["seed"] in held.seeds)
    ]
    from edjax.lm.load import load

    loaded = load(recipe.model, recipe.dtype)

    def scores(folder: Path, adapter: Path | None) -> Evaluation:
        return evaluate(
            pool,
            recipe.model,
            adapter=adapter,
            out=folder / f"on_{held.name}",
            metrics=held.metrics,
            max_new_tokens=held.max_new_tokens,
            template=recipe.template,
            max_length=recipe.finetune_config(0).max_length,
            batch_size=recipe.evaluation_batch_size,
            dtype=recipe.dtype,
            loaded=loaded,
            show_progress=show,
        )

    base = scores(out / "base", None)
    cells: Cells = {}
    for c in wanted:
        folder = out / "cells" / name_of(c["strategy"], c["budget"], c["seed"])
        cells[key_of(c)] = scores(folder, folder / "adapter")
    return cells, base


def compared(cells: Cells, base: Evaluation, metrics: Sequence[str]) -> dict[str, Any]:
    """By metric: the score before finetuning, curves, differences from random, savings in labels and in tokens."""
    made = {}
    for metric in metrics:
        if metric not in base.scores:
            continue
        some = [Cell(s, b, seed, _values(e, metric), tokens) for (s, b, seed, tokens), e in cells.items()]
        found = analyse(some, _values(base, metric), higher_is_better=HIGHER_IS_BETTER[metric])
        if len({c.budget for c in some}) < 2:
            found = {k: v for k, v in found.items() if k in ("curves", "differences")}
        made[metric] = {"rows": base.counts[metric], "base": base.scores[metric], **found}
    return made


def _values(evaluation: Evaluation, metric: str) -> np.ndarray:
    return np.asarray([np.nan if r.get(metric) is None else r[metric] for r in evaluation.rows], float)


@click.command()
@click.option("--grid", type=click.Choice(list(GRIDS)), default="cpu", show_default=True)
@click.option("--data", type=Path, default=runner.ROOT.parent / "shared" / "data", help="Where the sets lie.")
@click.option("--out", type=Path, help="The results file, else one in benchmarks/results named by the device.")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
def main(grid: str, data: Path, out: Path | None, overrides: tuple[str, ...]) -> None:
    """Run a grid, or go on with it; KEY=VALUE changes its recipe."""
    chosen = GRIDS[grid]
    machine = runner.machine()
    recipe = read_recipe(RECIPES / chosen.recipe, overrides)
    found = walk(chosen, recipe, data)
    rows = found.pop("rows")
    path = runner.write(f"label_efficiency-{runner.device_name()}", rows, out=out, machine=machine, grid=grid, **found)
    click.echo(f"wrote {path}")


if __name__ == "__main__":
    main()
