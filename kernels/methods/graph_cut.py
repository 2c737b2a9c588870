"""Graph cut: picks that are like many rows and unlike each other."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .. import distances
from ..distances import Unlikeness
from ..geometry import Points, Precision
from ..ground import Ground, method, option, select
from ..objective import EXCLUDED, INVALID, Block, Objective, Selection
from ..shapes import Plan, Shape, blocked
from . import cover
from .similar import DEFAULT_BANDWIDTH, Similar, Similarity, by_matrix, clean, grounded

_CHUNK = 32  # picks a matrix product takes at a time, as in `k_center`


@method
class GraphCut(Similar):
    """Representation less redundancy: see `graph_cut`."""

    name = "graph_cut"
    summary = "chosen prompts are like many and unlike each other"
    paper = "Iyer & Bilmes 2013, arXiv 1311.2110; Iyer, Khargoankar, Bilmes & Asnani 2021, arXiv 2006.15412"

    lam: Any = option("weight of the picks' similarity to each other", default=0.5, traced=True, least=0)

    shares: ClassVar[tuple[str, ...]] = ("lam",)

    def objective(self, ground: Ground, *, block: int, precision: Precision, shards: int | None) -> Objective:
        at, there = self.measured(ground, precision), by_matrix(ground)
        # What no pick covers yet gains each row the sum of its similarities: facility location's first gains.
        symmetric = shards == 1 and not there
        first = cover.objective(at.pool, at.own, at.rows, block=block, symmetric=symmetric, kept=None, lookahead=False)
        whole = jnp.maximum(first.init()[1], 0)
        both, itself, sums = at.own, jnp.where(at.pool.norms < jnp.inf, 1.0, 0.0), 2 * whole
        if there:
            s = clean(ground.columns["similarity"])[0]
            both, itself, sums = distances.of_matrix((s + s.T) / 2), jnp.diagonal(s), jnp.sum(s + s.T, axis=0)
        return objective(at.pool, both, whole, itself, sums, self.lam, given=ground.given)

    def _sides(self, ground: Ground) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """sum_i s_ij (n,), s_ij + s_ji (n, n), and which may be picked; float64."""
        s, valid, _ = self.likeness(ground, to_target=False)
        return s.sum(axis=1), s + s.T, valid

    def gains(self, ground: Ground, rows: list[int]) -> np.ndarray:
        whole, both, valid = self._sides(ground)
        held = both[[j for j in rows if valid[j]]].sum(axis=0) + np.diagonal(both) / 2
        return np.where(valid, whole - float(self.lam) * held, np.nan)

    def nothing(self, ground: Ground) -> float:
        whole, both, valid = self._sides(ground)
        least = whole - float(self.lam) * (both.sum(axis=0) - np.diagonal(both) / 2)
        return min(0.0, float(np.min(least, where=valid, initial=0.0)))

    def advise(self, gains: np.ndarray, *, targets: int = 0) -> str | None:
        if (below := int((gains < 0).sum())) > 0:
            return f"{below} of {len(gains)} picks lower the cut: a smaller budget, or a smaller lam"
        return super().advise(gains, targets=targets)

    def plan(self, shape: Shape, *, form: str | None = None, **how: Any) -> Plan:
        n, d = shape.n, shape.d
        block = min(shape.block or self.block_for(n, n), n)
        work = n * n * d + 2 * n * d * shape.budget
        return blocked(self.name, shape, form or "auto", work, 4 * block * (block + d))


def graph_cut(
    x: jax.Array | None,
    budget: int,
    *,
    lam: float | jax.Array = 0.5,
    similarity: Similarity = "cosine",
    bandwidth: float | jax.Array = DEFAULT_BANDWIDTH,
    similarities: jax.Array | None = None,
    labelled: jax.Array | None = None,
    block: int | None = None,
    precision: Precision = "highest",
    shards: int | None = None,
) -> Selection:
    """Pick rows greedily to maximise f(A) = sum_{i in V, j in A} s_ij - lam sum_{i, j in A} s_ij.

    The generalised graph cut (Iyer & Bilmes 2013, arXiv 1311.2110; `GraphCut` of submodlib). The gain of j is
    sum_i s_ij - lam (s_jj + sum_{a in A} (s_ja + s_aj)). As s is 0 or more, f is submodular for every lam of 0 or more;
    for symmetric s it is monotone for lam up to 1/2, where greedy reaches 1 - 1/e of the best value. Beyond, gains may
    be negative, and picks go on in their order: end them with `until`. lam = 1 is the cut between A and the rest.
    Gains that are equal in exact numbers may differ by rounding.

    Its mutual information with a target Q is 2 lam sum_{j in A} sum_q s_qj (Iyer, Khargoankar, Bilmes & Asnani 2021,
    arXiv 2006.15412): modular, so that there is no method for it. Sorting rows by their similarity to the target is it.

    Args:
        x: (n, d) rows. A row that holds NaN or infinity is picked last, with gain -inf, and counts for none.
        budget: how many rows, 0 <= budget <= n - labelled.
        lam: 0 or more.
        labelled: (p,) int indices of rows that are in A from the start and never picked.
        similarities: (n, n) your own, in place of x, which may then be None; see `facility_location`. Of asymmetric
            ones the first sum takes s_ij, of row i for pick j; large s_ji may make gains negative for any lam above 0.
        similarity, bandwidth, block, precision, shards: as in `facility_location`.

    Raises:
        ValueError: naming the value, for a bad shape, budget, block, option or row index.

    Cost: n^2 d FLOPs for the sums of similarities, then 2 n d a pick. Memory: one copy of x; no similarity is kept.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8]])
    >>> picks = graph_cut(x, 3, lam=0.4)
    >>> picks.indices.tolist(), [round(float(g), 2) for g in picks.gains]
    ([1, 2, 0], [2.36, 1.39, 0.88])
    """
    ground = grounded(x, similarities, labelled=labelled)
    chosen = GraphCut(similarity=similarity, bandwidth=bandwidth, lam=lam)
    return select(chosen, ground, budget, block=block, precision=precision, shards=shards)


def objective(
    pool: Points,
    both: Unlikeness,
    whole: jax.Array,
    itself: jax.Array,
    sums: jax.Array,
    lam: jax.Array,
    *,
    given: jax.Array | None,
) -> Objective:
    """Graph cut as an `Objective`; the state is the gain of every row, (n,) float32, exact after each commit.

    both: how (s_ij + s_ji) / 2 is measured. whole, itself, sums: (n,) sum_i s_ij, s_jj and sum_i (s_ij + s_ji).
    Internal gains count from the least that a gain can come to, that of a row picked last, where that is below 0.
    """
    chosen = jnp.zeros(0, jnp.int32) if given is None else given
    least = jnp.min(jnp.where(pool.valid, whole - lam * (sums - itself), 0), initial=0)

    def similar(ids, others):
        rows = pool.take(ids)
        return jnp.where(rows.valid[:, None], 2 * lam * (both.most - both.between(rows, others, None)), 0)

    def lowered(gains, ids, count):
        """The gains after the first `count` of some rows were picked, a chunk of these at a time."""
        size = min(_CHUNK, ids.shape[0])
        ids = jnp.pad(ids, (0, -ids.shape[0] % size), mode="edge")

        def step(i, gains):
            some = lax.dynamic_slice_in_dim(ids, i * size, size)
            there = (i * size + jnp.arange(size) < count)[:, None]
            return gains - jnp.sum(jnp.where(there, similar(some, pool), 0), axis=0)

        # A gain that rounding takes below 0 would be read as a mark.
        return jnp.maximum(lax.fori_loop(0, (count + size - 1) // size, step, gains), 0)

    def init():
        gains = jnp.maximum(whole - lam * itself - least, 0)
        gains = lowered(gains, chosen, chosen.shape[0]) if chosen.shape[0] else gains
        return gains, jnp.where(pool.valid, gains, INVALID).at[chosen].set(EXCLUDED)

    def refresh(gains, ids):
        return Block(jnp.where(pool.valid[ids], gains[ids], INVALID), (similar(ids, pool.take(ids)), ids), ())

    def take(fixed, live, gains, j):
        return live, jnp.where(gains < 0, gains, jnp.maximum(gains - fixed[0][j], 0))

    def commit(gains, bounds, block, order, count):
        gains = lowered(gains, block.fixed[1][order], count)
        return gains, jnp.where(bounds < 0, bounds, gains)

    return Objective(init, refresh, take, commit, report=lambda gains: gains + least)
