"""What a pool may be named by: a file, several, a pattern, a directory, standard input, a hub id.

  file.jsonl .ndjson .json .csv .tsv    also packed: .gz .bz2 .xz .zst
  file.parquet
  'shards/*.jsonl'         a pattern: the files that match, by name; ** goes down any number of directories
  directory                one that `datasets` saved; else its files of rows, by name, those that begin with _ or . left
                           out (Spark's _SUCCESS). They are of one kind; with train-..., test-... --split says which
  -                        standard input: what it is, and how it is packed, is told from its first bytes
  org/name, org/name:config    a data set of the hub
Several of them follow each other. A row without an id is named after its place: row-000017, and where there may be
several files after the file as well, part-0.jsonl:row-000017, so that a further file leaves the names as they are, but
for those of another file of the same name: both then begin with the directories that they do not share.
"""

from __future__ import annotations

import difflib
import glob
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from edjax.data import stored
from edjax.data.delimited import table_rows
from edjax.data.names import SPLIT, STDIN, Named, called, is_pattern, names_of
from edjax.data.packed import PACKED, byte_lines, packing_of, whole
from edjax.data.rows import Row, json_array, json_lines
from edjax.keep.errors import DataError, UsageError

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
_KNOWN = f"{', '.join(SUFFIXES)} (all but .parquet also with {', '.join(PACKED)})"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(:[\w.-]+)?")
_ABOUT = ("dataset_info.json", "dataset_infos.json")  # files that tell of a data set and hold no rows


class Container(NamedTuple):
    """One file, data set or stream.

    read: opens it. columnar: every row has all columns, and a list of objects all keys of any of them: null where there
    is nothing. among: there may be others beside it, or be some day. split, revision: whether it has such a thing.
    """

    name: str
    read: Callable[[], Iterator[Row]]
    path: Path | None = None
    columnar: bool = False
    among: bool = False
    split: bool = False
    revision: bool = False


class Source(NamedTuple):
    """The rows of one or more containers, and how to point at one of them; labels: what sets the containers apart in
    the names of rows, "" for one that is alone."""

    rows: Iterator[Row]
    containers: tuple[Container, ...]
    labels: tuple[str, ...]

    def where(self, row: Row) -> str:
        """`pool.jsonl:143` where rows are lines, `pool.csv: row 143` elsewhere."""
        name = self.containers[row.part].name
        return f"{name}: row {row.number}" if row.raw is None else f"{name}:{row.number}"

    def place(self, row: Row) -> str:
        """The name of a row that has none."""
        label = self.labels[row.part]
        return f"{label}:row-{row.number:06d}" if label else f"row-{row.number:06d}"

    def columnar(self, row: Row) -> bool:
        """Whether the row is of a columnar container."""
        return self.containers[row.part].columnar


def open_rows(
    source: str | Sequence[str], *, split: str | None = None, revision: str | None = None, limit: int | None = None
) -> Source:
    """The rows that a name stands for, or several names: existing files and directories first, a hub id last.

    Args:
      source: see above.
      split: the split of a `datasets` directory or hub data set, or of a directory of files named after splits.
      revision: the branch, tag or commit of a hub data set.
      limit: a hint that no more than this many rows will be read.

    Raises:
      DataError: no such path, an unknown suffix, or a file that is damaged as a whole.
      UsageError: a split, or a revision, of what has none; a file that is named twice.
      EnvError: the hub cannot be reached; a file cannot be opened.
    """
    names = [source] if isinstance(source, str) else list(source)
    if not names:
        raise UsageError("no source is named; name a file, a directory, a hub id or -")
    if len(names) > 1 and STDIN in names:
        raise UsageError("- is standard input, and stands alone: pipe all of them into it, or name files")
    found = tuple(c for name in names for c in _containers(name, split, revision, limit))
    one = f"{called(names)} is one file" if len(found) == 1 else f"{called(names)} are files"
    if split is not None and not any(c.split for c in found):
        raise UsageError(f"--split {split} applies to a `datasets` directory or a hub id; {one}")
    if revision is not None and not any(c.revision for c in found):
        raise UsageError(f"--revision {revision} applies to a hub id, and {called(names)} is none")
    seen: set[object] = set()
    for c in found:
        key = c.path.resolve() if c.path else c.name
        if key in seen:
            raise UsageError(f"{c.name} is named twice; name every file once")
        seen.add(key)
    rows = (row._replace(part=i) if i else row for i, c in enumerate(found) for row in c.read())
    return Source(rows, found, _labels(found))


