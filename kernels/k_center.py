"""k-center: spread the picks so that every row has a pick near it."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from . import front, geometry, greedy, stacked
from .geometry import Points, Precision
from .greedy import EXCLUDED, INVALID, Block, Objective, Selection

_CHUNK = 32  # picks a matrix product takes at a time: wide enough for full GEMM speed, narrow enough to waste little


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
    Differs from the usual code in its exact blocks (see `greedy`) and in centring the pool first, without which
    float32 distances fail at large offsets.

    Args:
        x: (n, d) rows, any real dtype; computed in float32. A row holding NaN or infinity is passed over: it is
            picked only when no other row is left, with gain -inf.
        budget: how many rows, 0 <= budget <= n - labelled.
        first: the first pick: None or "mean" for the row nearest the mean, a row index, or "random" (needs `key`).
            Its gain is inf, the distance to an empty set. Not with `labelled`.
        labelled: (p,) int indices of rows that already have labels: they start the state and are never picked.
        weights: (n,) float >= 0, w above; default ones.
        key: a `jax.random.key`, for first="random".
        block: candidates refreshed at a time; changes the time, not the picks.
        precision: "highest" or "fast", see `geometry`.
        shards: inside `jit`, the number of devices the rows are split over (1 for none), when you know it: above half
            a million rows a device it cuts a temporary of 128 n bytes to 16 MB. Measured when the call is eager.

    Raises:
        ValueError: naming the value, for a bad shape, budget, block, first, row index or weight.

    Cost: 2 n d budget FLOPs as matrix products, half of that on a large pool and a small budget (see `front`); memory
    one copy of the pool.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([[0.0, 0.0], [0.1, 0.0], [5.0, 0.0], [0.0, 3.0]])
    >>> picks = k_center(x, budget=3)
    >>> picks.indices.tolist(), [round(float(g), 2) for g in picks.gains]
    ([1, 2, 3], [inf, 4.9, 3.0])
    """
    x = geometry.check_pool(x)
    labelled, given = greedy.check_rows(labelled, x.shape[0])
    budget = greedy.check_budget(budget, x.shape[0] - given)
    if weights is not None:
        weights = geometry.check_vector(weights, x.shape[0], "weights")
    first, block = _check_first(first, key, labelled, x.shape[0]), greedy.check_block(block)
    precision = geometry.check_precision(precision)
    if budget == 0:
        return greedy.nothing()
    return _k_center(
        x,
        first,
        labelled,
        weights,
        budget=budget,
        block=block,
        precision=precision,
        shards=geometry.row_shards(x) if shards is None else shards,
    )


@stacked.jitted("budget", "block", "precision", "shards")
def _k_center(x, first, labelled, weights, *, budget, block, precision, shards):
    pool = geometry.points(x, precision=precision)
    spread = objective(pool, first=first, labelled=labelled, weights=weights, precision=precision, shards=shards)
    if front.pays(x.shape[0], block, shards):
        square_weights = None if weights is None else jnp.square(weights)
        spread = front.with_front(spread, pool, budget, block, square_weights, precision)
    return greedy.maximize(spread, budget, block=block)


def objective(
    pool: Points,
    *,
    first: jax.Array | None = None,
    labelled: jax.Array | None = None,
    weights: jax.Array | None = None,
    precision: Precision = "highest",
    shards: int | None = None,
) -> Objective:
    """Farthest-first as an `Objective`; internal gains are (w_i distance_i)^2 and are exact for all rows.

    first: () int32 row to begin with, None for the one nearest the pool's mean.
    """
    n = pool.x.shape[0]
    square_weights = None if weights is None else jnp.square(weights)
    closer = partial(_closer, pool, square_weights, precision=precision, shards=shards)

    def init():
        if labelled is not None and labelled.shape[0]:
            nearest = closer(jnp.full(n, jnp.inf), pool.x[labelled], pool.norms[labelled], labelled.shape[0])
            nearest = nearest.at[labelled].set(EXCLUDED)
        else:
            start = jnp.argmin(jnp.where(pool.valid, pool.norms, jnp.inf)) if first is None else first
            nearest = jnp.where(jnp.arange(n) == start, jnp.inf, jnp.finfo(jnp.float32).max)
        return (), jnp.where(pool.valid | (nearest == EXCLUDED), nearest, INVALID)

    def refresh(state, ids):
        x, norms = pool.x[ids], pool.norms[ids]
        between = geometry.squared_distances(x, x, norms, norms, precision=precision)
        if square_weights is not None:
            between = between * square_weights[ids]
        return Block(jnp.full(ids.shape[0], jnp.inf), (between, x, norms), ())

    def take(fixed, live, gains, j):
        return live, jnp.minimum(gains, fixed[0][j])

    def commit(state, bounds, block, order, count):
        _, x, norms = block.fixed
        return state, closer(bounds, x[order], norms[order], count)

    return Objective(init, refresh, take, commit, report=jnp.sqrt)


def _closer(pool, square_weights, nearest, centres, norms, count, *, precision, shards):
    """min(nearest, w^2 squared distance to the first `count` of `centres`), (n,)."""
    size = centres.shape[0]
    chunk = min(_CHUNK, size)
    pad = -size % chunk
    centres = jnp.pad(centres, ((0, pad), (0, 0)))
    norms = jnp.where(jnp.arange(size + pad) < count, jnp.pad(norms, (0, pad)), jnp.inf)

    def of_tile(x, x_norms, nearest, *scale):
        def step(i, nearest):
            some = lax.dynamic_slice_in_dim(centres, i * chunk, chunk)
            some_norms = lax.dynamic_slice_in_dim(norms, i * chunk, chunk)
            d2 = geometry.squared_distances(x, some, x_norms, some_norms, precision=precision)
            d2 = jnp.min(jnp.where(some_norms < jnp.inf, d2, jnp.inf), axis=1)
            return jnp.minimum(nearest, d2 * scale[0] if scale else d2)

        return lax.fori_loop(0, (count + chunk - 1) // chunk, step, nearest)

    rows = (pool.x, pool.norms, nearest) if square_weights is None else (pool.x, pool.norms, nearest, square_weights)
    return geometry.over_rows(of_tile, *rows, width=chunk, shards=shards)


def _check_first(first: Any, key: jax.Array | None, labelled: jax.Array, n: int) -> jax.Array | None:
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
        return jax.random.randint(key, (), 0, max(n, 1)).astype(jnp.int32)
    if isinstance(first, jax.core.Tracer):
        return first.astype(jnp.int32)
    return jnp.asarray(greedy.check_budget(first, n - 1, "first"), jnp.int32)
