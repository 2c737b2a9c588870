"""Walk a recipe: score once, select, finetune and evaluate every cell, then say what it was worth."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from edjax.data.features import Features
from edjax.data.groups import groups_of
from edjax.data.pool import Pool, read_pool
from edjax.evaluation import HIGHER_IS_BETTER, Evaluation, answers_of, evaluate_together
from edjax.evaluation.grouping import macro_scores
from edjax.finetuning import Job, finetune_together
from edjax.finetuning.room import cells_at_once
from edjax.keep.errors import DataError
from edjax.keep.store import read_json, read_manifest, sha256_json, versions, write_json, writing
from edjax.lm.batching import chunks
from edjax.lm.bounds import facts_of, notes_on
from edjax.lm.session import Session
from edjax.scoring import score
from edjax.selection.choose import Chooser, usable
from edjax.selection.options import Options
from edjax.selection.selection import Selection, pool_rows, read_selection, with_pool_column, write_selection
from edjax.selection.strategies import strategy_of, uses
from edjax.study.analysis import INTERVAL, STATISTIC, Cell, analyse, values_of, verdict
from edjax.study.beforehand import check, target_of
from edjax.study.growth import place, refuse_another_order, refuse_changes
from edjax.study.recipe import Recipe
from edjax.study.results import RunResults
from edjax.study.slices import slice_of
from edjax.study.warm import warm_rows, warm_tokens


def run(
    recipe: Recipe,
    *,
    out: str | Path | None = None,
    command: str = "",
    overwrite: bool = False,
    show_progress: bool = True,
) -> RunResults:
    """Run every cell of a recipe that is not done yet and write results.json and report.html.

    Cells are strategies x budgets x seeds, all over one scored pool. The same recipe again goes on where it was
    stopped; further strategies, variants, budgets or seeds only add cells, and another primary metric only reads those
    there are anew. All strategies choose among the rows that each of them can use.

    Returns:
      what results.json holds, see `edjax.study.report.schema`.

    Raises:
      UsageError: what was chosen and trained before does not fit the recipe any more, see `edjax.study.growth`.
      any `EdjaxError` of a stage; what was done stays.
    """
    out = Path(out or recipe.out)
    pool = slice_of(read_pool(recipe.pool, split=recipe.pool_split), recipe.pool_rows, recipe)
    held_out = read_pool(recipe.evaluation, split=recipe.evaluation_split)
    held_out = slice_of(held_out, recipe.evaluation_rows, recipe)
    asked, recipe = recipe.budgets, recipe.counted(len(pool))
    check(recipe, pool, out)
    if recipe.evaluation_group_by:
        groups_of(held_out, recipe.evaluation_group_by)
    for metrics in ([recipe.metric], recipe.metrics):
        answers_of(held_out, metrics)
    from edjax.lm.dates import day_of
    from edjax.lm.load import digest, locate

    grid: dict[str, Any] = {k: list(getattr(recipe, k)) for k in ("strategies", "trained", "budgets", "seeds")}
    grid |= {"random_seeds": list(recipe.seeds_of("random")), "metric": recipe.metric}
    grid |= {"evaluation_group_by": recipe.evaluation_group_by, "statistic": STATISTIC}  # of the cells, not in them
    if asked != recipe.budgets:
        grid["budgets_asked"] = list(asked)
    if own := {name: recipe.variants[name] for name in recipe.strategies if name in recipe.variants}:
        grid["variants"] = json.loads(json.dumps(own))
    grows = ("variants", "metric", "whiten_dims")  # each selection's plan says them, which is held against the recipe
    rows = ("pool", "evaluation", "pool_split", "evaluation_split", "target")  # these by their digests
    named = ("out", "title", "finetune_strategies", "report_to", "cells_at_once", *rows)
    settings = asdict(recipe) | recipe.finetune_config(0).record()
    fixed = {k: v for k, v in settings.items() if k not in (*grid, *grows, *named, "finetune", "seed")}
    directory = locate(recipe.model)
    fixed |= day_of(directory, recipe.template, None if overwrite else out)
    inputs = {"pool": pool.digest, "evaluation": held_out.digest, "model": digest(directory)}
    target = target_of(recipe, inputs["model"])
    inputs |= {} if target is None else {"target": target.digest}
    with writing(out, kind="run", config=fixed, inputs=inputs, overwrite=overwrite, grows=grows) as artifact:
        if artifact.complete:
            with contextlib.suppress(DataError):  # a missing or damaged file: walk again, to mend it or to name it
                if read_manifest(out, "run").get("grid") == grid:
                    return RunResults(read_json(out / "results.json"))
        walk = _Walk(recipe, out, pool, held_out, show_progress, fixed.get("date"), target)
        if asked != recipe.budgets:
            walk.say(f"budgets {', '.join(map(str, asked))}: {', '.join(map(str, recipe.budgets))} rows")
        refuse_changes(out / "selections", recipe, walk.features, walk.candidates, walk.warm)
        (out / "manifest.json").unlink(missing_ok=True)
        results = walk.results(command)
        write_json(out / "results.json", results)
        from edjax.study import report

        report.write(results, out / "report.html")
        artifact.finish(grid=grid)
    return RunResults(results)


class _Walk:
    """The stages of one run, each done at most once; the model is loaded when the first of them needs it."""

    def __init__(
        self,
        recipe: Recipe,
        out: Path,
        pool: Pool,
        held_out: Pool,
        show: bool,
        date: str | None,
        target: Features | None = None,
    ):
        self.recipe, self.out, self.pool, self.held_out, self.show, self.date = recipe, out, pool, held_out, show, date
        self.target = target

    def say(self, text: str) -> None:
        if self.show:
            print(f"edjax: {text}", file=sys.stderr, flush=True)

    @cached_property
    def session(self) -> Session:
        r, config = self.recipe, self.recipe.finetune_config(0)
        return Session(
            r.model,
            r.dtype,
            mesh=config.mesh,
            template=r.template,
            max_length=config.max_length,
            max_prompt=config.max_prompt,
            max_response=config.max_response,
        )

    @cached_property
    def noted(self) -> dict[str, dict[str, Any]]:
        """Which rows of the pool, with the responses that may be trained on, the model does not see as written."""
        from edjax.lm.encode import Encoder

        pool = self.pool
        encoder = Encoder.by(self.session.loaded, vars(self.session), self.date)
        rows = encoder.rows(pool.ids, pool.messages, pool.responses, tools=pool.tools, source=pool.source)
        for note in notes_on(rows, pool.ids, encoder.bounds):
            self.say(f"note: {pool.source}: {note}")
        return facts_of(rows, pool.ids)

    @cached_property
    def features(self) -> Features:
        r = self.recipe
        return score(
            self.pool,
            self.session,
            out=self.out / "features",
            layer=r.layer,
            pooling=r.pooling,
            max_new_tokens=r.max_new_tokens,
            batch_size=r.score_batch_size,
            date=self.date,
            show_progress=self.show,
        )

    @cached_property
    def candidates(self) -> np.ndarray:
        """The rows that every strategy of the recipe can use, (n,) bool."""
        return usable(self.features, [self.recipe.choice(s) for s in self.recipe.strategies])

    @cached_property
    def warm_rows(self) -> list[int]:
        return warm_rows(self.pool, self.recipe)

    @cached_property
    def warm(self) -> tuple[str, ...]:
        """The ids of the rows that every cell is trained on beside what it chose."""
        return tuple(self.pool.ids[i] for i in self.warm_rows)

    @cached_property
    def warm_tokens(self) -> int:
        return warm_tokens(self.pool, self.warm_rows, self.recipe, self.session.loaded, self.date)

    @cached_property
    def selections(self) -> dict[tuple[str, int], Selection]:
        """By (strategy, seed of the choice), at the largest budget."""
        largest = max(self.recipe.rows)
        r = self.recipe
        drawn = {s: {r.choice_seed(s, seed): None for seed in r.seeds_of(s)} for s in r.strategies}
        return {(s, seed): self.selection(s, seed, largest) for s, seeds in drawn.items() for seed in seeds}

    @cached_property
    def choosers(self) -> dict[Options, Chooser]:
        """By what is asked, so that strategies and budgets that ask the same share features and clusters made once."""
        return {}

    def selection(self, strategy: str, seed: int, budget: int) -> Selection:
        path = place(self.out / "selections", strategy, f"-b{budget}-s{seed}")
        if (path / "manifest.json").exists():
            return read_selection(path)
        name, options = self.recipe.choice(strategy, seed)
        target = self.target if uses(strategy_of(name, self.features.scores), "target") else None
        options = replace(options, labelled=self.warm, target=target)
        features, column = self.features, options.group_column
        features = with_pool_column(features, self.pool, column) if column else features
        chooser = self.choosers.setdefault(options, Chooser(features, options, self.candidates))
        chosen = chooser.choose(name, [budget])[0]
        if self.recipe.nested(strategy):
            refuse_another_order(path, strategy, chosen)
        config, left_out = {"strategy": name, "budget": budget} | options.record(), chooser.left_out(name)
        read = {"left_out": sha256_json(left_out)} if left_out else {}
        if target is not None:
            config, read = config | {"target": self.recipe.target}, read | {"target": target.digest}
        write_selection(chosen, self.features, self.pool, path, config=config, inputs=read)
        if left_out:
            self.say(f"note: {strategy}: {chosen.warning}")
        self.say(f"selected {budget} of {len(self.pool)} by {strategy} in {chosen.seconds:.2f} s")
        return chosen

    def chosen(self, strategy: str, seed: int, budget: int) -> Pool:
        """The warm start's rows and a cell's own: where orders are nested, the first of the largest budget's."""
        drawn = self.recipe.choice_seed(strategy, seed)
        choice = self.selections[strategy, drawn]
        if not self.recipe.nested(strategy):
            choice = self.selection(strategy, drawn, budget)
        return self.pool.take([*self.warm_rows, *pool_rows(choice, self.pool)[:budget]])

    @cached_property
    def base(self) -> Evaluation:
        def note(text: str) -> None:
            self.say(f"note: {self.held_out.source}: {text}")

        return self.evaluations([None], [self.out / "base" / "evaluation"], log=note)[0]

    def evaluations(self, adapters: Sequence[Path | None], out: Sequence[Path], **more: Any) -> list[Evaluation]:
        """Of the base with each of these adapters, on the same rows."""
        r = self.recipe
        return evaluate_together(
            self.held_out,
            adapters,
            self.session,
            out=out,
            at_once=r.cells_at_once,
            metrics=r.metrics,
            max_new_tokens=r.evaluation_max_new_tokens,
            template=r.template,
            batch_size=r.evaluation_batch_size,
            date=self.date,
            show_progress=self.show,
            **more,
        )

    @cached_property
    def groups(self) -> tuple[str, ...] | None:
        column = self.recipe.evaluation_group_by
        return None if column is None else groups_of(self.held_out, column)

    def macro(self, done: Evaluation) -> dict[str, dict[str, float]]:
        """{"macro": by metric the mean over groups of each group's mean}, where the recipe names a column."""
        return {} if self.groups is None else {"macro": macro_scores(done.rows, self.groups, self.recipe.metrics)}

    @cached_property
    def cells(self) -> list[dict[str, Any]]:
        r = self.recipe
        made: list[dict[str, Any]] = []
        total = sum(len(r.budgets) * len(r.seeds_of(s)) for s in r.trained)
        for budget in r.rows:
            plan = [(s, seed) for s in r.trained for seed in r.seeds_of(s)]
            for some in chunks(np.arange(len(plan)), self.at_once):
                made += self.some_cells(budget, [plan[i] for i in some], len(made), total)
        return made

    @cached_property
    def at_once(self) -> int:
        """How many cells are trained together, and at the most evaluated together."""
        return self.recipe.cells_at_once or cells_at_once(
            self.session.loaded.model.config, self.recipe.finetune_config(0)
        )

    def some_cells(self, budget: int, plan: list[tuple[str, int]], before: int, total: int) -> Iterator[dict[str, Any]]:
        """Train and evaluate cells of one budget, each a strategy and a seed."""
        paths = [place(self.out / "cells", strategy, f"-b{budget}-s{seed}") for strategy, seed in plan]
        known = [(path / "evaluation" / "manifest.json").exists() for path in paths]
        jobs = [
            Job(self.chosen(strategy, seed, budget), path / "adapter", self.recipe.finetune_config(seed))
            for (strategy, seed), path in zip(plan, paths, strict=True)
        ]
        trained = finetune_together(jobs, self.session, date=self.date, show_progress=self.show)
        evaluated = self.evaluations([path / "adapter" for path in paths], [path / "evaluation" for path in paths])
        for number, ((strategy, seed), done, scores, again) in enumerate(
            zip(plan, trained, evaluated, known, strict=True), before + 1
        ):
            metric = self.recipe.metric
            value, macro = scores.scores.get(metric, float("nan")), self.macro(scores)
            said = f"{value:.4f}"
            if macro:
                said = f"{macro['macro'].get(metric, float('nan')):.4f} (macro; mean over rows {said})"
            label = f"cell {number} of {total}: {strategy}, {budget} labels, seed {seed}"
            self.say(f"{label}: {metric} {said}{' (done before)' if again else ''}")
            yield {
                "strategy": strategy,
                "budget": budget,
                "seed": seed,
                "scores": scores.scores,
                **macro,
                "train_loss": done.train_loss,
                "response_tokens": done.response_tokens - self.warm_tokens,
                "seconds": {"finetune": done.seconds, "evaluate": scores.seconds},
                "rows": scores.rows,
            }

    def results(self, command: str) -> dict[str, Any]:
        """Walk every stage and put the outcome together."""
        r, metric = self.recipe, self.recipe.metric
        start = time.monotonic()
        noted = self.noted
        features, selections, base = self.features, self.selections, self.base
        cells = self.cells
        higher = HIGHER_IS_BETTER[metric]
        found = analyse(
            [
                Cell(c["strategy"], c["budget"], c["seed"], values_of(c.pop("rows"), metric), c["response_tokens"])
                for c in cells
            ],
            values_of(base.rows, metric),
            higher_is_better=higher,
            groups=self.groups,
        )
        column = r.evaluation_group_by
        weighed = {"group_by": column, "groups": len(set(self.groups))} if self.groups else {}
        stages = self.stages(cells)
        from edjax.study.portrait import portrait

        after = f" after a warm start of {r.warm_start}" if r.warm_start else ""
        return {
            "title": r.title or f"{self.pool.source}: {len(self.pool)} prompts, budgets up to {max(r.rows)}{after}",
            "verdict": verdict(found, metric, higher, group_by=column),
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "command": command,
            "metric": {
                "name": metric,
                "higher_is_better": higher,
                "interval": INTERVAL,
                "statistic": STATISTIC,
                **weighed,
            },
            "model": r.model,
            "pool": {"source": self.pool.source, "rows": len(self.pool), "digest": self.pool.digest, **noted},
            "evaluation": {
                "source": self.held_out.source,
                "rows": len(self.held_out),
                "digest": self.held_out.digest,
                "counts": base.counts,
                **base.noted,
            },
            "versions": versions(),
            "hashes": {"model": self.session.digest, "features": features.digest},
            "recipe": json.loads(json.dumps(asdict(r))),
            "base": {"scores": base.scores, **self.macro(base), "seconds": base.seconds},
            "cells": cells,
            **found,
            **portrait(self.pool, features, selections, r.normalise),
            **stages,
            "wall_seconds": round(time.monotonic() - start, 1),
        }

    def stages(self, cells: list[dict[str, Any]]) -> dict[str, Any]:
        """Wall time of every stage, all starts of this run together, and what choosing costs beside training."""
        seconds = {
            "score": read_manifest(self.out / "features", "features")["seconds"],
            "select": sum(s.seconds for s in self.selections.values()),
            "finetune": sum(c["seconds"]["finetune"] for c in cells),
            "evaluate": self.base.seconds + sum(c["seconds"]["evaluate"] for c in cells),
        }
        train = seconds["finetune"]
        return {
            "stages": [{"name": k, "seconds": round(v, 3)} for k, v in seconds.items()],
            "overhead": {
                "select_share_of_finetune": seconds["select"] / train if train else None,
                "score_and_select_share": (seconds["score"] + seconds["select"]) / train if train else None,
            },
        }
