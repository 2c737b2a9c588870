"""`edjax finetune`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edjax.cli import options
from edjax.cli.grouped import Grouped, from_settings, option
from edjax.finetuning.config import BATCH, CORESET, LENGTH, LORA, RUNNING, VALIDATION, FinetuneConfig
from edjax.lm.session import MODEL, ROW


class _Apart(Grouped):
    """A shell that spells an unquoted pattern of --validation out makes ROWS of all files but the first."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does it; several ROWS, of which some stand behind --validation, are refused."""
        given = list(args)
        rest = super().parse_args(ctx, args)
        at = next((i for i, a in enumerate(given) if a.partition("=")[0] == "--validation"), None)
        rows = ctx.params.get("rows")
        if at is None or not isinstance(rows, list):
            return rest
        end = at + (1 if "=" in given[at] else 2)
        before = self.make_parser(ctx).parse_args(given[:end])[0].get("rows")
        if not isinstance(before, tuple | list) or len(before) < len(rows):
            raise click.UsageError(
                "several files of --validation: one --validation each, or a quoted pattern; several ROWS stand before "
                "--validation.",
                ctx,
            )
        return rest


@click.command(cls=_Apart)
@click.argument("rows", nargs=-1, required=True, callback=options.one_or_more)
@options.MODEL
@from_settings(FinetuneConfig, headings=(MODEL, LENGTH, BATCH, CORESET, LORA, ROW))
@option(
    "--validation",
    multiple=True,
    callback=options.one_or_more,
    help="Rows to validate on while training; any pool format. One --validation a file, or a quoted pattern; several "
    "ROWS stand before it.",
    section=VALIDATION,
)
@option("--validation-split-name", help="Split of VALIDATION, as --split is of ROWS.", section=VALIDATION)
@from_settings(FinetuneConfig, headings=(VALIDATION, RUNNING))
@options.pool_options
@options.OUT
@options.OVERWRITE
@options.JSON
def finetune(
    rows: str | list[str],
    model: str,
    out: Path,
    validation: str | list[str] | None,
    overwrite: bool,
    validation_split_name: str | None,
    reading: dict[str, Any],
    **settings: Any,
) -> None:
    """Train a LoRA adapter on the responses of ROWS.

    \b
    Reads   ROWS: any pool format, every row with a response
    Writes  OUT/adapter_model.safetensors and adapter_config.json (PEFT format), OUT/metrics.jsonl
            With validation: the adapter of the lowest validation loss, and OUT/last/, that of the last step
            With --keep-checkpoints N: OUT/trajectory/step-*/, N adapters of the way
    Stopped half-way, the same command goes on from the last checkpoint and ends in the same adapter.
    """
    from edjax.data.names import piped
    from edjax.finetuning import finetune as run_finetune
    from edjax.finetuning.examples import teaching
    from edjax.lm.trajectory import TRAJECTORY

    options.use_compilation_cache()
    settings["lora_target_modules"] = tuple(m.strip() for m in settings["lora_target_modules"].split(","))
    if validation is None and validation_split_name is not None:
        raise click.UsageError("--validation-split-name needs --validation.", click.get_current_context())
    if piped(rows) and piped(validation):
        raise click.UsageError("- is named twice, by ROWS and by --validation, and can be read once: name a file.")
    data = options.read(rows, reading)
    held = None if validation is None else options.read(validation, reading | {"split": validation_split_name})
    config = FinetuneConfig(**settings)
    done = run_finetune(data, model, out=out, config=config, validation=held, overwrite=overwrite, log=options.note)
    taught = len(teaching(data, config.assistant_only_loss))
    lines = [f"{done.steps} steps on {taught} rows in {done.seconds:.1f} s, last loss {done.train_loss:.4f}"]
    if done.validation_loss is not None:
        lines.append(f"lowest validation loss {done.validation_loss:.4f}, after step {done.best_step}")
    record: dict[str, Any] = {
        "steps": done.steps,
        "rows": taught,
        "seconds": done.seconds,
        "train_loss": done.train_loss,
    }
    record |= {"validation_loss": done.validation_loss, "best_step": done.best_step, "out": out}
    where = f"adapter in {out}"
    if config.keep_checkpoints:
        record["trajectory"] = out / TRAJECTORY
        where += f", {options.count(config.keep_checkpoints, 'adapters')} of its way in {out / TRAJECTORY}"
    options.tell(record, *lines, where)
