"""How a method orders the rows of a pool: those that count, as the columns it reads."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np

from edjax.data.columns import of_rows
from edjax.data.features import Features
from edjax.data.stream import Spill, Stream, View
from edjax.keep.errors import DataError, UsageError
from edjax.kernels import Ground, Method, Scaled, Sorted, select, select_streamed
from edjax.selection.beside import Beside
from edjax.selection.groups import labels
from edjax.selection.strategies import reads, reads_embeddings

_SMALL = 64 << 20  # bytes of rows that are read into memory where the rest of the pool stays on disk
Order = tuple[np.ndarray, np.ndarray | None]
Rows = np.ndarray | Stream | Spill


class Problem(NamedTuple):
    """What a strategy is asked: `budget` of the `candidates`, given what is `labelled`; rows are those of `features`.

    `x` (n, d) are the embeddings as prepared by `edjax.selection.prepared.prepare`, for methods that read them.
    `candidates` (m,) int64 ascending are the rows that may be picked, `labelled` (p,) those that start the state; other
    rows do not count at all. `weights` (n,) float32 scale diversity by quality, see `edjax.selection.quality`. `alike`:
    rows, labelled ones too, and picks to pad to, so that many problems of about one size share a compilation. `fewer`:
    a method that may not pick as many rows picks those it may. `target` are rows that the method reads as such;
    `existing` ones start the state, as labelled rows do.
    """

    features: Features
    x: Rows
    candidates: np.ndarray
    budget: int
    seed: int = 0
    labelled: np.ndarray = np.zeros(0, np.int64)
    weights: np.ndarray | None = None
    alike: tuple[int, int] | None = None
    fewer: bool = False
    target: Beside | None = None
    existing: Beside | None = None


def order(method: Method, p: Problem) -> Order:
    """The picks (k,) in the order taken, and the gain of each, or None where a pick has no gain."""
    if isinstance(method, Sorted):
        return _by_value(method, p)
    return _by_gain(method, p)


def _by_value(method: Sorted, p: Problem) -> Order:
    """Largest value first, on the host and in the value's own dtype; ties go to the lowest row."""
    columns = _columns(method, p.features)
    if reads_embeddings(method):
        columns["embedding"] = np.asarray(p.x)
    if "draw" in method.takes:
        columns["draw"] = _draw(len(p.features), p.seed)
    values = np.asarray(method.order_by(Ground(columns, target=_target(p))))[p.candidates]
    picks = np.argsort(-values, kind="stable")[: p.budget]
    return p.candidates[picks], None if method.drawn else values[picks]


def _target(p: Problem) -> dict[str, np.ndarray] | None:
    return None if p.target is None else {"embedding": p.target.x, **p.target.scores}


def _draw(n: int, seed: int) -> np.ndarray:
    """(n,) int64, the place of each row in a shuffle of all: rows that may not be picked are passed over, and a second
    round goes on in it."""
    place = np.empty(n, np.int64)
    place[np.random.Generator(np.random.PCG64(seed)).permutation(n)] = np.arange(n)
    return place


