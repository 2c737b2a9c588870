"""`edjax generate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from edjax.cli import options
from edjax.cli.grouped import RUNNING, Grouped, from_settings, option
from edjax.lm.session import MODEL, Session

DRAWING = "How answers are drawn"


@click.command(cls=Grouped)
@click.argument("rows", nargs=-1, required=True, callback=options.one_or_more)
@option("--out", type=click.Path(path_type=Path), required=True, help="File to write: JSON Lines.", section=RUNNING)
@option("--overwrite", is_flag=True, help="Write over a file that is there.")
@options.MODEL
@option("--adapter", type=click.Path(path_type=Path), help="PEFT adapter directory to put on it.", section=MODEL)
@option("--template", help="auto, chat or plain; by default as the adapter was trained, else auto.", section=MODEL)
@from_settings(Session, skip=("template", "mesh"))
@option("--max-new-tokens", default=64, show_default=True, help="Longest answer.", section=DRAWING)
@option("--samples", default=1, show_default=True, help="Answers a prompt.", section=DRAWING)
@option("--temperature", default=0.0, show_default=True, help="0: the likeliest token.", section=DRAWING)
@option("--top-k", type=int, help="Draw among the k likeliest tokens.", section=DRAWING)
@option("--top-p", type=float, help="Draw among the likeliest tokens of this probability.", section=DRAWING)
@option("--min-p", type=float, help="Draw among tokens this share as likely as the likeliest.", section=DRAWING)
@option("--seed", default=0, show_default=True, help="Of the draws.", section=DRAWING)
@option("--batch-size", default=16, show_default=True, help="Prompts at a time.")
@option("--responses", help="Take the answers that this column lists; no model is asked.", section=DRAWING)
@options.pool_options
@options.JSON
def generate(
    rows: str | list[str],
    out: Path,
    overwrite: bool,
    responses: str | None,
    reading: dict[str, Any],
    **settings: Any,
) -> None:
    """Let the model answer ROWS: candidate responses, or drafts for people to correct.

    \b
    Reads   ROWS: any pool format; responses that are there are not looked at
    Writes  OUT, a pool: each prompt with the model's answer; --samples 4 --temperature 1 gives four of each,
            which `edjax score OUT --probe response` can tell apart
    --responses COLUMN lays out answers that are there, in lists of texts or of objects with `text` and `source`.
    """
    from edjax.evaluation.candidates import generate as run_generate
    from edjax.evaluation.candidates import listed
    from edjax.handoff.text import json_lines
    from edjax.keep.errors import UsageError
    from edjax.keep.store import atomic_write

    if out.exists() and not overwrite:
        raise UsageError(f"{out} is there; name another file, or --overwrite")
    given = click.get_current_context().get_parameter_source
    if responses and (unread := [n for n in settings if n != "model" and given(n) is ParameterSource.COMMANDLINE]):
        flag = "--" + unread[0].replace("_", "-")
        raise UsageError(f"{flag} is for answers of the model, and --responses takes those of a column; drop one")
    options.use_compilation_cache()
    pool = options.read(rows, reading)
    made = listed(pool, responses) if responses else run_generate(pool, log=options.note, **settings)
    if without := len(pool) - len({row["prompt_id"] for row in made}):
        options.note(f"{options.count(without, 'prompts')} without an answer")
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(out) as f:
        f.write(json_lines(made))
    options.tell(
        {"out": str(out), "rows": len(made), "prompts": len(pool)},
        f"{options.count(len(made), 'answers')} to {options.count(len(pool), 'prompts')} in {out}",
        f"next: edjax score {out} --model {settings['model']} --probe response --out {out.with_suffix('')}-features",
    )
