"""Embeddings in files, read a few megabytes at a time, and a nameless file of rows to read them again from.

Parquet is decoded in order and its rows lie in the order of the shards, so what reads a pool once a round, in slices of
the pool's order, first copies it into a `Spill`: measured, a slice of it reads ten times as fast as it decodes.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from edjax.data.arrays import ArrayFile
from edjax.keep.errors import DataError
from edjax.keep.store import scratch_file

_BATCH_BYTES = 4 << 20  # decoded at a time: larger ones are no faster
_SLICE_BYTES = 32 << 20


@dataclass(frozen=True)
class Stream:
    """The (n, d) float32 embeddings of Parquet files or of one array, still on disk.

    `place[i]` is the row that row i of the files (one after the other) becomes, -1 if none. `scratch` is the directory
    for a copy of the rows, `column` the Parquet column that holds them.
    """

    files: tuple[Path | ArrayFile, ...]
    shape: tuple[int, int]
    place: np.ndarray
    scratch: Path
    column: str = "embedding"

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes of the whole as float32."""
        return 4 * self.shape[0] * self.shape[1]

    def batches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(places, rows (b, d)) of the files' rows, in their order; about 100 MB of memory, Arrow's included.

        Raises:
          DataError: naming the file, if it is damaged, a row has no embedding, or one of another length.
        """
        start = 0
        for file in self.files:
            for rows in self._rows(file, max(1, _BATCH_BYTES // (4 * max(self.shape[1], 1)))):
                place = self.place[start : start + len(rows)]
                start += len(rows)
                yield (place, rows) if (place >= 0).all() else (place[place >= 0], rows[place >= 0])

    def _rows(self, file: Path | ArrayFile, step: int) -> Iterator[np.ndarray]:
        if isinstance(file, ArrayFile):
            yield from file.batches(step)
        else:
            for column in read_batches(file, step, self.column):
                yield matrix(column, str(file), self.shape[1], self.column)

    def read(self) -> np.ndarray:
        """All rows in memory."""
        out = np.empty(self.shape, np.float32)
        for place, rows in self.batches():
            out[place] = rows
        return out

    @cached_property
    def finite(self) -> np.ndarray:
        """(n,) whether each row holds neither NaN nor infinity. Cost: one pass over the files."""
        out = np.zeros(len(self), bool)
        for place, rows in self.batches():
            out[place] = np.isfinite(rows).all(axis=1)
        return out

    def take(self, rows: np.ndarray) -> Stream:
        """These rows alone, in this order."""
        rank = np.full(len(self) + 1, -1)  # the last is where -1 points
        rank[rows] = np.arange(len(rows))
        return replace(self, shape=(len(rows), self.shape[1]), place=rank[self.place])

    def spill(self) -> Spill:
        """A copy to read again and again. Cost: one pass over the files, `nbytes` of disk."""
        out = Spill(self.shape, self.scratch)
        for place, rows in self.batches():
            out[place] = rows
        return out


class Spill:
    """(n, d) float32 rows in a nameless file, in bounded memory; the file ends with the object or the process.

    Takes what kernels ask of a pool on the host: `shape`, a slice, an int array of rows.

    Raises:
      EnvError: the disk has no room for 4 n d bytes; they are taken at once.
    """

    def __init__(self, shape: tuple[int, int], directory: Path):
        self.shape = shape
        self._file = scratch_file(directory, 4 * shape[0] * shape[1])
        self._map = np.memmap(self._file, np.float32, "r+", shape=shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: slice | np.ndarray) -> np.ndarray:
        ids = np.arange(len(self))[key]
        out = np.empty((len(ids), self.shape[1]), np.float32)
        if isinstance(key, slice) and key.step in (None, 1):
            self._read(out, ids[0] if len(ids) else 0)
        else:
            for row, i in zip(out, ids, strict=True):
                self._read(row, i)
        return out

    def _read(self, out: np.ndarray, row: int) -> None:
        """Rows from `row` on. Not through the map: there, a page that is touched brings its neighbours into memory."""
        at, left = 4 * self.shape[1] * int(row), out.reshape(-1).view(np.uint8).data
        while left:
            got = os.preadv(self._file.fileno(), [left], at)
            at, left = at + got, left[got:]

    def __setitem__(self, key: slice | np.ndarray, rows: np.ndarray) -> None:
        self._map[key] = rows
        self._forget()

    def slices(self) -> Iterator[slice]:
        """Slices that cover all rows, each of at most 32 MB."""
        step = max(1, _SLICE_BYTES // (4 * max(self.shape[1], 1)))
        return (slice(start, min(start + step, len(self))) for start in range(0, len(self), step))

    def _forget(self) -> None:
        """Give the pages back: the kernel keeps them cached, but they no longer count as this process's memory."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]


class View:
    """Some rows of a `Spill`, in the order given; reads like it."""

    def __init__(self, x: Spill, rows: np.ndarray):
        self.x, self.rows = x, rows
        self.shape = (len(rows), x.shape[1])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: slice | np.ndarray) -> np.ndarray:
        rows = self.rows[key]
        together = isinstance(key, slice) and len(rows) > 0 and rows[-1] - rows[0] == len(rows) - 1
        together = together and bool((np.diff(rows) == 1).all())
        return self.x[rows[0] : rows[-1] + 1] if together else self.x[rows]


def read_batches(file: Path, rows: int, column: str = "embedding") -> Iterator[Any]:
    """The embeddings as Arrow arrays of at most `rows` rows; bounded even where a row group is the whole file.

    Raises:
      DataError: naming the file, if it cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file, pre_buffer=False, buffer_size=1 << 20) as f:
            for batch in f.iter_batches(batch_size=rows, columns=[column]):
                yield batch.column(0)
    except (pa.ArrowException, OSError) as e:
        raise DataError(f"{file} cannot be read as Parquet ({e})") from e


def width(files: Sequence[Path], name: str = "embedding") -> int:
    """d, the length of the first row; 0 where there is none."""
    for file in files:
        for column in read_batches(file, 1, name):
            _check_type(column.type, str(file), name)
            return len(column[0]) if column[0].is_valid else 0
    return 0


def matrix(column: Any, where: str, d: int | None = None, name: str = "embedding") -> np.ndarray:
    """An Arrow array of lists of numbers as (rows, d) float32, without a copy where it holds float32.

    Raises:
      DataError: naming `where`, for another type, a row without an embedding, or lengths that differ from `d`
        (default: from each other).
    """
    import pyarrow.compute as pc

    _check_type(column.type, where, name)
    if column.null_count:
        raise DataError(f"{where}: {column.null_count} rows have no embedding; every row needs one")
    lengths = set(np.unique(pc.list_value_length(column).to_numpy(zero_copy_only=False)).tolist())
    if len(lengths | {d or min(lengths)}) != 1 or lengths == {0}:
        lengths |= {d} if d else set()
        raise DataError(f"{where}: embeddings have lengths {sorted(lengths)[:4]}; every row needs the same, above 0")
    flat = column.flatten().to_numpy(zero_copy_only=False)
    return np.ascontiguousarray(flat, dtype=np.float32).reshape(len(column), lengths.pop())


def _check_type(kind: Any, where: str, name: str) -> None:
    import pyarrow.types as t

    is_list = t.is_list(kind) or t.is_large_list(kind) or t.is_fixed_size_list(kind)
    if not (is_list and (t.is_floating(kind.value_type) or t.is_integer(kind.value_type))):
        raise DataError(f"{where}: the column {name!r} holds {kind}; a list of numbers a row is needed")
