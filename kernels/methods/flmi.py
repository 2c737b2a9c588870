"""Facility-location mutual information: the pool covered as far as the target would cover it."""

from typing import Any, ClassVar

import jax
import numpy as np

from ..geometry import Precision
from ..ground import Ground, method, option, select
from ..objective import Selection
from . import cover
from .covering import Covering, Definition
from .similar import DEFAULT_BANDWIDTH, Measured, Similarity, grounded


@method
class FLMI(Covering):
    """Mutual information with a target, over the pool's rows: see `flmi`."""

    name = "flmi"
    summary = "every prompt that is like a target has a similar chosen one"
    paper = "Iyer, Khargoankar, Bilmes & Asnani 2021, arXiv 2006.15412; Kothawade et al. 2022, arXiv 2103.00128"
    needs_target = True

    eta: Any = option(
        "share of the target's similarity up to which a row is covered", default=1.0, traced=True, least=0
    )

    shares: ClassVar[tuple[str, ...]] = ("eta",)
    halves: ClassVar[bool] = False
    looks: ClassVar[bool] = True

    def terms(self, at: Measured, ground: Ground, block: int) -> dict[str, Any]:
        assert at.target is not None
        most, unlike = at.back.most, cover.closest(at.target, at.back, at.pool, block)
        # 1 - eta s of what is held as 1 - s, so that eta = 1 is exactly that.
        return {"floor": (1 - self.eta) * most + self.eta * unlike}

    def definition(self, ground: Ground) -> Definition:
        made = super().definition(ground)
        cap = float(self.eta) * self.likeness(ground, to_target=True).s.max(axis=1, initial=0)
        return made._replace(likeness=made.likeness._replace(s=np.minimum(made.likeness.s, cap)))


def flmi(
    x: jax.Array | None,
    target: jax.Array | None,
    budget: int,
    *,
    eta: float | jax.Array = 1.0,
    similarity: Similarity = "cosine",
    bandwidth: float | jax.Array = DEFAULT_BANDWIDTH,
    similarities: jax.Array | None = None,
    target_similarities: jax.Array | None = None,
    labelled: jax.Array | None = None,
    weights: jax.Array | None = None,
    quality: jax.Array | None = None,
    key: jax.Array | None = None,
    block: int | None = None,
    precision: Precision = "highest",
    shards: int | None = None,
) -> Selection:
    """Pick rows greedily to maximise F(A) = sum_i w_i min(max_{j in A} s_ij, eta max_q s_iq), i over the pool.

    The facility-location mutual information with a target (Iyer, Khargoankar, Bilmes & Asnani 2021, "Submodular
    combinatorial information measures", arXiv 2006.15412; `FacilityLocationMutualInformation` of submodlib): facility
    location on similarities that are cut, row by row, at what the target reaches. s is max(0, cosine), or as in
    `facility_location`.

    Args:
        x: (n, d) rows to pick from and to cover. target: (m, d) rows to be like; one that holds NaN counts for nothing.
        budget: how many rows, 0 <= budget <= n - labelled.
        eta: 0 or more.
        similarities, target_similarities: (n, n) and (m, n) your own, of pool and target, in place of x and target,
            which may then be None; see `facility_location`.
        weights: (n,) float >= 0, w above; default ones.
        similarity, bandwidth, labelled, quality, key, block, precision, shards: as in `facility_location`.

    Raises:
        ValueError: naming the value, for a bad shape, budget, block, option, row index or weight.

    Cost: 2 n (n + m) d FLOPs, then n per candidate refreshed, or 2 n d where the similarities do not fit in 4 GB.
    Memory: 4 n^2 bytes, or 8 block n, and one copy of x.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    >>> picks = flmi(x, jnp.array([[2.0, 0.0]]), 2)
    >>> picks.indices.tolist(), [round(float(g), 2) for g in picks.gains]
    ([0, 1], [1.8, 0.0])
    """
    ground = grounded(
        x, similarities, target, labelled=labelled, of_target=target_similarities, weight=weights, quality=quality
    )
    chosen = FLMI(similarity=similarity, bandwidth=bandwidth, eta=eta)
    return select(chosen, ground, budget, key=key, block=block, precision=precision, shards=shards)
