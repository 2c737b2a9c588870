"""`edjax evaluate` and `edjax merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edjax.cli import options
from edjax.cli.grouped import Grouped, from_settings, option
from edjax.evaluation.config import EvaluateConfig
from edjax.lm.session import MODEL, ROW, Session


@click.command(cls=Grouped)
@click.argument("rows", nargs=-1, required=True, callback=options.one_or_more)
@options.MODEL
@option("--adapter", type=click.Path(path_type=Path), help="PEFT adapter directory to put on the model.", section=MODEL)
@option("--out", type=click.Path(path_type=Path), help="Directory for scores.json and rows.jsonl.")
@from_settings(EvaluateConfig)
@option(
    "--template",
    help="auto, chat (the model's chat template) or plain; by default what the adapter was trained with, else auto.",
    section=ROW,
)
@from_settings(Session, skip=("template",))
@options.pool_options
@options.OVERWRITE
@options.JSON
def evaluate(rows: str | list[str], metrics: str, reading: dict[str, Any], **settings: Any) -> None:
    """Score the model's answers on ROWS, with or without an adapter.

    \b
    Reads   ROWS: any pool format, every row with a response, refs or an answer; choices are used if there
    Writes  OUT/scores.json and OUT/rows.jsonl, if --out is given
    """
    from edjax.evaluation import evaluate as run_evaluate

    options.use_compilation_cache()
    data = options.read(rows, reading)
    done = run_evaluate(
        data, metrics=tuple(m.strip() for m in metrics.split(",") if m.strip()), log=options.note, **settings
    )
    lines, record = [], {"scores": done.scores, "counts": done.counts, "seconds": done.seconds}
    for name, value in done.scores.items():
        macro = f"  {done.macro[name]:8.4f}  over {settings['group_by']}" if name in done.macro else ""
        lines.append(f"{name:16} {value:8.4f}  over {done.counts[name]} rows{macro}")
    options.tell(record | ({"macro": done.macro, "groups": done.groups} if done.macro else {}), *lines)


@click.command()
@options.MODEL
@click.option("--adapter", type=click.Path(path_type=Path), required=True, help="PEFT adapter directory to fold in.")
@options.OUT
@options.DTYPE
@options.OVERWRITE
@options.JSON
def merge(**settings: Any) -> None:
    """Fold an adapter into its base model and write a whole model.

    \b
    Reads   the model, and the adapter (PEFT format)
    Writes  OUT: config.json, safetensors and tokenizer in Hugging Face format, for `--model OUT` or transformers
    """
    from edjax.lm.merge import merge as run_merge

    out = run_merge(log=options.note, **settings)
    options.tell({"out": out}, f"merged model in {out}")
