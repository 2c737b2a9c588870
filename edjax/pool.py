"""The pool: prompts, their ids, responses where there are any, and the very bytes they came as.

`read_pool` reads what other tools write (`edjax.rows` knows the containers) and decides once per row-set which shape it
has. Policies, a case each:

Shapes, the first that fits the columns:
  messages        a list of {role, content} turns
  conversations   ShareGPT: a list of {from, value} turns
  prompt          text, or a list of turns; the response is `response` or else `completion`
  instruction     Alpaca: `instruction`, a blank line, `input` where there is one; the response is `output`
  text            the whole text is the prompt; the response is `response` or `completion` where there is one
  --text-column   any other column, text or turns; the response as for `prompt`
Turns:
  ends with an assistant turn    that turn is the response, all before it is the prompt
  no assistant turn at the end   the response is the column `response` or `completion`; without one the row is
                                 unlabelled (response None): what a pool is made of
  no user turn (system only), last user turn empty    a bad row: there is nothing to answer
  unknown role                   a bad row; human, gpt, model, bot, chatgpt, developer, function, observation are known
  other empty turns              kept as they are (an empty system turn is not the same as none)
  content as a list of parts     the text parts joined; an image or any other part makes a bad row
  an empty response              None: unlabelled
  too long for a model           kept; scoring and finetuning truncate and say so
Text:
  lone surrogates (`\\ud800`)     become U+FFFD in ids, messages and responses, since no tokenizer can encode them;
                                 `line` and `records` keep them
Ids:
  a column `id` of text or integers; a row without one is named after its line or row: row-000017
  a duplicate id is an error that names both places; a duplicate prompt is a note with a count
Bad rows:
  an error that names the file and the line; with skip_bad_lines such rows are left out, counted and named in a note
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from edjax.errors import DataError, UsageError
from edjax.rows import Row, open_rows
from edjax.store import atomic_write

Message = dict[str, str]

ACCEPTED = "messages; conversations; prompt (+ response or completion); instruction (+ input, output); text"
_SHAPES = ("messages", "conversations", "prompt", "instruction", "text")
_ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "bot", "chatgpt"), "assistant"),
    **dict.fromkeys(("tool", "function", "observation"), "tool"),
}
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, eq=False)
class Pool:
    """Prompts in the order of their source; every field but `source`, `digest` and `notes` has one entry a row.

    Attributes:
      ids: unique names of the rows.
      messages: the chat turns that make the prompt, {"role", "content"} each, the last assistant turn left out.
      responses: the answer, or None for a row without a label.
      records: the parsed rows with every column they came with.
      lines: the rows' bytes without line ends where the source is JSON Lines, else None.
      source: what was read.
      digest: sha256 of the rows' lines; equal for equal rows, gzipped or not.
      notes: what a person should know about the read, a sentence each.
    """

    ids: tuple[str, ...]
    messages: tuple[tuple[Message, ...], ...]
    responses: tuple[str | None, ...]
    records: tuple[dict[str, Any], ...]
    lines: tuple[bytes, ...] | None
    source: str
    digest: str = field(default="")
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.digest:
            object.__setattr__(self, "digest", _digest(self.line(i) for i in range(len(self))))

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        labelled = sum(r is not None for r in self.responses)
        return f"Pool({self.source!r}, {len(self)} rows, {labelled} with a response, digest {self.digest[:12]})"

    def line(self, i: int) -> bytes:
        """Row i as JSON on one line: its raw bytes, or compact JSON of its record where the source had no lines."""
        return self.lines[i] if self.lines is not None else _dump(self.records[i])

    def prompt_text(self, i: int) -> str:
        """The last user message of row i."""
        return next(m["content"] for m in reversed(self.messages[i]) if m["role"] == "user")

    @cached_property
    def index_of(self) -> dict[str, int]:
        """Row number of each id."""
        return {name: i for i, name in enumerate(self.ids)}

    def column(self, name: str) -> tuple[Any, ...]:
        """One column of the records, None where a row lacks it; a name that no row has is a `DataError`."""
        if not any(name in record for record in self.records):
            raise _no_column(self.source, name, _columns(self.records))
        return tuple(record.get(name) for record in self.records)

    def take(self, indices: Iterable[int]) -> Pool:
        """The rows at `indices`, in that order; a pool of its own with its own digest."""
        chosen = [int(i) for i in indices]
        for i in chosen:
            if not 0 <= i < len(self):
                raise IndexError(f"row {i} of a pool of {len(self)} rows")
        return Pool(
            ids=tuple(self.ids[i] for i in chosen),
            messages=tuple(self.messages[i] for i in chosen),
            responses=tuple(self.responses[i] for i in chosen),
            records=tuple(self.records[i] for i in chosen),
            lines=None if self.lines is None else tuple(self.lines[i] for i in chosen),
            source=self.source,
        )


def read_pool(
    source: str | Path,
    *,
    text_column: str | None = None,
    id_column: str | None = "id",
    split: str | None = None,
    skip_bad_lines: bool = False,
    limit: int | None = None,
    log: Callable[[str], object] | None = None,
) -> Pool:
    """Read a pool of prompts, all of it or nothing.

    Args:
      source: a .jsonl, .json, .csv (each also .gz) or .parquet file, a directory written by `datasets` save_to_disk,
        or a hub id `org/name` (`org/name:config`).
      text_column: the column that holds the prompt; found by its name (see the module's text) where this is None.
      id_column: the column that names the rows. None: rows are named after their line or row.
      split: the split of a `datasets` directory or hub data set.
      skip_bad_lines: leave malformed rows out, with a note, in place of an error at the first.
      limit: stop after this many good rows.
      log: called with each note.

    Raises:
      DataError: no such source, a malformed row, a missing column, a duplicate id, no rows.
      UsageError: arguments that contradict the source.
      EnvError: the file cannot be opened, or the hub not reached.
    """
    name = str(source)
    if limit is not None and limit < 1:
        raise UsageError(f"--limit {limit}: at least 1 row is needed")
    container = open_rows(name, split=split, limit=limit)
    rows: list[Row] = []
    parsed: list[tuple[tuple[Message, ...], str | None]] = []
    bad: list[tuple[int, str]] = []
    shape = text_column
    for row in container.rows:
        if limit is not None and len(rows) == limit:
            break
        reason = row.bad
        if not reason:
            if not rows:
                shape = _shape(name, row.record, text_column)
            try:
                parsed.append(_prompt(row.record, str(shape)))
                rows.append(row)
            except _BadPrompt as e:
                reason = str(e)
        if reason:
            if not skip_bad_lines:
                remedy = "mend the line, or --skip-bad-lines to leave such lines out"
                raise DataError(f"{container.where(name, row.number)}: {reason}; {remedy}")
            bad.append((row.number, reason))
    if not rows:
        left_out = f" ({len(bad)} malformed skipped; the first: {bad[0][1]})" if bad else ""
        raise DataError(f"{name} holds no rows{left_out}; a pool needs at least one prompt")

    ids, unnamed = _ids(name, rows, id_column, container.where)
    lines = tuple(row.raw for row in rows if row.raw is not None)
    prompts = [_key(messages) for messages, _ in parsed]
    pool = Pool(
        ids=tuple(ids),
        messages=tuple(messages for messages, _ in parsed),
        responses=tuple(response for _, response in parsed),
        records=tuple(row.record for row in rows),
        lines=lines if len(lines) == len(rows) else None,
        source=name,
        notes=tuple(_notes(bad, "lines" if container.by_line else "rows", unnamed, len(prompts) - len(set(prompts)))),
    )
    for note in pool.notes if log else ():
        log(note)  # type: ignore[misc]
    return pool


def write_rows(path: str | Path, pool: Pool, indices: Iterable[int]) -> None:
    """Write the chosen rows as JSON Lines in the order given, byte for byte what was read, whole or not at all."""
    chosen = pool.take(indices)
    with atomic_write(path) as f:
        for i in range(len(chosen)):
            f.write(chosen.line(i) + b"\n")


def _notes(bad: list[tuple[int, str]], unit: str, unnamed: int, repeated: int) -> Iterable[str]:
    if bad:
        first = ", ".join(str(number) for number, _ in bad[:5]) + (", ..." if len(bad) > 5 else "")
        yield f"{_count(len(bad), 'malformed ' + unit)} skipped: {first} (the first: {bad[0][1]})"
    if unnamed:
        yield f"{_count(unnamed, 'rows')} without an id named after their place"
    if repeated:
        yield f"{_count(repeated, 'rows')} {'shares' if repeated == 1 else 'share'} a prompt with an earlier row"


def _count(n: int, plural: str) -> str:
    return f"{n} {plural.removesuffix('s') if n == 1 else plural}"


# What a row means


class _BadPrompt(ValueError):
    pass


def _shape(source: str, record: dict[str, Any], text_column: str | None) -> str:
    if text_column is not None:
        if text_column not in record:
            raise _no_column(source, text_column, list(record))
        return text_column
    for name in _SHAPES:
        if name in record:
            return name
    near = [(c, difflib.get_close_matches(c.lower(), _SHAPES, n=1)) for c in record]
    hint = next((f" ({c!r} is near {n[0]!r})" for c, n in near if n), "")
    raise DataError(
        f"{source}: no prompt among the columns {', '.join(record) or '(none)'}{hint}; "
        f"accepted are {ACCEPTED}; or name one with --text-column"
    )


def _no_column(source: str, name: str, columns: Sequence[str]) -> DataError:
    near = difflib.get_close_matches(name, columns, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return DataError(f"{source}: no column {name!r}; {hint}the columns are {', '.join(columns) or '(none)'}")


def _columns(records: Iterable[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for record in records for key in record))


def _prompt(record: dict[str, Any], column: str) -> tuple[tuple[Message, ...], str | None]:
    """The prompt's turns and the response of one row."""
    if column not in record:
        raise _BadPrompt(f"no column {column!r}, which the rows before have")
    value = record[column]
    response: str | None = None
    if isinstance(value, list):
        turns = [_turn(t, n) for n, t in enumerate(value, 1)]
        if turns and turns[-1]["role"] == "assistant":
            response = turns.pop()["content"]
    elif column in ("messages", "conversations"):
        raise _BadPrompt(f"{column!r} is not a list of turns")
    else:
        text = _text(value, column)
        if column == "instruction" and (more := _text(record.get("input"), "input")):
            text = f"{text}\n\n{more}"
        turns = [{"role": "user", "content": text}]
    if response is None:
        for name in ("output",) if column == "instruction" else ("response", "completion"):
            response = response or _response(record.get(name), name)
    asked = [m["content"] for m in turns if m["role"] == "user"]
    if not asked:
        raise _BadPrompt("no user turn: there is nothing to answer")
    if not asked[-1].strip():
        raise _BadPrompt("the prompt is empty")
    return tuple(turns), response if response and response.strip() else None


def _turn(turn: Any, number: int) -> Message:
    if not isinstance(turn, dict):
        raise _BadPrompt(f"turn {number} is not an object")
    role = turn.get("role", turn.get("from"))
    if not isinstance(role, str) or role.lower() not in _ROLES:
        raise _BadPrompt(f"turn {number} has the unknown role {role!r} (known: {', '.join(_ROLES)})")
    content = turn.get("content", turn.get("value"))
    if isinstance(content, list):
        content = "".join(_part(p, number) for p in content)
    return {"role": _ROLES[role.lower()], "content": _text(content, f"the content of turn {number}")}


def _part(part: Any, number: int) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, dict) and part.get("type", "text") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    kind = part.get("type") if isinstance(part, dict) else type(part).__name__
    raise _BadPrompt(f"turn {number} has a part of type {kind!r}; only text is read")


