"""The bytes of a file or of standard input: unpacked where they are packed, UTF-8 where they came as UTF-16."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from edjax.keep.errors import DataError, EnvError

PACKED = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstd"}
_MAGIC = {b"\x1f\x8b": ".gz", b"BZh": ".bz2", b"\xfd7zXZ\x00": ".xz", b"\x28\xb5\x2f\xfd": ".zst"}


def packing_of(data: bytes) -> str:
    """How bytes are packed by what they begin with: a key of PACKED, "" for none."""
    return next((suffix for magic, suffix in _MAGIC.items() if data.startswith(magic)), "")


def byte_lines(origin: Path | bytes, packing: str, name: str) -> Iterator[bytes]:
    """Yield physical lines with their line ends; a line ends at \\n and nowhere else (not at U+2028, not at \\x85).

    UTF-16 is known by its byte order mark, and its lines are given as UTF-8.

    Args:
      origin: a path, or the bytes themselves.
      packing: a key of PACKED, or "".
      name: of it, for messages.

    Raises:
      DataError: packed bytes that are damaged or cut short; no UTF-16 behind its mark.
      EnvError: a file that cannot be opened or read.
    """
    try:
        with io.BytesIO(origin) if isinstance(origin, bytes) else origin.open("rb") as f:
            yield from _as_utf8(_unpacked(f, packing), name)
    except (EOFError, zlib.error, lzma.LZMAError) as e:
        raise _damaged(name, packing, e) from e
    except OSError as e:
        if packing and e.errno is None:  # the operating system numbers its errors, the unpackers do not
            raise _damaged(name, packing, e) from e
        raise EnvError(f"cannot read {name}: {e.strerror or e}") from e


def whole(origin: Path | bytes, packing: str, name: str) -> bytes:
    """All of `byte_lines`, without a byte order mark."""
    return b"".join(byte_lines(origin, packing, name)).removeprefix(codecs.BOM_UTF8)


def _unpacked(file: IO[bytes], packing: str) -> Any:
    return _OPEN[packing](file) if packing else file


def _zstd(file: IO[bytes]) -> Any:
    import pyarrow as pa

    if not pa.Codec.is_available("zstd"):
        raise EnvError("this build of pyarrow reads no zstd; unpack the file (zstd -d), or pip install -U pyarrow")
    return io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd"))


_OPEN: dict[str, Callable[[IO[bytes]], Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": _zstd,
}


def _as_utf8(file: IO[bytes], name: str) -> Iterator[bytes]:
    first = next(file, b"")
    if first[:2] not in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        yield first
        yield from file
        return
    try:
        yield from io.BytesIO((first + file.read()).decode("utf-16").encode())
    except UnicodeDecodeError as e:
        raise DataError(
            f"{name}: not UTF-16, which its byte order mark says it is (byte {e.start + 1}); save the file as UTF-8"
        ) from e


def _damaged(name: str, packing: str, why: Exception) -> DataError:
    return DataError(f"{name}: the {PACKED[packing]} file is damaged or cut short ({why}); fetch or write it again")
