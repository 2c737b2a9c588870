"""Scores: the rows of largest value in a column, whatever else was picked."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from .. import checks
from ..geometry import Precision
from ..ground import Ground, Method, method
from ..modular import modular
from ..objective import Objective
from ..plan import Plan, Shape, made


class Score(Method):
    """Largest value of a column first; ties go to the lowest row. A row whose value is not finite is picked last."""

    @property
    def column(self) -> str:
        """What is sorted by."""
        return self.name

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.column,)

    def ready(self, ground: Ground, key: jax.Array | None) -> "tuple[Score, Ground]":
        values = checks.check_scores(ground.columns[self.column], ground.n, self.column)
        return self, ground._replace(columns={**ground.columns, self.column: values})

    def objective(self, ground: Ground, *, block: int, precision: Precision, shards: int | None) -> Objective:
        return modular(ground.columns[self.column], ground.given)

    def gains(self, ground: Ground, rows: list[int]) -> np.ndarray:
        return np.asarray(ground.columns[self.column], np.float64)

    def plan(self, shape: Shape, **how: object) -> Plan:
        return made(self.name, "sort", shape, 4 * shape.n, 0)


@cache
def score_of(column: str) -> Score:
    """The method that sorts by a column of any name."""
    return method(type(column, (Score,), {"name": column, "summary": f"largest {column}", "paper": "yours"}))()


@method
class MeanEntropy(Score):
    name = "mean_entropy"
    summary = "largest mean entropy of the model's answer"
    paper = "Bhatt et al. 2024, arXiv 2401.06692, section 3.1"


@method
class MaxEntropy(Score):
    name = "max_entropy"
    summary = "largest entropy of any token of it"
    paper = "Bhatt et al. 2024, arXiv 2401.06692, section 3.1"


@method
class LeastConfidence(Score):
    name = "least_confidence"
    summary = "smallest probability of the whole answer"
    paper = "Culotta & McCallum 2005; Bhatt et al. 2024, arXiv 2401.06692"


@method
class MeanNll(Score):
    name = "mean_nll"
    summary = "largest negative log-likelihood a token"
    paper = "Settles 2009; least confidence with the length divided out"


@method
class MeanMargin(Score):
    name = "mean_margin"
    summary = "smallest mean gap between the two top tokens"
    paper = "Scheffer, Decomain & Wrobel 2001; Bhatt et al. 2024, arXiv 2401.06692"


@method
class MinMargin(Score):
    name = "min_margin"
    summary = "smallest gap at any token"
    paper = "Scheffer, Decomain & Wrobel 2001; Bhatt et al. 2024, arXiv 2401.06692"


@method
class Random(Method):
    """A shuffle: by `key`, or by the column "draw" (n,) where there is one, its smallest values first."""

    name = "random"
    summary = "uniformly at random: what every other strategy is compared with"
    paper = "none: the yardstick"
    needs = ()
    takes = ("draw",)

    def ready(self, ground: Ground, key: jax.Array | None) -> "tuple[Random, Ground]":
        draw = ground.columns.get("draw")
        if draw is None:
            if key is None:
                raise ValueError("random needs key, a jax.random.key, or a column 'draw'")
            draw = jax.random.uniform(key, (ground.n,), jnp.float32)
        return self, ground._replace(columns={**ground.columns, "draw": checks.check_scores(draw, ground.n, "draw")})

    def objective(self, ground: Ground, *, block: int, precision: Precision, shards: int | None) -> Objective:
        return modular(-ground.columns["draw"], ground.given)

    def gains(self, ground: Ground, rows: list[int]) -> np.ndarray:
        return -np.asarray(ground.columns["draw"], np.float64)

    def plan(self, shape: Shape, **how: object) -> Plan:
        return made(self.name, "sort", shape, 4 * shape.n, 0)
