"""Rows of a table as text: CSV, and the same with semicolons or tabs.

What stands between the cells is told from the header: of comma, semicolon and tab those that occur in it outside of
quotes, the first that gives every row as many cells as the header has, the comma before the others, so that texts never
decide against it; else the one that does so for most rows.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from edjax.data.rows import Row, decoded
from edjax.keep.errors import DataError

NESTED = ("messages", "conversations", "history", "tools", "functions", "choices")  # columns that hold lists
_DELIMITERS = (",", ";", "\t")


class _Table(NamedTuple):
    header: list[str]
    rows: list[list[str]]
    error: str = ""
    line: int = 0

    def fit(self) -> float:
        """The share of rows that have as many cells as the header."""
        right = sum(len(cells) == len(self.header) for cells in self.rows)
        return -1.0 if self.error else right / max(len(self.rows), 1)


def table_rows(data: bytes, source: str, delimiter: str | None = None) -> Iterator[Row]:
    """Read a table with a header; every cell stays the text it is (an id 007 keeps its zeros), an empty cell is None.
    A JSON list or object in one of the columns NESTED is read as such.

    Args:
      data: UTF-8. delimiter: what stands between the cells; None: told from the header.

    Raises:
      DataError: no UTF-8, quotes that do not close, a column that occurs twice.
    """
    table = _table(decoded(data, source), delimiter)
    if len(set(table.header)) != len(table.header):
        twice = next(name for name in table.header if table.header.count(name) > 1)
        raise DataError(f"{source}:1: the column {twice!r} occurs twice; rename one of them")
    if table.error:
        raise DataError(f"{source}:{table.line}: not valid CSV ({table.error}); mend the file")
    for number, cells in enumerate(table.rows, 1):
        bad = ""
        if len(cells) != len(table.header):
            bad = f"{len(cells)} cells where the header has {len(table.header)}"
        record: dict[str, Any] = {k: v or None for k, v in zip(table.header, cells, strict=False)}
        for name in NESTED if not bad else ():
            if (text := record.get(name)) is not None and text.lstrip()[:1] in ("[", "{"):
                record[name], bad = _value(text, name, bad)
        yield Row(number, None, record, bad)


def _value(text: str, name: str, bad: str) -> tuple[Any, str]:
    """What a cell holds as JSON, and what is wrong with the row; choices and tools that are no JSON stay text."""
    try:
        return json.loads(text), bad
    except (ValueError, RecursionError):
        turns = name in ("messages", "conversations")
        why = f"{name!r} holds a list that is not JSON; write it with json.dumps (pandas writes Python's own form)"
        return text, bad or (why if turns else "")


def _table(text: str, delimiter: str | None) -> _Table:
    if delimiter is not None:
        return _parsed(text, delimiter)
    tried: list[_Table] = []
    for candidate in _candidates(text):
        tried.append(_parsed(text, candidate))
        if tried[-1].fit() == 1:
            return tried[-1]
    best = max(tried, key=_Table.fit, default=None)  # the first of equals
    if best is None or (not best.error and best.fit() < 0.5):
        column = _parsed(text, ",")  # one alone, whose name holds what may stand between others
        return column if best is None or column.fit() == 1 else best
    return best


def _candidates(text: str) -> list[str]:
    """Those that stand in the header outside of quotes: the comma first, then the more frequent."""
    counts, quoted = dict.fromkeys(_DELIMITERS, 0), False
    for character in text.lstrip("\r\n"):
        if character == '"':
            quoted = not quoted
        elif character in "\r\n" and not quoted:
            break
        elif character in counts and not quoted:
            counts[character] += 1
    return sorted((d for d in _DELIMITERS if counts[d]), key=lambda d: (d != ",", -counts[d]))


def _parsed(text: str, delimiter: str) -> _Table:
    old_limit = csv.field_size_limit(2**31 - 1)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        header: list[str] = []
        try:
            header = next((cells for cells in reader if cells), [])
            return _Table(header, [cells for cells in reader if cells])
        except csv.Error as e:
            return _Table(header, [], str(e), reader.line_num)
    finally:
        csv.field_size_limit(old_limit)
