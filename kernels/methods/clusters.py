"""Clusters first: the pool in as many clusters as rows are wanted, and from each cluster its best row."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .. import checks, float64
from ..clustering import Clusters, kmeans
from ..geometry import Precision
from ..ground import Ground, Method, method, option
from ..neighbours import mean_neighbour_distance
from ..objective import EXCLUDED, Selection
from ..shapes import Plan, Shape, blocked

NEIGHBOURS = 20  # of typicality
_ITERATIONS = 20  # of k-means


@method
class InClusters(Method):
    """k-means into as many clusters as rows are wanted, then the rows of `one_a_cluster` by `value`.

    k-means starts from its default key, so the same pool has the same clusters in every call.
    """

    valued = True

    clusters: int = option("how many; 0: as many as rows are wanted, labelled ones included", default=0, least=0)

    @property
    def nested(self) -> bool:
        return self.clusters > 0

    def value(self, ground: Ground, found: Clusters, *, precision: Precision, shards: int | None) -> jax.Array:
        """(n,) float32, the largest of a cluster first; NaN for a row that holds no number."""
        raise NotImplementedError(f"{self.name} does not say what is best in a cluster: write its value()")

    def value64(self, ground: Ground, found: Clusters) -> np.ndarray:
        """`value` by definition, in NumPy."""
        raise NotImplementedError(f"{self.name} does not say what is best in a cluster: write its value64()")

    def ready(self, ground: Ground, key: jax.Array | None) -> "tuple[InClusters, Ground]":
        checks.check_budget(self.clusters, ground.n, "clusters")
        return self, ground

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
        wanted = self.clusters or budget + ground.given.shape[0]
        found = kmeans(ground.columns["embedding"], wanted, iterations=_ITERATIONS, precision=precision, shards=shards)
        value = self.value(ground, found, precision=precision, shards=shards)
        return one_a_cluster(found.labels, value, wanted, budget, given=ground.given, valid=ground.valid)

    def gains(self, ground: Ground, rows: list[int]) -> np.ndarray:
        if not self.clusters:
            raise ValueError(f"{self.name}: the clusters are those of a budget; give clusters for gains by definition")
        found = kmeans(jnp.asarray(ground.columns["embedding"], jnp.float32), self.clusters, iterations=_ITERATIONS)
        labels, value = np.asarray(found.labels), self.value64(ground, found)
        sound = (labels >= 0) & np.isfinite(value)
        free = sound if ground.valid is None else sound & np.asarray(ground.valid)
        free = free & ~np.isin(np.arange(len(labels)), rows)
        left = np.bincount(labels[free], minlength=self.clusters)
        fresh = (left > 0) & ~np.isin(np.arange(self.clusters), labels[rows])
        turn = fresh if fresh.any() else np.arange(self.clusters) == np.argmax(left)
        return np.where(sound, np.where(turn[labels], value, EXCLUDED), np.nan)

    def plan(self, shape: Shape, *, form: str | None = None, **how: Any) -> Plan:
        clusters = self.clusters or shape.budget
        work = 2 * shape.n * shape.d * clusters * (_ITERATIONS + 2)
        return blocked(self.name, shape, form or "auto", work, 4 * clusters * shape.d + 16 * shape.n)


def one_a_cluster(
    labels: jax.Array,
    value: jax.Array,
    clusters: int,
    budget: int,
    *,
    given: jax.Array | None = None,
    valid: jax.Array | None = None,
) -> Selection:
    """The row of largest value of each cluster, the largest of all first; then those of the clusters with most rows.

    As long as there is a cluster that holds neither a pick nor a given row, the pick is the row of largest value in any
    such (the lowest among equals). After these, it is the row of largest value of the cluster with most rows that are
    left (the lowest cluster among equals). So clusters that turned out empty, and those that hold a given row
    (Hacohen, Dekel & Weinshall 2022, arXiv 2202.02794, section 3.2), leave their picks to the large ones.

    Args:
        labels: (n,) int32 from 0 to clusters - 1; below 0 for a row that held NaN, which comes last.
        value: (n,) float32 of either sign; a row whose value is not finite comes last too.
        clusters, budget: static ints; budget <= n - the given ones.
        given: (p,) int rows that are chosen already. valid: (n,) bool, the rows that may be picked.

    Returns:
        `Selection` whose gains are the values; -inf for rows that come last, and row -1 where none is left.

    Cost: O(budget clusters + n log n).

    >>> grad_norm = jnp.array([5.0, 3.0, 2.0, 4.0, 1.0])  # small is unusual
    >>> one_a_cluster(jnp.array([0, 0, 1, 1, 2]), -grad_norm, 3, 3).indices.tolist()
    [4, 2, 1]
    """
    n = labels.shape[0]
    given = jnp.zeros(0, jnp.int32) if given is None else jnp.asarray(given, jnp.int32)
    may = (jnp.ones(n, bool) if valid is None else valid).at[given].set(False)
    sound = (labels >= 0) & jnp.isfinite(value)
    # Rows without numbers after those of all clusters, rows that may not be picked at the end.
    home = jnp.where(may & sound, labels, jnp.where(may, clusters, clusters + 1))
    order = jnp.lexsort((jnp.where(sound, -value, 0), home)).astype(jnp.int32)
    sizes = jnp.zeros(clusters + 2, jnp.int32).at[home].add(1)
    starts = jnp.cumsum(sizes) - sizes
    held = jnp.zeros(clusters, bool).at[jnp.where(labels < 0, clusters, labels)[given]].set(True, mode="drop")

    def step(taken, _):
        left = sizes[:clusters] - taken
        rows = order[jnp.minimum(starts[:clusters] + taken, n - 1)]
        fresh = ~held & (taken == 0) & (left > 0)
        most = jnp.max(jnp.where(fresh, value[rows], -jnp.inf))
        best = jnp.argmin(jnp.where(fresh & (value[rows] == most), rows, n))
        chosen = jnp.where(jnp.any(fresh), best, jnp.argmax(left))
        return taken.at[chosen].add(1), rows[chosen]

    _, picks = lax.scan(step, jnp.zeros(clusters, jnp.int32), None, length=budget)
    place = jnp.arange(budget)
    inside = place < starts[clusters]
    picks = jnp.where(inside, picks, jnp.where(place < starts[clusters + 1], order[:budget], -1))
    gains = jnp.where(inside, value[picks], EXCLUDED).astype(jnp.float32)
    return Selection(picks.astype(jnp.int32), gains, jnp.int32(1))


@method
class Aloe(InClusters):
    """Of each cluster the row of largest score: of any column, by default the energy."""

    name = "aloe"
    summary = "from each cluster the prompt least like what the model knows, or with the largest of any score"
    paper = "Xie, Zhang, Bai & Nowak 2024, arXiv 2411.06353; a cluster a pick is our reading"

    score: str = option("column of the score", default="energy")

    @property
    def needs(self) -> tuple[str, ...]:
        return ("embedding", self.score)

    def ready(self, ground: Ground, key: jax.Array | None) -> "tuple[InClusters, Ground]":
        values = checks.check_scores(ground.columns[self.score], ground.n, self.score)
        return super().ready(ground._replace(columns={**ground.columns, self.score: values}), key)

    def value(self, ground: Ground, found: Clusters, *, precision: Precision, shards: int | None) -> jax.Array:
        return ground.columns[self.score]

    def value64(self, ground: Ground, found: Clusters) -> np.ndarray:
        return np.asarray(ground.columns[self.score], np.float64)


@method
class Nearest(InClusters):
    """Of each cluster the row nearest to its centre; gains are the distances, negative."""

    name = "nearest"
    summary = "from each cluster the prompt nearest to its centre"
    paper = "none: the representative rows of k-means, Lloyd 1982"

    def value(self, ground: Ground, found: Clusters, *, precision: Precision, shards: int | None) -> jax.Array:
        return -jnp.sqrt(found.distances)

    def value64(self, ground: Ground, found: Clusters) -> np.ndarray:
        x, valid = float64.clean(ground.columns["embedding"])
        own = np.asarray(found.centres, np.float64)[np.asarray(found.labels)]
        return np.where(valid, -np.linalg.norm(x - own, axis=1), np.nan)


@method
class Densest(InClusters):
    """Of each cluster the row whose neighbours are nearest; gains are their mean distance, negative.

    The order is that of typicality, 1 / mean distance, without its infinity where all neighbours are copies. Neighbours
    are those in the whole pool. TypiClust's cap of 500 clusters and its clusters of at least 5 rows are left out.
    """

    name = "densest"
    summary = "from each cluster the most typical prompt: its nearest 20 are nearest"
    paper = "Hacohen, Dekel & Weinshall 2022, arXiv 2202.02794 (TypiClust)"

    def value(self, ground: Ground, found: Clusters, *, precision: Precision, shards: int | None) -> jax.Array:
        x = ground.columns["embedding"]
        return -mean_neighbour_distance(x, NEIGHBOURS, precision=precision, shards=shards)

    def value64(self, ground: Ground, found: Clusters) -> np.ndarray:
        x, valid = float64.clean(ground.columns["embedding"])
        apart = np.sqrt(float64.squared_distances(x, x))
        apart[:, ~valid] = np.inf
        np.fill_diagonal(apart, np.inf)
        near = np.sort(apart, axis=1)[:, :NEIGHBOURS]
        there = np.isfinite(near)
        mean = np.where(there, near, 0).sum(axis=1) / np.maximum(there.sum(axis=1), 1)
        return np.where(valid & there.any(axis=1), -mean, np.nan)

    def plan(self, shape: Shape, *, form: str | None = None, **how: Any) -> Plan:
        made = super().plan(shape, form=form, **how)
        return made._replace(flops=made.flops + 2 * shape.n**2 * shape.d)
