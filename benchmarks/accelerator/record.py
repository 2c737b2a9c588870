"""The rows that stages leave, one JSON object a line: each on disk the moment it is known, none lost to a kill."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

Row = dict[str, Any]


class Record:
    """`rows.jsonl` of a folder. A line that a kill cut short is passed over when read."""

    def __init__(self, folder: Path):
        self.path = folder / "rows.jsonl"
        self._read, self._rows = 0, list[Row]()  # bytes, and what the whole lines among them hold

    def rows(self) -> list[Row]:
        """All of them, in the order written."""
        if self.path.exists():
            with open(self.path, "rb") as f:
                f.seek(self._read)  # every job asks again, and the rows of a walk are megabytes
                whole, newline, begun = f.read().rpartition(b"\n")
            self._read += len(whole) + len(newline)
            self._rows += _parsed(whole)
            return self._rows + _parsed(begun)
        return []

    def add(self, row: Row) -> None:
        """Append a row, and return once it is on disk."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a+b") as f:
            if f.tell() and not _ends_in_newline(self.path):
                f.write(b"\n")
            f.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
            f.flush()
            os.fsync(f.fileno())

    def done(self, stage: str, device: str | None = None) -> dict[str, Row]:
        """By job, the last row of each that did not fail; with `device`, of those measured on it."""
        return {
            row["job"]: row
            for row in self.rows()
            if row.get("stage") == stage and "failed" not in row and device in (None, row.get("device"))
        }


def _parsed(lines: bytes) -> list[Row]:
    found = []
    for line in lines.split(b"\n"):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            found.append(row)
    return found


def _ends_in_newline(path: Path) -> bool:
    with open(path, "rb") as f:
        f.seek(-1, os.SEEK_END)
        return f.read(1) == b"\n"
