"""Join people's answers to the rows that were chosen, by id, and write them where a finetuning run looks for them.

An answer goes into the field of the row's own shape: an assistant turn at the end of `messages`, `conversations`, of a
prompt that is a list and ends in one and of a completion of turns, `output` for Alpaca, `response` for everything else.
A row that had no id gets the one that it was given. The rest of a row stays as it was, byte for byte where the answer
is a new last column.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edjax.errors import DataError
from edjax.handoff import Chosen, named
from edjax.handoff.answers import Answer, read_answers
from edjax.handoff.lines import candidates, is_assistant
from edjax.handoff.spreadsheet import LONGEST_CELL
from edjax.handoff.text import dump_like, json_bytes, json_record
from edjax.turns import label_columns, turns_of

_LONE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Labels:
    """The answered rows as lines of JSON, in the order they were chosen, and how many there were of what."""

    lines: tuple[bytes, ...]
    ids: tuple[str, ...]
    missing: tuple[str, ...]
    skipped: tuple[str, ...]
    formats: tuple[str, ...]


def import_labels(
    chosen: Chosen,
    files: Sequence[str | Path],
    *,
    kind: str | None = None,
    id_column: str = "id",
    partial: bool = False,
) -> Labels:
    """Read answers and join them to the rows.

    Args:
      chosen: the rows that were handed over.
      files: what people's tools exported (`edjax.handoff.answers`).
      kind: their format; None: told from each file.
      id_column: where JSON Lines and CSV have the ids.
      partial: leave rows without an answer out, in place of an error.

    Raises:
      DataError: an id that was not chosen, two different answers to one row, an empty answer, a prompt that is not the
        row's, rows without an answer; each names ids and, where it stands in a file, the place.
    """
    read = [read_answers(file, kind, id_column) for file in files]
    answers = [_fresh(chosen, a) for _, found in read for a in found]
    texts = _join(chosen, answers)
    missing = tuple(i for i in chosen.pool.ids if i not in texts)
    skipped = {a.id for a in answers if a.skipped} & set(missing)
    if missing and (not partial or not texts):
        remedy = "have them answered" if partial else "have them answered, or --partial to go on without them"
        passed = f" ({len(skipped)} of them skipped by the annotator)" if skipped else ""
        raise DataError(f"{', '.join(map(str, files))}: {named(list(missing))} no answer{passed}; {remedy}")
    rows = [(i, name) for i, name in enumerate(chosen.pool.ids) if name in texts]
    lines = tuple(
        chosen.identified(i, with_answer(chosen.pool.line(i), texts[name], chosen.pool.shape(i))) for i, name in rows
    )
    ids = tuple(name for _, name in rows)
    return Labels(lines, ids, missing, tuple(sorted(skipped)), tuple(dict.fromkeys(k for k, _ in read)))


def _join(chosen: Chosen, answers: list[Answer]) -> dict[str, str]:
    """The answer of each row that has one."""
    known = chosen.pool.index_of
    _refuse(
        (a for a in answers if a.id not in known),
        lambda a: f"{a.where}: no row {a.id!r} in {chosen.pool.source}",
        "these may be answers to another selection, or a spreadsheet rewrote the ids",
    )
    _refuse(
        (a for a in answers if not _same_prompt(chosen, known[a.id], a)),
        lambda a: f"{a.where}: the prompt of row {a.id!r} is not the one that was chosen",
        "take the answers to these very prompts, or leave the prompt out of the file",
    )
    _refuse(
        (a for a in answers if a.text is not None and not a.text.strip()),
        lambda a: f"{a.where}: the answer to row {a.id!r} is empty",
        "write it, or delete the record",
    )
    first: dict[str, Answer] = {}
    given = [a for a in answers if a.text is not None]
    for a in given:
        first.setdefault(a.id, a)
    _refuse(
        (a for a in given if a.text != first[a.id].text),
        lambda a: f"{a.where}: another answer to row {a.id!r} than {first[a.id].where} has",
        "keep one of them",
    )
    return {name: str(a.text) for name, a in first.items()}


def _fresh(chosen: Chosen, answer: Answer) -> Answer:
    """Of a row that has texts in several places for an answer, the one that it did not have when it was chosen."""
    if answer.row is None or answer.id not in chosen.pool.index_of:
        return answer
    before = json_record(chosen.pool.line(chosen.pool.index_of[answer.id]))
    now = candidates(answer.row, answer.where, answer.id)
    fresh = [text for place, text in now.items() if text != candidates(before, answer.where, answer.id).get(place)]
    return answer._replace(text=fresh[0]) if fresh else answer


def _refuse(bad: Iterable[Answer], say: Callable[[Answer], str], remedy: str) -> None:
    found = list(bad)
    if found:
        ids = list(dict.fromkeys(a.id for a in found))
        more = f" ({len(ids)} such: {', '.join(map(repr, ids[:5]))}{', ...' * (len(ids) > 5)})" if len(ids) > 1 else ""
        raise DataError(f"{say(found[0])}{more}; {remedy}")


def _same_prompt(chosen: Chosen, i: int, answer: Answer) -> bool:
    """Whether the prompt that came with an answer, if one did, is that of row i but for line ends and outer space."""
    ours = {_plain(chosen.prompt(i)), _plain(chosen.pool.prompt_text(i))}
    if isinstance(answer.prompt, str) and answer.prompt.strip():
        cut = len(answer.prompt) >= LONGEST_CELL and any(o.startswith(_plain(answer.prompt)) for o in ours)
        return cut or _plain(answer.prompt) in ours
    record = json_record(chosen.pool.line(i)) if answer.row else {}
    for column in {chosen.pool.shape(i), "input", "context"} & record.keys() if answer.row else ():
        theirs, own = (answer.row or {}).get(column), record[column]
        if isinstance(own, list) and isinstance(theirs, list):
            asked = own[:-1] if own and is_assistant(own[-1]) else own
            if theirs[: len(asked)] != asked:
                return False
        elif isinstance(own, str) and isinstance(theirs, str) and _plain(theirs) not in {_plain(own), *ours}:
            return False
    return True


def _plain(text: str) -> str:
    return _LONE.sub("\ufffd", text).replace("\r\n", "\n").replace("\r", "\n").strip()


def with_answer(line: bytes, text: str, shape: str) -> bytes:
    """A row's line with an answer in the field where `edjax.pool` looks for it first.

    Args:
      line: one JSON object.
      text: the answer.
      shape: the column of the prompt.
    """
    record = json.loads(line)
    turns = record.get(shape)
    conversation = isinstance(turns, list) and (
        shape in ("messages", "conversations") or (turns and is_assistant(turns[-1]))
    )
    if not conversation:  # the response may be turns of its own
        response = next((record[name] for name in label_columns(record, shape) if record.get(name)), None)
        turns = response if isinstance(response, list) and turns_of(response) else None
    if isinstance(turns, list):
        _add_turn(turns, text)
        return dump_like(record, line)
    column = "output" if shape == "instruction" and ("output" in record or "response" not in record) else "response"
    if column in record:
        record[column] = text
        return dump_like(record, line)
    comma, colon = (b", ", b": ") if b'": ' in line else (b",", b":")
    return line.rstrip()[:-1].rstrip() + comma + json_bytes(column) + colon + json_bytes(text) + b"}"


def _add_turn(turns: list[dict[str, Any]], text: str) -> None:
    """The answer as the last turn, with the keys and the name of the assistant that the conversation uses."""
    answered = is_assistant(turns[-1])
    if answered and turns_of(turns[-1])[0].keys() & {"tool_calls", "weight"}:
        turns.pop()  # no answer: it calls tools, or is not to be trained
        answered = False
    last = turns[-1] if turns else {}
    if answered:
        last["content" if "content" in last or "value" not in last else "value"] = text
    elif last.get("role") or not last.get("from"):
        turns.append({"role": "assistant", "content": text})
    else:
        name = next((t["from"] for t in turns if is_assistant(t)), "gpt")
        turns.append({"from": name, "value": text})