def _labels(found: Sequence[Container]) -> tuple[str, ...]:
    """File names; those of one name with the directories that they do not share, wherever links among them lead."""
    if len(found) == 1 and not found[0].among:
        return ("",)
    paths = [Path(os.path.abspath(c.path)) if c.path else None for c in found]
    names = [p.name if p else c.name for c, p in zip(found, paths, strict=True)]
    alike: dict[str, list[Path]] = {}
    for name, path in zip(names, paths, strict=True):
        if path:
            alike.setdefault(name, []).append(path)
    shared = {name: os.path.commonpath([p.parent for p in own]) for name, own in alike.items() if len(own) > 1}
    return tuple(
        path.relative_to(shared[name]).as_posix() if path and name in shared else name
        for name, path in zip(names, paths, strict=True)
    )


def size_of(source: Named) -> int:
    """Bytes of the files that a source is made of; what is no file counts nothing."""
    paths = [Path(p) for name in names_of(source) for p in _paths(name)]
    return sum(p.stat().st_size for p in paths if p.is_file())


def _paths(name: str) -> list[str]:
    if Path(name).is_dir():
        return [str(p) for p in Path(name).iterdir()]
    return glob.glob(name, recursive=True) if is_pattern(name) and not Path(name).exists() else [name]


# What a name stands for


def _containers(name: str, split: str | None, revision: str | None, limit: int | None) -> list[Container]:
    path = Path(name)
    if name == STDIN:
        return [_standard_input(limit)]
    if path.is_dir():
        if stored.is_saved(path):
            read = partial(_data_set, partial(stored.saved, path, split), limit)
            return [Container(name, read, path, columnar=True, split=True)]
        return [_file(p, limit)._replace(among=True, split=split is not None) for p in _directory(path, split)]
    if path.exists():
        return [_file(path, limit)]
    _refuse_dangling([path])
    if is_pattern(name):
        return [c._replace(among=True) for p in _matches(name) for c in _containers(p, split, revision, limit)]
    if _looks_like_hub_id(name):
        read = partial(_data_set, partial(stored.hub, name, split, revision), limit)
        return [Container(name, read, columnar=True, split=True, revision=True)]
    raise DataError(f"{name} does not exist{_nearest_file(path)}")


def _data_set(load: Callable[[], object], limit: int | None) -> Iterator[Row]:
    return stored.dataset_rows(load(), limit)


def _matches(pattern: str) -> list[str]:
    found = sorted(p for p in glob.glob(pattern, recursive=True) if not Path(p).name.startswith("_"))
    _refuse_dangling([p for p in map(Path, found) if _kind(p)[0]])
    files = [p for p in found if Path(p).is_file()]
    if not found:
        raise DataError(f"no file matches {pattern}; check the pattern, and whether it is quoted")
    return files or found


def _directory(path: Path, split: str | None) -> list[Path]:
    files = _files(path)
    if not files:
        below = sorted({str(d) for d in path.iterdir() if d.is_dir() and (stored.is_saved(d) or _files(d))})
        more = f"name one below it: {', '.join(below[:5])}" if below else f"known are {_KNOWN}"
        raise DataError(f"{path} holds no files of rows, and `datasets` did not save it (save_to_disk); {more}")
    kinds = sorted({_kind(p)[0] for p in files})
    if len(kinds) > 1:
        raise DataError(
            f"{path} holds files of several kinds ({', '.join(kinds)}); name those to read: '{path}/*{kinds[0]}'"
        )
    splits = {p: m[1].lower() if (m := SPLIT.match(p.name)) else "" for p in files}
    names = sorted(set(splits.values()) - {""})
    if split is not None and split not in names:
        raise UsageError(
            f"{path} holds {'the splits ' + ', '.join(names) if names else 'no splits'}; there is no {split!r}"
        )
    if split is None and len(set(splits.values())) > 1:
        rest = "" if all(splits.values()) else " and other files"
        raise UsageError(
            f"{path} holds the splits {', '.join(names)}{rest}; choose one with --split (in a recipe: pool_split, "
            f"evaluation_split), or name the files"
        )
    read = [p for p in files if split is None or splits[p] == split]
    _refuse_dangling(read)
    return read


