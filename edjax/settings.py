"""Settings out of files and flags: a value of the wrong kind is refused by name."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any

from edjax.keep.errors import UsageError

_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def setting(
    default: Any,
    help: str,
    *,
    section: str,
    kind: type | None = None,
    above: float | None = None,
    least: float | None = None,
    below: float | None = None,
    choices: Sequence[str] = (),
    flag: str | None = None,
    within: str | None = None,
    recipe: str | None = None,
) -> Any:
    """A field of a dataclass of settings: it gives a flag with its help under a heading, and what values make sense.

    default: `dataclasses.MISSING` where there is none. kind: of the value, where the default is None or missing.
    flag: its name on the command line, where that is not the field's.
    within: how another flag says the same, as "--prefilter SCORE:RATIO": its own is taken and not shown.
    recipe: its name in `edjax.study.recipe.Recipe`, where it is a key of the section of its verb.
    """
    bounds = {"above": above, "least": least, "below": below, "choices": tuple(choices)}
    said = {"help": help, "section": section, "kind": kind, "flag": flag, "within": within, "recipe": recipe}
    return dataclasses.field(default=default, metadata={**said, **bounds})


def same_as(settings: Any, name: str, **other: Any) -> Any:
    """A field with default, help and bounds of another dataclass's field, but for what `other` says.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Small:
    ...     rows: int = setting(3, "rows", section="Some", least=1)
    >>> @dataclasses.dataclass(frozen=True)
    ... class Also:
    ...     batch_rows: int = same_as(Small, "rows", section="Batches")
    >>> Also().batch_rows, dataclasses.fields(Also)[0].metadata["least"]
    (3, 1)
    """
    found = next(f for f in dataclasses.fields(settings) if f.name == name)
    return setting(**{"default": found.default, **found.metadata, **other})


def check(settings: Any) -> None:
    """Refuse a value that is not of its setting's kind or lies outside of its bounds; other fields are left alone.

    Raises:
      UsageError: names the setting, the value and the bound.
    """
    for field in dataclasses.fields(settings):
        value, bounds = getattr(settings, field.name), field.metadata
        if not bounds or (field.default is None and value is None):
            continue
        if field.default in (None, dataclasses.MISSING):
            typed(field.name, value, bounds["kind"])
        else:
            like_default(field.name, value, field.default)
        if bounds["choices"] and value not in bounds["choices"]:
            raise UsageError(f"{field.name} {value!r} is not one of {', '.join(bounds['choices'])}")
        _within(field.name, value, bounds["above"], bounds["least"], bounds["below"])


def _within(name: str, value: Any, above: float | None, least: float | None, below: float | None) -> None:
    if above is not None and not value > above:
        raise UsageError(f"{name} is {value}; it must be above {above:g}")
    low, high = least is not None and value < least, below is not None and value >= below
    if (low or high) and least is not None and below is not None:
        raise UsageError(f"{name} is {value}; it must be at least {least:g} and below {below:g}")
    if low:
        raise UsageError(f"{name} is {value}; it must be {least:g} or more")
    if high:
        raise UsageError(f"{name} is {value}; it must be below {below:g}")


def typed(name: str, value: Any, kind: type) -> None:
    """Refuse a value that is not of `kind`: text, whole numbers, finite numbers, true or false.

    Raises:
      UsageError: names the setting, the value and the kind.
    """
    kinds: tuple[type, ...] = (int, float) if kind is float else (kind,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and kind is not bool):
        hint = ""
        if kind is float and isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value):
            mantissa, exponent = re.split("[eE]", value)
            hint = f"; YAML wants {float(mantissa)}e{int(exponent):+d} for it"
        raise UsageError(f"{name} holds {value!r}, which is not {_WORDS[kind]}{hint}")
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{name} is {value}; it must be finite")


def like_default(name: str, value: Any, default: Any) -> None:
    """Refuse a value whose kind is not that of the setting's default; a tuple is a list of text."""
    if isinstance(default, tuple):
        if not isinstance(value, (list, tuple)):
            raise UsageError(f"{name} holds {value!r}, which is not a list: [q_proj, v_proj]")
        for item in value:
            typed(name, item, str)
    else:
        typed(name, value, type(default))
