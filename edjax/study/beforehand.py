"""What a run refuses before the first minute of work, so that it does not fail after an hour."""

from __future__ import annotations

from pathlib import Path

from edjax.data.features import SCORES, Features
from edjax.data.groups import groups_of
from edjax.data.pool import Pool
from edjax.keep.errors import DataError, UsageError
from edjax.selection.beside import read_beside, refuse_other_features
from edjax.selection.strategies import scores_of, strategy_of, uses
from edjax.study.recipe import Recipe


def check(recipe: Recipe, pool: Pool, out: Path) -> None:
    """Refuse a recipe that cannot be walked over this pool, or gone on with in `out`.

    Raises:
      UsageError, DataError: what is wrong, and with which row.
    """
    warm = recipe.warm_start or 0
    if max(recipe.rows) + warm > len(pool):
        beside = f" beside a warm start of {warm}" if warm else ""
        raise UsageError(f"budget {max(recipe.rows)}{beside} is larger than the pool ({len(pool)} rows); lower it")
    unlabelled = [i for i, r in zip(pool.ids, pool.responses, strict=True) if r is None]
    if unlabelled:
        raise DataError(
            f"{pool.source}: a run buys labels from the pool's responses, and row {unlabelled[0]!r} has none"
            f"{pool.unanswered(pool.index_of[unlabelled[0]])} ({len(unlabelled)} such); `edjax score` and "
            "`edjax select` need no responses"
        )
    _check_target(recipe)
    needs_tokens = []
    for name in recipe.strategies:
        strategy, options = recipe.choice(name)
        read = scores_of(strategy_of(strategy, SCORES))
        if unknown := [column for column in read if column not in SCORES]:
            raise UsageError(f"{name} reads {unknown[0]!r}, which a run does not score (it scores {', '.join(SCORES)})")
        if read or options.columns():
            needs_tokens.append(name)
    if needs_tokens and recipe.max_new_tokens < 1:
        scored = (out / "features").exists()
        other = ", and another out: this run's pool was scored without, and its choices stand on that" if scored else ""
        raise UsageError(f"{needs_tokens[0]} needs decoded tokens: set max_new_tokens to 1 or more{other}")
    from edjax.finetuning.order import split_rows
    from edjax.finetuning.sources import refuse_unknown
    from edjax.finetuning.trackers import require
    from edjax.lm.lora import LoraConfig
    from edjax.lm.mesh import check_rows, parse_mesh, row_shards
    from edjax.lm.train import schedule
    from edjax.lm.trajectory import kept_steps

    config = recipe.finetune_config(0)
    require(config.report_to)
    mesh = parse_mesh(config.mesh)
    for size in (recipe.score_batch_size, recipe.evaluation_batch_size):
        check_rows(size, mesh)
    if recipe.trained and config.batch_method != "none":
        if config.source_column is not None:
            groups_of(pool, config.source_column)
        refuse_unknown(pool, config.source_column, config.batch_keep_sources)
    if recipe.trained and config.keep_checkpoints and not config.packing:  # what is packed is known by tokens alone
        rows = min(recipe.rows) + warm
        rows -= len(split_rows(rows, config.validation_split, 0)[1]) if config.validation_split else 0
        try:
            kept_steps(config.updates(rows, 1 if mesh is None else row_shards(mesh)), config.keep_checkpoints)
        except UsageError as e:
            raise UsageError(f"budget {min(recipe.rows)}: {e}") from e
    LoraConfig(config.lora_r, config.lora_alpha, config.lora_target_modules)
    schedule(config.lr_scheduler_type, config.learning_rate, 1, config.warmup_ratio)


def _check_target(recipe: Recipe) -> None:
    """A target that some strategy needs is there, and one that is there is read."""
    methods = {name: strategy_of(recipe.choice(name)[0], SCORES) for name in recipe.strategies}
    if recipe.target is None:
        if missing := [name for name, method in methods.items() if method.needs_target]:
            raise UsageError(f"{missing[0]} needs rows to choose for: name their features with target, below select")
        return
    if not any(uses(method, "target") for method in methods.values()):
        raise UsageError(f"target: none of {', '.join(methods)} reads one; `edjax strategies` says which do")


def target_of(recipe: Recipe, weights: str) -> Features | None:
    """The features that a recipe names as target, which were scored as the run will score its pool."""
    if recipe.target is None:
        return None
    ours = {"model": recipe.model, "weights": weights, "layer": recipe.layer, "pooling": recipe.pooling}
    refuse_other_features(Path(recipe.target), ours, "this run")
    return read_beside(Path(recipe.target))