def _files(path: Path) -> list[Path]:
    """The files of rows in a directory, by name."""
    files = (p for p in path.iterdir() if not p.name.startswith((".", "_")) and p.name not in _ABOUT)
    return sorted(p for p in files if (p.is_file() or _dangling(p)) and _kind(p)[0])


def _dangling(path: Path) -> bool:
    return path.is_symlink() and not path.exists()


def _refuse_dangling(paths: Iterable[Path]) -> None:
    """A shard that was not fetched is no smaller pool."""
    for path in filter(_dangling, paths):
        raise DataError(f"{path} is a link to a file that is not there; fetch it")


# A file


def _kind(path: Path) -> tuple[str, str]:
    """The suffix that says what is in a file, and that of its packing; "" for an unknown one."""
    suffixes = [s.lower() for s in path.suffixes]
    packing = suffixes.pop() if suffixes and suffixes[-1] in PACKED else ""
    kind = suffixes[-1] if suffixes and suffixes[-1] in SUFFIXES else ""
    kind = ".jsonl" if kind == ".ndjson" else kind
    return ("" if packing and kind == ".parquet" else kind), packing


def _file(path: Path, limit: int | None) -> Container:
    kind, packing = _kind(path)
    if not kind:
        raise DataError(f"{path}: unknown kind of file; known are {_KNOWN}")
    return Container(str(path), partial(_read, kind, path, packing, str(path), limit), path, kind == ".parquet")


def _read(kind: str, origin: Path | bytes, packing: str, name: str, limit: int | None) -> Iterator[Row]:
    if kind == ".parquet":
        return stored.parquet_rows(origin, name, limit)
    if kind == ".jsonl":
        return json_lines(byte_lines(origin, packing, name))
    data = whole(origin, packing, name)
    if kind == ".json":
        return json_array(data, name) if data.lstrip()[:1] == b"[" else json_lines(iter(data.split(b"\n")))
    return table_rows(data, name, "\t" if kind == ".tsv" else None)


def _standard_input(limit: int | None) -> Container:
    """All of standard input, kept in memory for the time of the read."""
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError("- is standard input, and nothing is piped into it")
    data = sys.stdin.buffer.read()
    if packing := packing_of(data):
        data = whole(data, packing, "standard input")
    kind = ".parquet" if data.startswith(b"PAR1") else ".json" if _is_json(data) else ".csv"
    read = partial(_read, kind, data, "", "standard input", limit)
    return Container("standard input", read, columnar=kind == ".parquet")


def _is_json(data: bytes) -> bool:
    start = data[:64].decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig", "ignore")
    return start.lstrip()[:1] in ("{", "[", "")


# What a name may have been meant for


def _looks_like_hub_id(source: str) -> bool:
    """Whether it reads `org/name` and not like a path that was mistyped: no known suffix, no local directory `org`."""
    file = source.lower().endswith((*SUFFIXES, *PACKED))
    return bool(_HUB_ID.fullmatch(source)) and not file and not Path(source).parent.is_dir()


def _nearest_file(path: Path) -> str:
    if not path.parent.is_dir():
        return f"; neither does the directory {path.parent}"
    there = [p.name for p in path.parent.iterdir() if p.name != path.name]
    near = difflib.get_close_matches(path.name, there, n=1)
    return f"; did you mean {path.parent / near[0]}?" if near else "; check the path"
