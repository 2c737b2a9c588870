"""Facility location: pick rows so that every row has a similar one among the picks, on average."""

from typing import Literal

import jax
import numpy as np

from ..geometry import Precision
from ..ground import method, option, select
from ..objective import Selection
from .covering import DEFAULT_MEMORY, Covering, Form
from .similar import DEFAULT_BANDWIDTH, Similarity, grounded

_EVEN = 0.05  # gains closer than this share of the largest count as all the same


@method
class FacilityLocation(Covering):
    """Coverage by similarity: see `facility_location`."""

    name = "facility_location"
    summary = "every prompt has a similar chosen one"
    paper = "Nemhauser, Wolsey & Fisher 1978; Bhatt et al. 2024, arXiv 2401.06692"

    similarity: Similarity = option("rbf or cosine", default="rbf", choices=("rbf", "cosine"))

    def covers_pool(self, targeted: bool) -> bool:
        return not targeted

    def advise(self, gains: np.ndarray, *, targets: int = 0) -> str | None:
        if gains.min() > (1 - _EVEN) * gains.max():
            return "every pick gained about the same: the kernel is too narrow to tell rows apart; raise the bandwidth"
        said = super().advise(gains, targets=targets)
        return None if said is None else f"{said}; or the kernel is too wide: lower the bandwidth"


def facility_location(
    x: jax.Array,
    budget: int,
    *,
    similarity: Similarity = "rbf",
    bandwidth: float | jax.Array = DEFAULT_BANDWIDTH,
    represented: jax.Array | None = None,
    similarities: jax.Array | None = None,
    labelled: jax.Array | None = None,
    weights: jax.Array | None = None,
    quality: jax.Array | None = None,
    form: Form = "auto",
    similarity_dtype: Literal["float32", "bfloat16"] = "float32",
    memory: int = DEFAULT_MEMORY,
    epsilon: float | None = None,
    key: jax.Array | None = None,
    block: int | None = None,
    precision: Precision = "highest",
    shards: int | None = None,
) -> Selection:
    """Pick rows greedily to maximise F(S) = sum_i w_i max_{j in S} s_ij.

    s is exp(-||x_i - x_j||^2 / gamma) with gamma = bandwidth times the mean squared distance of the pool ("rbf", which
    does not change when the pool is shifted), or max(0, cosine). The gain of a pick is its growth of F. At least
    1 - 1/e of the best value (Nemhauser, Wolsey & Fisher 1978); as a design for finetuning, Bhatt et al. 2024,
    arXiv 2401.06692. Too large a bandwidth saturates F before the budget is spent, too small a one makes all
    gains equal: look at the gains.

    Args:
        x: (n, d) rows to pick from, any real dtype; computed in float32. A row holding NaN or infinity is picked only
            when no other row is left, with gain -inf, and none has to represent it.
        budget: how many rows, 0 <= budget <= n - labelled.
        similarity: "rbf" or "cosine".
        bandwidth: > 0, for "rbf".
        represented: (m, d) rows to cover, if not those of x itself.
        similarities: (m, n) your own, in place of x and represented, which may then be None: how well row j to pick
            stands for row i to cover, clipped at 0. They may be asymmetric, and are kept as they are, with one more
            copy. A row that holds no finite number counts for nothing; a candidate that lacks one is picked last.
        labelled: (p,) int indices of rows of x that already have labels: they cover first and are never picked; as in
            `k_center`.
        weights: (m,) float >= 0, w above: how much each row to cover counts; default ones.
        quality: (n,) float >= 0: the gain of candidate j counts quality_j times.
        form: "resident" computes the (n, m) similarities once and keeps them, "tiled" computes columns when they are
            needed; the picks are the same. "auto" is resident where the similarities fit in `memory` bytes.
        similarity_dtype: of the similarities that "resident" keeps: 4 n m bytes, or in "bfloat16" half of that, at the
            price of their rounding to 2^-9 (F within 1 %).
        epsilon: in (0, 1), for stochastic greedy: each pick is the best of (n / budget) ln(1 / epsilon) rows drawn at
            random (see `stochastic`); not exact, and a smaller budget's picks are no longer the first of a larger one.
            `block` does not count then: the whole sample is a block, 4 m bytes for each of its rows.
        key: a `jax.random.key`, for `epsilon`.
        block: candidates refreshed at a time; changes the time, not the picks.
        precision, shards: as in `k_center`.

    Raises:
        ValueError: naming the value, for a bad shape, budget, block, option, row index or weight.

    Cost: n m d FLOPs for the first gains (2 n m d with `represented` or several devices); then per candidate
    refreshed m (resident) or 2 m d (tiled; of a large pool on one device that covers itself fewer are, see `ahead`).
    Memory: 4 n m bytes (resident) or 8 block m (tiled), and one copy of x.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([[0.0], [0.1], [0.2], [5.0], [5.1]])
    >>> picks = facility_location(x, budget=2)
    >>> picks.indices.tolist(), [round(float(g), 1) for g in picks.gains]
    ([1, 3], [3.0, 2.0])
    """
    covering = FacilityLocation(similarity, bandwidth, form, similarity_dtype, memory, epsilon)
    ground = grounded(x, None, represented, labelled=labelled, of_target=similarities, quality=quality)
    if weights is not None:  # of the rows that are covered
        if ground.target is None:
            ground = ground._replace(columns={**ground.columns, "weight": weights})
        else:
            ground = ground._replace(target={**ground.target, "weight": weights})
    return select(covering, ground, budget, key=key, block=block, precision=precision, shards=shards)
