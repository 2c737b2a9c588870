"""`dspn`: a function learned from facility location on the rows themselves, and then maximised in place of it."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from edjax.kernels import Ground, Method, Plan, method, option
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
        made, ground = self._fitted(ground)
        return made.ready(ground, key)

    def _fitted(self, ground: Ground) -> tuple[Method, Ground]:
        """The fitted function as a method, and the ground with the features that it reads."""
        from edjax.selection import dspn

        x = ground.columns["embedding"]
        if isinstance(x, jax.core.Tracer):
            raise ValueError("dspn fits a function to the rows: call it outside jit and vmap")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int) or value < field.metadata["least"]:
                raise ValueError(
                    f"{field.name} must be a whole number of {field.metadata['least']} or more, got {value!r}"
                )
        x = jnp.asarray(x, jnp.float32)
        sound = jnp.isfinite(x).all(axis=1)
        rows = np.asarray(x[np.flatnonzero(sound)])
        rest = {name: column for name, column in ground.columns.items() if name != "embedding"}
        if not len(rows):
            rows = np.zeros((1, x.shape[1]), np.float32)  # a function of no rows, to give NaN to all
        model = dspn.fit(rows, width=self.width, steps=self.steps, sets=self.sets, seed=self.seed)
        counts = jnp.where(sound[:, None], model.pillar(jnp.where(sound[:, None], x, 0)), jnp.nan)
        return dspn.by_features(model), ground._replace(columns={"counts": counts, **rest})

    def gains(self, ground: Ground, rows: list[int]) -> np.ndarray:
        made, ground = self._fitted(ground)
        return made.gains(ground, rows)

    def plan(self, shape: Shape, *, form: str | None = None, **how: Any) -> Plan:
        from edjax.selection.dspn import FITTED

        m, f = min(FITTED, shape.n), min(self.width, FITTED, shape.n)
        work = 6 * self.steps * m * f * (shape.d + f) + 2 * shape.n * f * (shape.d + f)
        return resident(self.name, shape, form, work, 12 * shape.n * f + 8 * m * self.sets)
