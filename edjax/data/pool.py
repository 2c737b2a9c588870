"""The pool: prompts, their ids, responses where there are any, and the very bytes they came as.

`read_pool` reads what other tools write: `edjax.data.sources` knows what a name stands for, `edjax.data.turns` what a
row means. Here:

Ids:
  a column `id` of text or integers, in Parquet and the like also bytes that are UTF-8 and whole floats (1.0 is 1)
  a row without one (null, NaN, empty) is named after its line or row: row-000017; of a directory, a pattern or several
  files after the file too: part-0.jsonl:row-000017
  a duplicate id is an error that names both places; a duplicate prompt is a note with a count
Bad rows:
  an error that names the file and the line; with skip_bad_lines such rows are left out, counted and named in a note
Bytes:
  `line` and `records` keep a row as it came, those of Parquet and `datasets` without the null keys of turns and
  functions; where the source has no lines, `line` is strict JSON of the record, with bytes in base64
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from edjax.data.ids import id_text
from edjax.data.names import Named as Named
from edjax.data.names import called as called
from edjax.data.reading import Reading as Reading
from edjax.data.rows import BadRow, Row
from edjax.data.sources import Source, open_rows
from edjax.data.tools import Tool
from edjax.data.turns import ACCEPTED, SHAPES, Meaning, lean, read_row, shape_of
from edjax.data.turns import Message as Message
from edjax.data.written import dump
from edjax.keep import notebook
from edjax.keep.errors import DataError, UsageError
from edjax.keep.store import atomic_write

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Pool:
    """Prompts in the order of their source; every field up to `lines`, `tools` and `withheld` have one entry a row.

    Attributes:
      ids: unique names of the rows.
      messages: the chat turns that make the prompt, {"role", "content"} each and what `edjax.data.turns` keeps beside
        them, the last assistant turn left out.
      responses: the answer, or None for a row without a label.
      records: the parsed rows with every column they came with.
      lines: the rows' bytes without line ends where any of the source is JSON Lines, else None.
      source: what was read, for messages.
      digest: sha256 of the rows' lines and of what was read out of them; equal for equal rows in the same order, packed
        or not, in one file or in several. Other options, or an edjax that reads a column more, make it another one, and
        with it what is scored or trained.
      notes: what a person should know about the read, a sentence each.
      tools: the functions that a row offers, None where it offers none.
      withheld: the last assistant turn where it is no response: one that calls tools, or has weight 0; else None.
      reading: how it was read.
      named: what names it to `read_pool`, one name or a list of them, where `source` does not.
    """

    ids: tuple[str, ...]
    messages: tuple[tuple[Message, ...], ...]
    responses: tuple[str | None, ...]
    records: tuple[dict[str, Any], ...]
    lines: tuple[bytes, ...] | None
    source: str
    digest: str = field(default="")
    notes: tuple[str, ...] = ()
    tools: tuple[tuple[Tool, ...] | None, ...] = ()
    withheld: tuple[Message | None, ...] = ()
    reading: Reading = field(default_factory=Reading)
    named: str | list[str] = ""

    def __post_init__(self) -> None:
        for name in ("tools", "withheld"):
            if not getattr(self, name):
                object.__setattr__(self, name, (None,) * len(self))
        if not self.named:
            object.__setattr__(self, "named", self.source)
        if not self.digest:
            object.__setattr__(self, "digest", _digest(self))

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        labelled = sum(r is not None for r in self.responses)
        return f"Pool({self.source!r}, {len(self)} rows, {labelled} with a response, digest {self.digest[:12]})"

    def _repr_html_(self) -> str:
        labelled = sum(r is not None for r in self.responses)
        said = f"Pool of {len(self):,} rows, {labelled:,} with a response, from {self.source}"
        rows = [(self.ids[i], self.prompt_text(i), self.responses[i]) for i in range(min(len(self), notebook.ROWS))]
        return notebook.table(said, ("id", "prompt", "response"), rows, len(self), "; ".join(self.notes))

    def line(self, i: int) -> bytes:
        """Row i as JSON on one line: its raw bytes, or compact JSON of its record where the source had no lines."""
        return self.lines[i] if self.lines is not None else dump(self.records[i])

    def prompt_text(self, i: int) -> str:
        """The last user message of row i."""
        return next(m["content"] for m in reversed(self.messages[i]) if m["role"] == "user")

    @cached_property
    def index_of(self) -> dict[str, int]:
        """Row number of each id."""
        return {name: i for i, name in enumerate(self.ids)}

    def shape(self, i: int) -> str:
        """The column of row i that holds its prompt."""
        return shape_of(self.records[i], self.reading.text_column) or ""

    def each(self, f: Callable[[int], T]) -> list[T]:
        """f of every row's number; a `DataError` that it raises then names the row."""
        made = []
        for i in range(len(self)):
            try:
                made.append(f(i))
            except DataError as e:
                raise DataError(f"{self.source}: row {self.ids[i]!r}: {e}") from e
        return made

    def unanswered(self, i: int) -> str:
        """Why row i has no response, to go on from `row 'a' has no response`; "" where that is all there is to say."""
        turn = self.withheld[i]
        if turn is None:
            return ""
        return " (its last turn calls tools)" if "tool_calls" in turn else " (its last turn has weight 0)"

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
            tools=tuple(self.tools[i] for i in chosen),
            withheld=tuple(self.withheld[i] for i in chosen),
            reading=self.reading,
            named=self.named,
        )


