"""JSON Lines: the rows untouched; rows that gained an answer back.

A row that has its id in a column goes byte for byte; one that was named after its place gets that name for an id, since
its answer could not be joined without: as the first column where it has none, else where it has a null.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edjax.data.ids import id_text
from edjax.data.rows import BadRow
from edjax.data.turns import ASSISTANT, number_text, turns_in, turns_of
from edjax.handoff import label_studio
from edjax.handoff.chosen import Chosen
from edjax.handoff.record import Answer, BadAnswer, Entry


def files(chosen: Chosen, out: Path) -> dict[str, bytes]:
    """rows.jsonl."""
    lines = (chosen.identified(i, chosen.pool.line(i)) for i in range(len(chosen)))
    return {"rows.jsonl": b"".join(line + b"\n" for line in lines)}


def answers(entries: list[Entry], id_column: str = "id", column: str | None = None) -> Iterator[Answer]:
    """The answer of each row: the first of its `candidates`; whoever has the row as it was can tell a better one."""
    for where, row in entries:
        name = next((row[c] for c in ("edjax_id", id_column, "id") if row.get(c) not in (None, "")), None)
        if name is None:
            raise BadAnswer(f"{where}: no id (column {id_column!r}); an answer is joined by the id of its row")
        with contextlib.suppress(ValueError):
            name = id_text(name)
        found = candidates(row, where, str(name), column)
        yield Answer(str(name), next(iter(found.values()), None), where, row=row, **label_studio.about(row))


def candidates(row: dict[str, Any], where: str, name: str, column: str | None = None) -> dict[str, str]:
    """The texts in the places for an answer: the column that is named for it, `response`, a last assistant turn,
    `completion`, `output`."""
    columns = (turns_in(row, c) for c in ("messages", "conversations", "prompt", "body"))
    turns = next(filter(None, columns), None)
    if turns and all(isinstance(t, str) for t in turns):  # LIMA's, the user's first
        turns = None if len(turns) % 2 else turns[-1]
    found = {column: _text(row.get(column))} if column else {}
    found |= {"response": _text(row.get("response")), "turn": _text(turns)}
    if not found["response"] and row.get("response") not in (None, "", []):
        raise BadAnswer(f"{where}: the answer of row {name!r} is {type(row['response']).__name__}, not text")
    found |= {column: _text(row.get(column)) for column in ("completion", "output")}
    return {k: v for k, v in found.items() if v}


def is_assistant(turn: Any) -> bool:
    """Whether a turn is the model's."""
    return isinstance(turn, dict) and str(turn.get("role") or turn.get("from")).lower() in ASSISTANT


def _text(value: Any) -> str | None:
    """Text as it is, a number or a turn as `edjax.data.pool` reads it, a list of turns by its last; of the turns those
    of the model that are to be learned."""
    with contextlib.suppress(BadRow):
        for turn in turns_of(value[-1:] if isinstance(value, list) else value):
            learned = turn["role"] == "assistant" and not turn.keys() & {"tool_calls", "weight"}
            return str(turn["content"]) if learned else None
    return value if isinstance(value, str) else number_text(value)
