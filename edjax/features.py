"""What is known of every prompt before anyone labels it: an embedding, and scores by name."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edjax.errors import DataError
from edjax.store import read_manifest, sha256_file, sha256_json
from edjax.stream import Stream, matrix, width

SCORES = ("mean_entropy", "max_entropy", "least_confidence", "mean_nll", "mean_margin", "min_margin")


@dataclass(frozen=True)
class Features:
    """Features of n prompts, row i belonging to `ids[i]`.

    `embeddings` is (n, d) float32, as the model gave them, in memory or a `Stream`; `scores` maps a name to (n,)
    float32, larger meaning more uncertain; `facts` holds further columns (`n_prompt_tokens`, `n_new_tokens`,
    `generated`).
    """

    ids: tuple[str, ...]
    embeddings: np.ndarray | Stream
    scores: dict[str, np.ndarray]
    facts: dict[str, np.ndarray]
    digest: str

    def __len__(self) -> int:
        return len(self.ids)


def read_features(path: str | Path, *, memory: int | None = None, scratch: str | Path | None = None) -> Features:
    """Read a directory that `edjax score` wrote, or a Parquet file with `id` and `embedding`.

    Every further column of floating-point numbers becomes a score, to select by its name: the largest first.

    Args:
      memory: bytes that the embeddings may take; where they would take more they stay on disk, as a `Stream`.
      scratch: directory for a copy of them that a selection may then need, default the system's for temporary files.

    Raises:
      DataError: incomplete or damaged, a missing column, embeddings of unequal length, duplicate ids.
    """
    path = Path(path)
    files, shards = _files(path)
    digest = sha256_json(shards) if shards is not None else sha256_file(path)
    table = _other_columns(files, path)
    ids = _ids(table, str(path))
    place = np.arange(len(ids))
    if "row" in table.column_names:
        order = np.argsort(table["row"].to_numpy(), kind="stable")
        place[order] = np.arange(len(ids))
        table = table.take(order)
        ids = tuple(ids[i] for i in order)
    embeddings = Stream(tuple(files), (len(ids), width(files)), place, Path(scratch or tempfile.gettempdir()))
    streamed = memory is not None and embeddings.nbytes > memory
    return Features(ids, embeddings if streamed else embeddings.read(), *_scores_and_facts(table), digest)


class Survey(NamedTuple):
    """What features on disk hold: n rows, embeddings of length d, and columns that are scores."""

    n: int
    d: int
    scores: tuple[str, ...]


def survey(path: str | Path) -> Survey:
    """Look at features without reading them: the files' metadata, and one row for its length.

    Raises:
      DataError: as `read_features`, as far as that shows.
    """
    import pyarrow.parquet as pq
    import pyarrow.types as t

    files, _ = _files(Path(path))
    names = _column_names(files)
    n, d, schema = sum(pq.read_metadata(f).num_rows for f in files), width(files), pq.read_schema(files[0])
    if not n * d:
        raise DataError(f"{path} holds no embeddings; score a pool first")
    return Survey(n, d, tuple(c for c in names if c != "id" and t.is_floating(schema.field(c).type)))


def _files(path: Path) -> tuple[list[Path], dict[str, str] | None]:
    """The Parquet files of features; and, for a directory, the sha256 of each by its name."""
    if path.is_dir():
        manifest = read_manifest(path, "features")
        shards = {n: f["sha256"] for n, f in sorted(manifest["files"].items()) if n.endswith(".parquet")}
        return [path / n for n in shards], shards
    if path.exists():
        return [path], None
    raise DataError(f"features {path} do not exist; `edjax score POOL --out {path}` makes them")


def _column_names(files: list[Path]) -> list[str]:
    """The columns, once it is known that every file can be opened and has those that are needed."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names: list[str] = []
    for file in files:
        try:
            names = pq.read_schema(file).names
        except (pa.ArrowException, OSError) as e:
            raise DataError(f"{file} cannot be read as Parquet ({e})") from e
        if missing := {"id", "embedding"} - set(names):
            raise DataError(f"{file} has no column {sorted(missing)}; found {names}")
    return names


def _other_columns(files: list[Path], path: Path) -> Any:
    """One table of all columns but the embeddings."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = [n for n in _column_names(files) if n != "embedding"]
    try:
        return pa.concat_tables([pq.read_table(f, columns=names) for f in files])
    except (pa.ArrowException, OSError) as e:
        raise DataError(f"{path} cannot be read as Parquet ({e})") from e


def from_table(table: Any, digest: str, where: str) -> Features:
    """Columns of an Arrow table to `Features`."""
    ids = _ids(table, where)
    embeddings = matrix(table["embedding"].combine_chunks(), where)
    return Features(ids, embeddings, *_scores_and_facts(table.drop_columns("embedding")), digest)


def _ids(table: Any, where: str) -> tuple[str, ...]:
    if not len(table):
        raise DataError(f"{where} holds no rows; score a pool first")
    if table["id"].null_count:
        raise DataError(f"{where}: {table['id'].null_count} rows have no id; every row needs one")
    ids = tuple(str(i) for i in table["id"].to_pylist())
    if len(set(ids)) != len(ids):
        seen: set[str] = set()
        twice = next(i for i in ids if i in seen or seen.add(i))  # type: ignore[func-returns-value]
        raise DataError(f"{where}: id {twice!r} stands twice")
    return ids


def _scores_and_facts(table: Any) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    import pyarrow.types as t

    scores: dict[str, np.ndarray] = {}
    facts: dict[str, np.ndarray] = {}
    for name in table.column_names:
        if name in ("id", "row"):
            continue
        values = table[name].to_numpy()
        numeric = t.is_floating(table[name].type)
        (scores if numeric else facts)[name] = values.astype(np.float32) if numeric else values
    return scores, facts
