"""A row as a line where it came without one."""

from __future__ import annotations

import base64
import json
from decimal import Decimal
from typing import Any

from edjax.data.turns import number_text


def dump(record: dict[str, Any]) -> bytes:
    """One line of strict JSON: NaN becomes null, bytes become base64, whole decimals integers, other decimals, dates
    and the like text, lone surrogates stay escapes."""
    options: dict[str, Any] = {"separators": (",", ":"), "default": _plain}
    try:
        text = json.dumps(record, ensure_ascii=False, allow_nan=False, **options)
    except ValueError:
        record = json.loads(json.dumps(record, **options), parse_constant=lambda _: None)
        text = json.dumps(record, ensure_ascii=False, **options)
    try:
        return text.encode()
    except UnicodeEncodeError:
        return json.dumps(json.loads(text), **options).encode()


def _plain(value: Any) -> int | str:
    if isinstance(value, Decimal) and (text := number_text(value)):
        return int(text) if value == int(value) else text
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)
