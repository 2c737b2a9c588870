"""One two-dimensional array of numbers in a .npy, .npz or .safetensors file, read a part at a time; what else a .npz
file says of the same rows is read whole.

The headers are checked by the libraries; the data are read here and not mapped, since a mapped file's pages count as
memory of the process. Nothing is unpickled: an array of Python objects is refused.
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from edjax.keep.errors import DataError, EnvError

SUFFIXES = (".npy", ".npz", ".safetensors")
NAMES = ("embeddings", "embedding")
_KINDS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_NUMPY = ("float16", "float32", "float64")
_UNREADABLE = (zipfile.BadZipFile, zlib.error, ValueError, EOFError, OSError, NotImplementedError, RuntimeError)


@dataclass(frozen=True)
class ArrayFile:
    """An (n, d) array that lies in a file from the byte `start` on: row after row, or by columns (Fortran order).

    member: the part of a zip file that it lies in; `start` is then counted in that.
    """

    path: Path
    shape: tuple[int, int]
    kind: np.dtype
    start: int
    by_columns: bool = False
    member: str | None = None

    def batches(self, step: int) -> Iterator[np.ndarray]:
        """All rows as float32, `step` at a time.

        Raises:
          DataError: the file ends too early.
        """
        n, d = self.shape
        with self._open() as f:
            for begin in range(0, n, step):
                b = min(step, n - begin)
                if self.by_columns:
                    values = np.empty((b, d), self.kind)
                    for j in range(d):
                        values[:, j] = self._values(f, j * n + begin, b)
                else:
                    values = self._values(f, begin * d, b * d).reshape(b, d)
                with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, and is refused as such
                    yield values.astype(np.float32, copy=False)

    def _values(self, f: IO[bytes], at: int, count: int) -> np.ndarray:
        f.seek(self.start + at * self.kind.itemsize)
        values = np.fromfile(f, self.kind, count)
        if len(values) != count:
            raise DataError(f"{self.path} ends too early; fetch or write it again")
        return values

    def _open(self) -> IO[bytes]:
        """The bytes that `start` counts in; a part of a zip file goes to a nameless scratch file first."""
        if self.member is None:
            return open(self.path, "rb", buffering=0)
        out = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        try:
            with zipfile.ZipFile(self.path) as z, z.open(self.member) as f:
                shutil.copyfileobj(f, out, 1 << 20)
        except (zipfile.BadZipFile, zlib.error, EOFError) as e:
            raise _damaged(self.path, e) from None
        except OSError as e:
            raise EnvError(f"cannot unpack {self.path} into {tempfile.gettempdir()}: {e.strerror or e}") from e
        return out


def is_array(path: Path) -> bool:
    """Whether the name is one of an array file's."""
    return path.suffix.lower() in SUFFIXES


