"""S2L: the pool by how its losses fall while a small model is trained, the same from every kind of fall."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .. import checks
from ..clustering import kmeans
from ..geometry import Precision
from ..ground import Ground, Method, method, option
from ..objective import EXCLUDED, Selection
from ..quotas import water_filling
from ..shapes import Plan, Shape, blocked

FEW = 2  # rows: clusters of so many or fewer are one, which gives what the others leave
_ITERATIONS = 20  # of k-means


@method
class S2L(Method):
    """Trajectories in clusters, quotas by water-filling, and inside each a draw by chance.

    A trajectory is a row's mean response loss at T checkpoints of a small model. Each source, the rows that share a
    value of the column `by`, gives its part of the budget by `water_filling`; the clusters of a source give theirs,
    those of at most 2 rows together what the others leave; which rows of a cluster is drawn uniformly by `key`. Yang,
    Mishra, Chiang & Mirzasoleiman 2024, arXiv 2403.07384, Algorithm 1. Rows whose trajectory holds NaN are left out,
    and come last, where the original makes them easy ones by writing 0. Given and invalid rows are in no cluster.

    It asks for the responses of the whole pool: it saves training, not labels. Whether it does more than its quotas of
    sources do is for a control with these alone to say.

    Cost: 2 n T K FLOPs an iteration of k-means and source.

    >>> from ..ground import select
    >>> falls = jnp.concatenate([jnp.zeros((90, 2)), jnp.ones((6, 2))])
    >>> picks = select(S2L(clusters=2), Ground({"trajectory": falls}), 8, key=jax.random.key(0))
    >>> int((picks.indices < 90).sum())
    4
    """

    name = "s2l"
    summary = "rows of every kind of loss trajectory of a small model, drawn alike; needs all responses"
    paper = "Yang, Mishra, Chiang & Mirzasoleiman 2024, arXiv 2403.07384"
    drawn = True
    nested = False
    valued = True

    clusters: int = option("trajectories in how many clusters, each source", default=100, least=1)
    by: str = option("column of sources; none: all are one", default="")
    sources: int | None = option("how many, where the column is traced", default=None, engine=True)

    @property
    def needs(self) -> tuple[str, ...]:
        return ("trajectory", *self.groups)

    @property
    def dims(self) -> Mapping[str, int]:
        return {"trajectory": 2}

    @property
    def groups(self) -> tuple[str, ...]:
        return (self.by,) if self.by else ()

    def ready(self, ground: Ground, key: jax.Array | None) -> "tuple[S2L, Ground]":
        if key is None:
            raise ValueError("s2l needs key, a jax.random.key")
        if checks.check_budget(self.clusters, np.iinfo(np.int32).max, "clusters") < 1:
            raise ValueError("clusters must be at least 1, got 0")
        read = {"trajectory": checks.check_pool(ground.columns["trajectory"], "trajectory")}
        if not self.by:
            return self, ground._replace(columns={**ground.columns, **read})
        read[self.by] = checks.check_groups(ground.columns[self.by], ground.n, self.by)
        made = self
        if self.sources is None:
            if isinstance(read[self.by], jax.core.Tracer):
                raise ValueError(f"the column {self.by!r} is traced: say how many sources there are")
            made = replace(self, sources=int(read[self.by].max(initial=0)) + 1)
        return made, ground._replace(columns={**ground.columns, **read})

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
        assert key is not None  # `ready` has refused that
        x = jnp.asarray(ground.columns["trajectory"], jnp.float32)
        may = jnp.ones(ground.n, bool) if ground.valid is None else ground.valid
        may = may if ground.given is None else may.at[ground.given].set(False)
        sound = may & jnp.isfinite(x).all(axis=1)
        source = ground.columns[self.by] if self.by else jnp.zeros(ground.n, jnp.int32)
        count, clusters = (self.sources or 1) if self.by else 1, min(self.clusters, ground.n)

        def clustered(s):
            own = sound & (source == s)
            rows = jnp.where(own[:, None], x, jnp.nan)
            return kmeans(rows, clusters, iterations=_ITERATIONS, precision=precision, shards=shards).labels

        labels = jnp.max(lax.map(clustered, jnp.arange(count)), axis=0)  # -1 where a row is of another source
        picked = drawn(source, labels, jax.random.uniform(key, (ground.n,)), count, clusters, budget)
        # The picks in the order of the draw, then rows without numbers, then none.
        place = jnp.where(picked[0], picked[1], jnp.where(may & ~sound, 2.0, jnp.inf))
        order = jnp.argsort(place)[:budget]
        last = place[order]
        gains = jnp.where(last < 1, 0.0, EXCLUDED).astype(jnp.float32)
        return Selection(jnp.where(last < jnp.inf, order, -1).astype(jnp.int32), gains, jnp.int32(1))

    def plan(self, shape: Shape, *, form: str | None = None, **how: Any) -> Plan:
        clusters = min(self.clusters, shape.n)
        work = 2 * shape.n * shape.d * clusters * (_ITERATIONS + 2)
        return blocked(self.name, shape, form or "auto", work, 4 * clusters * shape.d + 16 * shape.n)


def drawn(
    source: jax.Array, labels: jax.Array, draw: jax.Array, sources: int, clusters: int, budget: int
) -> tuple[jax.Array, jax.Array]:
    """(n,) which rows are picked, and (n,) `draw`: the rows of smallest draw of each cluster, as many as its quota.

    Args:
        source: (n,) int32. labels: (n,) int32, the cluster inside its source; below 0 for a row that is in none.
        draw: (n,) float32, uniform in [0, 1). sources, clusters, budget: static.
    """
    inside = labels >= 0
    each = clusters + 1  # the last for rows of small clusters
    home = jnp.where(inside, source * each + labels, sources * each)
    sizes = _count(home, sources * each).reshape(sources, each)
    alone = (sizes <= FEW) & (jnp.arange(each) < clusters)
    small = inside & alone.reshape(-1)[jnp.minimum(home, sources * each - 1)]
    of_source = water_filling(jnp.sum(sizes, axis=1), budget)
    quota = jax.vmap(lambda rows, most: water_filling(rows, most, above=FEW))(sizes, of_source)
    quota = quota.at[:, clusters].set(of_source - jnp.sum(quota[:, :clusters], axis=1)).reshape(-1)
    home = jnp.where(small, source * each + clusters, home)
    order = jnp.lexsort((draw, home))
    whole = _count(home, sources * each + 1)
    rank = jnp.zeros_like(home).at[order].set(jnp.arange(home.shape[0]) - (jnp.cumsum(whole) - whole)[home[order]])
    return inside & (rank < quota[jnp.minimum(home, sources * each - 1)]), draw


def _count(groups: jax.Array, many: int) -> jax.Array:
    """(many,) int32 rows of each group; those beyond are not counted."""
    return jnp.zeros(many, jnp.int32).at[groups].add(1, mode="drop")
