"""Facility-location conditional gain: the pool covered where what there is already leaves it open."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ..geometry import Precision
from ..ground import Ground, method, option, select
from ..objective import Selection
from . import cover
from .covering import Covering, Definition
from .similar import DEFAULT_BANDWIDTH, Measured, Similarity, grounded


@method
class FLCG(Covering):
    """Coverage beyond given rows and a target's: see `flcg`."""

    name = "flcg"
    summary = "every prompt that is unlike the existing ones has a similar chosen one"
    paper = "Iyer, Khargoankar, Bilmes & Asnani 2021, arXiv 2006.15412; Kothawade et al. 2022, arXiv 2103.00128"

    beyond = True

    nu: Any = option("how much of what existing rows cover counts as covered", default=1.0, traced=True, least=0)

    shares: ClassVar[tuple[str, ...]] = ("nu",)
    looks: ClassVar[bool] = True

    def terms(self, at: Measured, ground: Ground, block: int) -> dict[str, Any]:
        most, given = at.own.most, jnp.zeros(0, jnp.int32) if ground.given is None else ground.given
        unlike = cover.closest(at.pool.take(given), at.own, at.pool, block)
        if at.target is not None:
            unlike = jnp.minimum(unlike, cover.closest(at.target, at.back, at.pool, block))
        # 1 - nu s of what is held as 1 - s, so that nu = 1 is exactly what labelled rows do to facility location.
        return {"gap": (1 - self.nu) * most + self.nu * unlike}

    def definition(self, ground: Ground) -> Definition:
        made = super().definition(ground)
        (s, valid, _), given = made.likeness, _given(ground)
        held = s[[j for j in given if valid[j]]].max(axis=0, initial=0)
        if ground.target is not None:
            held = np.maximum(held, self.likeness(ground, to_target=True).s.max(axis=1, initial=0))
        return made._replace(cover=float(self.nu) * held)

    def gains(self, ground: Ground, rows: list[int]) -> np.ndarray:
        return super().gains(ground, [j for j in rows if j not in _given(ground)])


def flcg(
    x: jax.Array | None,
    budget: int,
    *,
    existing: jax.Array | None = None,
    labelled: jax.Array | None = None,
    nu: float | jax.Array = 1.0,
    similarity: Similarity = "cosine",
    bandwidth: float | jax.Array = DEFAULT_BANDWIDTH,
    similarities: jax.Array | None = None,
    existing_similarities: jax.Array | None = None,
    weights: jax.Array | None = None,
    quality: jax.Array | None = None,
    key: jax.Array | None = None,
    block: int | None = None,
    precision: Precision = "highest",
    shards: int | None = None,
) -> Selection:
    """Pick rows greedily to maximise F(A) = sum_i w_i max(max_{j in A} s_ij - nu max_{p in P} s_ip, 0), i of the pool.

    The facility-location conditional gain (Iyer, Khargoankar, Bilmes & Asnani 2021, "Submodular combinatorial
    information measures", arXiv 2006.15412; `FacilityLocationConditionalGain` of submodlib): facility location whose
    rows are covered to nu times their similarity to P at the start. P are rows of the pool, `labelled`, rows from
    elsewhere, `existing`, or both; without any it is facility location, and with nu = 1 and no `existing` it is
    `facility_location(x, labelled=...)`. s is max(0, cosine), or as in `facility_location`.

    Args:
        x: (n, d) rows to pick from and to cover.
        budget: how many rows, 0 <= budget <= n - labelled.
        existing: (p, d) rows that there are already and are not of the pool: the ground's target.
        labelled: (p,) int indices of rows of x that there are already; they are never picked.
        nu: 0 or more; above 1 keeps farther away from P.
        similarities, existing_similarities: (n, n) and (p, n) your own, in place of x and existing, where x may then be
            None; see `facility_location`.
        weights: (n,) float >= 0, w above; default ones.
        similarity, bandwidth, quality, key, block, precision, shards: as in `facility_location`.

    Raises:
        ValueError: naming the value, for a bad shape, budget, block, option, row index or weight.

    Cost: n (n + 2 p) d FLOPs, then n per candidate refreshed, or 2 n d where the similarities do not fit in 4 GB.
    Memory: 4 n^2 bytes, or 8 block n, and one copy of x.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    >>> picks = flcg(x, 2, existing=jnp.array([[2.0, 0.0]]))
    >>> picks.indices.tolist(), [round(float(g), 2) for g in picks.gains]
    ([2, 1], [1.0, 0.2])
    """
    ground = grounded(
        x, similarities, existing, labelled=labelled, of_target=existing_similarities, weight=weights, quality=quality
    )
    chosen = FLCG(similarity=similarity, bandwidth=bandwidth, nu=nu)
    return select(chosen, ground, budget, key=key, block=block, precision=precision, shards=shards)


def _given(ground: Ground) -> list[int]:
    return [] if ground.given is None else [int(j) for j in ground.given]
