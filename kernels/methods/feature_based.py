"""Feature-based functions: a row counts for the features that the picks hold little of."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from .. import checks, float64
from ..from_gains import from_gains
from ..geometry import Precision
from ..ground import Ground, Method, method, option
from ..objective import Objective
from ..shapes import Plan, Shape, resident


@method
class FeatureBased(Method):
    """Pick rows greedily to maximise F(S) = sum_f w_f g(sum_{j in S} c_jf), with g concave and c of 0 or more.

    Every further row with a feature counts less. g is the square root, ln(1 + c), or min(c, cap). Linear in n, where
    facility location is quadratic: the family of which deep submodular functions learn the aggregation (Bhatt, Das &
    Bilmes 2024, arXiv 2403.08199). At least 1 - 1/e of the best value (Nemhauser, Wolsey & Fisher 1978).

    columns: with `column="embedding"` the features of a row are the positive and the negative parts of its embedding
    (n, d), 2 d in number; with "counts" the column "counts" (n, f), such as counts of words or shares of clusters. A
    row that holds NaN is picked last. weights: (f,) 0 or more, one a feature, (2 d,) for the embedding, positive parts
    first.

    Cost: n f for the first gains and 256 f a pick. Memory: two copies of the rows.

    >>> from ..ground import select
    >>> counts = jnp.array([[4.0, 0, 0], [0, 4, 0], [2, 2, 0], [0, 0, 1], [3, 1, 0]])
    >>> picks = select(FeatureBased(column="counts"), Ground({"counts": counts}), 3)
    >>> picks.indices.tolist(), [round(float(g), 4) for g in picks.gains]
    ([2, 4, 3], [2.8284, 1.1397, 1.0])
    """

    concave: Literal["sqrt", "log1p", "min"] = option(
        "how a feature saturates: sqrt, log1p, or min with cap", default="sqrt", choices=("sqrt", "log1p", "min")
    )
    cap: Any = option("what a feature is full at, for min", default=1.0, traced=True, above=0)
    column: Literal["embedding", "counts"] = option(
        "where features are from: both signs of the embedding, or counts",
        default="embedding",
        choices=("embedding", "counts"),
    )
    weights: Any = option("one a feature; default ones", default=None, traced=True, engine=True)

    name = "feature_based"
    summary = "features that few picks hold count most"
    paper = "Wei, Liu, Kirchhoff & Bilmes 2014, ICASSP; Bhatt, Das & Bilmes 2024, arXiv 2403.08199"

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.column,)

    @property
    def dims(self) -> Mapping[str, int]:
        return {"counts": 2}

    def ready(self, ground: Ground, key: jax.Array | None) -> "tuple[FeatureBased, Ground]":
        for name, value, known in (
            ("concave", self.concave, ("sqrt", "log1p", "min")),
            ("column", self.column, ("embedding", "counts")),
        ):
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
        checks.check_positive(self.cap, "cap")
        values = checks.check_pool(ground.columns[self.column], self.column)
        if self.column == "counts" and not isinstance(values, jax.core.Tracer):
            negative = np.asarray(jnp.min(jnp.nan_to_num(values, nan=0.0), axis=1) < 0)
            if negative.any():
                raise ValueError(f"counts must be 0 or more, and row {int(np.argmax(negative))} holds less")
        made = self
        if self.weights is not None:
            count = values.shape[1] * (2 if self.column == "embedding" else 1)
            made = replace(self, weights=checks.check_vector(self.weights, count, "weights"))
        return made, ground._replace(columns={**ground.columns, self.column: values})

    def objective(self, ground: Ground, *, block: int, precision: Precision, shards: int | None) -> Objective:
        x = ground.columns[self.column].astype(jnp.float32)
        sound = jnp.isfinite(x).all(axis=1)
        x = jnp.where(sound[:, None], x, 0)
        f = x.shape[1]
        w = self.weights

        # Of the two features of an entry, the positive and the negative part, a row has one: (2, d) are held, and no
        # copy of the rows with twice the columns is made.
        def two_signs(held, rows):
            above = rows > 0
            weight = 1.0 if w is None else jnp.where(above, w[:f], w[f:])
            return jnp.sum(weight * self._rise(jnp.where(above, held[0], held[1]), jnp.abs(rows)), axis=-1)

        def one_sign(held, rows):
            return jnp.sum((1.0 if w is None else w) * self._rise(held, rows), axis=-1)

        def add(held, row):
            return held + jnp.stack([jnp.maximum(row, 0), jnp.maximum(-row, 0)])

        if self.column == "embedding":
            return from_gains(x, jnp.zeros((2, f)), two_signs, add, given=ground.given, valid=sound)
        return from_gains(x, jnp.zeros(f), one_sign, jnp.add, given=ground.given, valid=sound)

    def _rise(self, held: jax.Array, more: jax.Array) -> jax.Array:
        """g(held + more) - g(held), in a form in which nothing cancels."""
        if self.concave == "sqrt":
            return more / jnp.where(more > 0, jnp.sqrt(held + more) + jnp.sqrt(held), 1)
        if self.concave == "log1p":
            return jnp.log1p(more / (1 + held))
        return jnp.minimum(more, jnp.maximum(self.cap - held, 0))

    def gains(self, ground: Ground, rows: list[int]) -> np.ndarray:
        x, valid = float64.clean(ground.columns[self.column])
        c = x if self.column == "counts" else np.concatenate([np.maximum(x, 0), np.maximum(-x, 0)], axis=1)

        def g(v: np.ndarray) -> np.ndarray:
            if self.concave == "min":
                return np.minimum(v, float(self.cap))
            return np.sqrt(v) if self.concave == "sqrt" else np.log1p(v)

        held = c[rows].sum(axis=0)
        w = np.ones(c.shape[1]) if self.weights is None else np.asarray(self.weights, np.float64)
        return np.where(valid, (g(held + c) - g(held)) @ w, np.nan)

    def plan(self, shape: Shape, *, form: str | None = None, **how: Any) -> Plan:
        block = min(shape.block or self.block_for(shape.n, shape.n), shape.n)
        return resident(self.name, shape, form, 0, 4 * (block + 4) * shape.d)
