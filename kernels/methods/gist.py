"""GIST: useful rows that keep their distance, for the best of many distances."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .. import checks, distances, float64, geometry
from ..geometry import Points, Precision
from ..ground import Ground, Method, method, option
from ..objective import EXCLUDED, Objective, Selection
from ..shapes import Plan, Shape, resident


@method
class Gist(Method):
    """Maximise f(S) = sum_{i in S} u_i + strength min_{i != j in S} ||x_i - x_j|| over sets of at most `budget` rows.

    For each threshold t, rows are taken by falling utility u as long as they are at a distance of t or more from all
    taken; of these sets, and of the two rows farthest from each other, the one of largest f is the answer. Thresholds
    are 0 and epsilon D / 2 (1 + epsilon)^i up to D, the largest distance of two rows, which stands for the least one
    in a set of one row. At least 1/2 - epsilon of the best value (Fahrbach et al. 2024, arXiv 2405.18754, algorithms 1
    and 2, with a modular utility).

    Where distance is worth more than rows, the best set is smaller than the budget: then -1 follows its rows. Large
    budgets of utilities that hardly differ are the rows of largest utility: raise `strength`.

    columns: "embedding" (n, d), and the one that `utility` names, (n,), 0 or more. A row that holds NaN is never
    picked. given: rows that are labelled are taken already; distances among them, and the farthest pair, do not count.

    The gain of a pick is its utility. No method goes around this one: the threshold depends on the whole.

    Cost: 2 n^2 d FLOPs for D and 2 n d budget thresholds for the sets, which are made all at once; 33 thresholds by
    default. Memory: 12 n bytes a threshold, beside a copy of the rows.

    >>> from ..ground import select
    >>> x, u = jnp.array([[0.0], [0.1], [1.0], [1.05], [3.0]]), jnp.array([1.0, 0.99, 0.5, 0.6, 0.2])
    >>> select(Gist(strength=0.5, utility="useful"), Ground({"embedding": x, "useful": u}), 2).indices.tolist()
    [0, 4]
    """

    strength: Any = option("what a unit of distance is worth, in utility", default=1.0, traced=True, least=0)
    utility: str = option("the column of utilities", default="mean_entropy")
    epsilon: float = option("thresholds grow by this share", default=0.1, above=0, below=1)

    name = "gist"
    summary = "largest scores that keep their distance from each other"
    paper = "Fahrbach et al. 2024, arXiv 2405.18754"
    nested = False
    valued = True
    fewer = True

    @property
    def needs(self) -> tuple[str, ...]:
        return ("embedding", self.utility)

    def ready(self, ground: Ground, key: jax.Array | None) -> "tuple[Gist, Ground]":
        if not 0 < self.epsilon < 1:
            raise ValueError(f"epsilon must be above 0 and below 1, got {self.epsilon!r}")
        if not isinstance(self.strength, jax.core.Tracer) and not 0 <= float(self.strength) < math.inf:
            raise ValueError(f"strength must be a finite number of 0 or more, got {self.strength!r}")
        return self, checks.check_column(ground, self.utility, self.utility)

    def objective(self, ground: Ground, *, block: int, precision: Precision, shards: int | None) -> Objective:
        raise ValueError("gist compares whole sets: no method can go around it; leave it alone")

    def shares(self) -> np.ndarray:
        """The thresholds as shares of D."""
        count = 1 + math.floor(math.log(2 / self.epsilon) / math.log1p(self.epsilon))
        return np.concatenate([[0.0], self.epsilon / 2 * (1 + self.epsilon) ** np.arange(count)])

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
        pool = geometry.points(ground.columns["embedding"], precision=precision)
        u = ground.columns[self.utility]
        given = jnp.zeros(0, jnp.int32) if ground.given is None else ground.given
        free = pool.valid if ground.valid is None else pool.valid & ground.valid
        free = free.at[given].set(False)
        widest, pair = _widest(pool, free, precision)
        thresholds = jnp.square(jnp.asarray(self.shares(), jnp.float32)) * widest
        sets = _sets(pool, u, free, given, thresholds, budget, precision)
        least = jnp.where(sets.least < jnp.inf, sets.least, widest)
        worth = sets.total + self.strength * jnp.sqrt(least) / pool.frame.scale
        worth = jnp.where(sets.rows[:, 0] >= 0, worth, -jnp.inf)
        best = jnp.argmax(worth)
        rows = sets.rows[best]
        if budget >= 2 and not given.shape[0]:
            pair = pair[jnp.argsort(-u[pair], stable=True)]
            better = jnp.sum(u[pair]) + self.strength * jnp.sqrt(widest) / pool.frame.scale > worth[best]
            two = jnp.full(budget, -1, jnp.int32).at[:2].set(pair)
            rows = jnp.where(better & (pair[0] != pair[1]), two, rows)
        gains = jnp.where(rows >= 0, u[rows], EXCLUDED)
        return Selection(rows, gains.astype(jnp.float32), jnp.int32(1))

    def gains(self, ground: Ground, rows: list[int]) -> np.ndarray:
        return np.asarray(ground.columns[self.utility], np.float64)

    def picks(self, ground: Ground, budget: int) -> list[int]:
        x, free = float64.clean(ground.columns["embedding"])
        u = self.gains(ground, [])
        given = [] if ground.given is None else [int(j) for j in ground.given if free[int(j)]]
        free = free & (True if ground.valid is None else np.asarray(ground.valid))
        free[[] if ground.given is None else list(ground.given)] = False
        far = np.sqrt(float64.squared_distances(x, x))
        among = np.where(free[:, None] & free, far, 0)
        widest = among.max(initial=0)

        def worth(rows: list[int]) -> float:
            near = [far[i, j] for i in rows for j in [*rows, *given] if i != j]
            return float(u[rows].sum() + self.strength * min(near, default=widest))

        sets = []
        for t in self.shares() * widest:
            rows: list[int] = []
            for i in np.argsort(-u, kind="stable"):
                if free[i] and len(rows) < budget and all(far[i, j] >= t for j in [*rows, *given]):
                    rows.append(int(i))
            sets.append(rows)
        if budget >= 2 and not given and widest > 0:
            pair = np.unravel_index(int(np.argmax(among)), among.shape)
            sets.append(sorted((int(i) for i in pair), key=lambda i: (-u[i], i)))
        return max((rows for rows in sets if rows), key=worth, default=[])

    def plan(self, shape: Shape, *, form: str | None = None, **how: Any) -> Plan:
        n, d, count = shape.n, shape.d, len(self.shares())
        work = 2 * n * n * d + 2 * n * d * shape.budget * count
        tile = max(1, min(n, geometry._TILE_ELEMENTS // max(n, 1)))
        return resident(self.name, shape, form, work, max(12 * n * count, 8 * n * tile) + 8 * count * shape.budget)


class _Sets(NamedTuple):
    """One a threshold. rows: (t, k) int32, -1 after the last. total: (t,) utility. least: (t,) squared distance of the
    two nearest, infinite for a set of one row."""

    rows: jax.Array
    total: jax.Array
    least: jax.Array


def _sets(
    pool: Points,
    u: jax.Array,
    free: jax.Array,
    given: jax.Array,
    thresholds: jax.Array,
    budget: int,
    precision: Precision,
) -> _Sets:
    """By falling utility, rows at a squared distance of at least each of `thresholds` (t,) from all taken."""
    n, count = u.shape[0], thresholds.shape[0]

    def taken(near, j):
        rows = pool.take(j)
        itself = j[:, None] == jnp.arange(n)
        return jnp.minimum(near, distances.squared_distances(rows, pool, precision=precision, same=itself))

    def begin(near, j):
        return jnp.where(pool.valid[j], taken(near, j[None]), near), None

    from_given, _ = lax.scan(begin, jnp.full((1, n), jnp.inf), given)
    each = jnp.arange(count)

    def step(carry, _):
        near, left, total, least = carry
        open_ = left & (near >= thresholds[:, None])
        j = jnp.argmax(jnp.where(open_, u, -1), axis=1).astype(jnp.int32)
        found = open_[each, j]
        least = jnp.where(found, jnp.minimum(least, near[each, j]), least)
        total = total + jnp.where(found, u[j], 0)
        near = jnp.where(found[:, None], taken(near, j), near)
        left = left.at[each, j].set(False)
        return (near, left, total, least), jnp.where(found, j, -1)

    zero = jnp.zeros(count, jnp.float32)
    near = jnp.broadcast_to(from_given, (count, n))
    left = jnp.broadcast_to(free, (count, n))
    carry = (near, left, zero, jnp.full(count, jnp.inf, jnp.float32))
    (_, _, total, least), rows = lax.scan(step, carry, None, length=budget)
    return _Sets(rows.T, total, least)


def _widest(pool: Points, free: jax.Array, precision: Precision) -> tuple[jax.Array, jax.Array]:
    """The largest squared distance of two free rows, and these rows (2,) int32, the lowest of several."""
    n = pool.x.shape[0]
    tile = max(1, min(n, geometry._TILE_ELEMENTS // max(n, 1)))
    norms = jnp.where(pool.valid, pool.norms, 0)

    def step(t, carry):
        most, pair = carry
        start = jnp.minimum(t * tile, n - tile)

        def cut(a):
            return lax.dynamic_slice_in_dim(a, start, tile)

        d2 = cut(norms)[:, None] + norms - 2 * geometry.matmul(cut(pool.x), pool.x, precision)
        d2 = jnp.where(cut(free)[:, None] & free, jnp.maximum(d2, 0), -1)
        at = jnp.argmax(d2)
        here = jnp.stack([start + at // n, at % n]).astype(jnp.int32)
        found = d2.reshape(-1)[at]
        return jnp.maximum(most, found), jnp.where(found > most, here, pair)

    begin = (jnp.float32(-1), jnp.zeros(2, jnp.int32))
    most, pair = lax.fori_loop(0, -(-n // tile), step, begin)
    return jnp.maximum(most, 0), pair
