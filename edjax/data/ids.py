"""Names of rows out of a file: a line each, a .npy, or a column of a file of rows.

An id is text. What other tools make of it on the way is read as the text it was: an integer, a whole number that pandas
turned into a float (7.0 is 7), bytes of UTF-8.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Container, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from edjax.data.rows import absent, clean
from edjax.data.sources import SUFFIXES, open_rows
from edjax.keep.errors import DataError


def read_ids(path: str | Path, id_column: str = "id") -> tuple[str, ...]:
    """The ids that a file holds, in its order: .txt (a line each), .npy of text or integers, .json with a list of them,
    or one of `edjax.data.sources` (.jsonl, .csv, .parquet, ...) with the column `id_column`.

    Raises:
      DataError: no such file, an unknown kind, no such column, a row without an id, an id that stands twice.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"ids {path} do not exist; name a .txt (a line each), .npy, .jsonl, .csv or .parquet file")
    suffix = path.suffix.lower()
    if suffix == ".txt":
        ids = _lines(path)
    elif suffix == ".npy":
        ids = _array(path)
    elif suffix == ".parquet":
        ids = _parquet(path, id_column)
    elif suffix == ".json" and (values := _list(path)) is not None:
        ids = tuple(_id(v, path, n) for n, v in enumerate(values, 1))
    elif any(s.lower() in SUFFIXES for s in path.suffixes):
        ids = _rows(path, id_column)
    else:
        raise DataError(f"{path}: ids are read from .txt, .npy, {', '.join(SUFFIXES)}")
    check_ids(ids, str(path))
    return ids


def id_text(value: Any) -> str | None:
    """An id as text: integers and whole floats alike, bytes that are UTF-8; None for null, NaN and nothing.

    >>> [id_text(v) for v in ("a", 7, 7.0, b"a", None, "")]
    ['a', '7', '7', 'a', None, None]

    Raises:
      ValueError: anything else.
    """
    if absent(value) or value == "" or value == b"":
        return None
    if isinstance(value, bytes):
        return value.decode()  # UnicodeDecodeError is a ValueError
    if isinstance(value, Decimal) and value.is_finite() and value == int(value):
        value = int(value)
    if isinstance(value, float) and value.is_integer() and abs(value) <= 2**53:
        return str(int(value))
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError
    return clean(str(value))


def id_of(value: Any) -> str | None:
    """`id_text` where nothing can be said of what is no id: None for it too."""
    with contextlib.suppress(ValueError, OverflowError):
        return id_text(value)
    return None


def as_known(name: str, known: Container[str]) -> str | None:
    """The id of `known` that a file means by `name`: itself, else without the apostrophe that keeps a spreadsheet from
    reading it as a number or a formula, else without the .0 of a column that became one of floats; None if none.

    >>> [as_known(name, {"7", "=x", "2.0"}) for name in ("7.0", "'=x", "2.0", "8")]
    ['7', '=x', '2.0', None]
    """
    if name in known:
        return name
    forms = (name.removeprefix("'"), re.sub(r"^(-?\d+)\.0+$", r"\1", name))
    return next((form for form in forms if form in known), None)


def check_ids(ids: Sequence[str], where: str) -> None:
    """Raises a `DataError` that names the first id that stands twice."""
    if len(set(ids)) != len(ids):
        seen: set[str] = set()
        twice = next(i for i in ids if i in seen or seen.add(i))  # type: ignore[func-returns-value]
        raise DataError(f"{where}: id {twice!r} stands twice")


def _lines(path: Path) -> tuple[str, ...]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise DataError(f"{path}: not UTF-8 (byte {e.start + 1}); save the file as UTF-8") from None
    lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")] if text else []
    if empty := [n for n, line in enumerate(lines, 1) if not line.strip()]:
        raise DataError(f"{path}:{empty[0]}: an empty line; every line is the id of a row")
    return tuple(lines)


def _array(path: Path) -> tuple[str, ...]:
    import numpy as np

    try:
        values = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as e:
        why = " ".join(str(e).split())[:150]
        raise DataError(f"{path} cannot be read as an array of ids ({why}); write text or integers") from None
    if not isinstance(values, np.ndarray) or values.ndim != 1 or values.dtype.kind not in "UiuTSf":
        kind = f"{values.dtype} of shape {values.shape}" if isinstance(values, np.ndarray) else "several arrays"
        raise DataError(f"{path} holds {kind}; ids are one row of text or integers")
    return tuple(_id(v, path, n) for n, v in enumerate(values.tolist(), 1))


def _list(path: Path) -> list[Any] | None:
    """The values of a JSON list of ids; None for any other file, which is one of rows."""
    try:
        value = json.loads(path.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, list) and not any(isinstance(v, dict) for v in value) else None


def _parquet(path: Path, column: str) -> tuple[str, ...]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names = pq.read_schema(path).names
        if column not in names:
            raise DataError(f"{path} has no column {column!r} with ids; the columns are {', '.join(names)}")
        return tuple(_id(v, path, n) for n, v in enumerate(pq.read_table(path, columns=[column])[0].to_pylist(), 1))
    except (pa.ArrowException, OSError) as e:
        raise DataError(f"{path} cannot be read as Parquet ({e})") from e


def _rows(path: Path, column: str) -> tuple[str, ...]:
    source, ids = open_rows(str(path)), []
    for row in source.rows:
        if row.bad:
            raise DataError(f"{source.where(row)}: {row.bad}; mend the line")
        if column not in row.record:
            found = ", ".join(row.record) or "none"
            raise DataError(
                f"{source.where(row)}: no column {column!r} with the id of the row (found: {found}); "
                "name another with --id-column"
            )
        ids.append(_id(row.record[column], path, row.number))
    return tuple(ids)


def _id(value: Any, path: Path, number: int) -> str:
    name = id_of(value)
    if name is None:
        raise DataError(f"{path}: row {number} has the id {value!r}; text or an integer is needed")
    return name
