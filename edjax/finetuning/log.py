"""metrics.jsonl: a line an update and a line an evaluation, there to be read while the run goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from edjax.finetuning.trackers import Tracker
from edjax.keep.store import atomic_write, read_json, write_json

REPORTED = "reported.json"  # up to which step the trackers have been told; there while the run is not done


class MetricsLog:
    """Appends to a JSON Lines file; a resumed run keeps the lines up to its checkpoint's step and no others.

    Without a path the lines are kept in memory only. `trackers` are told every line, and none a second time: updates
    that a resumed run makes again have been told before it was stopped.
    """

    def __init__(self, path: Path | None, step: int, trackers: Sequence[Tracker] = ()):
        self._file: IO[str] | None = None
        self.entries: list[dict[str, Any]] = []
        self._trackers = trackers
        self._told = {"train": 0, "eval": 0}
        if path is None:
            return
        before = _whole_lines(path)
        self.entries = [entry for entry in before if entry["step"] <= step]
        if trackers:
            self._catch_up(path.with_name(REPORTED), before)
        with atomic_write(path, "w") as f:
            f.writelines(json.dumps(entry) + "\n" for entry in self.entries)
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115

    def _catch_up(self, file: Path, before: list[dict[str, Any]]) -> None:
        """Find out what the trackers know; tell them the lines from before there were any."""
        if file.exists():
            self._told = read_json(file)
            for entry in before:
                self._told[_kind(entry)] = max(self._told[_kind(entry)], entry["step"])
        for entry in self.entries:
            self._tell(entry)
        write_json(file, self._told)

    def write(self, entry: dict[str, Any]) -> None:
        """Add a line."""
        self.entries.append(entry)
        if self._file:
            self._file.write(json.dumps(entry) + "\n")
            self._file.flush()
        self._tell(entry)

    def _tell(self, entry: dict[str, Any]) -> None:
        kind, step = _kind(entry), entry["step"]
        if self._trackers and step > self._told[kind]:
            self._told[kind] = step
            values = {f"{kind}/{k.removeprefix('eval_')}": v for k, v in entry.items() if k != "step"}
            for tracker in self._trackers:
                tracker.log(step, values)

    def sync(self) -> None:
        """Have all lines on the disk before a checkpoint says that they are there."""
        if self._file:
            os.fsync(self._file.fileno())

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._file:
            self._file.close()
        for tracker in self._trackers:
            tracker.close()

    def losses(self) -> list[float]:
        """The training loss of every update so far."""
        return [entry["loss"] for entry in self.entries if "loss" in entry]


def _kind(entry: dict[str, Any]) -> str:
    return "eval" if "eval_loss" in entry else "train"


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    """The entries of a file that may have been cut short."""
    entries = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            entries.append(json.loads(line))
        except ValueError:
            break
    return entries
