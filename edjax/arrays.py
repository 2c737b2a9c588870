"""One two-dimensional array of numbers in a .npy or .safetensors file, read a part at a time.

The libraries check the headers; the data are read here and not mapped, since a mapped file's pages count as memory of
the process. Nothing is unpickled: a .npy of Python objects is refused.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edjax.errors import DataError

SUFFIXES = (".npy", ".safetensors")
NAMES = ("embeddings", "embedding")
_KINDS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class ArrayFile:
    """An (n, d) array that lies row after row in a file from the byte `start` on."""

    path: Path
    shape: tuple[int, int]
    kind: str  # of _KINDS
    start: int

    def read(self, begin: int, end: int) -> np.ndarray:
        """Rows `begin` to `end` as float32.

        Raises:
          DataError: the file ends too early.
        """
        dtype, d = _dtype(self.kind), self.shape[1]
        count = max(0, min(end, self.shape[0]) - begin) * d
        with open(self.path, "rb", buffering=0) as f:
            f.seek(self.start + begin * d * dtype.itemsize)
            values = np.fromfile(f, dtype, count)
        if len(values) != count:
            raise DataError(f"{self.path} ends too early; fetch or write it again")
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, and is refused as such
            return values.reshape(-1, d).astype(np.float32, copy=False)


def _dtype(kind: str) -> np.dtype:
    if kind == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(kind).newbyteorder("<")


def open_array(path: str | Path) -> ArrayFile:
    """Look at the header of a .npy file of floating-point numbers, or of a .safetensors file: its only tensor of two
    dimensions, or the one named embeddings or embedding.

    Raises:
      DataError: no such file, a damaged one, another shape or dtype, no such tensor or several.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"embeddings {path} do not exist; name a .npy, .safetensors or .parquet file")
    found = _npy(path) if path.suffix == ".npy" else _safetensors(path)
    if not found.shape[0] * found.shape[1]:
        raise DataError(f"{path} has shape {found.shape}; rows of at least one number are needed")
    if found.start + math.prod(found.shape) * _dtype(found.kind).itemsize > path.stat().st_size:
        raise DataError(f"{path} ends too early for its shape {found.shape}; fetch or write it again")
    return found


def _npy(path: Path) -> ArrayFile:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as e:
        raise DataError(
            f"{path} cannot be read as an array of numbers ({' '.join(str(e).split())[:150]}); "
            "write it with numpy.save from an array of float32"
        ) from None
    if not isinstance(array, np.memmap):
        raise DataError(f"{path} is no .npy file of one array; write it with numpy.save")
    kind = array.dtype.name
    if array.ndim != 2 or kind not in _KINDS.values() or not array.flags.c_contiguous or array.dtype.byteorder == ">":
        order = "" if array.flags.c_contiguous else ", in Fortran order"
        raise DataError(
            f"{path} holds {array.dtype} of shape {array.shape}{order}; an array (rows, features) of float16, float32 "
            "or float64 in C order is read"
        )
    return ArrayFile(path, array.shape, kind, array.offset)


def _safetensors(path: Path) -> ArrayFile:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np"), open(path, "rb") as f:
            length = int.from_bytes(f.read(8), "little")
            header = json.loads(f.read(length))
    except (SafetensorError, OSError, ValueError) as e:
        raise DataError(f"{path} cannot be read as safetensors ({e}); fetch or write it again") from None
    tables = {k: v for k, v in header.items() if k != "__metadata__" and len(v["shape"]) == 2}
    name = next((n for n in NAMES if n in tables), None) or (next(iter(tables)) if len(tables) == 1 else None)
    if name is None:
        shapes = ", ".join(f"{k} {tuple(v['shape'])}" for k, v in header.items() if k != "__metadata__") or "none"
        raise DataError(
            f"{path} needs one tensor (rows, features), or one of that shape named embeddings; it holds: {shapes}"
        )
    entry = tables[name]
    if entry["dtype"] not in _KINDS:
        raise DataError(
            f"{path}: the tensor {name!r} holds {entry['dtype']}; float16, bfloat16, float32 or float64 is read"
        )
    start = 8 + length + entry["data_offsets"][0]
    return ArrayFile(path, tuple(entry["shape"]), _KINDS[entry["dtype"]], start)
