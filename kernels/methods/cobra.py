"""COBRA: mutual information with a target, classes in balance, and quality, in one sum."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from .. import checks, combine
from ..from_gains import from_gains
from ..geometry import Precision
from ..ground import Ground, method, option, select
from ..objective import Objective, Selection
from .covering import Definition
from .flqmi import FLQMI
from .similar import DEFAULT_BANDWIDTH, Measured, Similar, Similarity, grounded


@method
class COBRA(FLQMI):
    """FLQMI, soft class balance and quality: see `cobra`."""

    name = "cobra"
    summary = "like the target, of many groups, and of high quality"
    paper = "Das, Bhatt, Kumari, Verma & Bilmes 2024, arXiv 2412.17684; the form of each term is our reading"
    takes: ClassVar[tuple[str, ...]] = ("group", "weight", "similarity")

    balance: Any = option("weight of groups in balance", default=1.0, traced=True, least=0)
    by: str = option("column of groups; none: the column group, if there is one", default="")

    shares: ClassVar[tuple[str, ...]] = ("eta", "balance")

    @property
    def groups(self) -> tuple[str, ...]:
        return (self.by,) if self.by else ()

    @property
    def needs(self) -> tuple[str, ...]:
        return (*super().needs, *self.groups)

    def ready(self, ground: Ground, key: jax.Array | None) -> tuple[Similar, Ground]:
        name = self.by or "group"
        if name in ground.columns:
            groups = checks.check_groups(ground.columns[name], ground.n, name)
            ground = ground._replace(columns={**ground.columns, name: groups})
        return super().ready(ground, key)

    def terms(self, at: Measured, ground: Ground, block: int) -> dict[str, Any]:
        made = super().terms(at, ground, block)
        return {"bonus": made["bonus"] + ground.columns.get("weight", 0.0)}

    def objective(self, ground: Ground, *, block: int, precision: Precision, shards: int | None) -> Objective:
        like = super().objective(ground, block=block, precision=precision, shards=shards)
        if (group := ground.columns.get(self.by or "group")) is None:
            return like
        counts = jnp.zeros(ground.n, jnp.float32)
        valid = self.measured(ground, precision).pool.valid
        even = from_gains(group, counts, _more, lambda held, g: held.at[g].add(1), given=ground.given, valid=valid)
        return combine.plus((like, even), (1.0, self.balance))

    def definition(self, ground: Ground) -> Definition:
        made = super().definition(ground)
        return made._replace(bonus=made.bonus + np.asarray(ground.columns.get("weight", 0.0), np.float64))

    def gains(self, ground: Ground, rows: list[int]) -> np.ndarray:
        like = super().gains(ground, rows)
        if (group := ground.columns.get(self.by or "group")) is None:
            return like
        group = np.asarray(group, np.int64)
        held = np.bincount(group[[j for j in rows if not np.isnan(like[j])]], minlength=ground.n)[group]
        return like + float(self.balance) * (np.sqrt(held + 1) - np.sqrt(held))


def _more(held: jax.Array, groups: jax.Array) -> jax.Array:
    """sqrt(c + 1) - sqrt(c) of each row's group, by a quotient: the difference of large roots loses digits."""
    return 1 / (jnp.sqrt(held[groups] + 1) + jnp.sqrt(held[groups]))


def cobra(
    x: jax.Array | None,
    target: jax.Array | None,
    budget: int,
    *,
    group: jax.Array | None = None,
    quality: jax.Array | None = None,
    eta: float | jax.Array = 1.0,
    balance: float | jax.Array = 1.0,
    similarity: Similarity = "cosine",
    bandwidth: float | jax.Array = DEFAULT_BANDWIDTH,
    similarities: jax.Array | None = None,
    labelled: jax.Array | None = None,
    key: jax.Array | None = None,
    block: int | None = None,
    precision: Precision = "highest",
    shards: int | None = None,
) -> Selection:
    """Pick rows greedily to maximise FLQMI(A) + balance sum_c sqrt(|A_c|) + sum_{j in A} quality_j.

    After COBRA ("COmBinatorial Retrieval Augmentation", Das, Bhatt, Kumari, Verma & Bilmes 2024, arXiv 2412.17684),
    which adds soft class balance and quality to a facility-location mutual information with the target. `flqmi` as the
    form of that, the square root, and weights of 1 are our reading, not verified. Its first stage, the nearest
    neighbours of the target, is left to the caller.

    Args:
        x, target, budget, eta, similarities: as in `flqmi`. group: (n,) int, the class or source of each row, 0 to
            n - 1; None: no balance. quality: (n,) float >= 0, added to the gain of a row; the column "weight".
        balance: 0 or more, in units of similarity: the first row of a group brings so much, the second 0.41 times that.
        similarity, bandwidth, labelled, key, block, precision, shards: as in `facility_location`. Labelled rows count
            in their groups.

    Raises:
        ValueError: naming the value, for a bad shape, budget, block, option, row index, group or weight.

    Cost: that of `flqmi`, and B sums a pick.

    >>> import jax.numpy as jnp
    >>> s = jnp.array([[0.9, 0.85, 0.2, 0.5, 0.0], [0.1, 0.1, 0.7, 0.5, 0.6]])
    >>> picks = cobra(None, None, 3, group=jnp.array([0, 0, 1, 0, 1]), eta=0.1, similarities=s)
    >>> picks.indices.tolist(), [round(float(g), 3) for g in picks.gains]
    ([0, 2, 1], [2.09, 1.67, 0.499])
    """
    ground = grounded(x, None, target, labelled=labelled, of_target=similarities, group=group, weight=quality)
    chosen = COBRA(similarity=similarity, bandwidth=bandwidth, eta=eta, balance=balance)
    return select(chosen, ground, budget, key=key, block=block, precision=precision, shards=shards)