def open_array(path: str | Path) -> ArrayFile:
    """Look at the header of a .npy file of floating-point numbers, or of a .npz or .safetensors file: its only array of
    two dimensions, or the one named embeddings or embedding. Any order of the axes, any order of the bytes.

    Raises:
      DataError: no such file, a damaged one, another shape or dtype, no such array or several.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"embeddings {path} do not exist; name a .npy, .npz, .safetensors or .parquet file")
    suffix = path.suffix.lower()
    found = _npy(path) if suffix == ".npy" else _npz(path) if suffix == ".npz" else _safetensors(path)
    if not found.shape[0] * found.shape[1]:
        raise DataError(f"{path} has shape {found.shape}; rows of at least one number are needed")
    return found


def _long_enough(found: ArrayFile, size: int) -> ArrayFile:
    if found.start + math.prod(found.shape) * found.kind.itemsize > size:
        raise DataError(f"{found.path} ends too early for its shape {found.shape}; fetch or write it again")
    return found


def _damaged(path: Path, e: Exception) -> DataError:
    why = " ".join(str(e).split())[:150] or "it ends too early"
    return DataError(f"{path} cannot be read as an array of numbers ({why}); write it with numpy.save from float32")


# .npy and .npz


def _npy(path: Path) -> ArrayFile:
    try:
        with open(path, "rb") as f:
            if f.read(4) == b"PK\x03\x04":
                raise DataError(f"{path} is a .npz file under another name; rename it")
            f.seek(0)
            shape, by_columns, kind = _header(f)
            start = f.tell()
    except (ValueError, EOFError, OSError) as e:
        raise _damaged(path, e) from None
    if len(shape) != 2 or kind.name not in _NUMPY:
        raise _unfit(str(path), shape, kind)
    return _long_enough(ArrayFile(path, shape, kind, start, by_columns), path.stat().st_size)


class _Head(NamedTuple):
    """What the header of a part of a .npz file says; its data begin at `start` and the part is `size` bytes long."""

    shape: tuple[int, ...]
    by_columns: bool
    kind: np.dtype
    start: int
    size: int


def _heads(path: Path) -> dict[str, _Head]:
    """Of every array, by the name of its part."""
    heads = {}
    try:
        with zipfile.ZipFile(path) as z:
            for info in z.infolist():
                if info.filename.endswith(".npy"):
                    with z.open(info) as f:
                        heads[info.filename] = _Head(*_header(f), f.tell(), info.file_size)
    except _UNREADABLE as e:
        raise _damaged(path, e) from None
    return heads


def others(found: ArrayFile) -> dict[str, _Head]:
    """The other arrays of numbers or text in the same .npz file with as many rows, by name; none of other files."""
    if found.member is None:
        return {}
    return {
        member.removesuffix(".npy"): head
        for member, head in _heads(found.path).items()
        if member != found.member and head.shape[:1] == found.shape[:1] and head.kind.kind in "fiubU"
    }


def read_others(found: ArrayFile) -> dict[str, np.ndarray]:
    """`others`, read whole.

    Raises:
      DataError: the file is damaged.
    """
    made: dict[str, np.ndarray] = {}
    names = others(found)
    if not names:
        return made
    try:
        with zipfile.ZipFile(found.path) as z:
            for name in names:
                with z.open(f"{name}.npy") as f:
                    made[name] = np.lib.format.read_array(f, allow_pickle=False)
    except _UNREADABLE as e:
        raise _damaged(found.path, e) from None
    return made


def _npz(path: Path) -> ArrayFile:
    heads = _heads(path)
    tables = {m.removesuffix(".npy"): m for m, head in heads.items() if len(head.shape) == 2}
    held = ", ".join(f"{m.removesuffix('.npy')} {head.shape} {head.kind}" for m, head in heads.items()) or "none"
    name = _only(tables)
    if name is None:
        raise DataError(
            f"{path} needs one array (rows, features), or one of that shape named embeddings; it holds: {held}"
        )
    head = heads[tables[name]]
    if head.kind.name not in _NUMPY:
        raise _unfit(f"{path}: {name}", head.shape, head.kind)
    rows, columns = head.shape
    found = ArrayFile(path, (rows, columns), head.kind, head.start, head.by_columns, tables[name])
    return _long_enough(found, head.size)


def _header(f: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether it lies by columns, and dtype; the file is left where the data begin.

    Raises: ValueError, where it is none.
    """
    version = np.lib.format.read_magic(f)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"format version {version}")
    shape, by_columns, kind = read(f)
    if min(shape, default=0) < 0:
        raise ValueError(f"shape {shape}")
    return shape, by_columns, kind


def _unfit(what: str, shape: tuple[int, ...], kind: np.dtype) -> DataError:
    return DataError(
        f"{what} holds {kind} of shape {shape}; an array (rows, features) of float16, float32 or float64 is read: "
        "write x.astype('float32')"
    )


# .safetensors


def _safetensors(path: Path) -> ArrayFile:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np"), open(path, "rb") as f:
            length = int.from_bytes(f.read(8), "little")
            header: dict[str, Any] = json.loads(f.read(length))
    except (SafetensorError, OSError, ValueError) as e:
        raise DataError(f"{path} cannot be read as safetensors ({e}); fetch or write it again") from None
    tables = {k: k for k, v in header.items() if k != "__metadata__" and len(v["shape"]) == 2}
    name = _only(tables)
    if name is None:
        shapes = ", ".join(f"{k} {tuple(v['shape'])}" for k, v in header.items() if k != "__metadata__") or "none"
        raise DataError(
            f"{path} needs one tensor (rows, features), or one of that shape named embeddings; it holds: {shapes}"
        )
    entry = header[name]
    if entry["dtype"] not in _KINDS:
        raise DataError(
            f"{path}: the tensor {name!r} holds {entry['dtype']}; float16, bfloat16, float32 or float64 is read"
        )
    rows, columns = entry["shape"]
    found = ArrayFile(path, (rows, columns), _dtype(_KINDS[entry["dtype"]]), 8 + length + entry["data_offsets"][0])
    return _long_enough(found, path.stat().st_size)


def _only(tables: dict[str, str]) -> str | None:
    """The table that is meant: that of a known name, or the only one."""
    return next((n for n in NAMES if n in tables), None) or (next(iter(tables)) if len(tables) == 1 else None)


def _dtype(kind: str) -> np.dtype:
    if kind == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(kind).newbyteorder("<")
