"""What the verbs share: options, how a pool is read, how a result is printed."""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from edjax.cli.grouped import from_settings, option
from edjax.data.reading import READING as READING
from edjax.data.reading import STDIN as STDIN
from edjax.data.reading import Reading
from edjax.lm.session import MODEL as ON
from edjax.lm.session import Session

COLUMNS = ("response_column", "system_column", "context_column", "choices_column", "answer_column")
OUT = option("--out", type=click.Path(path_type=Path), required=True, help="Directory to write.")
OVERWRITE = option("--overwrite", is_flag=True, help="Start again in a directory made with other settings.")
MODEL = option(
    "--model",
    default=Session.name,
    show_default=True,
    help="smollm2 (embedded default), a Hugging Face directory, a .gguf file, or a hub id.",
    section=ON,
)
DTYPE = from_settings(Session, skip=("quantize", "mesh", "template", "max_length", "max_prompt", "max_response"))
JSON = click.option(
    "--json",
    is_flag=True,
    expose_value=False,
    callback=lambda ctx, _, value: ctx.meta.update({"edjax.json": value}),
    help="Print the result as one JSON object.",
)


class Bytes(click.ParamType):
    """A number of bytes: 4GiB, 500MB, 1e9."""

    name = "bytes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The bytes as an int, or a usage error that names the value."""
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d*)?(?:e\d+)?) *([kmgt]?)(i?)b?", str(value).lower())
        if not found:
            self.fail(f"{value!r} is no size; write 4GiB or 500MB", param, ctx)
        return int(float(found[1]) * (1024 if found[3] else 1000) ** " kmgt".index(found[2] or " "))


def pool_options(f: Any, hidden: Collection[str] = ()) -> Any:
    """What every verb that reads a pool takes, gathered in one argument `reading`: None for what was not given.

    hidden: options that another one says too, taken and not shown.
    """

    @functools.wraps(f)
    def gathered(*args: Any, **settings: Any) -> Any:
        reading = {field.name: settings.pop(field.name) for field in fields(Reading)}
        return f(*args, reading=reading, **settings)

    return from_settings(Reading, switches=False, unset=True, hidden=hidden)(gathered)


def one_or_more(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> str | list[str] | None:
    """The callback of an argument or option with any number of names: none, the one, or a list of them."""
    return None if not value else value[0] if len(value) == 1 else list(value)


def named(pool: str | Sequence[str]) -> list[str]:
    """`--pool` as it stands on a command line, for a line to paste; FILE is one of what came through a pipe."""
    names = [pool] if isinstance(pool, str) else pool
    return [part for name in names for part in ("--pool", "FILE" if name == STDIN else name)]


def read(source: str | Sequence[str], reading: Mapping[str, Any], remembered: Mapping[str, Any] | None = None) -> Any:
    """The pool that a verb was given, with what there is to note about it on stderr.

    Args:
      source: its name, or several. reading: the options of `pool_options`.
      remembered: what a manifest says about how it was read before, for those that were not given.
    """
    from edjax.data.pool import read_as

    return read_as(source, Reading.of(reading, remembered, source), log=note)


def flags(reading: Mapping[str, Any], *left_out: str) -> list[str]:
    """Options of `pool_options` as they stand on a command line, for a line to paste."""
    given = [(f"--{name.replace('_', '-')}", v) for name, v in reading.items() if v and name not in left_out]
    return [part for flag, value in given for part in ((flag,) if value is True else (flag, value))]


def count(n: int, plural: str) -> str:
    """`1 row`, `2 rows`."""
    return f"{n:,} {plural.removesuffix('s') if n == 1 else plural}"


def note(text: str) -> None:
    """A line on stderr that is neither a result nor an error."""
    click.echo(f"edjax: note: {text}", err=True)


def tell(record: dict[str, Any], *lines: str) -> None:
    """The result of a verb: `lines` for people, or with --json the one object `record` for machines."""
    if wants_json():
        click.echo(json.dumps(record, ensure_ascii=False, default=lambda v: v.item() if hasattr(v, "item") else str(v)))
    else:
        for line in lines:
            click.echo(line)


def wants_json() -> bool:
    """Whether the verb was called with --json."""
    return bool(click.get_current_context().meta.get("edjax.json"))


def use_compilation_cache() -> None:
    """Keep compiled programs between processes; a second start is then much faster."""
    import jax

    from edjax.keep.compiled import compiled_programs
    from edjax.lm.smollm2 import cache_dir

    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(compiled_programs(cache_dir() / "xla")))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
