"""k-means in row tiles: k-means++ starts, Lloyd's iterations."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from . import checks, distances, geometry
from .geometry import Points, Precision


class Clusters(NamedTuple):
    """centres: (c, d) float32. labels: (n,) int32, the nearest centre of each row, -1 for a row that held NaN.
    distances: (n,) float32, squared, to that centre. counts: (c,) int32 rows of each cluster."""

    centres: jax.Array
    labels: jax.Array
    distances: jax.Array
    counts: jax.Array


def kmeans(
    x: jax.Array,
    clusters: int,
    *,
    key: jax.Array | None = None,
    initial: jax.Array | None = None,
    iterations: int = 20,
    precision: Precision = "highest",
    shards: int | None = None,
) -> Clusters:
    """Clusters that make sum_i ||x_i - centre of i||^2 small: Lloyd's iterations from a k-means++ start.

    Each start is drawn with probability proportional to its squared distance to the starts before it (Arthur &
    Vassilvitskii 2007, "k-means++", section 2.2). Then `iterations` times: every row to its nearest centre (the lowest
    among equals), every centre to the mean of its rows (Lloyd 1982). A centre without rows stays where it is. No
    tolerance: a fixed number of iterations is the same work, and the same result, in every run.

    Args:
        x: (n, d) rows, any real dtype; computed in float32. Rows with NaN or infinity get label -1 and count nowhere.
        clusters: c, 1 <= c <= n.
        key: a `jax.random.key` for the start; default `jax.random.key(0)`.
        initial: (c, d) centres to start from instead.
        iterations: Lloyd iterations, >= 0.
        precision, shards: as in `k_center`.

    Returns:
        `Clusters`; the labels are those of the returned centres.

    Raises:
        ValueError: naming the value, for a bad shape, number of clusters or iterations.

    Cost: 2 n d c FLOPs for the start and for each iteration; memory one copy of the pool and 16 MB.

    >>> x = jnp.array([[0.0], [0.2], [5.0], [5.2]])
    >>> found = kmeans(x, 2)
    >>> sorted(round(float(c), 2) for c in found.centres[:, 0]), found.counts.tolist()
    ([0.1, 5.1], [2, 2])
    """
    x = checks.check_pool(x)
    clusters = checks.check_budget(clusters, x.shape[0], "clusters")
    if clusters < 1:
        raise ValueError("clusters must be at least 1, got 0")
    initial = None if initial is None else checks.check_pool(initial, "initial")
    if initial is not None and initial.shape != (clusters, x.shape[1]):
        raise ValueError(f"initial must have shape ({clusters}, {x.shape[1]}), got {tuple(initial.shape)}")
    if isinstance(iterations, bool) or not isinstance(iterations, int) or iterations < 0:
        raise ValueError(f"iterations must be a whole number of at least 0, got {iterations!r}")
    return _kmeans(
        x,
        jax.random.key(0) if key is None else key,
        initial,
        clusters=clusters,
        iterations=iterations,
        precision=checks.check_precision(precision),
        shards=geometry.row_shards(x) if shards is None else shards,
    )


@partial(jax.jit, static_argnames=("clusters", "iterations", "precision", "shards"))
def _kmeans(x, key, initial, *, clusters, iterations, precision, shards):
    given = geometry.points(x, precision=precision)
    # Centres are no rows that were given: differences are taken in the frame.
    scale, shift, _ = given.frame
    pool = given._replace(raw=given.x, frame=geometry.unmoved(x.shape[1]))
    assign = partial(_assign, pool, precision=precision, shards=shards)
    if initial is None:
        centres = _plus_plus(pool, clusters, key)
    else:
        centres = geometry.place(initial, jnp.full(clusters, True), given.frame)

    def step(_, centres):
        labels = assign(centres)
        home = jnp.where(pool.valid, labels, clusters)  # out of range: dropped by the sums
        sums = jnp.zeros((clusters, x.shape[1]), jnp.float32).at[home].add(pool.x, mode="drop")
        counts = jnp.zeros(clusters, jnp.float32).at[home].add(1, mode="drop")
        return jnp.where(counts[:, None] > 0, sums / jnp.maximum(counts, 1)[:, None], centres)

    centres = lax.fori_loop(0, iterations, step, centres)
    labels = assign(centres)
    apart = _to_own(pool, centres, labels, shards=shards) / scale / scale
    labels = jnp.where(pool.valid, labels, -1)
    counts = jnp.zeros(clusters, jnp.int32).at[jnp.where(pool.valid, labels, clusters)].add(1, mode="drop")
    return Clusters((centres + shift[0] + shift[1]) / scale, labels, jnp.where(pool.valid, apart, jnp.nan), counts)


def _assign(pool: Points, centres, *, precision, shards):
    """The nearest centre of each row, the lowest among equals."""
    spots = _spots(pool, centres)

    def between_two(d2, scale):
        near = d2 <= jnp.min(d2, axis=1, keepdims=True) + distances.NOISE * scale
        return near & (jnp.sum(near, axis=1, keepdims=True) > 1)

    def of_tile(x, norms, valid):
        tile = Points(x, norms, valid, x, geometry.every(x), pool.frame)
        d2 = distances.squared_distances(tile, spots, precision=precision, doubtful=between_two)
        return jnp.argmin(d2, axis=1).astype(jnp.int32)

    return geometry.over_rows(of_tile, *pool[:3], width=centres.shape[0], shards=shards)


def _spots(pool: Points, centres):
    valid = jnp.full(centres.shape[0], True)
    return Points(centres, geometry.square_norms(centres), valid, centres, geometry.every(centres), pool.frame)


def _to_own(pool: Points, centres, labels, *, shards):
    """The squared distance of each row to the centre of its label."""

    def of_tile(x, labels):
        return geometry.square_norms(x - centres[labels])

    return geometry.over_rows(of_tile, pool.x, labels, width=centres.shape[1], shards=shards)


def _plus_plus(pool: Points, clusters, key):
    """k-means++ starts, (c, d); once every row is at distance 0 the rest are drawn evenly."""

    def draw(key, weights):
        weights = jnp.where(jnp.sum(weights) > 0, weights, pool.valid.astype(jnp.float32))
        return jax.random.categorical(key, jnp.where(weights > 0, jnp.log(weights), -jnp.inf))

    def step(carry, key):
        nearest = carry
        j = draw(key, nearest)
        row = pool.x[jnp.stack([j, j])][0]  # as in `geometry._filled`: a slice would gather a pool on several devices
        d2 = distances.to_row(pool, row)
        return jnp.where(pool.valid, jnp.minimum(nearest, d2), 0), row.astype(jnp.float32)

    # An even first draw: with all distances equal, every valid row is as likely.
    big = jnp.where(pool.valid, jnp.finfo(jnp.float32).max / pool.x.shape[0], 0)
    return lax.scan(step, big, jax.random.split(key, clusters))[1]
