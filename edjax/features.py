"""What is known of every prompt before anyone labels it: an embedding, and scores by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edjax.errors import DataError
from edjax.store import read_manifest, sha256_file, sha256_json

SCORES = ("mean_entropy", "max_entropy", "least_confidence", "mean_nll", "mean_margin", "min_margin")


@dataclass(frozen=True)
class Features:
    """Features of n prompts, row i belonging to `ids[i]`.

    `embeddings` is (n, d) float32, as the model gave them; `scores` maps a name to (n,) float32, larger meaning more
    uncertain; `facts` holds further columns (`n_prompt_tokens`, `n_new_tokens`, `generated`).
    """

    ids: tuple[str, ...]
    embeddings: np.ndarray
    scores: dict[str, np.ndarray]
    facts: dict[str, np.ndarray]
    digest: str

    def __len__(self) -> int:
        return len(self.ids)


def read_features(path: str | Path) -> Features:
    """Read a directory that `edjax score` wrote, or a Parquet file with `id` and `embedding`.

    Every further column of floating-point numbers becomes a score, to select by its name: the largest first.

    Raises:
      DataError: incomplete or damaged, a missing column, embeddings of unequal length, duplicate ids.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(path)
    if path.is_dir():
        manifest = read_manifest(path, "features")
        shards = {n: f["sha256"] for n, f in sorted(manifest["files"].items()) if n.endswith(".parquet")}
        files, digest = [path / n for n in shards], sha256_json(shards)
    elif path.exists():
        files, digest = [path], sha256_file(path)
    else:
        raise DataError(f"features {path} do not exist; `edjax score POOL --out {path}` makes them")
    try:
        table = pa.concat_tables([pq.read_table(f) for f in files])
    except (pa.ArrowException, OSError) as e:
        raise DataError(f"{path} cannot be read as Parquet ({e})") from e
    if missing := {"id", "embedding"} - set(table.column_names):
        raise DataError(f"{path} has no column {sorted(missing)}; found {table.column_names}")
    if "row" in table.column_names:
        table = table.sort_by("row").drop_columns("row")
    return from_table(table, digest, str(path))


def from_table(table: Any, digest: str, where: str) -> Features:
    """Columns of an Arrow table to `Features`."""
    import pyarrow as pa

    if not len(table):
        raise DataError(f"{where} holds no rows; score a pool first")
    if table["id"].null_count:
        raise DataError(f"{where}: {table['id'].null_count} rows have no id; every row needs one")
    ids = tuple(str(i) for i in table["id"].to_pylist())
    if len(set(ids)) != len(ids):
        seen: set[str] = set()
        twice = next(i for i in ids if i in seen or seen.add(i))  # type: ignore[func-returns-value]
        raise DataError(f"{where}: id {twice!r} stands twice")
    column = table["embedding"].combine_chunks()
    if not (_is_list(column.type) and _is_number(column.type.value_type)):
        raise DataError(f"{where}: the column 'embedding' holds {column.type}; a list of numbers a row is needed")
    if column.null_count:
        raise DataError(f"{where}: {column.null_count} rows have no embedding; every row needs one")
    lengths = {len(v) for v in column} if not pa.types.is_fixed_size_list(column.type) else {column.type.list_size}
    if len(lengths) != 1 or lengths == {0}:
        raise DataError(f"{where}: embeddings have lengths {sorted(lengths)[:4]}; every row needs the same, above 0")
    flat = column.flatten().to_numpy(zero_copy_only=False)
    embeddings = np.ascontiguousarray(flat, dtype=np.float32).reshape(len(ids), lengths.pop())
    scores: dict[str, np.ndarray] = {}
    facts: dict[str, np.ndarray] = {}
    for name in table.column_names:
        if name in ("id", "embedding"):
            continue
        values = table[name].to_numpy()
        numeric = pa.types.is_floating(table[name].type)
        (scores if numeric else facts)[name] = values.astype(np.float32) if numeric else values
    return Features(ids, embeddings, scores, facts, digest)


def _is_list(kind: Any) -> bool:
    import pyarrow.types as t

    return bool(t.is_list(kind) or t.is_large_list(kind) or t.is_fixed_size_list(kind))


def _is_number(kind: Any) -> bool:
    import pyarrow.types as t

    return bool(t.is_floating(kind) or t.is_integer(kind))
