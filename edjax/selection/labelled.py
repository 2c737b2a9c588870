"""Rows that have labels already: a second round goes on where the first ended."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from edjax.data.features import Features
from edjax.data.ids import as_known, read_ids
from edjax.keep.errors import DataError
from edjax.keep.store import read_manifest
from edjax.selection.selection import read_selection, selection_of
from edjax.selection.strategies import reads_embeddings, recorded


def read_labelled(paths: Iterable[str | Path], id_column: str = "id") -> tuple[str, ...]:
    """The ids of rows that are labelled: of directories of earlier selections, and of files with ids.

    A file is a .txt (a line each), a .npy, a .json with a list, or rows with an id column (.jsonl, .csv, .parquet,
    ...): every row in it counts as labelled. An id that several name counts once.

    Raises:
      DataError: a directory that holds no selection, or as `edjax.data.ids.read_ids`.
    """
    ids: dict[str, None] = {}
    for path in map(selection_of, map(Path, paths)):
        ids |= dict.fromkeys(read_selection(path).ids if path.is_dir() else read_ids(path, id_column))
    return tuple(ids)


def chosen_otherwise(paths: Iterable[str | Path], normalise: str) -> str | None:
    """A note on the first earlier selection that saw the embeddings in another way: both rounds are no one choice."""
    for path in map(selection_of, map(Path, paths)):
        config = read_manifest(path, "selection")["config"] if path.is_dir() else {}
        method = recorded(config.get("strategy", ""))
        was = config.get("normalise", normalise)
        if method and reads_embeddings(method) and was != normalise:
            return (
                f"{path} was chosen with --normalise {was} and this round with {normalise}: its rows count as "
                f"labelled, so two rounds are not what one choice would be (--normalise {was} goes on as it began)"
            )
    return None


def find(labelled: Iterable[str], features: Features, allow_unknown: bool) -> tuple[np.ndarray, str | None]:
    """The rows (p,) int64 ascending that these ids name, and a note on those that are of no row.

    An id that selection.csv marks for spreadsheets ('=1) is known without its mark (`edjax.data.ids.as_known`).

    Raises:
      DataError: ids that no row has, unless `allow_unknown`.
    """
    place = {name: i for i, name in enumerate(features.ids)}
    rows: list[int] = []
    unknown: list[str] = []
    for name in labelled:
        known = as_known(name, place)
        if known is None:
            unknown.append(name)
        else:
            rows.append(place[known])
    if not unknown:
        return np.unique(np.asarray(rows, np.int64)), None
    said = f"{len(unknown)} labelled {'row is' if len(unknown) == 1 else 'rows are'} not of this pool ({unknown[0]!r}"
    said += ", ...)" if len(unknown) > 1 else ")"
    if not allow_unknown:
        raise DataError(f"{said}; name the pool they were chosen from, or --allow unknown to pass over them")
    return np.unique(np.asarray(rows, np.int64)), f"{said}: passed over"
