"""A scored pool's features, small enough to bring back: principal components in float16, scores, lengths.

`basis.npz` holds mean (d,) and components (d, q), fitted once on the first rows there are (scoring goes from short
prompts to long, so these are the shorter ones); `features-I.npz` the rows in files of at most about 16 MB, each written
once and never again. One process keeps; a row that two files hold counts once.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edjax.data.features import UNCERTAINTIES
from edjax.keep.store import atomic_write

ROWS = 36_000  # a file
LENGTHS = ("n_prompt_tokens", "n_new_tokens")


class Kept(NamedTuple):
    """rows: (m,) int64 of the pool, ascending. x: (m, q) float16. columns: scores and lengths by name, (m,) each.
    pool: its digest."""

    rows: np.ndarray
    x: np.ndarray
    columns: dict[str, np.ndarray]
    pool: str

    def __len__(self) -> int:
        return len(self.rows)


def read(out: Path) -> Kept | None:
    """What was kept, or None."""
    parts = [np.load(path) for path in sorted(out.glob("features-*.npz"))]
    if not parts:
        return None
    rows, first = np.unique(np.concatenate([p["rows"] for p in parts]), return_index=True)
    columns = {name: np.concatenate([p[name] for p in parts])[first] for name in (*UNCERTAINTIES, *LENGTHS)}
    return Kept(rows, np.concatenate([p["x"] for p in parts])[first], columns, str(parts[0]["pool"]))


def keep(out: Path, work: Path, whole: bool = True) -> int:
    """Bring into `out` what scoring has left in `work` since; how many rows are kept now.

    Scoring writes into `work`/score/N, beside `which.json`: {"rows": those of the pool it was given, "pool": its
    digest, "dimensions": q}.

    Args:
      whole: all there is; False: full files alone, while scoring goes on.
    """
    have = read(out)
    known = set() if have is None else set(have.rows.tolist())
    fresh = [f for folder in sorted(work.glob("score/*/which.json")) for f in _shards(folder.parent, known)]
    count = sum(len(f.rows) for f in fresh)
    count -= 0 if whole else count % ROWS
    if not count:
        return len(known)
    rows, x = (np.concatenate([getattr(f, name) for f in fresh])[:count] for name in ("rows", "x"))
    columns = {name: np.concatenate([f.columns[name] for f in fresh])[:count] for name in fresh[0].columns}
    basis = out / "basis.npz"
    if not basis.exists():
        _saved(basis, **principal(x, min(f.dimensions for f in fresh)))
    fitted = np.load(basis)
    small = ((x - fitted["mean"]) @ fitted["components"]).astype(np.float16)
    for start in range(0, count, ROWS):
        part, number = slice(start, start + ROWS), len(list(out.glob("features-*.npz")))
        of_part = {k: v[part] for k, v in columns.items()}
        _saved(
            out / f"features-{number}.npz", rows=rows[part], x=small[part], pool=np.asarray(fresh[0].pool), **of_part
        )
    return len(known) + count


def principal(x: np.ndarray, dimensions: int) -> dict[str, np.ndarray]:
    """The mean of x (n, d) and its first principal components (d, q), signs so that each one's largest entry is
    positive; `explained`: their share of the variance, and that of all rows."""
    mean = x.mean(0, dtype=np.float64)
    centred = x - mean
    values, vectors = np.linalg.eigh(centred.T @ centred)
    first = np.argsort(-values, kind="stable")[: min(dimensions, x.shape[1])]
    components = vectors[:, first]
    components *= np.sign(components[np.abs(components).argmax(0), np.arange(len(first))])
    explained = values[first] / max(values.sum(), 1e-30)
    return {
        "mean": mean.astype(np.float32),
        "components": components.astype(np.float32),
        "explained": explained.astype(np.float32),
    }


class _Fresh(NamedTuple):
    rows: np.ndarray
    x: np.ndarray
    columns: dict[str, np.ndarray]
    pool: str
    dimensions: int


def _shards(folder: Path, known: set[int]) -> list[_Fresh]:
    """The shards of one scoring whose rows are not kept yet."""
    import pyarrow.parquet as pq

    which: dict[str, Any] = json.loads((folder / "which.json").read_text())
    found = []
    for path in sorted((folder / "features").glob("shard-*.parquet")):
        rows = np.asarray(which["rows"], np.int64)[pq.read_table(path, columns=["row"])["row"].to_numpy()]
        new = np.asarray([r not in known for r in rows.tolist()], bool)
        if not new.any():  # before the embeddings are read: this is asked every few seconds
            continue
        table = pq.read_table(path)
        flat = table["embedding"].combine_chunks().flatten().to_numpy()
        columns = {name: table[name].to_numpy()[new] for name in (*UNCERTAINTIES, *LENGTHS)}
        x = flat.reshape(len(rows), -1)[new]
        found.append(_Fresh(rows[new], x, columns, which["pool"], which["dimensions"]))
    return found


def _saved(path: Path, **arrays: np.ndarray) -> None:
    with atomic_write(path) as f:
        np.savez(f, **arrays)
