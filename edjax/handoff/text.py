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


def with_extra(fixed: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
    """A row of a format's own columns, and the further ones whose names are free."""
    return fixed | {k: v for k, v in extra.items() if k not in fixed}


def dump(record: dict[str, Any], spaced: bool, ascii_only: bool) -> bytes:
    """One line of JSON in the manner of the line that it came from: with spaces or without, in ASCII alone or not."""
    separators = (", ", ": ") if spaced else (",", ":")
    try:
        return json.dumps(record, ensure_ascii=ascii_only, separators=separators).encode()
    except UnicodeEncodeError:
        return json.dumps(record, separators=separators).encode()
