"""k-center: spread the picks so that every row has a pick near it."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .. import checks, distances, float64, geometry
from ..combine import within
from ..geometry import Points, Precision
from ..ground import LITTLE, Ground, Method, method, option, select
from ..objective import EXCLUDED, INVALID, Block, Objective, Selection
from ..shapes import Plan, Shape, blocked
from . import front

START_TIES = 1e-5  # squared distances to the mean closer than this share count as equal

_CHUNK = 32  # picks a matrix product takes at a time: wide enough for full GEMM speed, narrow enough to waste little


@method
class KCenter(Method):
    """Farthest-first: see `k_center`."""

    name = "k_center"
    summary = "farthest first: no prompt is far from a chosen one"
    paper = "Gonzalez 1985; Sener & Savarese 2018, arXiv 1708.00489"
    takes = ("weight",)

    first: Any = option("the first pick: mean, random, or a row", default=None, traced=True, engine=True)

    def ready(self, ground: Ground, key: jax.Array | None) -> "tuple[KCenter, Ground]":
        x = ground.columns["embedding"]
        ground = checks.check_column(ground, "weight", "weights")
        return replace(self, first=check_first(self.first, key, ground.given, x)), ground

    def block_for(self, n: int, m: int) -> int:
        return 512

    def objective(self, ground: Ground, *, block: int, precision: Precision, shards: int | None) -> Objective:
        return self._spread(ground, precision, shards)[0]

    # Not `Method.choose`: the front needs the budget.
    def choose(
        self,
        ground: Ground,
        budget: int,
        *,
        key: jax.Array | None,
        block: int,
        precision: Precision,
        shards: int | None,
    ) -> Selection:
        spread, pool, weights = self._spread(ground, precision, shards)
        if front.pays(ground.n, block, shards):
            square_weights = None if weights is None else jnp.square(weights)
            spread = front.with_front(spread, pool, budget, block, square_weights, precision)
        spread = spread if ground.valid is None else within(spread, ground.valid)
        return self.maximize(spread, budget, n=ground.n, block=block, key=key)

    def _spread(
        self, ground: Ground, precision: Precision, shards: int | None
    ) -> tuple[Objective, Points, jax.Array | None]:
        pool = geometry.points(ground.columns["embedding"], precision=precision)
        weights = ground.columns.get("weight")
        unit: jax.Array | float = 1.0
        if weights is not None:
            weights, unit = geometry.unit_weights(weights)
        made = objective(
            pool,
            first=self.first,
            labelled=ground.given,
            weights=weights,
            unit=unit,
            precision=precision,
            shards=shards,
        )
        return made, pool, weights

    def gains(self, ground: Ground, rows: list[int]) -> np.ndarray:
        x, valid = float64.clean(ground.columns["embedding"])
        chosen = [j for j in rows if valid[j]]
        if chosen:
            w = np.asarray(ground.columns.get("weight", np.ones(len(x))), np.float64)
            return w * np.sqrt(float64.squared_distances(x, x[chosen]).min(1))
        centre = np.where(valid, np.sum((x - x[valid].mean(0)) ** 2, 1) if valid.any() else 0, np.inf)
        near = centre <= float(np.min(centre, initial=np.inf)) * (1 + START_TIES)
        start = int(np.argmax(near)) if self.first is None else int(self.first)
        return np.where(np.arange(len(x)) == start, np.inf, np.finfo(np.float64).max)

    def advise(self, gains: np.ndarray, *, targets: int = 0) -> str | None:
        finite = gains[np.isfinite(gains)]  # the first is at an infinite distance
        if not finite[-1] < LITTLE * finite[0]:
            return None
        return (
            f"the last pick was at {finite[-1] / finite[0]:.1%} of the distance of the first ones: a smaller budget "
            "covers the pool about as well"
        )

    def plan(self, shape: Shape, *, form: str | None = None, **how: Any) -> Plan:
        n, d = shape.n, shape.d
        block = min(shape.block or self.block_for(n, n), n)
        ahead = 4 * front.ROWS * block * d + 8 * n if front.pays(n, block, 1) else 0
        return blocked(self.name, shape, form or "auto", 2 * n * d * shape.budget, 4 * block * (block + d), ahead)


def k_center(
    x: jax.Array,
    budget: int,
    *,
    first: int | str | jax.Array | None = None,
    labelled: jax.Array | None = None,
    weights: jax.Array | None = None,
    key: jax.Array | None = None,
    block: int = 512,
    precision: Precision = "highest",
    shards: int | None = None,
) -> Selection:
    """Pick rows farthest-first, so that the largest distance of any row to its nearest pick is small.

    Pick t is argmax_i w_i min_{j in S} ||x_i - x_j||, and its gain is that distance: the covering radius before the
    pick. The radius after k picks is at most twice the best possible (Gonzalez 1985, "Clustering to minimize the
    maximum intercluster distance"; as active learning, Sener & Savarese 2018, arXiv 1708.00489, Algorithm 1).
    Differs from the usual code in its exact blocks (see `greedy`) and in measuring close pairs by differences (see
    `distances`), without which float32 distances fail at large offsets and inside clusters that are far apart.

    Args:
        x: (n, d) rows, any real dtype; computed in float32. A row holding NaN or infinity is passed over: it is
            picked only when no other row is left, with gain -inf. Finite numbers of any size float32 holds will do, as
            long as rows are not 10^15 times farther apart than others.
        budget: how many rows, 0 <= budget <= n - labelled.
        first: the first pick: None or "mean" for the row nearest the mean, a row index, or "random" (needs `key`).
            Its gain is inf, the distance to an empty set. Not with `labelled`. A row that holds NaN is an error
            where it is known, and the row nearest the mean in its stead where x or first is traced. "random" draws
            among the other rows.
        labelled: (p,) int indices of rows that already have labels: they start the state and are never picked; those
            that hold NaN or infinity count for nothing. Given twice, a row counts once.
        weights: (n,) float >= 0, w above; default ones.
        key: a `jax.random.key`, for first="random".
        block: candidates refreshed at a time; changes the time, not the picks.
        precision: "highest" or "fast", see `geometry`.
        shards: inside `jit`, the number of devices the rows are split over (1 for none), when you know it: above half
            a million rows a device it cuts a temporary of 128 n bytes to 16 MB. Measured when the call is eager.

    Raises:
        ValueError: naming the value, for a bad shape, dtype (booleans, objects, text, complex numbers), budget, block,
            first, row index or weight; or a finite number that float32 cannot hold.

    Cost: 2 n d budget FLOPs as matrix products, half of that on a large pool and a small budget (see `front`); memory
    one copy of the pool.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([[0.0, 0.0], [0.1, 0.0], [5.0, 0.0], [0.0, 3.0]])
    >>> picks = k_center(x, budget=3)
    >>> picks.indices.tolist(), [round(float(g), 2) for g in picks.gains]
    ([1, 2, 3], [inf, 4.9, 3.0])
    """
    columns = {"embedding": x} if weights is None else {"embedding": x, "weight": weights}
    ground = Ground(columns, given=labelled)
    return select(KCenter(first), ground, budget, key=key, block=block, precision=precision, shards=shards)


def start_row(from_mean: jax.Array) -> jax.Array:
    """The row nearest the mean, the lowest of those that are within rounding."""
    return jnp.argmax(from_mean <= jnp.min(from_mean) * (1 + START_TIES))


def objective(
    pool: Points,
    *,
    first: jax.Array | None = None,
    labelled: jax.Array | None = None,
    weights: jax.Array | None = None,
    unit: jax.Array | float = 1.0,
    precision: Precision = "highest",
    shards: int | None = None,
) -> Objective:
    """Farthest-first as an `Objective`; internal gains are (w_i distance_i)^2 in the pool's frame, exact for all rows:
    bounds and state are the same (n,).

    first: () int32 row to begin with; None, or an invalid row, for the one nearest the pool's mean. labelled: invalid
    rows among them count for nothing. unit: what the weights were divided by.
    """
    n = pool.x.shape[0]
    square_weights = None if weights is None else jnp.square(weights)
    closer = partial(_closer, pool, square_weights, precision=precision, shards=shards)

    def from_one():
        start = start_row(geometry.from_mean(pool))
        if first is not None:
            start = jnp.where(pool.valid[first], first, start)
        return jnp.where(jnp.arange(n) == start, jnp.inf, jnp.finfo(jnp.float32).max)

    def init():
        if labelled is not None and labelled.shape[0]:
            rows = pool.take(labelled)
            begun = jnp.any(rows.valid)
            nearest = closer(jnp.where(begun, jnp.inf, from_one()), rows, jnp.int32(labelled.shape[0]))
            nearest = nearest.at[labelled].set(EXCLUDED)
        else:
            nearest = from_one()
        nearest = jnp.where(pool.valid | (nearest == EXCLUDED), nearest, INVALID)
        return nearest, nearest

    def refresh(state, ids):
        rows = pool.take(ids)
        itself = jnp.eye(ids.shape[0], dtype=bool)
        between = distances.squared_distances(rows, rows, precision=precision, same=itself)
        if square_weights is not None:
            between = between * square_weights[ids]
        return Block(state[ids], (between, rows), ())

    def take(fixed, live, gains, j):
        return live, jnp.minimum(gains, fixed[0][j])

    def commit(state, bounds, block, order, count):
        nearest = closer(bounds, block.fixed[1].take(order), count)
        return nearest, nearest

    return Objective(init, refresh, take, commit, report=lambda gains: jnp.sqrt(gains) / pool.frame.scale * unit)


def _closer(pool, square_weights, nearest, centres, count, *, precision, shards):
    """min(nearest, w^2 squared distance to the first `count` of `centres`), (n,)."""
    size = centres.norms.shape[0]
    chunk = min(_CHUNK, size)
    rest = jnp.minimum(jnp.arange(size + -size % chunk), size - 1)  # beyond `count`: any row will do
    centres = centres.take(rest)

    def of_tile(x, norms, valid, places, nearest, *scale):
        tile = Points(x, norms, valid, pool.raw, places, pool.frame)

        def step(i, nearest):
            some = centres.cut(i * chunk, chunk)
            d2 = distances.nearest(tile, nearest, some, count - i * chunk, precision=precision)
            return jnp.minimum(nearest, distances.weighted(d2, scale[0]) if scale else d2)

        return lax.fori_loop(0, (count + chunk - 1) // chunk, step, nearest)

    scale = () if square_weights is None else (square_weights,)
    rows = (pool.x, pool.norms, pool.valid, pool.places, nearest, *scale)
    return geometry.over_rows(of_tile, *rows, width=chunk, shards=shards)


def random_row(key: jax.Array, valid: jax.Array) -> jax.Array:
    """One of the valid rows (of all, where none is), evenly; the same under x64."""
    count = jnp.sum(valid, dtype=jnp.int32)
    place = jax.random.randint(key, (), 0, jnp.maximum(jnp.where(count > 0, count, valid.shape[0]), 1), jnp.int32)
    among = jnp.where(count > 0, valid, True)
    return jnp.argmax(jnp.cumsum(among, dtype=jnp.int32) > place).astype(jnp.int32)


def check_first(first: Any, key: jax.Array | None, labelled: jax.Array, x: Any) -> jax.Array | None:
    """The row to begin with, None for the one nearest the mean; or a ValueError that names `first`."""
    if first is None:
        return None
    if labelled.shape[0]:
        raise ValueError(f"first={first!r} cannot be given with labelled rows: they are the start")
    if isinstance(first, str):
        if first == "mean":
            return None
        if first != "random":
            raise ValueError(f"first must be 'mean', 'random' or a row index, got {first!r}")
        if key is None:
            raise ValueError("first='random' needs key, a jax.random.key")
        return random_row(key, geometry.finite_rows(x))
    if isinstance(first, jax.core.Tracer):
        return first.astype(jnp.int32)
    row = checks.check_budget(first, x.shape[0] - 1, "first")
    if not isinstance(x, jax.core.Tracer) and not bool(geometry.finite_rows(jnp.asarray(x[row : row + 1]))[0]):
        raise ValueError(f"first is row {row}, which holds NaN or infinity")
    return jnp.asarray(row, jnp.int32)
