"""The rows to hand over: in the order they were taken, with the ids that their answers are joined by."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from edjax.errors import DataError, UsageError
from edjax.handoff.text import json_record
from edjax.pool import Message, Pool, read_pool
from edjax.select import pool_rows, read_selection

SHAPES = ("messages", "conversations", "prompt", "instruction", "text")  # in the order in which edjax.pool looks


@dataclass(frozen=True)
class Chosen:
    """Rows as a pool, and for each what the selection knows: `order`, and where there are any `gain` and `scores`.

    left_out: columns that `extra` passes over.
    """

    pool: Pool
    facts: tuple[dict[str, Any], ...]
    text_column: str | None = None
    left_out: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.pool)

    @cached_property
    def shape(self) -> str:
        """The column that holds the prompts, found as `edjax.pool` finds it."""
        first = json_record(self.pool.line(0))
        return self.text_column or next(name for name in SHAPES if name in first)

    def prompt(self, i: int) -> str:
        """The prompt of row i as one text, as it stands in the files that people see."""
        return transcript(self.pool.messages[i])

    def turns(self, i: int) -> list[Message]:
        """The prompt's turns and, where there is a response, the answer's."""
        response = self.pool.responses[i]
        answer = [] if response is None else [{"role": "assistant", "content": response}]
        return [*self.pool.messages[i], *answer]

    def extra(self, i: int) -> dict[str, Any]:
        """The columns of row i that are neither its id nor its prompt or response, nor left out; strict JSON values."""
        alpaca = self.shape == "instruction"
        used = {"id", self.shape, *(("input", "output") if alpaca else ("response", "completion")), *self.left_out}
        return {k: v for k, v in json_record(self.pool.line(i)).items() if k not in used}


def transcript(messages: tuple[Message, ...]) -> str:
    """A single user turn's text; of several turns or another role, each with its role before it."""
    if len(messages) == 1 and messages[0]["role"] == "user":
        return messages[0]["content"]
    return "\n\n".join(f"{m['role']}: {m['content']}" for m in messages)


def read_chosen(
    source: str | Path,
    *,
    pool: str | Path | None = None,
    text_column: str | None = None,
    id_column: str = "id",
    skip_bad_lines: bool = False,
    log: Callable[[str], object] | None = None,
) -> Chosen:
    """Read a directory of `edjax select`, or any pool, whose order is then the rows' own.

    A selection's ids are those of its selection.csv: a row without an id keeps the name it had in the pool. One that
    was made without a pool holds ids alone, and its rows are those of `pool`.

    Raises:
      DataError: an unfinished or damaged selection, ids that the pool does not have, and all that `read_pool` raises.
      UsageError: a directory of several selections; a selection without rows and no pool, or one with rows and a pool.
    """
    path = Path(source)
    reading: dict[str, Any] = {
        "text_column": text_column,
        "id_column": id_column,
        "skip_bad_lines": skip_bad_lines,
        "log": log or (lambda _: None),
    }
    if (path / "manifest.json").exists() or (path / "plan.json").exists():
        return _selection(path, pool, reading)
    below = [*path.glob("*/selected.jsonl"), *path.glob("*/selection.csv")] if path.is_dir() else []
    if several := sorted({p.parent.name for p in below}):
        raise UsageError(f"{path} holds several selections; name one: {', '.join(str(path / s) for s in several[:5])}")
    if pool is not None:
        raise UsageError(f"--pool {pool} is for a selection that was made without a pool, and {path} is none")
    rows = read_pool(source, **reading)
    return Chosen(rows, tuple({"order": i} for i in range(len(rows))), text_column)


def _selection(path: Path, pool: str | Path | None, reading: dict[str, Any]) -> Chosen:
    chosen, text_column = read_selection(path), reading["text_column"]
    ids, own = chosen.ids, (path / "selected.jsonl").exists()
    if not ids:
        raise DataError(f"{path} is a selection of 0 rows; there is nothing to hand over")
    if own and pool is not None:
        raise UsageError(f"{path} holds its rows; leave out --pool {pool}")
    if not own and pool is None:
        raise UsageError(
            f"{path} was selected without a pool and holds ids alone; name the pool of its rows with --pool"
        )
    if pool is not None:
        whole = read_pool(pool, **reading)
        rows = whole.take(pool_rows(chosen, whole))
    else:
        rows = read_pool(path / "selected.jsonl", text_column=text_column, id_column=None)
    if len(rows) != len(ids):
        raise DataError(f"{path} holds {len(rows)} rows and {len(ids)} ids; select again with --overwrite")
    with open(path / "selection.csv", encoding="utf-8", newline="") as f:
        facts = tuple(_facts(row) for row in csv.DictReader(f))
    return Chosen(dataclasses.replace(rows, ids=ids), facts, text_column)


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
