"""How near the nearest rows are: the mean distance of each row to the k rows around it."""

import jax
import jax.numpy as jnp
from jax import lax

from . import distances, geometry
from .geometry import Points, Precision


def mean_neighbour_distance(
    x: jax.Array, k: int = 20, *, precision: Precision = "highest", shards: int | None = None
) -> jax.Array:
    """(n,) float32, (1/k) sum of ||x_i - x_j|| over the k other rows j that are nearest to row i.

    Its inverse is the typicality of Hacohen, Dekel & Weinshall 2022, arXiv 2202.02794, section 3.2, with their k = 20.
    Of a pool of fewer rows the neighbours are all there are. A copy of a row is a neighbour at distance 0.

    Args:
        x: (n, d) rows, any real dtype; computed in float32. A row that holds NaN or infinity is no neighbour, and
            its own value is NaN; so is that of a row without neighbours.
        k: neighbours, at least 1; static. precision, shards: as in `k_center`.

    Cost: 2 n^2 d FLOPs; memory one copy of the pool and tiles of 16 MB. For use inside `jit`.

    >>> mean_neighbour_distance(jnp.array([[0.0], [1.0], [3.0]]), 2).tolist()
    [2.0, 1.5, 2.5]
    """
    pool = geometry.points(x, precision=precision)
    n = x.shape[0]
    rows = geometry.every(x)
    near = min(k, n - 1)
    if near < 1:
        return jnp.full(n, jnp.nan)

    def of_tile(values, norms, valid, places):
        tile = Points(values, norms, valid, pool.raw, places, pool.frame)
        itself = places[:, None] == rows
        d2 = distances.squared_distances(tile, pool, precision=precision, same=itself)
        nearest = -lax.top_k(-jnp.where(itself, jnp.inf, d2), near)[0]
        there = nearest < jnp.inf
        total = jnp.sum(jnp.where(there, jnp.sqrt(nearest), 0), axis=1)
        return total / jnp.sum(there, axis=1)  # 0 / 0 where there is no neighbour

    apart = geometry.over_rows(of_tile, pool.x, pool.norms, pool.valid, pool.places, width=n, shards=shards)
    return jnp.where(pool.valid, apart / pool.frame.scale, jnp.nan)