def _response(value: Any, name: str) -> str | None:
    if isinstance(value, list):  # TRL's conversational form: the completion is a list of turns
        turns = [_turn(t, n) for n, t in enumerate(value, 1)]
        return turns[-1]["content"] if turns and turns[-1]["role"] == "assistant" else None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return None if value != value else json.dumps(value)
    return _text(value, name) or None


def _text(value: Any, name: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _BadPrompt(f"{name} is {type(value).__name__}, not text")
    return value if value.isascii() else _SURROGATE.sub("\ufffd", value)


def _ids(
    source: str, rows: list[Row], id_column: str | None, where: Callable[[str, int], str]
) -> tuple[list[str], int]:
    """The rows' ids, and how many rows lack one although others have it."""
    columns = _columns(row.record for row in rows)
    if id_column and id_column != "id" and id_column not in columns:
        raise _no_column(source, id_column, columns)
    named = bool(id_column) and id_column in columns
    ids: list[str] = []
    first: dict[str, int] = {}
    unnamed = 0
    for row in rows:
        value = row.record.get(id_column) if named and id_column else None
        if value is None or value == "":
            value = f"row-{row.number:06d}"
            unnamed += named
        elif isinstance(value, bool) or not isinstance(value, (str, int)):
            raise DataError(
                f"{where(source, row.number)}: the id {value!r} is neither text nor an integer; "
                "mend it, or choose another --id-column"
            )
        name = _text(str(value), "id")
        if name in first:
            raise DataError(
                f"{where(source, row.number)}: the id {name!r} is taken by {where(source, first[name])}; "
                "make the ids unique, or choose another --id-column"
            )
        first[name] = row.number
        ids.append(name)
    return ids, unnamed


def _key(messages: tuple[Message, ...]) -> tuple[tuple[str, str], ...]:
    return tuple((m["role"], m["content"]) for m in messages)


# Lines


def _digest(lines: Iterable[bytes]) -> str:
    h = hashlib.sha256()
    for line in lines:
        h.update(line)
        h.update(b"\n")
    return h.hexdigest()


def _dump(record: dict[str, Any]) -> bytes:
    """One line of strict JSON: NaN becomes null, dates and the like become text, lone surrogates stay escapes."""
    options: dict[str, Any] = {"separators": (",", ":"), "default": str}
    try:
        text = json.dumps(record, ensure_ascii=False, allow_nan=False, **options)
    except ValueError:
        record = json.loads(json.dumps(record, **options), parse_constant=lambda _: None)
        text = json.dumps(record, ensure_ascii=False, **options)
    try:
        return text.encode()
    except UnicodeEncodeError:
        return json.dumps(json.loads(text), **options).encode()