def read_pool(
    source: Named,
    *,
    text_column: str | None = None,
    response_column: str | None = None,
    system_column: str | None = None,
    context_column: str | None = None,
    choices_column: str | None = None,
    answer_column: str | None = None,
    id_column: str | None = "id",
    split: str | None = None,
    revision: str | None = None,
    skip_bad_lines: bool = False,
    limit: int | None = None,
    log: Callable[[str], object] | None = None,
) -> Pool:
    """Read a pool of prompts, all of it or nothing.

    Args:
      source: a .jsonl, .json, .csv, .tsv (each also packed) or .parquet file, a pattern of such, a directory of them or
        of `datasets` save_to_disk, "-" for standard input, or a hub id `org/name` (`org/name:config`); or a list.
      text_column: the column that holds the prompt; found by its name (see `edjax.data.turns`) where this is None.
      response_column, system_column, context_column: the columns that hold these, likewise.
      choices_column, answer_column: what `edjax.evaluate` compares with; a row without any column of responses has its
        answer as the response.
      id_column: the column that names the rows. None: rows are named after their line or row.
      split: the split of a `datasets` directory or hub data set.
      revision: the branch, tag or commit of a hub data set.
      skip_bad_lines: leave malformed rows out, with a note, in place of an error at the first.
      limit: stop after this many good rows.
      log: called with each note.

    Raises:
      DataError: no such source, a malformed row, a missing column, a duplicate id, no rows.
      UsageError: arguments that contradict the source.
      EnvError: the file cannot be opened, or the hub not reached.
    """
    columns = (text_column, response_column, system_column, context_column, choices_column, answer_column)
    reading = Reading(*columns, id_column, split, revision, skip_bad_lines)
    return read_as(source, reading, limit=limit, log=log)


