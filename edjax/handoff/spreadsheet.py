"""CSV for a spreadsheet: no cell is taken for a formula or a number that is none, and what a spreadsheet saves back.

A cell that begins with = + - @, a tab or a carriage return would run as a formula; it gets a leading ', and so does one
that begins with ' itself, so that the mark can be taken off again. An id that a spreadsheet would rewrite (007, 1e5,
1-2, more digits than a double holds) gets the mark too. It is taken off again in a file with the columns of an export,
`order` among them; in any other an apostrophe is somebody's own. Rows end in CRLF, the file begins with a byte order
mark: without it Excel takes UTF-8 for its own encoding.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edjax.handoff import label_studio
from edjax.handoff.chosen import Chosen
from edjax.handoff.record import EMPTY, Answer, BadAnswer, Entry
from edjax.handoff.text import apart, json_bytes
from edjax.keep.errors import DataError

FORMULA = ("=", "+", "-", "@", "\t", "\r")
LONGEST_CELL = 32_767  # characters, in Excel; longer cells are cut
_PLAIN_NUMBER = re.compile(r"0|[1-9]\d{0,14}")
_LONE = re.compile("[\ud800-\udfff]")
COLUMNS = ("id", "prompt", "response", "order")


def files(chosen: Chosen, out: Path) -> dict[str, bytes]:
    """annotate.csv: id, prompt, response (empty), order, gain, scores, and the rows' further columns."""
    scores = list(dict.fromkeys(k for f in chosen.facts for k in f.get("scores", {})))
    gains = ["gain"] if any("gain" in f for f in chosen.facts) else []
    extras = [apart(chosen.extra(i), (*COLUMNS, *gains, *scores)) for i in range(len(chosen))]
    further = list(dict.fromkeys(k for e in extras for k in e))
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\r\n", quoting=csv.QUOTE_MINIMAL)
    table.writerow([*COLUMNS, *gains, *scores, *map(mark, further)])
    for i, (name, fact) in enumerate(zip(chosen.pool.ids, chosen.facts, strict=True)):
        known = [fact.get(k, "") for k in gains] + [fact.get("scores", {}).get(k, "") for k in scores]
        more = [_cell(extras[i].get(k)) for k in further]
        table.writerow([mark_id(name), mark(chosen.prompt(i)), "", fact["order"], *known, *more])
    return {"annotate.csv": "\ufeff".encode() + _LONE.sub("\ufffd", text.getvalue()).encode()}


def _cell(value: Any) -> Any:
    if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)):
        return value
    return mark(value if isinstance(value, str) else json_bytes(value).decode())


def mark(text: str) -> str:
    """Text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith((*FORMULA, "'")) else text


def mark_id(name: str) -> str:
    """`mark`, and for names that a spreadsheet would rewrite as another number or a date."""
    rewritten = re.match(r"\d|\.\d", name) and not _PLAIN_NUMBER.fullmatch(name)
    return f"'{name}" if rewritten else mark(name)


def unmark(text: str) -> str:
    """What `mark` was given; a text that begins with ' for another reason is left as it is."""
    return text[1:] if text.startswith("'") and text[1:].startswith((*FORMULA, "'")) else text


def unmark_id(name: str) -> str:
    """What `mark_id` was given."""
    return name[1:] if name.startswith("'") and mark_id(name[1:]) == name else name


def read(data: bytes, source: str) -> list[Entry]:
    """The rows of a CSV file with the column names of its header, each with the line it begins in.

    Comma, semicolon (Excel's in many countries) or tab, with or without a byte order mark, any line ends.

    Raises:
      DataError: not UTF-8, no column of ids, a row of another length than the header.
    """
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(f"{source}: this is UTF-16; save it as `CSV UTF-8`")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        line = data.count(b"\n", 0, e.start) + 1
        raise DataError(
            f"{source}:{line}: not UTF-8 (byte 0x{data[e.start]:02x}): a spreadsheet saved it in its own encoding; "
            "save it again as `CSV UTF-8`"
        ) from None
    header = text.lstrip("\r\n").splitlines()[0] if text.strip() else ""
    delimiter = max(",;\t", key=header.count)
    limit = csv.field_size_limit(2**31 - 1)
    entries, begins = [], 1
    try:
        table = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        names: list[str] = []
        for cells in table:
            where = f"{source}:{begins}"
            begins = table.line_num + 1
            if not any(cells):
                continue
            if not names:
                names = [c.strip() for c in cells]
                continue
            if len(cells) != len(names):
                raise DataError(f"{where}: {len(cells)} cells where the header has {len(names)}; mend the row")
            entries.append(Entry(where, dict(zip(names, cells, strict=True))))
    except csv.Error as e:
        raise DataError(f"{source}:{begins}: not valid CSV ({e}); mend the file") from e
    finally:
        csv.field_size_limit(limit)
    return entries


def answers(entries: list[Entry], id_column: str = "id") -> Iterator[Answer]:
    """id and response of every row; an empty cell is no answer yet."""
    for where, row in entries:
        column = next((c for c in ("edjax_id", id_column, "id") if c in row), None)
        if column is None or "response" not in row:
            lacking = "response" if column else "id"
            raise BadAnswer(f"{where}: no column {lacking!r}; the columns are {', '.join(row)}")
        name, response, prompt = row[column], row["response"], row.get("prompt")
        if row.keys() >= set(COLUMNS):
            name, prompt = unmark_id(name), None if prompt is None else unmark(prompt)
            response = response[1:] if response[1:].startswith(FORMULA) and response.startswith("'") else response
        elif label_studio.is_minimal(row):
            response = label_studio.unwrapped_cell(response, where, name) or ""
        why = EMPTY if not response and row.get("annotation_id") else ""
        yield Answer(name, response or None, where, prompt, why=why, **label_studio.about(row))
