"""ROCKET's data step: the rows nearest the target's mean, without those that repeat an earlier one."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .. import checks, float64, geometry, greedy
from ..geometry import Precision
from ..ground import Ground, Method, method, option
from ..objective import EXCLUDED, Objective, Selection
from ..shapes import Plan, Shape, resident
from .rds_plus import _unit

_TILE = 256  # rows compared with all of the list at a time


@method
class Rocket(Method):
    """The `budget` rows nearest the target's mean, less those too like a row that is nearer.

    With rows and targets of length 1, and c the mean of the targets, not scaled to length 1 again, rows are listed by
    x^T c, which is their order by distance to c; the list is cut at the budget. Row i of the list is then removed where
    an earlier row j has a cosine distance 1 - x_i^T x_j below `distance`: of all earlier rows with `chains="any"`, also
    of those removed, as in the original code, so that a chain of rows, each like the next, leaves its first alone; of
    those kept with "greedy". Nothing fills the places of the removed, so fewer rows come back: then -1 follows them, as
    wherever a `Selection` holds fewer rows than the budget. The data step of ROCKET (Yang et al. 2024, arXiv
    2408.15915); its model step is not here. The original leaves the list in the arbitrary order of a partition; here it
    is sorted.

    columns: "embedding" (n, d), and target "embedding" (m, d). A row that holds NaN is never picked, a target that does
    counts for nothing. given: rows that are labelled come first of all, and are kept: a row too like one is removed.

    The gain of a pick is x^T c. No method goes around this one: what it leaves out depends on the budget.

    Cost: 2 n d + 2 (budget + given)^2 d FLOPs. Memory: 1 KB for each row of the list, beside a copy of the rows.

    >>> from ..ground import select
    >>> x = jnp.array([[1.0, 0.0], [0.999, 0.0447], [0.98, 0.199], [0.6, 0.8], [0.0, 1.0], [-1.0, 0.0]])
    >>> there = Ground({"embedding": x}, target={"embedding": jnp.array([[1.0, 0.0], [0.8, 0.6]])})
    >>> select(Rocket(), there, 4).indices.tolist()
    [2, 3, -1, -1]
    """

    distance: Any = option("cosine distance below which a row repeats another", default=0.1, traced=True, above=0)
    chains: Literal["any", "greedy"] = option(
        "whether a removed row removes others: any, as in the original, or greedy",
        default="any",
        choices=("any", "greedy"),
    )

    name = "rocket"
    summary = "nearest the target's mean, without repeats"
    paper = "Yang et al. 2024, arXiv 2408.15915"
    targets = True
    needs_target = True
    valued = True
    nested = False
    fewer = True

    def ready(self, ground: Ground, key: jax.Array | None) -> "tuple[Rocket, Ground]":
        checks.check_positive(self.distance, "distance")
        if self.chains not in ("any", "greedy"):
            raise ValueError(f"chains must be 'any' or 'greedy', got {self.chains!r}")
        return self, checks.check_target(ground)

    def objective(self, ground: Ground, *, block: int, precision: Precision, shards: int | None) -> Objective:
        raise ValueError("rocket cuts a list at the budget: no method can go around it; leave it alone")

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
        assert ground.target is not None
        x, valid = _unit(ground.columns["embedding"])
        z, asked = _unit(ground.target["embedding"])
        centre = jnp.sum(z, axis=0) / jnp.maximum(jnp.sum(asked), 1)
        like = geometry.matmul(x, centre[None], precision)[:, 0]
        given = jnp.zeros(0, jnp.int32) if ground.given is None else ground.given
        free = valid if ground.valid is None else valid & ground.valid
        free = free.at[given].set(False)
        gains, ids = greedy.largest(jnp.where(free, like, EXCLUDED), budget)
        listed = jnp.concatenate([given, ids.astype(jnp.int32)])
        there = jnp.concatenate([valid[given], gains > EXCLUDED])
        kept = _kept(x[listed], there, given.shape[0], self.distance, self.chains == "any", precision)
        kept = kept[given.shape[0] :]
        first = jnp.argsort(~kept, stable=True)
        real = kept[first]
        indices = jnp.where(real, ids[first], -1).astype(jnp.int32)
        return Selection(indices, jnp.where(real, gains[first], EXCLUDED).astype(jnp.float32), jnp.int32(1))

    def gains(self, ground: Ground, rows: list[int]) -> np.ndarray:
        assert ground.target is not None
        x, valid = float64.clean(ground.columns["embedding"])
        z, asked = float64.clean(ground.target["embedding"])
        z = z[asked] / np.maximum(np.linalg.norm(z[asked], axis=1, keepdims=True), 1e-300)
        x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-300)
        like = x @ z.mean(axis=0)
        given = [] if ground.given is None else [int(j) for j in ground.given]
        free = valid if ground.valid is None else valid & np.asarray(ground.valid)
        removed = np.zeros(len(x), bool)
        earlier = [j for j in given if valid[j]]
        for i in np.argsort(-like, kind="stable"):
            if free[i] and i not in given:
                removed[i] = bool((1 - x[earlier] @ x[i] < self.distance).any())
                earlier += [i] if self.chains == "any" or not removed[i] else []
        return np.where(removed, -np.inf, like)

    def plan(self, shape: Shape, *, form: str | None = None, **how: Any) -> Plan:
        n, d, k = shape.n, shape.d, shape.budget
        return resident(self.name, shape, form, 2 * n * d + 2 * k * k * d, 4 * k * (d + _TILE))


def _kept(
    rows: jax.Array, there: jax.Array, given: int, distance: jax.Array, chains: bool, precision: Precision
) -> jax.Array:
    """(l,) which rows of a list (l, d), of length 1, stay; the first `given` do in any case. there: (l,) which count.

    chains: whether a removed row removes others.
    """
    count, tile = rows.shape[0], min(_TILE, rows.shape[0])
    places = jnp.arange(count)

    def of_tile(t, kept):
        start = jnp.minimum(t * tile, count - tile)
        near = 1 - geometry.matmul(lax.dynamic_slice_in_dim(rows, start, tile), rows, precision) < distance

        def step(i, kept):
            j = start + i  # the last tile starts early: its first rows are looked at twice, and come out the same
            by = there if chains else kept
            removed = jnp.any(near[i] & by & (places < j)) & (j >= given)
            return kept.at[j].set(there[j] & ~removed)

        return lax.fori_loop(0, tile, step, kept)

    return lax.fori_loop(0, -(-count // tile), of_tile, jnp.zeros(count, bool))
