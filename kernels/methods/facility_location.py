"""Facility location: pick rows so that every row has a similar one among the picks, on average."""

from dataclasses import replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from .. import checks, distances, float64, geometry, greedy, stochastic
from ..geometry import Precision
from ..ground import Ground, Method, method, option, select
from ..objective import Objective, Selection
from ..shapes import ROW, Plan, Shape, made
from . import ahead
from .cover import objective

Similarity = Literal["rbf", "cosine"]
Form = Literal["auto", "resident", "tiled"]

DEFAULT_BANDWIDTH = 0.25
_MEMORY = 4 << 30

_EVEN = 0.05  # gains closer than this share of the largest count as all the same


@method
class FacilityLocation(Method):
    """Coverage by similarity: see `facility_location`."""

    name = "facility_location"
    summary = "every prompt has a similar chosen one"
    paper = "Nemhauser, Wolsey & Fisher 1978; Bhatt et al. 2024, arXiv 2401.06692"
    takes = ("weight", "quality")

    similarity: Similarity = option("rbf or cosine", default="rbf", choices=("rbf", "cosine"))
    bandwidth: Any = option(
        "kernel width, as a share of the mean squared distance", default=DEFAULT_BANDWIDTH, traced=True, above=0
    )
    form: Form = option("resident, tiled, or auto", default="auto", engine=True)
    similarity_dtype: Literal["float32", "bfloat16"] = option(
        "of similarities that are kept", default="float32", engine=True
    )
    memory: int = option("bytes of similarities up to which auto is resident", default=_MEMORY, engine=True)
    epsilon: float | None = option("stochastic greedy: looks at fewer rows a pick", default=None, above=0, below=1)

    targets = True

    @property
    def drawn(self) -> bool:
        return self.epsilon is not None

    @property
    def nested(self) -> bool:
        return self.epsilon is None  # how many rows are looked at depends on the budget

    def ready(self, ground: Ground, key: jax.Array | None) -> "tuple[FacilityLocation, Ground]":
        x = ground.columns["embedding"]
        target = ground.target
        if target is not None:
            covered = checks.check_pool(target["embedding"], "represented")
            if covered.shape[1] != x.shape[1]:
                raise ValueError(f"represented has {covered.shape[1]} features, x has {x.shape[1]}")
            target = checks.check_column(Ground({**target, "embedding": covered}), "weight", "weights").columns
        if self.similarity not in ("rbf", "cosine"):
            raise ValueError(f"similarity must be 'rbf' or 'cosine', got {self.similarity!r}")
        if self.form not in ("auto", "resident", "tiled"):
            raise ValueError(f"form must be 'auto', 'resident' or 'tiled', got {self.form!r}")
        if self.similarity_dtype not in ("float32", "bfloat16"):
            raise ValueError(f"similarity_dtype must be 'float32' or 'bfloat16', got {self.similarity_dtype!r}")
        if self.epsilon is not None and key is None:
            raise ValueError(f"epsilon={self.epsilon!r} needs key, a jax.random.key")
        ground = ground._replace(target=target)
        for name, said in (("weight", "weights"), ("quality", "quality")):
            ground = checks.check_column(ground, name, said)
        checks.check_positive(self.bandwidth, "bandwidth")
        return replace(self, bandwidth=jnp.asarray(self.bandwidth, jnp.float32)), ground

    def kept(self, n: int, m: int) -> str | None:
        """The dtype of the similarities that are kept; None for tiles."""
        fits = jnp.dtype(self.similarity_dtype).itemsize * n * m <= self.memory
        return self.similarity_dtype if self.form == "resident" or (self.form == "auto" and fits) else None

    def block_for(self, n: int, m: int) -> int:
        return 256 if self.kept(n, m) else 128

    def objective(self, ground: Ground, *, block: int, precision: Precision, shards: int | None) -> Objective:
        x = ground.columns["embedding"]
        represented = None if ground.target is None else ground.target["embedding"]
        to_cover = None
        if self.similarity == "rbf":
            frame = geometry.own_frame(x, others=() if represented is None else (represented,))
            pool = geometry.points(x, frame=frame, precision=precision)
            if represented is not None:
                to_cover = geometry.points(represented, frame=frame, precision=precision)
            gamma = self.bandwidth * geometry.mean_squared_distance(pool)
            measure = distances.rbf(gamma, x.shape[1], precision)
        else:
            pool = distances.unit_points(x, precision)
            if represented is not None:
                to_cover = distances.unit_points(represented, precision, pool.frame)
            measure = distances.cosine(x.shape[1], precision)
        return objective(
            pool,
            measure,
            to_cover,
            labelled=ground.given,
            weights=(ground.columns if ground.target is None else ground.target).get("weight"),
            quality=ground.columns.get("quality"),
            kept=self.kept(ground.n, ground.n if represented is None else represented.shape[0]),
            block=block,
            symmetric=represented is None and shards == 1,
            bounded=self.epsilon is None,
        )

    def maximize(self, objective: Objective, budget: int, *, n: int, block: int, key: jax.Array | None) -> Selection:
        if self.epsilon is None or key is None:
            return greedy.maximize(objective, budget, block=block)
        sample = stochastic.sample_size(n, budget, self.epsilon)
        return stochastic.maximize_stochastic(objective, budget, sample=sample, key=key)

    def gains(self, ground: Ground, rows: list[int]) -> np.ndarray:
        x, valid = float64.clean(ground.columns["embedding"])
        z, covered = (x, valid) if ground.target is None else float64.clean(ground.target["embedding"])
        if self.similarity == "rbf":
            scale = max(self.bandwidth * float(float64.squared_distances(x[valid], x[valid]).mean()), 1e-300)
            s = np.exp(-float64.squared_distances(x, z) / scale)
        else:
            lengths = [np.maximum(np.linalg.norm(a, axis=1), 1e-300) for a in (x, z)]
            s = np.maximum(x @ z.T / (lengths[0][:, None] * lengths[1]), 0)
        w = (ground.columns if ground.target is None else ground.target).get("weight", 1.0)
        chosen = [j for j in rows if valid[j]]
        cover = s[chosen].max(0) if chosen else np.zeros(len(z))
        gained = np.maximum(s - cover, 0) @ np.where(covered, np.asarray(w, np.float64), 0.0)
        return gained * np.asarray(ground.columns.get("quality", 1.0), np.float64)

    def advise(self, gains: np.ndarray, *, targets: int = 0) -> str | None:
        if gains.min() > (1 - _EVEN) * gains.max():
            return "every pick gained about the same: the kernel is too narrow to tell rows apart; raise the bandwidth"
        said = super().advise(gains)
        return None if said is None else f"{said}; or the kernel is too wide: lower the bandwidth"

    def plan(
        self,
        shape: Shape,
        *,
        form: str | None = None,
        similarity_dtype: str | None = None,
        memory: int | None = None,
        **how: Any,
    ) -> Plan:
        n, d, m = shape.n, shape.d, shape.n if shape.represented is None else shape.represented
        form, memory = form or self.form, self.memory if memory is None else memory
        similarity_dtype = similarity_dtype or self.similarity_dtype
        if similarity_dtype not in ("float32", "bfloat16"):
            raise ValueError(f"similarity_dtype must be 'float32' or 'bfloat16', got {similarity_dtype!r}")
        if form not in ("auto", "resident", "tiled"):
            raise ValueError(f"form must be 'auto', 'resident' or 'tiled', got {form!r}")
        size = jnp.dtype(similarity_dtype).itemsize
        if form == "auto":
            form = "resident" if size * n * m <= memory else "tiled"
        block = min(shape.block or (256 if form == "resident" else 128), n)
        work = n * m * d * (1 if shape.represented is None else 2)
        if form == "tiled":
            work += 2 * m * d * n  # every row is refreshed about once or twice in the first picks
        total = n * d * (shape.itemsize + shape.kept) + ROW * n + 4 * 2 * block * m
        total += size * m * n if form == "resident" else 0
        if form == "tiled" and shape.represented is None and ahead.pays(n, block):
            total += 12 * n * len(ahead.AHEAD)
        if shape.represented is not None:
            total += m * d * (shape.itemsize + shape.kept) + 4 * 5 * m
        return made(self.name, form, shape, total, work)


def facility_location(
    x: jax.Array,
    budget: int,
    *,
    similarity: Similarity = "rbf",
    bandwidth: float | jax.Array = DEFAULT_BANDWIDTH,
    represented: jax.Array | None = None,
    labelled: jax.Array | None = None,
    weights: jax.Array | None = None,
    quality: jax.Array | None = None,
    form: Form = "auto",
    similarity_dtype: Literal["float32", "bfloat16"] = "float32",
    memory: int = _MEMORY,
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
    columns, target = {"embedding": x}, None
    if represented is not None:
        target = {"embedding": represented} | ({} if weights is None else {"weight": weights})
    elif weights is not None:
        columns["weight"] = weights
    if quality is not None:
        columns["quality"] = quality
    ground = Ground(columns, given=labelled, target=target)
    return select(covering, ground, budget, key=key, block=block, precision=precision, shards=shards)
