"""Settings out of files and flags: a value of the wrong kind is refused by name."""

from __future__ import annotations

import dataclasses
import math
import re
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
) -> Any:
    """A field of a dataclass of settings: it gives a flag with its help under a heading, and what values make sense.

    kind: of the value, where the default is None.
    """
    said = {"help": help, "section": section, "kind": kind, "above": above, "least": least, "below": below}
    return dataclasses.field(default=default, metadata=said)


def check(settings: Any) -> None:
    """Refuse a value that is not of its default's kind or lies outside of its bounds.

    Raises:
      UsageError: names the setting, the value and the bound.
    """
    for field in dataclasses.fields(settings):
        value, bounds = getattr(settings, field.name), field.metadata
        like_default(field.name, value, field.default)
        above, least, below = bounds["above"], bounds["least"], bounds["below"]
        if above is not None and not value > above:
            raise UsageError(f"{field.name} is {value}; it must be above {above:g}")
        low, high = least is not None and value < least, below is not None and value >= below
        if (low or high) and least is not None and below is not None:
            raise UsageError(f"{field.name} is {value}; it must be at least {least:g} and below {below:g}")
        if low:
            raise UsageError(f"{field.name} is {value}; it must be {least:g} or more")
        if high:
            raise UsageError(f"{field.name} is {value}; it must be below {below:g}")


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
