"""Pools beyond one device's memory: greedy over a pool that stays on the host."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import checks, geometry, greedy
from .geometry import Centre, Points, Precision
from .ground import Method
from .methods.d_optimal import TIES, DOptimal, check_ridge, labelled_block, no_picks, ridge_in, ridge_of
from .methods.d_optimal import objective as d_optimal_objective
from .methods.k_center import KCenter, check_first, random_row, start_row
from .methods.k_center import objective as k_center_objective
from .objective import EXCLUDED, INVALID, Block, Objective, Selection, nothing

_LABELLED = 64  # labelled rows a pass takes at a time


def k_center_streamed(
    x: Any,
    budget: int,
    *,
    first: int | str | None = None,
    labelled: Any = None,
    weights: Any = None,
    key: jax.Array | None = None,
    block: int = 512,
    tile: int | None = None,
    precision: Precision = "highest",
) -> Selection:
    """`k_center` of a pool that stays on the host: a NumPy array or memmap, read in tiles once per round.

    The device holds one tile, one block and nothing of size n; the host holds 8 n bytes. The picks are those of
    `k_center`; options mean and are checked as they are there. `x` is anything with `shape` (n, d) that takes a slice
    and an int array of rows. Not for use inside `jit`. Cost: (rounds + 3) passes over the pool, see
    `Selection.refreshes`.

    >>> x = np.array([[0.0, 0.0], [0.1, 0.0], [5.0, 0.0], [0.0, 3.0]])
    >>> k_center_streamed(x, 3).indices.tolist()
    [1, 2, 3]
    """
    labelled, given, budget, block, tile, precision = _checked(x, labelled, budget, block, tile, precision)
    weights = None if weights is None else checks.check_vector(weights, x.shape[0], "weights")
    drawn = isinstance(first, str) and first == "random" and key is not None and not given
    start = (
        None if drawn else check_first(first, key, labelled, x)
    )  # a draw waits until it is known which rows are valid
    if budget == 0:
        return nothing()
    pool = _HostPool(x, tile, precision, centre="near", weights=weights)
    ridge = jnp.float32(1)  # k-center has none
    rows = np.asarray(labelled)
    if given and pool.valid[rows].any():
        bounds = np.where(pool.valid, np.inf, INVALID).astype(np.float32)
        block_ = Block(jnp.zeros(given), (jnp.zeros(()), pool.rows(rows)), ())
        _, bounds = _commit("k_center", pool, ridge, (), bounds, block_, jnp.arange(given), given)
    else:
        if drawn and key is not None:
            start = random_row(key, jnp.asarray(pool.valid))
        start = start_row(jnp.asarray(pool.from_mean())) if start is None else start
        here = np.arange(pool.n) == int(start)
        bounds = np.where(pool.valid, np.where(here, np.inf, np.finfo(np.float32).max), INVALID).astype(np.float32)
    bounds[rows] = EXCLUDED
    return _stream("k_center", pool, ridge, (), bounds, budget, block)


def d_optimal_streamed(
    x: Any,
    budget: int,
    *,
    ridge: float | None = None,
    labelled: Any = None,
    weights: Any = None,
    centre: bool = False,
    block: int = 256,
    tile: int | None = None,
    precision: Precision = "highest",
) -> Selection:
    """`d_optimal` of a pool that stays on the host, as `k_center_streamed` does for `k_center`.

    >>> x = np.array([[3.0, 0.0], [2.9, 0.0], [0.0, 1.0]])
    >>> d_optimal_streamed(x, 3, ridge=0.1).indices.tolist()
    [0, 2, 1]
    """
    labelled, _, budget, block, tile, precision = _checked(x, labelled, budget, block, tile, precision)
    given = check_ridge(ridge)
    scale = None if weights is None else np.asarray(checks.check_vector(weights, x.shape[0], "weights"))
    if budget == 0:
        return nothing()
    if scale is not None:
        # The mean that is taken off is that of the rows before they are weighted, as in `design`.
        x, centre = _Weighted(x, scale, _mean(x, tile) if centre else np.zeros(x.shape[1])), False
    pool = _HostPool(x, tile, precision, centre="mean" if centre else "none")
    own_ridge = pool.default_ridge() if given is None else ridge_in(given, pool.frame.scale, 1.0)
    bounds = np.where(pool.valid, pool.norms / np.float32(own_ridge), INVALID).astype(np.float32)
    state = no_picks(pool.d, jnp.asarray(own_ridge), jnp.asarray(bounds))
    rows = np.asarray(labelled)
    for start in range(0, len(rows) + _LABELLED if len(rows) else 0, _LABELLED):
        some = pool.rows(rows[start : start + _LABELLED]).x.astype(jnp.float32)
        some = jnp.pad(some, ((0, _LABELLED - len(some)), (0, 0)))
        given_ = labelled_block(state, some, jnp.asarray(bounds), precision)
        state, bounds = _commit("d_optimal", pool, own_ridge, state, bounds, given_, jnp.arange(_LABELLED), _LABELLED)
    bounds[rows] = EXCLUDED
    return _stream("d_optimal", pool, own_ridge, state, bounds, budget, block)


def _checked(x, labelled, budget, block, tile, precision):
    """What both streamed forms take, checked as the resident ones check it, before a row is read."""
    checks.check_shape(x.shape)
    checks.check_dtype(getattr(x, "dtype", np.float32))
    labelled, given = checks.check_rows(labelled, x.shape[0])
    budget = checks.check_budget(budget, x.shape[0] - given)
    tile = geometry.tile_rows(x.shape[1]) if tile is None else checks.check_block(tile, "tile")
    return labelled, given, budget, checks.check_block(block), tile, checks.check_precision(precision)


class _HostPool:
    """Rows on the host, measured tile by tile: frame, norms and validity in float32, the rows only as they are read."""

    def __init__(self, x: Any, tile: int, precision: Precision, *, centre: Centre, weights: Any = None):
        self.x, (self.n, self.d) = x, x.shape
        self.weights, self.unit = None, jnp.float32(1)
        if weights is not None:
            scaled, self.unit = geometry.unit_weights(weights)
            self.weights = np.asarray(scaled)
        self.precision: Precision = precision
        self.tile = min(tile, max(self.n, 1))
        sums, finite = np.zeros(self.d), []
        low, high = np.full(self.d, np.inf, np.float32), np.full(self.d, -np.inf, np.float32)
        for rows in self._read():
            ok = np.isfinite(rows).all(axis=1)
            finite.append(ok)
            sums += rows[ok].sum(axis=0, dtype=np.float64)
            low = np.minimum(low, rows[ok].min(axis=0, initial=np.inf))
            high = np.maximum(high, rows[ok].max(axis=0, initial=-np.inf))
        self.valid = np.concatenate(finite) if finite else np.zeros(0, bool)
        if not self.valid.any():
            low = high = np.zeros(self.d, np.float32)
        mean = sums / max(int(self.valid.sum()), 1)
        lift = geometry.power_of_two(-geometry.exponent(jnp.max(jnp.maximum(jnp.abs(low), jnp.abs(high)), initial=0)))
        two_terms = jnp.asarray(_two_terms(mean * float(lift)))
        self.frame = geometry.frame_of(jnp.asarray(low)[None], jnp.asarray(high)[None], two_terms, centre)
        norms = [np.asarray(_norms(rows, self.frame)) for _, rows in self.tiles()]
        self.norms = np.concatenate(norms)[: self.n] if norms else np.zeros(0, np.float32)

    def from_mean(self) -> np.ndarray:
        """||x_i - mean||^2 of each row: one more pass over the pool."""
        return np.concatenate([np.asarray(_from_mean(rows, self.frame)) for _, rows in self.tiles()])[: self.n]

    def default_ridge(self) -> jax.Array:
        """That of `d_optimal`, with sums in float64: one more pass over the pool."""
        count = max(int(self.valid.sum()), 1)
        spread, size = (v[self.valid].sum(dtype=np.float64) / count for v in (self.from_mean(), self.norms))
        return ridge_of(jnp.float32(spread), jnp.float32(size))

    def _read(self):
        for start in range(0, self.n, self.tile):
            yield checks.as_float32(np.asarray(self.x[start : start + self.tile]), start=start)

    def rows(self, ids: np.ndarray) -> Points:
        return _ready(np.asarray(self.x[ids], np.float32), self.frame, self.precision)

    def tiles(self):
        """(start, rows) of each tile, all of one shape: NaN rows fill the last."""
        for start, rows in zip(range(0, self.n, self.tile), self._read(), strict=True):
            yield start, _filled(rows, self.tile, np.nan)

    def part(self, values: np.ndarray, start: int, fill: Any) -> np.ndarray:
        """The entries of an (n,) array that belong to the tile at `start`, filled up likewise."""
        return _filled(values[start : start + self.tile], self.tile, fill)


STREAMED: dict[type[Method], Callable[..., Selection]] = {KCenter: k_center_streamed, DOptimal: d_optimal_streamed}


def streams(method: Method) -> bool:
    """Whether a method can choose among rows that stay on the host.

    >>> from .methods import METHODS
    >>> [name for name, method in METHODS.items() if streams(method)]
    ['k_center', 'd_optimal']
    """
    return type(method) in STREAMED


def select_streamed(method: Method, x: Any, budget: int, **options: Any) -> Selection:
    """`select` of a pool that stays on the host, by a method that `streams`; options as `k_center_streamed` takes them.

    Raises:
        ValueError: the method needs the rows on the device; or as `select`.

    >>> from .methods import KCenter
    >>> select_streamed(KCenter(), np.array([[0.0], [1.0], [9.0]]), 2).indices.tolist()
    [1, 2]
    """
    if not streams(method):
        others = ", ".join(cls().name for cls in STREAMED)
        raise ValueError(f"{method.name} needs the rows on the device; these may stay on the host: {others}")
    knobs = {f.name: getattr(method, f.name) for f in dataclasses.fields(method)}
    return STREAMED[type(method)](x, budget, **knobs, **options)


class _Weighted:
    """Rows on the host, each less `mean` (d,) and then times its weight as it is read."""

    def __init__(self, x: Any, weights: np.ndarray, mean: np.ndarray):
        self.x, self.weights, self.mean, self.shape = x, weights, mean, x.shape

    def __getitem__(self, key: slice | np.ndarray) -> np.ndarray:
        rows = np.asarray(self.x[key])
        rows = rows - self.mean if self.mean.any() else rows
        return np.asarray(rows * self.weights[key][:, None], np.float32)


def _mean(x: Any, tile: int) -> np.ndarray:
    """(d,) float64 of the rows that hold numbers: one pass over the pool."""
    total, count = np.zeros(x.shape[1]), 0
    for start in range(0, x.shape[0], tile):
        rows = np.asarray(x[start : start + tile], np.float64)
        rows = rows[np.isfinite(rows).all(axis=1)]
        total, count = total + rows.sum(axis=0), count + len(rows)
    return total / max(count, 1)


def _two_terms(mean: np.ndarray) -> np.ndarray:
    rough = mean.astype(np.float32)
    return np.stack([rough, (mean - rough).astype(np.float32)])


def _filled(values: np.ndarray, rows: int, fill: Any) -> np.ndarray:
    missing = rows - len(values)
    if not missing:
        return values
    return np.pad(values, ((0, missing), *((0, 0) for _ in values.shape[1:])), constant_values=fill)


@partial(jax.jit, static_argnames="precision")
def _ready(x, frame, precision):
    return geometry.points(x, frame=frame, precision=precision)


@jax.jit
def _norms(x, frame):
    return geometry.points(x, frame=frame).norms


@jax.jit
def _from_mean(x, frame):
    return geometry.from_mean(geometry.points(x, frame=frame))


def _objective(kind: str, pool: Points, ridge: jax.Array, precision: Precision, weights=None, unit=1.0) -> Objective:
    if kind == "k_center":
        return k_center_objective(pool, weights=weights, unit=unit, precision=precision, shards=1)
    return d_optimal_objective(pool, ridge, precision=precision, shards=1)


def _stream(kind: str, pool: _HostPool, ridge, state, bounds, budget: int, block: int) -> Selection:
    """`greedy.maximize` with the pool and the bounds on the host."""
    size = min(block, pool.n)
    indices, gains, rounds = [np.zeros(0, np.int32)], [np.zeros(0, np.float32)], 0
    left = budget
    while left > 0 and bounds.max() > EXCLUDED:
        ids, rest, rest_id = (np.asarray(a) for a in _candidates(bounds, size, TIES if kind == "d_optimal" else 0.0))
        w = None if pool.weights is None else pool.weights[ids]
        fresh, done, order, count, taken = _round(
            kind, pool.rows(ids), w, ridge, state, bounds[ids], ids, rest, rest_id, np.int32(left), pool.precision
        )
        bounds[ids] = np.where(np.asarray(done.gains) == EXCLUDED, EXCLUDED, fresh)
        state, bounds = _commit(kind, pool, ridge, state, bounds, done, order, count)
        count = int(count)
        indices.append(ids[np.asarray(order)[:count]])
        gains.append(np.asarray(taken)[:count])
        left, rounds = left - count, rounds + 1
    picks, raw = np.concatenate(indices), jnp.asarray(np.concatenate(gains))
    report = _objective(kind, pool.rows(picks[:1]), ridge, pool.precision, unit=pool.unit).report
    shown = jnp.where(raw >= 0, report(jnp.maximum(raw, 0)), EXCLUDED)
    return Selection(jnp.asarray(picks, jnp.int32), shown, jnp.asarray(rounds, jnp.int32))


def _commit(kind: str, pool: _HostPool, ridge, state, bounds, block: Block, order, count):
    """The state and the bounds of all rows after a block's picks: one pass over the host's tiles. k-center's state is
    its bounds, which stay here."""
    after, tightened = state, np.empty_like(bounds)
    for start, rows in pool.tiles():
        norms, valid = pool.part(pool.norms, start, 0), pool.part(pool.valid, start, False)
        some, w = pool.part(bounds, start, INVALID), None if pool.weights is None else pool.part(pool.weights, start, 0)
        after, some = _commit_tile(
            kind, rows, norms, valid, w, pool.frame, ridge, state, some, block, order, count, pool.precision
        )
        tightened[start : start + pool.tile] = np.asarray(some)[: pool.n - start]
    return state if kind == "k_center" else after, tightened


_candidates = jax.jit(greedy.candidates_of, static_argnames=("size", "ties"))


@partial(jax.jit, static_argnames=("kind", "precision"))
def _round(kind, rows, weights, ridge, state, bounds, ids, rest, rest_id, room, precision):
    objective = _objective(kind, rows, ridge, precision, weights)
    size = ids.shape[0]
    block = objective.refresh(bounds if kind == "k_center" else state, jnp.arange(size))
    block = block._replace(gains=jnp.minimum(block.gains, bounds))
    room = jnp.minimum(room, min(size, objective.limit or size))
    return block.gains, *greedy.greedy_in_block(objective, block, ids, rest, rest_id, room)


@partial(jax.jit, static_argnames=("kind", "precision"))
def _commit_tile(kind, rows, norms, valid, weights, frame, ridge, state, bounds, block, order, count, precision):
    # What `geometry.points` gives, without measuring the norms and the validity again.
    pool = Points(geometry.place(rows, valid, frame), norms, valid, rows, geometry.every(rows), frame)
    return _objective(kind, pool, ridge, precision, weights).commit(state, bounds, block, order, count)
