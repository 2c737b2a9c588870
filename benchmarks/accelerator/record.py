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

    def rows(self) -> list[Row]:
        """All of them, in the order written."""
        found = []
        for line in self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict):
                found.append(row)
        return found

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


def _ends_in_newline(path: Path) -> bool:
    with open(path, "rb") as f:
        f.seek(-1, os.SEEK_END)
        return f.read(1) == b"\n"
