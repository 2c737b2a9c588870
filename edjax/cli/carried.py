"""What a value carries after a colon: `--prefilter mean_entropy:3` is `--prefilter mean_entropy --prefilter-ratio 3`.

The help shows the short form alone; the flags it stands for are taken as well, and a thing said by both is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

Carried = tuple[Any, dict[str, Any]]  # the option's own value, and what it says of others by their names
_KINDS: dict[Any, str] = {int: "a whole number", float: "a number", str: "text"}
ALLOWED = {  # what --allow passes over, and the switch that each is
    "fewer": "allow_fewer",
    "unknown": "allow_unknown",
    "invalid": "drop_invalid",
    "bad-lines": "skip_bad_lines",
}


class Tokens(click.ParamType):
    """A number of tokens, and after a colon the column that says what a row costs."""

    name = "tokens"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The text as it was, or a usage error where it begins with no whole number."""
        if not re.fullmatch(r"[+-]?\d+(:.+)?", str(value)):
            self.fail(f"{value!r} is not N or N:COLUMN, such as 20000 or 3600:seconds.", param, ctx)
        return str(value)


class Allowed(click.ParamType):
    """Names of `ALLOWED` with commas between."""

    name = "what"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """The names, or a usage error for one that there is not."""
        names = tuple(v.strip() for v in str(value).split(",")) if isinstance(value, str) else tuple(value)
        for name in names:
            if name not in ALLOWED:
                self.fail(f"{name!r} is not one of {', '.join(ALLOWED)}", param, ctx)
        return names


def unfold(ctx: click.Context, settings: dict[str, Any], rules: dict[str, Callable[[Any], Carried]]) -> None:
    """Put what values carry under names of its own, in place.

    Args:
      settings: by name, what the verb was called with; `reading` of it is a dictionary of further ones.
      rules: of each option that may carry something, how its value is read.

    Raises:
      click.UsageError: a flag of its own says it too.
    """
    called = {p.name: p.opts[0] if isinstance(p, click.Option) else p.human_readable_name for p in ctx.command.params}
    for name, rule in rules.items():
        given = settings.get(name)
        if given is None:
            continue
        settings[name], carried = rule(given)
        for other, value in carried.items():
            if ctx.get_parameter_source(other) is ParameterSource.COMMANDLINE:
                raise click.UsageError(
                    f"{called[name]} {_text(given)} says {other}, and {called[other]} says it too; give one.", ctx
                )
            reading = settings.get("reading", {})
            (reading if other in reading else settings)[other] = value


def _text(given: Any) -> str:
    return ",".join(given) if isinstance(given, tuple) else str(given)


def number(other: str, kind: Callable[[str], Any], of: str | None = None) -> Callable[[str], Carried]:
    """A number after the last colon, of any value or of the one value `of`; other text is left as it is.

    >>> number("strength", float)("mean_entropy:2"), number("strength", float)("a:b")
    (('mean_entropy', {'strength': 2.0}), ('a:b', {}))
    """

    def rule(text: str) -> Carried:
        head, _, tail = text.rpartition(":")
        try:
            value = kind(tail)
        except ValueError:
            return text, {}
        return (head, {other: value}) if head and (of is None or head == of) else (text, {})

    return rule


def knobs(**kinds: Callable[[str], Any]) -> Callable[[str], Carried]:
    """Settings after colons as name=value.

    >>> knobs(quotas=str, keep_small=int)("cluster:8:quotas=balanced:keep_small=5")
    ('cluster:8', {'keep_small': 5, 'quotas': 'balanced'})
    """

    def rule(text: str) -> Carried:
        found: dict[str, Any] = {}
        while (cut := text.rpartition(":"))[0] and (said := cut[2].partition("="))[1] and said[0] in kinds:
            name, _, value = said
            if name in found:
                raise click.UsageError(f"{text} says {name} twice.", click.get_current_context(silent=True))
            try:
                found[name] = kinds[name](value)
            except ValueError:
                raise click.UsageError(
                    f"{name}={value} is not {_KINDS[kinds[name]]}.", click.get_current_context(silent=True)
                ) from None
            text = cut[0]
        return text, found

    return rule


def tokens(text: str) -> Carried:
    """A number, and after a colon the column with what a row costs.

    >>> tokens("3600:seconds"), tokens("20000")
    ((3600, {'cost_by': 'seconds'}), (20000, {}))
    """
    count, colon, column = str(text).partition(":")
    return int(count), ({"cost_by": column} if colon else {})


def money(text: str) -> Carried:
    """An amount, and after a colon the column with the price of a row, or what each row and each token costs.

    >>> money("250:price"), money("250:per_row=0.5:per_token=0.001")
    ((250.0, {'price_by': 'price'}), (250.0, {'cost_per_token': 0.001, 'cost_per_row': 0.5}))
    """
    rest, found = knobs(per_row=float, per_token=float)(text)
    amount, colon, column = rest.partition(":")
    carried = {f"cost_{name}": value for name, value in found.items()}
    return float(amount), carried | ({"price_by": column} if colon else {})


def column(path: Path) -> Carried:
    """A Parquet file, and after a colon the column with its embeddings.

    >>> column(Path("mine.parquet:vector")), column(Path("mine.npy"))
    ((PosixPath('mine.parquet'), {'embedding_column': 'vector'}), (PosixPath('mine.npy'), {}))
    """
    file, colon, name = str(path).rpartition(":")
    if colon and file.endswith(".parquet") and name and not path.exists():
        return Path(file), {"embedding_column": name}
    return path, {}


def allowed(names: tuple[str, ...]) -> Carried:
    """The switches that --allow stands for."""
    return None, {ALLOWED[name]: True for name in names}