def _by_gain(method: Method, p: Problem) -> Order:
    rows = np.union1d(p.candidates, p.labelled)
    whole = len(rows) == len(p.features)
    labelled, budget = np.searchsorted(rows, np.unique(p.labelled)), p.budget
    given = labelled if len(labelled) else None
    pairs = p.features.pairs
    columns = {
        name: of_rows(values, rows) if name in pairs else values[rows]
        for name, values in _columns(method, p.features).items()
    }
    for name in method.groups:
        columns[name] = np.unique(columns[name], return_inverse=True)[1]  # numbered among these rows
    if "draw" in method.takes:
        columns["draw"] = _draw(len(p.features), p.seed)[rows]
    quality = None
    if p.weights is not None:
        quality = next((name for name in ("quality", "weight") if name in method.takes), None)
        if quality is None:
            method, quality = Scaled(method), "quality"
        columns[quality] = p.weights[rows]
    if reads_embeddings(method):
        assert not isinstance(p.x, Stream)
        small = not whole and 4 * len(rows) * p.x.shape[1] <= _SMALL
        if isinstance(p.x, Spill) and not small:
            some = p.x if whole else View(p.x, rows)
            got = select_streamed(method, some, budget, labelled=given, weights=columns.get("weight"))
            return _places(method, rows, got, budget, p.fewer)
        columns["embedding"] = p.x if whole and isinstance(p.x, np.ndarray) else p.x[rows]
        if p.existing is not None:
            columns, given = _with_existing(columns, labelled, p.existing)
        if p.alike and method.nested:
            held = 0 if given is None else len(given)
            most = p.alike[0] + len(next(iter(columns.values()))) - len(rows)
            columns, budget = _padded(columns, most), max(min(p.alike[1], most - held), budget)
    key = jax.random.key(p.seed) if method.drawn else None
    try:
        got = select(method, Ground(columns, given=given, target=_target(p)), budget, key=key)
    except ValueError as e:  # of a knob or a column, in the method's words
        raise UsageError(f"{method.name}: {e}") from e
    return _places(method, rows, got, p.budget, p.fewer or method.fewer)


def _with_existing(
    columns: dict[str, Any], labelled: np.ndarray, existing: Beside
) -> tuple[dict[str, Any], np.ndarray]:
    """The columns with rows that there are already below them, and which rows are given; those count fully, whatever
    weight others have.

    Raises:
      DataError: a score that the method reads and they do not have.
    """
    n, more = len(next(iter(columns.values()))), len(existing.x)
    fill = {"quality": np.ones(more, np.float32), "weight": np.ones(more, np.float32), "draw": np.arange(n, n + more)}
    own = {**fill, "embedding": existing.x, **existing.scores}
    if missing := [name for name in columns if name not in own]:
        raise DataError(f"the existing rows have no score {missing[0]!r}, which is read of the pool's")
    below = {name: np.concatenate([values, own[name]]) for name, values in columns.items()}
    return below, np.concatenate([labelled, n + np.arange(more)])


def _places(method: Method, rows: np.ndarray, got: Any, budget: int, fewer: bool) -> Order:
    """The picks as rows of the features; padding's, beyond the budget, are cut off.

    Raises:
      UsageError: the method found fewer, and that is not allowed.
    """
    picks, gains = np.asarray(got.indices)[:budget], np.asarray(got.gains)[:budget]
    there = picks >= 0
    if not there.all() and not fewer:
        few = f"{method.name} finds {int(there.sum())} of {budget} rows that it may pick"
        raise UsageError(f"{few}; lower the budget, or --allow fewer")
    return rows[picks[there]], None if method.drawn and method.valued else gains[there]


def _columns(method: Method, features: Features) -> dict[str, Any]:
    """The columns of the features that it needs, and those it takes where they are there; of any shape."""
    held = features.facts | features.columns | {name: labels(features, name)[0] for name in method.groups}
    return {name: held[name] for name in reads(method, features.columns)}


def powers_of_2(rows: int, picks: int) -> tuple[int, int]:
    """What `Problem.alike` may be for problems of any size."""
    return max(32, 1 << (rows - 1).bit_length()), max(8, 1 << max(picks - 1, 0).bit_length())


def _padded(columns: dict[str, np.ndarray], most: int) -> dict[str, np.ndarray]:
    """The same problem with so many rows: NaN rows are taken last and count nothing."""
    n = len(next(iter(columns.values())))
    fill = {"embedding": np.nan, "quality": 1, "weight": 1}
    made = {}
    for name, of in columns.items():
        widths = ((0, most - n), *((0, 0) for _ in of.shape[1:]))
        made[name] = np.pad(of, widths, constant_values=fill.get(name, np.nan if of.dtype.kind == "f" else 0))
    return made
