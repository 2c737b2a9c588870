"""Join people's answers to the rows that were chosen, by id, and write them where a finetuning run looks for them.

An answer goes into the field of the row's own shape: an assistant turn at the end of `messages`, `conversations`, of a
prompt that is a list and ends in one and of a completion of turns, `output` for Alpaca, `response` for everything else.
A row that had no id gets the one that it was given. The rest of a row stays as it was, byte for byte where the answer
is a new last column.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edjax.data.ids import as_known
from edjax.data.turns import WHOLE, Columns, label_columns, turns_in, turns_of
from edjax.handoff import Chosen, named
from edjax.handoff.answers import read_answers
from edjax.handoff.lines import candidates, is_assistant
from edjax.handoff.record import EMPTY, SKIPPED, Answer
from edjax.handoff.several import decide, several
from edjax.handoff.spreadsheet import LONGEST_CELL, unmark
from edjax.handoff.text import dump_like, json_bytes, json_record
from edjax.keep.errors import DataError, UsageError

_LONE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Labels:
    """The answered rows as lines of JSON, in the order they were chosen, and what there is to know about the others.

    missing: ids without an answer. reasons: by such an id, what its records hold in place of one, where they say.
    skipped: those of them that the annotator skipped. empty_at: the place of the first empty answer. notes: what
    decided between several answers.
    """

    lines: tuple[bytes, ...]
    ids: tuple[str, ...]
    missing: tuple[str, ...]
    skipped: tuple[str, ...]
    formats: tuple[str, ...]
    reasons: dict[str, str] = field(default_factory=dict)
    empty_at: str = ""
    notes: tuple[str, ...] = ()

    def why(self) -> str:
        """`2 of them empty, the first at a.csv:3; 1 of them skipped by the annotator`, or nothing."""
        parts = []
        for reason, n in Counter(self.reasons.values()).items():
            place = f", {'' if n == 1 else 'the first '}at {self.empty_at}" if reason == EMPTY else ""
            parts.append((reason if n == len(self.missing) else f"{n} of them {reason}") + place)
        return "; ".join(parts)


def import_labels(
    chosen: Chosen,
    files: Sequence[str | Path],
    *,
    kind: str | None = None,
    id_column: str = "id",
    partial: bool = False,
    annotator: str | None = None,
) -> Labels:
    """Read answers and join them to the rows.

    Args:
      chosen: the rows that were handed over.
      files: what people's tools exported (`edjax.handoff.answers`).
      kind: their format; None: told from each file.
      id_column: where JSON Lines and CSV have the ids.
      partial: leave rows without an answer out, in place of an error.
      annotator: of several answers to one row, which: "first", "last" (by when they were made, where every record says
        so in ISO 8601, else by their place in the files), or that of a person by the name that the files have. An
        answer marked as ground truth comes before it. None: several are refused.

    Raises:
      DataError: an id that was not chosen, two different answers to one row, a prompt that is not the row's, rows
        without an answer; each names ids and, where it stands in a file, the place.
      UsageError: an annotator of whom no file has an answer.
    """
    columns = chosen.pool.reading.columns()
    read = [read_answers(file, kind, id_column, columns.response) for file in files]
    answers = [_fresh(chosen, _respelt(chosen, a) if k in ("csv", "jsonl") else a) for k, found in read for a in found]
    source = ", ".join(map(str, files))
    texts, notes = _join(chosen, answers, annotator, source)
    missing = tuple(i for i in chosen.pool.ids if i not in texts)
    without = set(missing)
    found = [(a, _reason(a)) for a in answers if a.id in without]
    reasons = {a.id: reason for a, reason in found if reason}
    empty_at = next((a.where for a, reason in found if reason == EMPTY and reasons[a.id] == EMPTY), "")
    skipped = tuple(sorted(i for i, reason in reasons.items() if reason == SKIPPED))
    rows = [(i, name) for i, name in enumerate(chosen.pool.ids) if name in texts]
    lines = tuple(
        chosen.identified(i, with_answer(chosen.pool.line(i), texts[name], chosen.pool.shape(i), columns))
        for i, name in rows
    )
    ids = tuple(name for _, name in rows)
    formats = tuple(dict.fromkeys(k for k, _ in read))
    done = Labels(lines, ids, missing, skipped, formats, reasons, empty_at, tuple(notes))
    if missing and (not partial or not texts):
        remedy = "have them answered" if partial else "have them answered, or --partial to go on without them"
        why = f" ({done.why()})" if reasons else ""
        raise DataError(f"{source}: {named(list(missing))} no answer{why}; {remedy}")
    return done


def _reason(answer: Answer) -> str:
    """What stands in place of an answer."""
    return EMPTY if answer.text is not None and not answer.text.strip() else answer.why


def _respelt(chosen: Chosen, answer: Answer) -> Answer:
    """With the id of the row that a spreadsheet's or a data frame's spelling is of."""
    return answer._replace(id=as_known(answer.id, chosen.pool.index_of) or answer.id)


def _join(
    chosen: Chosen, answers: list[Answer], annotator: str | None, source: str
) -> tuple[dict[str, str], list[str]]:
    """The answer of each row that has one, and what decided between several."""
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
    by_row: dict[str, list[Answer]] = {}
    for a in answers:
        if a.text is not None and a.text.strip():
            by_row.setdefault(a.id, []).append(a)
    people = {name for a in answers for name in a.names}
    if annotator not in (None, "first", "last", *people):
        there = f"the annotators are {', '.join(sorted(people))}" if people else "no record says who answered it"
        raise UsageError(f"{source}: no answer of annotator {annotator!r}; {there}")
    left = {name: decide(given, annotator) for name, given in by_row.items()}
    _refuse(
        (next(a for a in given if a.text != given[0].text) for given in left.values() if several(given)),
        lambda a: (
            f"{a.where}{_by(a)}: another answer to row {a.id!r} than {left[a.id][0].where}{_by(left[a.id][0])} has"
        ),
        "keep one of them, or say which with --annotator first, last or NAME",
    )
    settled = [name for name, given in by_row.items() if several(given)]
    notes = [f"{named(settled)} several answers: {_decided(by_row, settled, annotator)}"] if settled else []
    return {name: str(given[0].text) for name, given in left.items()}, notes


def _decided(by_row: dict[str, list[Answer]], settled: list[str], annotator: str | None) -> str:
    truth = sum(not several(decide(by_row[name], None)) for name in settled)
    rest = len(settled) - truth
    parts = [f"ground truth decided {truth}"] * bool(truth) + [f"--annotator {annotator} decided {rest}"] * bool(rest)
    return ", ".join(parts)


def _by(answer: Answer) -> str:
    return f" (by {answer.names[0]})" if answer.names else ""


def _fresh(chosen: Chosen, answer: Answer) -> Answer:
    """Of a row that has texts in several places for an answer, the one that it did not have when it was chosen."""
    if answer.row is None or answer.id not in chosen.pool.index_of:
        return answer
    before, column = json_record(chosen.pool.line(chosen.pool.index_of[answer.id])), chosen.pool.reading.response_column
    then, now = (candidates(row, answer.where, answer.id, column) for row in (before, answer.row))
    fresh = [text for place, text in now.items() if text != then.get(place)]
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
        spelt = {_plain(answer.prompt), _plain(unmark(answer.prompt))}
        cut = len(answer.prompt) >= LONGEST_CELL and any(o.startswith(t) for o in ours for t in spelt)
        return cut or not spelt.isdisjoint(ours)
    record = json_record(chosen.pool.line(i)) if answer.row else {}
    read = {chosen.pool.shape(i), "input", chosen.pool.reading.context_column or "context"}
    for column in read & record.keys() if answer.row else ():
        theirs, own = (answer.row or {}).get(column), record[column]
        if isinstance(own, list) and isinstance(theirs, list):
            lima = bool(own) and isinstance(own[-1], str) and len(own) % 2 == 0
            asked = own[:-1] if lima or (own and is_assistant(own[-1])) else own
            if theirs[: len(asked)] != asked:
                return False
        elif isinstance(own, str) and isinstance(theirs, str) and _plain(theirs) not in {_plain(own), *ours}:
            return False
    return True


def _plain(text: str) -> str:
    return _LONE.sub("\ufffd", text).replace("\r\n", "\n").replace("\r", "\n").strip()


def with_answer(line: bytes, text: str, shape: str, columns: Columns | None = None) -> bytes:
    """A row's line with an answer in the field where `edjax.data.pool` looks for it first.

    Args:
      line: one JSON object.
      text: the answer.
      shape: the column of the prompt. columns: others that were named.
    """
    record, columns = json.loads(line), columns or Columns()
    turns = turns_in(record, shape)
    conversation = turns is not None and (
        (shape in WHOLE and columns.response is None) or (turns and is_assistant(turns[-1]))
    )
    if not conversation:  # the response may be turns of its own
        response = next((record[name] for name in label_columns(record, shape, columns) if record.get(name)), None)
        turns = response if isinstance(response, list) and turns_of(response) else None
    if isinstance(turns, list):
        _add_turn(turns, text)
        return dump_like(record, line)
    column = "output" if shape == "instruction" and ("output" in record or "response" not in record) else "response"
    column = columns.response or column
    if column in record:
        record[column] = text
        return dump_like(record, line)
    comma, colon = (b", ", b": ") if b'": ' in line else (b",", b":")
    return line.rstrip()[:-1].rstrip() + comma + json_bytes(column) + colon + json_bytes(text) + b"}"


def _add_turn(turns: list[Any], text: str) -> None:
    """The answer as the last turn, with the keys and the name of the assistant that the conversation uses."""
    if turns and all(isinstance(t, str) for t in turns):  # LIMA's, the user's first
        turns[len(turns) - (len(turns) + 1) % 2 :] = [text]
        return
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
