"""Rows out of a container: JSON Lines (also gzipped), a JSON array, CSV, Parquet, a `datasets` directory, a hub id.

Every reader yields `Row`s: a number a person can find again (the physical line in JSON Lines, the row elsewhere), the
raw bytes where the container has them, and either the parsed object or the reason why there is none. What a row means
is the business of `edjax.data.turns`.
"""

from __future__ import annotations

import difflib
import gzip
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from edjax.keep.errors import DataError, EnvError, UsageError

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".parquet")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(:[\w.-]+)?")
_SURROGATE = re.compile("[\ud800-\udfff]")
_BOM = b"\xef\xbb\xbf"


class Row(NamedTuple):
    """One row as read: `record`, or the reason in `bad`."""

    number: int
    raw: bytes | None
    record: dict[str, Any]
    bad: str = ""


class BadRow(ValueError):
    """A row that cannot be used, and why."""


def absent(value: Any) -> bool:
    """Whether a value stands for none: null, or NaN, which is how pandas writes it."""
    return value is None or (isinstance(value, float) and value != value)


def clean(text: str) -> str:
    """Text that a tokenizer can encode."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


class Source(NamedTuple):
    """A container's rows and how to point at one of them.

    columnar: every row has all columns, and a list of objects all keys of any of them: null where there is nothing.
    """

    rows: Iterator[Row]
    by_line: bool
    columnar: bool = False

    def where(self, source: str, number: int) -> str:
        """`pool.jsonl:143` where rows are lines, `pool.csv: row 143` elsewhere."""
        return f"{source}:{number}" if self.by_line else f"{source}: row {number}"


def open_rows(source: str, *, split: str | None, limit: int | None) -> Source:
    """Choose the reader by what `source` is: an existing file or directory first, a hub id second.

    Args:
      source: a path, or a hub id `org/name` (`org/name:config` for one of several configurations).
      split: the split of a `datasets` directory or hub data set.
      limit: a hint that no more than this many rows will be read.

    Raises:
      DataError: no such path, an unknown suffix, or a file that is damaged as a whole.
      EnvError: the hub cannot be reached.
    """
    path = Path(source)
    if path.is_dir():
        return Source(_datasets(_load_directory(path, split), limit), by_line=False, columnar=True)
    if not path.exists():
        if _looks_like_hub_id(source):
            return Source(_datasets(_load_hub(source, split), limit), by_line=False, columnar=True)
        raise DataError(f"{source} does not exist{_nearest_file(path)}")
    if split is not None:
        raise UsageError(f"--split {split} applies to a `datasets` directory or a hub id; {source} is one file")
    suffixes = [s.lower() for s in path.suffixes]
    packed = suffixes[-1:] == [".gz"]
    suffix = (suffixes[:-1] if packed else suffixes)[-1:]
    if suffix == [".parquet"] and not packed:
        return Source(_parquet(path, limit), by_line=False, columnar=True)
    if suffix == [".csv"]:
        return Source(_csv(_whole_file(path, packed), source), by_line=False)
    if suffix == [".json"]:
        data = _whole_file(path, packed)
        if data.lstrip()[:1] == b"[":
            return Source(_json_array(data, source), by_line=False)
        return Source(_lines(iter(data.split(b"\n"))), by_line=True)
    if suffix in ([".jsonl"], [".ndjson"]):
        return Source(_lines(_stream(path, packed)), by_line=True)
    raise DataError(f"{source}: unknown kind of file; known are {', '.join(SUFFIXES)} (all but .parquet also with .gz)")


# Files


def _stream(path: Path, packed: bool) -> Iterator[bytes]:
    """Yield physical lines with their line ends; a line ends at \\n and nowhere else (not at U+2028, not at \\x85)."""
    try:
        with gzip.open(path, "rb") if packed else path.open("rb") as f:
            yield from f
    except (EOFError, gzip.BadGzipFile, zlib.error) as e:
        raise DataError(f"{path}: the gzip file is damaged or cut short ({e}); fetch or write it again") from e
    except OSError as e:
        raise EnvError(f"cannot read {path}: {e.strerror or e}") from e


def _whole_file(path: Path, packed: bool) -> bytes:
    return b"".join(_stream(path, packed)).removeprefix(_BOM)


def _lines(stream: Iterator[bytes]) -> Iterator[Row]:
    """Parse JSON Lines: a byte order mark, CRLF, blank lines and a missing last newline are fine."""
    for number, line in enumerate(stream, 1):
        raw = line.removesuffix(b"\n").removesuffix(b"\r")
        if number == 1:
            raw = raw.removeprefix(_BOM)
        if not raw or raw.isspace():
            continue
        try:
            yield Row(number, raw, _parse(raw))
        except BadRow as e:
            yield Row(number, raw, {}, str(e))


def _parse(raw: bytes) -> dict[str, Any]:
    if b"\x00" in raw:
        raise BadRow(f"holds a NUL byte (byte {raw.index(0) + 1} of the line)")
    try:
        text = raw.decode()
    except UnicodeDecodeError as e:
        raise BadRow(f"not UTF-8 (0x{raw[e.start]:02x} at byte {e.start + 1} of the line)") from None
    try:
        value = json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as e:
        raise BadRow(f"not valid JSON ({e.msg.removesuffix(' at').rstrip(':')} at column {e.colno})") from None
    except RecursionError:
        raise BadRow("JSON nested too deep") from None
    except BadRow:
        raise
    except ValueError as e:
        raise BadRow(f"not readable JSON ({e})") from None
    return _as_object(value)


def _as_object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        kind = {list: "an array", str: "a string", type(None): "null", bool: "a boolean"}.get(type(value), "a number")
        raise BadRow(f"a row must be a JSON object, not {kind}")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        keys = [k for k, _ in pairs]
        raise BadRow(f"the key {next(k for k in keys if keys.count(k) > 1)!r} occurs twice in one object")
    return value


def _decode(data: bytes, source: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as e:
        line = data.count(b"\n", 0, e.start) + 1
        raise DataError(f"{source}:{line}: not UTF-8 (byte 0x{data[e.start]:02x}); save the file as UTF-8") from e


def _json_array(data: bytes, source: str) -> Iterator[Row]:
    try:
        values = json.loads(_decode(data, source), object_pairs_hook=_object)
    except json.JSONDecodeError as e:
        what = f"{e.msg.removesuffix(' at').rstrip(':')} at column {e.colno}"
        raise DataError(f"{source}:{e.lineno}: not valid JSON ({what}); mend the file") from e
    except (ValueError, RecursionError) as e:
        raise DataError(f"{source}: not readable JSON ({e}); mend the file") from e
    for number, value in enumerate(values, 1):
        try:
            yield Row(number, None, _as_object(value))
        except BadRow as e:
            yield Row(number, None, {}, str(e))


def _csv(data: bytes, source: str) -> Iterator[Row]:
    """Read CSV with a header; every cell stays the text it is (an id 007 keeps its zeros), an empty cell is None."""
    import csv
    import io

    old_limit = csv.field_size_limit(2**31 - 1)
    try:
        reader = csv.reader(io.StringIO(_decode(data, source), newline=""), strict=True)
        try:
            header = next(reader, [])
            if len(set(header)) != len(header):
                twice = next(name for name in header if header.count(name) > 1)
                raise DataError(f"{source}:1: the column {twice!r} occurs twice; rename one of them")
            table = [cells for cells in reader if cells]
        except csv.Error as e:
            raise DataError(f"{source}:{reader.line_num}: not valid CSV ({e}); mend the file") from e
    finally:
        csv.field_size_limit(old_limit)
    for number, cells in enumerate(table, 1):
        bad = "" if len(cells) == len(header) else f"{len(cells)} cells where the header has {len(header)}"
        yield Row(number, None, {k: v or None for k, v in zip(header, cells, strict=False)}, bad)


def _parquet(path: Path, limit: int | None) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=min(limit or 8192, 8192)):
                for record in _records(batch):
                    number += 1
                    yield Row(number, None, record)
    except (pa.ArrowException, OSError) as e:
        raise DataError(f"{path}: not a readable Parquet file ({_first_line(e)}); fetch or write it again") from e


def _records(batch: Any) -> list[dict[str, Any]]:
    """The rows of an Arrow batch or table; a number of 32 bits is the shortest that was meant: 0.1, not its neighbour
    0.10000000149011612 in 64."""
    import pyarrow.types as t

    records: list[dict[str, Any]] = batch.to_pylist()
    for i, field in enumerate(batch.schema):
        if t.is_float32(field.type) or t.is_float16(field.type):
            for record, value in zip(records, batch.column(i).to_numpy(zero_copy_only=False), strict=True):
                if record[field.name] is not None:
                    record[field.name] = float(str(value))
    return records


# The datasets library


def _datasets(data: Any, limit: int | None) -> Iterator[Row]:
    """Rows as they are stored: images and sounds as their bytes, for which no decoder is needed."""
    if limit is not None:
        data = data.select(range(min(limit, len(data))))
    number = 0
    for batch in data.with_format("arrow").iter(8192):
        for record in _records(batch):
            number += 1
            yield Row(number, None, record)


def _load_directory(path: Path, split: str | None) -> Any:
    if not any((path / name).exists() for name in ("state.json", "dataset_dict.json")):
        raise DataError(
            f"{path} is a directory that `datasets` did not save (no state.json); name a file in it "
            f"({', '.join(SUFFIXES)}) or write it with save_to_disk"
        )
    import datasets

    try:
        data = datasets.load_from_disk(str(path))
    except Exception as e:  # the library raises what its parts raise
        raise DataError(f"{path}: `datasets` cannot read it ({_first_line(e)}); save it again") from e
    if not isinstance(data, datasets.DatasetDict):
        if split is not None:
            raise UsageError(f"{path} holds one data set without splits; leave out --split {split}")
        return data
    names = list(data)
    if split is None and len(names) == 1:
        split = names[0]
    if split not in names:
        what = "choose one with --split" if split is None else f"there is no {split!r}"
        what += " (in a recipe: pool_split, evaluation_split)"
        raise UsageError(f"{path} holds the splits {', '.join(names)}; {what}")
    return data[split]


def _load_hub(source: str, split: str | None) -> Any:
    import datasets

    name, _, config = source.partition(":")
    try:
        return datasets.load_dataset(name, config or None, split=split or "train")
    except datasets.exceptions.DatasetNotFoundError as e:
        raise DataError(f"{name}: no such file here, and no such data set on the hub ({_first_line(e)})") from e
    except ValueError as e:  # an unknown split or configuration: the library names those there are
        raise DataError(f"{source}: {_first_line(e)}; choose with --split NAME or {name}:CONFIG") from e
    except Exception as e:
        raise EnvError(
            f"cannot fetch {name} from the hub ({_first_line(e)}); check the network and HF_HUB_OFFLINE"
        ) from e


def _first_line(e: BaseException) -> str:
    text = " ".join(str(e).split())
    return text if len(text) <= 200 else text[:197] + "..."


def _looks_like_hub_id(source: str) -> bool:
    """Whether it reads `org/name` and not like a path that was mistyped: no known suffix, no local directory `org`."""
    name = source.lower().removesuffix(".gz")
    return bool(_HUB_ID.fullmatch(source)) and not name.endswith(SUFFIXES) and not Path(source).parent.is_dir()


def _nearest_file(path: Path) -> str:
    if not path.parent.is_dir():
        return f"; neither does the directory {path.parent}"
    near = difflib.get_close_matches(path.name, [p.name for p in path.parent.iterdir()], n=1)
    return f"; did you mean {path.parent / near[0]}?" if near else "; check the path"
