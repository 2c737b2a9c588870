"""Hand the chosen rows to people or to a trainer elsewhere, in the format that their tool reads; read answers back.

A format is a module of its own: `files(chosen, out)` gives names and bytes to write, and `answers(entries)`, where
people answer in it, reads what the tool exports; `ACTS_ON`, where a trainer reads it, names columns that it would take
for more than a row's own. FORMATS is the table.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from edjax.handoff import argilla, axolotl, label_studio, lines, llama_factory, spreadsheet, trl
from edjax.handoff.chosen import Chosen
from edjax.handoff.chosen import read_chosen as read_chosen
from edjax.keep.errors import DataError, UsageError
from edjax.keep.store import atomic_write

Files = dict[str, bytes]


class Format(NamedTuple):
    """How rows leave: what makes the files, the suffix by which --out names the first of them, for whom it is, and the
    columns that do not go along, since who reads them would act on them."""

    files: Callable[[Chosen, Path], Files]
    suffix: str | None
    answered: bool
    summary: str
    acts_on: frozenset[str] = frozenset()


FORMATS = {
    "label-studio": Format(label_studio.files, ".json", False, "tasks and a labelling interface for Label Studio"),
    "argilla": Format(argilla.files, None, False, "a directory for argilla's Dataset.from_disk"),
    "csv": Format(spreadsheet.files, ".csv", False, "a table with an empty column `response`, for a spreadsheet"),
    "jsonl": Format(lines.files, ".jsonl", False, "the rows untouched"),
    "trl": Format(trl.files, ".jsonl", True, "prompt and completion turns for TRL's SFTTrainer", trl.ACTS_ON),
    "axolotl": Format(
        axolotl.files, None, True, "messages for axolotl, and the part of its config that names them", axolotl.ACTS_ON
    ),
    "llama-factory": Format(llama_factory.files, None, True, "ShareGPT rows for LLaMA-Factory, and dataset_info.json"),
}


def export(
    chosen: Chosen,
    to: str,
    out: str | Path,
    *,
    overwrite: bool = False,
    log: Callable[[str], object] = lambda _: None,
) -> list[Path]:
    """Write the rows in a format; returns the files, each of which appears whole or not at all.

    Args:
      chosen: the rows, in the order they were taken.
      to: a name in FORMATS.
      out: a directory, or a file of the format's suffix; files beside the first one then begin with its name.
      overwrite: replace files that are there and hold something else.
      log: called with a note where columns are left out that the trainer would act on.

    Raises:
      UsageError: an unknown format; files in the way.
      DataError: rows without a response for a trainer; rows that the format cannot hold. They are named.
    """
    if to not in FORMATS:
        raise UsageError(f"unknown format {to!r}; known are {', '.join(FORMATS)}")
    kind, out = FORMATS[to], Path(out)
    missing = [name for i, name in enumerate(chosen.pool.ids) if chosen.answer(i) is None]
    if kind.answered and missing:
        raise DataError(
            f"{chosen.pool.source}: {named(missing)} no response, and {to} is for training; have the rows answered, "
            "join the answers with `edjax import-labels`, and export what that writes"
        )
    if left := sorted(kind.acts_on & {name for i in range(len(chosen)) for name in chosen.extra(i)}):
        log(f"left out, since {to} would act on them: {', '.join(left)}")
        chosen = dataclasses.replace(chosen, left_out=kind.acts_on)
    made = {}
    for number, (name, data) in enumerate(kind.files(chosen, out).items()):
        if kind.suffix and out.suffix.lower() == kind.suffix:
            made[out if number == 0 else out.with_name(f"{out.stem}.{name}")] = data
        else:
            made[out / name] = data
    write_all(made, overwrite)
    return list(made)


def write_all(files: dict[Path, bytes], overwrite: bool) -> None:
    """Write files that are not there yet; one that is there and holds something else is a `UsageError`, and so is a
    directory that another verb made."""
    same = {p for p, data in files.items() if p.is_file() and p.read_bytes() == data}
    ours = [p.parent for p in files if any((p.parent / name).exists() for name in ("manifest.json", "plan.json"))]
    if ours:
        raise UsageError(f"{ours[0]} is a directory of edjax's own, whose files a manifest names; choose another --out")
    in_the_way = [p for p in files if p.exists() and p not in same]
    if in_the_way and not overwrite:
        raise UsageError(f"{in_the_way[0]} exists and holds something else; choose another --out, or --overwrite")
    for path, data in files.items():
        if path not in same:
            with atomic_write(path) as f:
                f.write(data)


def named(ids: list[str]) -> str:
    """`row 'a' has`, or `3 rows ('a', 'b', ...) have`, with no more than five names."""
    if len(ids) == 1:
        return f"row {ids[0]!r} has"
    return f"{len(ids)} rows ({', '.join(map(repr, ids[:5]))}{', ...' if len(ids) > 5 else ''}) have"
