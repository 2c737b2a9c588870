"""What the facility-location family shares: its knobs, its objective, its definition and its plan.

With s_ij the similarity of candidate j to row i, a gain is sum_i w_i max(min(s_ij, cap_i) - cover_i, 0) + bonus_j.
Which rows i are, and what cap, cover at the start and bonus are, is all that sets the members apart.
"""

from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .. import checks, geometry, greedy, stochastic
from ..geometry import Precision
from ..ground import Ground, method, option
from ..objective import Objective, Selection
from ..shapes import ROW, Plan, Shape, made
from . import ahead, cover
from .similar import Likeness, Measured, Similar, by_matrix

Form = Literal["auto", "resident", "tiled"]

DEFAULT_MEMORY = 4 << 30

SPENT = 5  # picks for each row of the target, after which mutual information has little left to gain


class Definition(NamedTuple):
    """What gains are made of, in float64: w (m,), cover (m,) at the start, bonus (n,); s (n, m) is capped already."""

    likeness: Likeness
    w: np.ndarray
    cover: np.ndarray
    bonus: np.ndarray


@method
class Covering(Similar):
    """A member of the family; what is its own it says in `covers_pool`, `terms` and `definition`."""

    takes: ClassVar[tuple[str, ...]] = ("weight", "quality", "similarity")
    targets = True

    form: Form = option("resident, tiled, or auto", default="auto", engine=True)
    similarity_dtype: Literal["float32", "bfloat16"] = option(
        "of similarities that are kept", default="float32", engine=True
    )
    memory: int = option("bytes of similarities up to which auto is resident", default=DEFAULT_MEMORY, engine=True)
    epsilon: float | None = option("stochastic greedy: looks at fewer rows a pick", default=None, above=0, below=1)

    halves: ClassVar[bool] = True  # s_ij = s_ji serves both rows, where the pool covers itself
    looks: ClassVar[bool] = False  # at the similarity of each row to the target, beside what it covers

    def terms(self, at: Measured, ground: Ground, block: int) -> dict[str, Any]:
        """gap, floor and bonus of `cover.objective`, traceable."""
        return {}

    def definition(self, ground: Ground) -> Definition:
        """What gains are made of; here, and before caps, covers and bonuses, those of facility location."""
        likeness = self.likeness(ground, to_target=not self.covers_pool(ground.target is not None))
        w = np.asarray(self._weighing(ground).get("weight", 1.0), np.float64)
        n, m = likeness.s.shape
        return Definition(likeness, np.where(likeness.counts, w, 0.0), np.zeros(m), np.zeros(n))

    def _weighing(self, ground: Ground) -> Any:
        """The columns of the rows that are covered."""
        own = ground.target is None or self.covers_pool(True)
        return ground.columns if own else ground.target

    @property
    def drawn(self) -> bool:
        return self.epsilon is not None

    @property
    def nested(self) -> bool:
        return self.epsilon is None  # how many rows are looked at depends on the budget

    def ready(self, ground: Ground, key: jax.Array | None) -> "tuple[Similar, Ground]":
        if self.form not in ("auto", "resident", "tiled"):
            raise ValueError(f"form must be 'auto', 'resident' or 'tiled', got {self.form!r}")
        if self.similarity_dtype not in ("float32", "bfloat16"):
            raise ValueError(f"similarity_dtype must be 'float32' or 'bfloat16', got {self.similarity_dtype!r}")
        if self.epsilon is not None and key is None:
            raise ValueError(f"epsilon={self.epsilon!r} needs key, a jax.random.key")
        made, ground = super().ready(ground, key)
        if ground.target is not None and "weight" in ground.target:
            m = next(a.shape[0] for name, a in ground.target.items() if name != "weight")
            weight = checks.check_vector(ground.target["weight"], m, "weights")
            ground = ground._replace(target={**ground.target, "weight": weight})
        for name, said in (("weight", "weights"), ("quality", "quality")):
            ground = checks.check_column(ground, name, said)
        return made, ground

    def kept(self, n: int, m: int) -> str | None:
        """The dtype of the similarities that are kept; None for tiles."""
        fits = jnp.dtype(self.similarity_dtype).itemsize * n * m <= self.memory
        return self.similarity_dtype if self.form == "resident" or (self.form == "auto" and fits) else None

    def block_for(self, n: int, m: int) -> int:
        return 256 if self.kept(n, m) else 128

    def objective(self, ground: Ground, *, block: int, precision: Precision, shards: int | None) -> Objective:
        at, there = self.measured(ground, precision), by_matrix(ground)
        own = self.covers_pool(ground.target is not None)
        to_cover = at.rows if own else at.target
        m = ground.n if to_cover is None else to_cover.norms.shape[0]
        return cover.objective(
            at.pool,
            at.own if own else at.aimed,
            to_cover,
            labelled=ground.given,
            weights=self._weighing(ground).get("weight"),
            quality=ground.columns.get("quality"),
            kept=None if there else self.kept(ground.n, m),
            block=block,
            symmetric=own and shards == 1 and not there,
            bounded=self.epsilon is None,
            **self.terms(at, ground, block),
        )

    def maximize(self, objective: Objective, budget: int, *, n: int, block: int, key: jax.Array | None) -> Selection:
        if self.epsilon is None or key is None:
            return greedy.maximize(objective, budget, block=block)
        sample = stochastic.sample_size(n, budget, self.epsilon)
        return stochastic.maximize_stochastic(objective, budget, sample=sample, key=key)

    def gains(self, ground: Ground, rows: list[int]) -> np.ndarray:
        (s, valid, _), w, start, bonus = self.definition(ground)
        held = np.maximum(start, s[[j for j in rows if valid[j]]].max(axis=0, initial=0))
        gained = np.maximum(s - held, 0) @ w + bonus
        return np.where(valid, gained * np.asarray(ground.columns.get("quality", 1.0), np.float64), np.nan)

    def plan(
        self,
        shape: Shape,
        *,
        form: str | None = None,
        similarity_dtype: str | None = None,
        memory: int | None = None,
        **how: Any,
    ) -> Plan:
        n, d = shape.n, shape.d
        aimed = shape.represented if shape.represented is not None else n if self.needs_target else 0
        own = self.covers_pool(shape.represented is not None)
        m, once = n if own else aimed, own and self.halves
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
        work = n * m * d * (1 if once else 2) + (2 * n * aimed * d if self.looks else 0)
        if form == "tiled":
            work += 2 * m * d * n  # every row is refreshed about once or twice in the first picks
        total = n * d * (shape.itemsize + shape.kept) + ROW * n + 4 * 2 * block * m
        total += size * m * n if form == "resident" else 0
        if form == "resident" and self.looks and not own:  # who is nearest is looked for in similarities made anew
            total += 2 * 4 * (n * m if n * m <= geometry._WHOLE_ELEMENTS else geometry._TILE_ELEMENTS)
        if form == "tiled" and once and ahead.pays(n, block):
            total += 12 * n * len(ahead.AHEAD)
        total += aimed * (d * (shape.itemsize + shape.kept) + 4 * 5)
        return made(self.name, form, shape, total, work)


def spent(picks: int, targets: int) -> str | None:
    """The sentence for a budget that outlives the target; None where it does not, or where no target is known.

    >>> spent(10, 2), spent(11, 2)[:34]
    (None, '11 picks of a target of 2 rows: be')
    """
    if not targets or picks <= SPENT * targets:
        return None
    return (
        f"{picks} picks of a target of {targets} rows: beyond {SPENT} a row the target is spent, and what is left is "
        "similarity alone"
    )
