"""Files of answers: which format they are in, and what each record of them says."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edjax.handoff import argilla, label_studio, lines, openai_batch, spreadsheet
from edjax.handoff.record import Answer, Entry
from edjax.keep.errors import DataError, EnvError, UsageError

KINDS = ("label-studio", "argilla", "openai-batch", "csv", "jsonl")


def read_answers(
    path: str | Path, kind: str | None = None, id_column: str = "id", response_column: str | None = None
) -> tuple[str, list[Answer]]:
    """The format of a file, gzipped or not, and its answers.

    Args:
      kind: one of KINDS; None: told from what is in the file.
      id_column: where JSON Lines and CSV have the ids, unless there is a column `edjax_id`.
      response_column: where JSON Lines have the answer, if not where `edjax.handoff.lines.candidates` looks.

    Raises:
      DataError: a file that does not exist, is damaged, holds no answers or another format.
      UsageError: an unknown kind.
    """
    if kind is not None and kind not in KINDS:
        raise UsageError(f"unknown format {kind!r}; known are {', '.join(KINDS)}")
    path = Path(path)
    if path.is_dir() and (path / "records.json").exists():
        path = path / "records.json"  # as argilla's Dataset.to_disk leaves it
    try:
        data = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        raise DataError(f"{path} does not exist or is no file of answers") from None
    except OSError as e:
        raise EnvError(f"cannot read {path}: {e.strerror or e}") from e
    data = _unpacked(data, path)
    data = data.removeprefix(b"\xef\xbb\xbf")
    json_like = data.lstrip()[:1] in (b"[", b"{")
    if kind == "csv" or (kind is None and not json_like):
        entries, kind = spreadsheet.read(data, str(path)), "csv"
    else:
        entries = list(_json(data, str(path)))
    if not entries:
        raise DataError(f"{path} holds no answers")
    if kind is None:
        records = [record for _, record in entries]
        if any(label_studio.is_task(r) or label_studio.is_minimal(r) for r in records):
            kind = "label-studio"
        elif any(map(openai_batch.is_output, records)):
            kind = "openai-batch"
        else:
            kind = "argilla" if any(map(argilla.is_record, records)) else "jsonl"
    try:
        if kind == "csv":
            return kind, list(spreadsheet.answers(entries, id_column))
        if kind == "jsonl":
            return kind, list(lines.answers(entries, id_column, response_column))
        tools = {"label-studio": label_studio, "argilla": argilla, "openai-batch": openai_batch}
        return kind, list(tools[kind].answers(entries))
    except (AttributeError, TypeError) as e:
        raise DataError(f"{path} does not hold what {kind} exports ({e}); name its format with --from") from e


def _unpacked(data: bytes, path: Path) -> bytes:
    if data[:4] == b"PK\x03\x04":
        raise DataError(f"{path} is a workbook or another zip file; save its sheet as `CSV UTF-8`, or unpack it")
    if data[:2] != b"\x1f\x8b":
        return data
    try:
        return gzip.decompress(data)
    except (EOFError, gzip.BadGzipFile, zlib.error) as e:
        raise DataError(f"{path}: the gzip file is damaged or cut short ({e}); fetch or write it again") from e


def _json(data: bytes, source: str) -> Iterator[Entry]:
    """Records of a JSON array, of one object, or of JSON Lines."""
    try:
        text = data.decode()
    except UnicodeDecodeError as e:
        line = data.count(b"\n", 0, e.start) + 1
        raise DataError(f"{source}:{line}: not UTF-8 (byte 0x{data[e.start]:02x}); save the file as UTF-8") from None
    whole = text.lstrip().startswith("[")
    if not whole:
        lines = [(f"{source}:{n}", line) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
        try:
            json.loads(lines[0][1])
        except (ValueError, RecursionError):
            whole = len(lines) > 1  # one object over several lines
    if whole:
        value = _parse(text, source)
        items = value if isinstance(value, list) else [value]
        records = [(f"{source}: entry {n}", item) for n, item in enumerate(items, 1)]
    else:
        records = [(where, _parse(line, where)) for where, line in lines]
    for where, record in records:
        if not isinstance(record, dict):
            raise DataError(f"{where}: an answer must be a JSON object")
        yield Entry(where, record)


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as e:
        at = f"line {e.lineno} column {e.colno}" if "\n" in text.strip() else f"column {e.colno}"
        raise DataError(f"{where}: not valid JSON ({e.msg.removesuffix(' at')} at {at}); mend the file") from None
    except (ValueError, RecursionError) as e:
        raise DataError(f"{where}: not readable JSON ({e}); mend the file") from None
