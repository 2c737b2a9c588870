"""A row as a container gives it, and the rows of JSON.

Every reader yields `Row`s: a number a person can find again (the physical line in JSON Lines, the row elsewhere), the
raw bytes where the container has them, and either the parsed object or the reason why there is none. Which container a
name means is the business of `edjax.data.sources`, what a row means that of `edjax.data.turns`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from edjax.keep.errors import DataError

BOM = b"\xef\xbb\xbf"
_SURROGATE = re.compile("[\ud800-\udfff]")


class Row(NamedTuple):
    """One row as read: `record`, or the reason in `bad`.

    number: of its line where it has `raw` bytes, else of the row. part: which of the source's containers it is of.
    """

    number: int
    raw: bytes | None
    record: dict[str, Any]
    bad: str = ""
    part: int = 0


class BadRow(ValueError):
    """A row that cannot be used, and why."""


def absent(value: Any) -> bool:
    """Whether a value stands for none: null, or NaN, which is how pandas writes it."""
    return value is None or (isinstance(value, float) and value != value)


def clean(text: str) -> str:
    """Text that a tokenizer can encode."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def json_lines(stream: Iterator[bytes]) -> Iterator[Row]:
    """Parse JSON Lines: a byte order mark, CRLF, blank lines and a missing last newline are fine."""
    for number, line in enumerate(stream, 1):
        raw = line.removesuffix(b"\n").removesuffix(b"\r")
        if number == 1:
            raw = raw.removeprefix(BOM)
        if not raw or raw.isspace():
            continue
        try:
            yield Row(number, raw, _parse(raw))
        except BadRow as e:
            yield Row(number, raw, {}, str(e))


def _parse(raw: bytes) -> dict[str, Any]:
    if b"\x00" in raw:
        raise BadRow(f"holds a NUL byte (byte {raw.index(0) + 1} of the line)")
    try:
        text = raw.decode()
    except UnicodeDecodeError as e:
        raise BadRow(f"not UTF-8 (0x{raw[e.start]:02x} at byte {e.start + 1} of the line)") from None
    try:
        value = json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as e:
        raise BadRow(f"not valid JSON ({e.msg.removesuffix(' at').rstrip(':')} at column {e.colno})") from None
    except RecursionError:
        raise BadRow("JSON nested too deep") from None
    except BadRow:
        raise
    except ValueError as e:
        raise BadRow(f"not readable JSON ({e})") from None
    return _as_object(value)


def _as_object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        kind = {list: "an array", str: "a string", type(None): "null", bool: "a boolean"}.get(type(value), "a number")
        raise BadRow(f"a row must be a JSON object, not {kind}")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        keys = [k for k, _ in pairs]
        raise BadRow(f"the key {next(k for k in keys if keys.count(k) > 1)!r} occurs twice in one object")
    return value


def decoded(data: bytes, source: str) -> str:
    """Text of UTF-8 bytes; others are a `DataError` with file and line."""
    try:
        return data.decode()
    except UnicodeDecodeError as e:
        line = data.count(b"\n", 0, e.start) + 1
        raise DataError(f"{source}:{line}: not UTF-8 (byte 0x{data[e.start]:02x}); save the file as UTF-8") from e


def json_array(data: bytes, source: str) -> Iterator[Row]:
    """The objects of a JSON array."""
    try:
        values = json.loads(decoded(data, source), object_pairs_hook=_object)
    except json.JSONDecodeError as e:
        what = f"{e.msg.removesuffix(' at').rstrip(':')} at column {e.colno}"
        raise DataError(f"{source}:{e.lineno}: not valid JSON ({what}); mend the file") from e
    except (ValueError, RecursionError) as e:
        raise DataError(f"{source}: not readable JSON ({e}); mend the file") from e
    for number, value in enumerate(values, 1):
        try:
            yield Row(number, None, _as_object(value))
        except BadRow as e:
            yield Row(number, None, {}, str(e))
