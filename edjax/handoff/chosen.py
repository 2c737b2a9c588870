"""The rows to hand over: in the order they were taken, with the ids that their answers are joined by."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edjax.data.ids import id_of
from edjax.data.pool import Message, Named, Pool, Reading, called, read_as
from edjax.data.tools import calls_text
from edjax.data.turns import columns_read
from edjax.handoff.text import dump_like, json_bytes, json_record
from edjax.keep.errors import DataError, UsageError
from edjax.keep.store import read_manifest
from edjax.selection.selection import pool_rows, read_selection, selection_of


@dataclass(frozen=True)
class Chosen:
    """Rows as a pool, and for each what the selection knows: `order`, and where there are any `gain` and `scores`.

    left_out: columns that `extra` passes over.
    """

    pool: Pool
    facts: tuple[dict[str, Any], ...]
    left_out: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.pool)

    def prompt(self, i: int) -> str:
        """The prompt of row i as one text, as it stands in the files that people see."""
        return transcript(self.pool.messages[i])

    def turns(self, i: int) -> list[Message]:
        """The prompt's turns and, where there is one, the answer's."""
        answer = self.answer(i)
        return [*self.pool.messages[i], *([] if answer is None else [answer])]

    def answer(self, i: int) -> Message | None:
        """The turn that a trainer learns: the response, or tool calls; None where there is neither."""
        response, turn = self.pool.responses[i], self.pool.withheld[i]
        if response is not None:
            return {"role": "assistant", "content": response}
        return turn if turn is not None and turn.get("weight") != 0 else None

    def extra(self, i: int) -> dict[str, Any]:
        """The columns of row i that are neither its id nor its prompt or response, nor left out; strict JSON values."""
        used = (
            columns_read(self.pool.records[i], self.pool.shape(i), self.pool.reading.columns())
            | {self.id_column(i)}
            | self.left_out
        )
        return {k: v for k, v in json_record(self.pool.line(i)).items() if k not in used}

    def id_column(self, i: int) -> str:
        """Where row i has its id, or is given the one that it was named by."""
        return self.pool.reading.id_column or ("edjax_id" if "id" in self.pool.records[i] else "id")

    def identified(self, i: int, line: bytes) -> bytes:
        """A line of row i with its id: as it is where it has one, else with the name that the row was given."""
        column, name = self.id_column(i), self.pool.ids[i]
        record = json.loads(line)
        if column not in record:
            return b"{" + json_bytes(column) + b": " + json_bytes(name) + b", " + line.lstrip()[1:]
        if id_of(record[column]) is not None:
            return line
        return dump_like(record | {column: name}, line)


def transcript(messages: tuple[Message, ...]) -> str:
    """A single user turn's text; of several turns or another role, each with its role before it and its calls after."""
    if len(messages) == 1 and messages[0]["role"] == "user":
        return str(messages[0]["content"])
    said = (filter(None, (m["content"], calls_text(m.get("tool_calls", [])))) for m in messages)
    return "\n\n".join(f"{m['role']}: " + "\n".join(text) for m, text in zip(messages, said, strict=True))


def read_chosen(
    source: str | Path,
    *,
    pool: Named | None = None,
    log: Callable[[str], object] | None = None,
    **given: Any,
) -> Chosen:
    """Read a directory of `edjax select` (or its selected.jsonl), or any pool, whose order is then the rows' own.

    A selection's ids are those of its selection.csv: a row without an id keeps the name it had in the pool. One that
    was made without a pool holds ids alone, and its rows are those of `pool`. Options as in
    `edjax.data.pool.read_pool`; None: those with which the selection's pool was read, else the defaults.

    Raises:
      DataError: an unfinished or damaged selection, ids that the pool does not have, and all that `read_pool` raises.
      UsageError: a directory of several selections; a selection without rows and no pool, or one with rows and a pool.
    """
    path = selection_of(Path(source))
    if (path / "manifest.json").exists() or (path / "plan.json").exists():
        return _selection(path, pool, given, log or (lambda _: None))
    below = [*path.glob("*/selected.jsonl"), *path.glob("*/selection.csv")] if path.is_dir() else []
    if several := sorted({p.parent.name for p in below}):
        raise UsageError(f"{path} holds several selections; name one: {', '.join(str(path / s) for s in several[:5])}")
    if pool is not None:
        raise UsageError(f"--pool {called(pool)} is for a selection that was made without a pool, and {path} is none")
    rows = read_as(source, Reading.of(given), log=log or (lambda _: None))
    return Chosen(rows, tuple({"order": i} for i in range(len(rows))))


def _selection(path: Path, pool: Named | None, given: dict[str, Any], log: Callable[[str], object]) -> Chosen:
    chosen = read_selection(path)
    ids, own = chosen.ids, (path / "selected.jsonl").exists()
    reading = Reading.of(given, read_manifest(path, "selection").get("reading"))
    if not ids:
        raise DataError(f"{path} is a selection of 0 rows; there is nothing to hand over")
    if own and pool is not None:
        raise UsageError(f"{path} holds its rows; leave out --pool {called(pool)}")
    if not own and pool is None:
        raise UsageError(
            f"{path} was selected without a pool and holds ids alone; name the pool of its rows with --pool"
        )
    if pool is not None:
        whole = read_as(pool, reading, log=log)
        rows = whole.take(pool_rows(chosen, whole))
    else:
        rows = read_as(path / "selected.jsonl", reading.of_rows(), part=True)
    if len(rows) != len(ids):
        raise DataError(f"{path} holds {len(rows)} rows and {len(ids)} ids; select again with --overwrite")
    with open(path / "selection.csv", encoding="utf-8", newline="") as f:
        facts = tuple(_facts(row) for row in csv.DictReader(f))
    return Chosen(dataclasses.replace(rows, ids=ids, reading=reading), facts)


def _facts(row: dict[str, str]) -> dict[str, Any]:
    """One line of selection.csv: JSON values, those that are not there or not finite left out."""
    order, gain = int(row["order"]), _number(row.get("gain"))
    scores = {k: _number(v) for k, v in row.items() if k not in ("order", "id", "row", "gain")}
    scores = {k: v for k, v in scores.items() if v is not None}
    return {"order": order} | ({} if gain is None else {"gain": gain}) | ({"scores": scores} if scores else {})


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if abs(value) < float("inf") else None