def read_as(
    source: Named,
    reading: Reading,
    *,
    limit: int | None = None,
    part: bool = False,
    log: Callable[[str], object] | None = None,
) -> Pool:
    """`read_pool` with its options in one.

    part: the rows are some of a pool that was read like this, and columns that none of them has are no error.
    """
    names = [str(source)] if isinstance(source, str | Path) else [str(s) for s in source]
    name = called(names)
    if limit is not None and limit < 1:
        raise UsageError(f"--limit {limit}: at least 1 row is needed")
    container = open_rows(names, split=reading.split, revision=reading.revision, limit=limit)
    text_column, columns = reading.text_column, reading.columns()
    rows: list[Row] = []
    parsed: list[Meaning] = []
    bad: list[Row] = []
    first: str | None = None
    for row in container.rows:
        if limit is not None and len(rows) == limit:
            break
        reason = row.bad
        if not reason:
            first = first or _shape(name, row.record, text_column)
            try:
                shape = _shape_beside(first, row.record, text_column)
                row = row._replace(record=lean(row.record, shape, columns)) if container.columnar(row) else row
                parsed.append(read_row(row.record, shape, columns))
                rows.append(row)
            except BadRow as e:
                reason = str(e)
        if reason:
            if not reading.skip_bad_lines:
                remedy = "mend the line, or --skip-bad-lines to leave such lines out"
                raise DataError(f"{container.where(row)}: {reason}; {remedy}")
            bad.append(row._replace(record={}, bad=reason))
    if not rows:
        left_out = f" ({len(bad)} malformed skipped; the first: {bad[0].bad})" if bad else ""
        raise DataError(f"{name} holds no rows{left_out}; a pool needs at least one prompt")

    there = _columns(row.record for row in rows)
    for column in () if part else filter(None, columns):
        if column not in there:
            raise _no_column(name, column, there)
    if reading.id_column == "id" and "id" not in there and first == "body" and "custom_id" in there:
        reading = dataclasses.replace(reading, id_column="custom_id")
    ids, unnamed = _ids(name, rows, reading.id_column, container)
    raw = any(row.raw is not None for row in rows)
    lines = tuple(dump(r.record) if r.raw is None else r.raw for r in rows) if raw else None
    notes = [
        *_notes(bad, container, unnamed, len(parsed) - len(set(map(_key, parsed)))),
        *_withheld(ids, parsed),
    ]
    pool = Pool(
        ids=tuple(ids),
        messages=tuple(m.messages for m in parsed),
        responses=tuple(m.response for m in parsed),
        records=tuple(row.record for row in rows),
        lines=lines,
        source=name,
        notes=tuple(notes),
        tools=tuple(m.tools for m in parsed),
        withheld=tuple(m.withheld for m in parsed),
        reading=reading,
        named=names[0] if len(names) == 1 else names,
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


def _notes(bad: list[Row], source: Source, unnamed: int, repeated: int) -> Iterable[str]:
    if bad:
        unit = "rows" if any(row.raw is None for row in bad) else "lines"
        places = (source.where(row) if len(source.containers) > 1 else str(row.number) for row in bad[:5])
        first = ", ".join(places) + (", ..." if len(bad) > 5 else "")
        yield f"{_count(len(bad), 'malformed ' + unit)} skipped: {first} (the first: {bad[0].bad})"
    if unnamed:
        yield f"{_count(unnamed, 'rows')} without an id named after their place"
    if repeated:
        yield f"{_count(repeated, 'rows')} {'shares' if repeated == 1 else 'share'} a prompt with an earlier row"


def _withheld(ids: Sequence[str], parsed: Sequence[Meaning]) -> Iterable[str]:
    calls = [i for i, m in zip(ids, parsed, strict=True) if m.withheld and "tool_calls" in m.withheld]
    idle = [i for i, m in zip(ids, parsed, strict=True) if m.withheld and "tool_calls" not in m.withheld]
    for names, what in ((calls, "a turn that calls tools"), (idle, "an assistant turn of weight 0")):
        if names:
            first = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
            end = "ends" if len(names) == 1 else "end"
            yield f"{_count(len(names), 'rows')} {end} in {what}: no response ({first})"


def _count(n: int, plural: str) -> str:
    return f"{n} {plural.removesuffix('s') if n == 1 else plural}"


# Columns


def _shape(source: str, record: dict[str, Any], text_column: str | None) -> str:
    shape = shape_of(record, text_column)
    if shape is not None:
        return shape
    if text_column is not None:
        raise _no_column(source, text_column, list(record))
    near = [(c, difflib.get_close_matches(c.lower(), SHAPES, n=1)) for c in record if c not in SHAPES]
    hint = next((f" ({c!r} is near {n[0]!r})" for c, n in near if n), "")
    hint = " (its body has no list of messages)" if "body" in record else hint
    raise DataError(
        f"{source}: no prompt among the columns {', '.join(record) or '(none)'}{hint}; "
        f"accepted are {ACCEPTED}; or name one with --text-column"
    )


def _shape_beside(first: str, record: dict[str, Any], text_column: str | None) -> str:
    """The shape of a row whose source began with shape `first`. A whole text stands in for no prompt that is null."""
    if first not in record:
        raise BadRow(f"no column {first!r}, which the rows before have")
    shape = shape_of(record, text_column)
    return first if shape is None or shape == "text" else shape


def _no_column(source: str, name: str, columns: Sequence[str]) -> DataError:
    near = difflib.get_close_matches(name, columns, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return DataError(f"{source}: no column {name!r}; {hint}the columns are {', '.join(columns) or '(none)'}")


def _columns(records: Iterable[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for record in records for key in record))


def _ids(name_of_pool: str, rows: list[Row], id_column: str | None, source: Source) -> tuple[list[str], int]:
    """The rows' ids, and how many rows lack one although others have it."""
    columns = _columns(row.record for row in rows)
    if id_column and id_column != "id" and id_column not in columns:
        raise _no_column(name_of_pool, id_column, columns)
    named = bool(id_column) and id_column in columns
    ids: list[str] = []
    first: dict[str, Row] = {}
    unnamed = 0
    for row in rows:
        value = row.record.get(id_column) if named and id_column else None
        try:
            name = id_text(value)
        except ValueError:
            raise DataError(
                f"{source.where(row)}: the id {value!r} is neither text nor an integer; "
                "mend it, or choose another --id-column"
            ) from None
        unnamed += named and name is None
        if name is None:
            name = source.place(row)
        elif isinstance(value, bytes) and id_column:
            row.record[id_column] = name  # a line holds no bytes
        if name in first:
            raise DataError(
                f"{source.where(row)}: the id {name!r} is taken by {source.where(first[name])}; "
                "make the ids unique, or choose another --id-column"
            )
        first[name] = row
        ids.append(name)
    return ids, unnamed


def _key(m: Meaning) -> tuple[str, ...]:
    calls = [json.dumps(t["tool_calls"], default=str) for t in m.messages if "tool_calls" in t]
    offered = [json.dumps(m.tools, default=str)] if m.tools else []
    return (*(part for t in m.messages for part in (t["role"], t["content"])), *calls, *offered)


def _digest(pool: Pool) -> str:
    h, encode = hashlib.sha256(), json.JSONEncoder(default=str).encode
    for i, messages in enumerate(pool.messages):
        h.update(pool.line(i))
        read = [pool.responses[i], pool.tools[i], pool.withheld[i]]
        for m in messages:
            read += [m["role"], m["content"]] if len(m) == 2 else [m]
        h.update(b"\n%s\n" % encode(read).encode())
    return h.hexdigest()
