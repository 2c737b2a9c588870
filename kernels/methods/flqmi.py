"""Facility-location mutual information, query form: every row of a target has a similar pick, and picks are like it."""

from typing import Any, ClassVar

import jax
import numpy as np

from ..geometry import Precision
from ..ground import Ground, method, option, select
from ..objective import Selection
from . import cover
from .covering import Covering, Definition, spent
from .similar import DEFAULT_BANDWIDTH, Measured, Similarity, grounded


@method
class FLQMI(Covering):
    """Mutual information with a target: see `flqmi`."""

    name = "flqmi"
    summary = "every target has a similar chosen prompt, and every chosen prompt a similar target"
    paper = "Kothawade et al. 2022, arXiv 2103.00128"
    takes: ClassVar[tuple[str, ...]] = ("quality", "similarity")
    needs_target = True

    eta: Any = option("weight of a pick's own similarity to the target", default=1.0, traced=True, least=0)

    shares: ClassVar[tuple[str, ...]] = ("eta",)
    looks: ClassVar[bool] = True

    def covers_pool(self, targeted: bool) -> bool:
        return False

    def terms(self, at: Measured, ground: Ground, block: int) -> dict[str, Any]:
        assert at.target is not None
        return {"bonus": self.eta * (at.back.most - cover.closest(at.target, at.back, at.pool, block))}

    def definition(self, ground: Ground) -> Definition:
        made = super().definition(ground)
        return made._replace(bonus=float(self.eta) * made.likeness.s.max(axis=1, initial=0))

    def advise(self, gains: np.ndarray, *, targets: int = 0) -> str | None:
        return spent(len(gains), targets) or super().advise(gains, targets=targets)


def flqmi(
    x: jax.Array | None,
    target: jax.Array | None,
    budget: int,
    *,
    eta: float | jax.Array = 1.0,
    similarity: Similarity = "cosine",
    bandwidth: float | jax.Array = DEFAULT_BANDWIDTH,
    similarities: jax.Array | None = None,
    labelled: jax.Array | None = None,
    quality: jax.Array | None = None,
    key: jax.Array | None = None,
    block: int | None = None,
    precision: Precision = "highest",
    shards: int | None = None,
) -> Selection:
    """Pick rows greedily to maximise F(A) = sum_q max_{j in A} s_qj + eta sum_{j in A} max_q s_qj.

    The facility-location mutual information with a target, in its query form (Kothawade, Kaushal, Ramakrishnan, Bilmes
    & Iyer 2022, "PRISM", arXiv 2103.00128; `FacilityLocationVariantMutualInformation` of submodlib). s is
    max(0, cosine), or as in `facility_location`. Differs from submodlib in exact zeros for what is unlike, and in
    ties, which go to the lowest row.

    With eta = 0 at most m picks gain anything, and the rest are ties; with eta > 0 what comes after them is ordered by
    similarity to the nearest target alone. Look at the gains, or `until`.

    Args:
        x: (n, d) rows to pick from. target: (m, d) rows to be like; one that holds NaN counts for nothing.
        budget: how many rows, 0 <= budget <= n - labelled.
        eta: 0 or more.
        similarities: (m, n) your own, in place of x and target, which may then be None; see `facility_location`.
        similarity, bandwidth, labelled, quality, key, block, precision, shards: as in `facility_location`.

    Raises:
        ValueError: naming the value, for a bad shape, budget, block, option, row index or weight.

    Cost: 4 n m d FLOPs, then m per candidate refreshed. Memory: 4 n m bytes, and one copy of x.

    >>> import jax.numpy as jnp
    >>> s = jnp.array([[0.9, 0.85, 0.2, 0.5, 0.0], [0.1, 0.1, 0.7, 0.5, 0.6]])
    >>> picks = flqmi(None, None, 5, similarities=s)
    >>> picks.indices.tolist(), [round(float(g), 2) for g in picks.gains]
    ([0, 2, 1, 4, 3], [1.9, 1.3, 0.85, 0.6, 0.5])
    """
    ground = grounded(x, None, target, labelled=labelled, of_target=similarities, quality=quality)
    chosen = FLQMI(similarity=similarity, bandwidth=bandwidth, eta=eta)
    return select(chosen, ground, budget, key=key, block=block, precision=precision, shards=shards)
