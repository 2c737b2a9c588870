"""A scored pool's features, small enough to bring back: principal components in float16, scores, lengths.

`basis.npz` holds mean (d,) and components (d, q), fitted once on the first rows there are (scoring goes from short
prompts to long, so a first slice that is cut off fits them on the shorter ones); `features-I.npz` the rows of the pool
in parts of at most `PART` bytes.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edjax.features import SCORES

PART = 15 << 20
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
    rows = np.concatenate([p["rows"] for p in parts])
    columns = {name: np.concatenate([p[name] for p in parts]) for name in (*SCORES, *LENGTHS)}
    order = np.argsort(rows, kind="stable")
    x = np.concatenate([p["x"] for p in parts])[order]
    return Kept(rows[order], x, {k: v[order] for k, v in columns.items()}, str(parts[0]["pool"]))


def keep(out: Path, work: Path) -> int:
    """Bring into `out` what scoring has left in `work` since; how many rows are kept now.

    Scoring writes into `work`/score/N, beside `which.json`: {"rows": those of the pool it was given, "pool": its
    digest, "dimensions": q}.
    """
    have = read(out)
    known = set() if have is None else set(have.rows.tolist())
    fresh = [f for folder in sorted(work.glob("score/*/which.json")) for f in _shards(folder.parent, known)]
    if not fresh:
        return len(known)
    rows = np.concatenate([f.rows for f in fresh])
    x = np.concatenate([f.x for f in fresh])
    basis = out / "basis.npz"
    if not basis.exists():
        _saved(basis, **principal(x, min(f.dimensions for f in fresh)))
    fitted = np.load(basis)
    small = ((x - fitted["mean"]) @ fitted["components"]).astype(np.float16)
    columns = {name: np.concatenate([f.columns[name] for f in fresh]) for name in fresh[0].columns}
    pool = fresh[0].pool
    if have is not None:
        rows, small = np.concatenate([have.rows, rows]), np.concatenate([have.x, small])
        columns = {k: np.concatenate([have.columns[k], v]) for k, v in columns.items()}
    each = small.nbytes // len(small) + 8 + sum(v.itemsize for v in columns.values())
    size = PART // each
    for i in range(-(-len(rows) // size)):
        part = slice(i * size, (i + 1) * size)
        of_part = {k: v[part] for k, v in columns.items()}
        _saved(out / f"features-{i}.npz", rows=rows[part], x=small[part], pool=np.asarray(pool), **of_part)
    return len(rows)


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
        table = pq.read_table(path)
        rows = np.asarray(which["rows"], np.int64)[table["row"].to_numpy()]
        new = np.asarray([r not in known for r in rows.tolist()], bool)
        if not new.any():
            continue
        flat = table["embedding"].combine_chunks().flatten().to_numpy()
        columns = {name: table[name].to_numpy()[new] for name in (*SCORES, *LENGTHS)}
        x = flat.reshape(len(rows), -1)[new]
        found.append(_Fresh(rows[new], x, columns, which["pool"], which["dimensions"]))
    return found


def _saved(path: Path, **arrays: np.ndarray) -> None:
    """Written whole or not at all."""
    half = path.with_name(f".{path.name}")
    with open(half, "wb") as f:
        np.savez(f, **arrays)
        f.flush()
        os.fsync(f.fileno())
    half.replace(path)
