"""JSON in and out: strict values, lone surrogates kept as escapes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any


def json_bytes(value: Any, *, indent: int | None = None) -> bytes:
    """UTF-8 JSON with text as it is; only where a lone surrogate stands, all of it in ASCII with escapes."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent).encode()
    except UnicodeEncodeError:
        return json.dumps(value, allow_nan=False, indent=indent).encode()


def json_lines(values: Iterable[Any]) -> bytes:
    """JSON Lines."""
    return b"".join(json_bytes(value) + b"\n" for value in values)


def json_record(line: bytes) -> dict[str, Any]:
    """A row of a pool as strict JSON values: NaN and Infinity, which JSON has not, are None."""
    value: dict[str, Any] = json.loads(line, parse_constant=lambda _: None)
    return value


def dump_like(record: dict[str, Any], line: bytes) -> bytes:
    """JSON in the manner of the line it came from: its spaces, and its way with letters that are not ASCII."""
    separators = (", ", ": ") if b'": ' in line else (",", ":")
    try:
        return json.dumps(record, ensure_ascii=line.isascii(), separators=separators).encode()
    except UnicodeEncodeError:
        return json.dumps(record, separators=separators).encode()


def apart(extra: dict[str, Any], taken: Iterable[str]) -> dict[str, Any]:
    """Columns of a person's own beside those of a format: one whose name is `taken` goes by original_NAME."""
    names, made = {*taken, *extra}, {}
    for name, value in extra.items():
        free = name
        while free in (names if free != name else {*taken}):
            free = f"original_{free}"
        names.add(free)
        made[free] = value
    return made


def with_extra(fixed: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
    """A row of a format's own columns, and the further ones of the row's own (`apart`). A format that has a column
    `tools` has there what the row's own says."""
    return fixed | apart({k: v for k, v in extra.items() if k != "tools" or k not in fixed}, fixed)
