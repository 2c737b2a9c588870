"""`dspn`: a function learned from facility location on the rows themselves, and then maximised in place of it."""

from __future__ import annotations

import dataclasses
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from edjax.kernels import FeatureBased, Ground, Method, Plan, method, option
from edjax.kernels.geometry import Precision
from edjax.kernels.objective import Objective
from edjax.kernels.shapes import Shape, resident


@method
class Dspn(Method):
    """Pick rows greedily to maximise F(A) = sum_f w_f ln(1 + sum_{j in A} c_jf), w and c of 0 or more learned.

    A deep submodular peripteral network after Bhatt, Das & Bilmes 2024, arXiv 2403.08199: the pillar, a network of two
    layers, makes features c (n, width) of rows, their sum over a set goes through a concave roof, and the whole is
    fitted to which of two sets facility location finds worth more, and how clearly, by the peripteral loss. Learning
    looks at 1,000 rows at most; after it, a pick costs `feature_based`'s time, linear in n.

    Not known from the paper, and ours: the network's size, one layer of roof, how sets are drawn, the constants of the
    loss (none), and that learner and oracle are both scaled to 1 for all rows.

    Raises:
        ValueError: inside `jit` or `vmap`, since the fit depends on the rows.

    Cost: a fit, see `edjax.selection.dspn.fit`; then as `feature_based` with `width` features. Memory: 4 n width bytes,
    and 8 MB for each 1,000 sets.
    """

    steps: int = option("steps of fitting; 0 takes the features as they begin", default=300, least=0)
    width: int = option("how many features are learned", default=256, least=1)
    sets: int = option("pairs of sets that are compared, a round of fitting", default=1024, least=1)
    seed: int = option("of what is drawn in fitting", default=0, least=0)

    name = "dspn"
    summary = "features, learned from facility location, that few picks hold count most"
    paper = "Bhatt, Das & Bilmes 2024, arXiv 2403.08199"

    def ready(self, ground: Ground, key: jax.Array | None) -> tuple[Method, Ground]:
        return self._fitted(ground), ground

    def _fitted(self, ground: Ground) -> _Fitted:
        """The function, fitted to these rows, as a method."""
        from edjax.selection import dspn

        x = ground.columns["embedding"]
        if isinstance(x, jax.core.Tracer):
            raise ValueError("dspn fits a function to the rows: call it outside jit and vmap")
        knobs = {field.name: _whole(field, getattr(self, field.name)) for field in dataclasses.fields(self)}
        x = jnp.asarray(x, jnp.float32)
        sound = jnp.isfinite(x).all(axis=1)
        rows = np.asarray(x[np.flatnonzero(sound)])
        if not len(rows):
            rows = np.zeros((1, x.shape[1]), np.float32)  # a function of no rows, to give NaN to all
        model = dspn.fit(rows, **knobs)
        counts = jnp.where(sound[:, None], model.pillar(jnp.where(sound[:, None], x, 0)), jnp.nan)
        return _Fitted(dspn.by_features(model), counts)

    def gains(self, ground: Ground, rows: list[int]) -> np.ndarray:
        return self._fitted(ground).gains(ground, rows)

    def plan(self, shape: Shape, *, form: str | None = None, **how: Any) -> Plan:
        from edjax.selection.dspn import FITTED

        m, f = min(FITTED, shape.n), min(self.width, FITTED, shape.n)
        work = 6 * self.steps * m * f * (shape.d + f) + 2 * shape.n * f * (shape.d + f)
        return resident(self.name, shape, form, work, 12 * shape.n * f + 8 * m * self.sets)


def _whole(field: dataclasses.Field[Any], value: Any) -> int:
    """A knob as an int, whatever kind of whole number it is."""
    least = field.metadata["least"]
    if hasattr(value, "__index__") and not isinstance(value, bool) and operator.index(value) >= least:
        return operator.index(value)
    raise ValueError(f"{field.name} must be a whole number of {least} or more, got {value!r}")


@method
class _Fitted(Method):
    """A `Dspn` once it is fitted, with the features (n, f) of its own: columns stay as they are for other methods."""

    by: FeatureBased = option("the fitted function, of features", default=FeatureBased(column="counts"), traced=True)
    counts: Any = option("the rows' features", default=None, traced=True)

    name, summary, paper = Dspn.name, Dspn.summary, Dspn.paper

    def objective(self, ground: Ground, *, block: int, precision: Precision, shards: int | None) -> Objective:
        return self.by.objective(self._own(ground), block=block, precision=precision, shards=shards)

    def gains(self, ground: Ground, rows: list[int]) -> np.ndarray:
        return self.by.gains(self._own(ground), rows)

    def _own(self, ground: Ground) -> Ground:
        return ground._replace(columns={"counts": self.counts})
