"""metrics.jsonl: a line an update and a line an evaluation, there to be read while the run goes on."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import IO, Any

from edjax.store import atomic_write


class MetricsLog:
    """Appends to a JSON Lines file; a resumed run keeps the lines up to its checkpoint's step and no others.

    Without a path the lines are kept in memory only.
    """

    def __init__(self, path: Path | None, step: int):
        self._file: IO[str] | None = None
        self.entries: list[dict[str, Any]] = []
        if path is None:
            return
        self.entries = [entry for entry in _whole_lines(path) if entry["step"] <= step]
        with atomic_write(path, "w") as f:
            f.writelines(json.dumps(entry) + "\n" for entry in self.entries)
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115

    def write(self, entry: dict[str, Any]) -> None:
        """Add a line."""
        self.entries.append(entry)
        if self._file:
            self._file.write(json.dumps(entry) + "\n")
            self._file.flush()

    def sync(self) -> None:
        """Have all lines on the disk before a checkpoint says that they are there."""
        if self._file:
            os.fsync(self._file.fileno())

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._file:
            self._file.close()

    def losses(self) -> list[float]:
        """The training loss of every update so far."""
        return [entry["loss"] for entry in self.entries if "loss" in entry]


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    """The entries of a file that may have been cut short."""
    entries = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            entries.append(json.loads(line))
        except ValueError:
            break
    return entries
