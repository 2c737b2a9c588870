"""Scores: the rows of largest value in a column, whatever else was picked."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import checks
from ..geometry import Precision
from ..ground import Ground, Method, method, option
from ..modular import modular
from ..objective import Objective
from ..shapes import Plan, Shape, made


class Sorted(Method):
    """A method whose order is a sort: no pick changes what another row is worth."""

    valued = True

    def order_by(self, ground: Ground) -> Any:
        """(n,) what falls along the order; ties go to the lowest row."""
        raise NotImplementedError(f"{self.name} does not say what it sorts by: write its order_by()")

    def objective(self, ground: Ground, *, block: int, precision: Precision, shards: int | None) -> Objective:
        return modular(self.order_by(ground), ground.given)

    def gains(self, ground: Ground, rows: list[int]) -> np.ndarray:
        value = np.asarray(self.order_by(ground), np.float64)
        return np.where(np.isfinite(value), value, np.nan)

    def nothing(self, ground: Ground) -> float:
        return float(np.nanmin(self.gains(ground, []), initial=np.inf))

    def plan(self, shape: Shape, *, form: str | None = None, **how: Any) -> Plan:
        if form not in (None, "auto", "sort"):
            raise ValueError(f"form must be 'auto' or 'sort', got {form!r}")
        return made(self.name, "sort", shape, 4 * shape.n, 0)


class Score(Sorted):
    """Largest value of a column first; ties go to the lowest row. A row whose value is not finite is picked last."""

    @property
    def column(self) -> str:
        """What is sorted by."""
        return self.name

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.column,)

    @property
    def dims(self) -> Mapping[str, int]:
        return {self.column: 1}

    def ready(self, ground: Ground, key: jax.Array | None) -> "tuple[Score, Ground]":
        values = checks.check_scores(ground.columns[self.column], ground.n, self.column)
        return self, ground._replace(columns={**ground.columns, self.column: values})

    def order_by(self, ground: Ground) -> Any:
        return ground.columns[self.column]


@method
class Column(Score):
    """The score of a column of any name."""

    of: str = option("the column", default="", engine=True)
    paper = "none: a column of your own"

    @property
    def name(self) -> str:
        return self.of

    @property
    def summary(self) -> str:
        return f"largest {self.of}"


def score_of(column: str) -> Score:
    """The method that sorts by a column of any name.

    >>> score_of("length").needs
    ('length',)
    """
    return Column(column)


@method
class MeanEntropy(Score):
    name = "mean_entropy"
    summary = "largest mean entropy of the tokens of the model's answer"
    paper = "Bhatt et al. 2024, arXiv 2401.06692, section 3.1"


@method
class MaxEntropy(Score):
    name = "max_entropy"
    summary = "largest entropy of any token of the model's answer"
    paper = "Bhatt et al. 2024, arXiv 2401.06692, section 3.1"


@method
class LeastConfidence(Score):
    name = "least_confidence"
    summary = "smallest probability of the model's whole answer"
    paper = "Culotta & McCallum 2005; Bhatt et al. 2024, arXiv 2401.06692"


@method
class MeanNll(Score):
    name = "mean_nll"
    summary = "largest negative log-likelihood a token of the model's answer"
    paper = "Settles 2009; least confidence with the length divided out"


@method
class MeanMargin(Score):
    name = "mean_margin"
    summary = "smallest mean gap between the two most likely tokens"
    paper = "Scheffer, Decomain & Wrobel 2001; Bhatt et al. 2024, arXiv 2401.06692"


@method
class MinMargin(Score):
    name = "min_margin"
    summary = "smallest gap between the two most likely tokens, anywhere in the answer"
    paper = "Scheffer, Decomain & Wrobel 2001; Bhatt et al. 2024, arXiv 2401.06692"


@method
class Energy(Score):
    name = "energy"
    summary = "largest energy of the model at the end of the prompt: unlike what it knows"
    paper = "Liu, Wang, Owens & Li 2020, arXiv 2010.03759; Xie et al. 2024, arXiv 2411.06353"


@method
class GradNorm(Score):
    """Largest negative norm first, so the smallest norm."""

    name = "grad_norm"
    summary = "smallest gradient of the output head at the end of the prompt: unlike what the model knows"
    paper = "Huang, Geng & Li 2021, arXiv 2110.00218; Xie et al. 2024, arXiv 2411.06353"


@method
class Random(Sorted):
    """A shuffle: by `key`, or by the column "draw" (n,) where there is one, its smallest values first."""

    name = "random"
    summary = "drawn by chance: what every other strategy is compared with"
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

    def order_by(self, ground: Ground) -> Any:
        return -ground.columns["draw"]
