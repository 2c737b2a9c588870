"""Rows that are not of the pool: a target to choose for, and rows that one has already; seen as the pool is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edjax.data.features import Features, is_array, read_features
from edjax.data.stream import Stream
from edjax.keep.errors import DataError, UsageError
from edjax.keep.store import read_manifest
from edjax.kernels import Method, on_host
from edjax.kernels.measure import Preparation
from edjax.selection.options import BESIDE, Options
from edjax.selection.strategies import STRATEGIES, scores_of, uses

WHAT = {"target": "rows to choose for", "existing": "rows that there are already"}


class Beside(NamedTuple):
    """Rows beside the pool, as a method reads them: prepared embeddings x (m, q), and scores by name."""

    x: np.ndarray
    scores: dict[str, np.ndarray]


def read_beside(
    path: Path, *, pool: Path | None = None, id_column: str = "id", embedding_column: str = "embedding"
) -> Features:
    """The features of rows beside the pool, all in memory; rows of an array are named by their number.

    Args:
      pool: the features of the pool: where both say what made them, it must be the same.
      id_column, embedding_column: of a Parquet file of one's own.

    Raises:
      UsageError: other features than the pool's.
      DataError: as `read_features`.
    """
    if pool is not None:
        refuse_other_features(path, read_made_by(pool), str(pool))
    if is_array(path):
        from edjax.data.arrays import open_array

        return read_features(path, ids=[str(i) for i in range(open_array(path).shape[0])])
    return read_features(path, id_column=id_column, embedding_column=embedding_column)


def refuse_other_features(path: Path, ours: Mapping[str, Any], where: str) -> None:
    """Distances between rows of two models, layers or poolings mean nothing.

    Args:
      ours: what makes the pool's features, as `read_made_by` says it; empty where nobody knows. where: their name.

    Raises:
      UsageError: the manifest of `path` says that they are others.
    """
    theirs = read_made_by(path)
    for name in ("model", "layer", "pooling", "quantize"):
        differs = theirs.get(name) != ours.get(name)
        if name == "model":  # a name may change, and its weights be the same
            differs = theirs.get("weights", theirs.get(name)) != ours.get("weights", ours.get(name))
        if theirs and ours and differs:
            raise UsageError(
                f"{path} was scored with {name} {theirs.get(name)}, and {where} with {ours.get(name)}; score both alike"
            )


def read_made_by(path: Path) -> dict[str, Any]:
    """What scored features: the settings, and the digest of the weights; nothing where they are somebody's own."""
    if not path.is_dir():
        return {}
    manifest = read_manifest(path, "features")
    config, weights = manifest.get("config") or {}, (manifest.get("inputs") or {}).get("model")
    return config | ({} if weights is None else {"weights": weights}) if "pooling" in config else {}


def refuse_unread(chosen: Sequence[Method], options: Options) -> None:
    """Refuse rows beside the pool that none of these methods reads.

    Raises:
      UsageError: naming methods that do.
    """
    for name in BESIDE:
        if getattr(options, name) is not None and not any(uses(method, name) for method in chosen):
            those = ", ".join(n for n, m in STRATEGIES.items() if uses(m, name))
            read = "reads" if len(chosen) == 1 else "read"
            what = "target" if name == "target" else "existing rows"
            raise UsageError(f"{', '.join(m.name for m in chosen)} {read} no {what}; these do: {those}")


def refuse_missing(method: Method, options: Options) -> None:
    """Refuse a method that cannot do without a target, where there is none.

    Raises:
      UsageError: says what to give.
    """
    if not method.needs_target:
        return
    name = "existing" if method.beyond else "target"
    if getattr(options, name) is None:
        raise UsageError(
            f"{method.name} needs {WHAT[name]}: give --{name} FEATURES (`edjax score` makes them of prompts), "
            f"{name}= in Python{', target: in a recipe' if name == 'target' else ''}"
        )


def seen(
    beside: Features, name: str, method: Method, by: Preparation, d: int, drop_invalid: bool
) -> tuple[Beside, str | None]:
    """Rows beside the pool as a method reads them, and a note on those that are left out.

    Args:
      name: one of `BESIDE`. by: what the pool's rows, of d features, were prepared with.

    Raises:
      DataError: another number of features; rows that are not finite, unless `drop_invalid`; no row.
    """
    x = beside.embeddings.read() if isinstance(beside.embeddings, Stream) else beside.embeddings
    if x.shape[1] != d:
        raise DataError(
            f"the {name} has embeddings of {x.shape[1]} numbers, and the pool of {d}; score both with one model"
        )
    scores = {k: beside.scores[k] for k in (*scores_of(method), *method.takes) if k in beside.scores}
    sound = np.isfinite(x).all(axis=1)
    for values in scores.values():
        sound &= np.isfinite(values)
    note = None
    if len(bad := np.flatnonzero(~sound)):
        few = ", ".join(beside.ids[i] for i in bad[:5]) + (", ..." if len(bad) > 5 else "")
        said = f"{len(bad)} {'row' if len(bad) == 1 else 'rows'} of the {name} with NaN or infinite features ({few})"
        if not drop_invalid:
            raise DataError(f"{said}; mend them, or --allow invalid to leave them out")
        note = f"{said}: left out"
        x, scores = x[sound], {k: v[sound] for k, v in scores.items()}
    if not len(x):
        raise DataError(f"the {name} has no row{' that is finite' if note else ''}")
    return Beside(on_host.apply(by, x), scores), note
