"""JSON Lines: the rows untouched; rows that gained an answer back.

A row that has its id in a column goes byte for byte; one that was named after its place gets a column `id`, since its
answer could not be joined without.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edjax.handoff.answers import Answer, BadAnswer, Entry
from edjax.handoff.chosen import ANSWER_COLUMNS, Chosen
from edjax.handoff.text import json_bytes, json_record


def files(chosen: Chosen, out: Path) -> dict[str, bytes]:
    """rows.jsonl."""
    rows = []
    for i, name in enumerate(chosen.pool.ids):
        line = chosen.pool.line(i)
        carried = name in (str(v) for v in json_record(line).values() if isinstance(v, (str, int)))
        rows.append(line if carried else b'{"id": ' + json_bytes(name) + b", " + line.lstrip()[1:])
    return {"rows.jsonl": b"".join(line + b"\n" for line in rows)}


def answers(entries: list[Entry], id_column: str = "id") -> Iterator[Answer]:
    """The answer of each row: an assistant turn at the end, or `response`, `completion` or `output`."""
    for where, row in entries:
        name = next((row[c] for c in ("edjax_id", id_column, "id") if row.get(c) not in (None, "")), None)
        if name is None:
            raise BadAnswer(f"{where}: no id (column {id_column!r}); an answer is joined by the id of its row")
        yield Answer(str(name), _answer(row, where, str(name)), where, row=row)


def _answer(row: dict[str, Any], where: str, name: str) -> str | None:
    for column in ("messages", "conversations", "prompt"):
        turns = row.get(column)
        if isinstance(turns, list) and turns and isinstance(turns[-1], dict):
            last = turns[-1]
            if str(last.get("role", last.get("from"))).lower() in ("assistant", "gpt", "model", "bot", "chatgpt"):
                text = last.get("content", last.get("value"))
                return None if text in (None, "") else str(text)
    text = next((row[c] for c in ANSWER_COLUMNS if row.get(c) not in (None, "", [])), None)
    if isinstance(text, list):
        text = text[-1].get("content") if isinstance(text[-1], dict) else None
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        return json.dumps(text)  # as edjax.pool reads a number
    if text is not None and not isinstance(text, str):
        raise BadAnswer(f"{where}: the answer of row {name!r} is {type(text).__name__}, not text")
    return text
