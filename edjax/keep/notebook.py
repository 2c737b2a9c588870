"""What a notebook shows of a thing: a caption, a small table; and the way to pandas."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from importlib import import_module
from typing import Any

from edjax.keep.errors import EnvError

ROWS = 5  # shown of a table
_LONG = 120  # characters shown of a cell


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[Any]], total: int = 0, note: str = "") -> str:
    """An HTML table of text alone: whatever stands in a cell is escaped, and nothing is fetched or run.

    Args:
      caption: what the thing is, on one line. head: names of the columns.
      rows: those that are shown, of `total`.
      note: a line below.
    """
    shown = [list(row) for row in rows]
    left = total - len(shown)
    more = f"... and {left:,} more" if shown and left > 0 else ""
    parts = [f"<p><strong>{escape(caption)}</strong></p>"]
    if shown:
        cells = "".join(f"<th>{escape(str(name))}</th>" for name in head)
        body = "".join("<tr>" + "".join(f"<td>{escape(cell(v))}</td>" for v in row) + "</tr>" for row in shown)
        parts.append(f"<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>")
    parts += [f"<p>{escape(text)}</p>" for text in (more, note) if text]
    return f"<div>{''.join(parts)}</div>"


def cell(value: Any) -> str:
    """A value as a table shows it: numbers to four digits, text cut after 120 characters.

    >>> cell(0.123456), cell(None), cell("a\\nb"), cell(float("nan"))
    ('0.1235', '', 'a b', 'nan')
    """
    if value is None:
        return ""
    kind = getattr(getattr(value, "dtype", None), "kind", "")  # of a number of NumPy, which keep knows by this alone
    if isinstance(value, float) or (kind == "f" and not getattr(value, "ndim", 0)):
        number = float(value)
        return f"{number:.4g}" if math.isfinite(number) else str(number)
    text = " ".join(str(value).split())
    return text if len(text) <= _LONG else text[: _LONG - 3] + "..."


def pandas() -> Any:
    """The package pandas, imported when it is asked for.

    Raises:
      EnvError: it is not installed.
    """
    try:
        return import_module("pandas")
    except ImportError as e:
        raise EnvError(f"to_pandas needs pandas ({e}): pip install pandas") from e
