"""Similarities of a pool's rows to each other and to a target's: a kernel of the embeddings, or made by somebody.

A matrix of one's own is the column "similarity", of the pool (n, n), of the target (m, n): its rows are what is
represented, its columns the rows to pick from, and it may be asymmetric.
"""

from dataclasses import replace
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .. import checks, distances, float64, geometry
from ..distances import Unlikeness
from ..geometry import Points, Precision
from ..ground import Ground, Method, method, option

Similarity = Literal["rbf", "cosine"]

DEFAULT_BANDWIDTH = 0.25


class Measured(NamedTuple):
    """Rows and how they are measured: own, candidates to rows of the pool; aimed, candidates to rows of the target;
    back, rows of the target to those of the pool. rows: the pool's as what is covered, where that is not `pool`."""

    pool: Points
    rows: Points | None
    own: Unlikeness
    target: Points | None
    aimed: Unlikeness
    back: Unlikeness


class Likeness(NamedTuple):
    """Similarities in float64: s (n, m) of candidates to rows; valid (n,), counts (m,): which of them hold numbers."""

    s: np.ndarray
    valid: np.ndarray
    counts: np.ndarray


@method
class Similar(Method):
    """A method of similarities of 0 or more."""

    takes: ClassVar[tuple[str, ...]] = ("similarity",)

    similarity: Similarity = option("rbf or cosine", default="cosine", choices=("rbf", "cosine"))
    bandwidth: Any = option(
        "kernel width, as a share of the mean squared distance", default=DEFAULT_BANDWIDTH, traced=True, above=0
    )

    shares: ClassVar[tuple[str, ...]] = ()  # knobs that must be finite and 0 or more

    def covers_pool(self, targeted: bool) -> bool:
        """Whether it reads how similar the pool's rows are to each other; targeted: where the ground has a target."""
        return True

    def ready(self, ground: Ground, key: jax.Array | None) -> "tuple[Similar, Ground]":
        if self.similarity not in ("rbf", "cosine"):
            raise ValueError(f"similarity must be 'rbf' or 'cosine', got {self.similarity!r}")
        checks.check_positive(self.bandwidth, "bandwidth")
        traced: dict[str, Any] = {name: checks.check_share(getattr(self, name), name) for name in self.shares}
        if by_matrix(ground):
            ground = self._matrices(ground)
        elif ground.target is not None:
            x, aim = ground.columns["embedding"], checks.check_pool(ground.target["embedding"], "the target")
            if aim.shape[1] != x.shape[1]:
                raise ValueError(f"the target has {aim.shape[1]} features, and x has {x.shape[1]}: embed both alike")
            ground = ground._replace(target={**ground.target, "embedding": aim})
        return replace(self, bandwidth=jnp.asarray(self.bandwidth, jnp.float32), **traced), ground

    def _matrices(self, ground: Ground) -> Ground:
        """The ground with the matrices that are read checked, in float32."""
        columns, target, n = dict(ground.columns), ground.target, ground.n
        if self.covers_pool(target is not None):
            columns["similarity"] = _matrix(columns, n, f"the column 'similarity' must be ({n}, {n})")
            if columns["similarity"].shape[0] != n:
                raise ValueError(
                    f"the column 'similarity' must be ({n}, {n}), got {columns['similarity'].shape}; similarities to "
                    "other rows are a column of the target"
                )
        if target is not None:
            target = {**target, "similarity": _matrix(target, n, f"the target's column 'similarity' must be (m, {n})")}
        return ground._replace(columns=columns, target=target)

    def measured(self, ground: Ground, precision: Precision) -> Measured:
        """The rows, traceable."""
        if by_matrix(ground):
            return self._measured_by_matrix(ground)
        x = ground.columns["embedding"]
        aim = None if ground.target is None else ground.target["embedding"]
        target = None
        if self.similarity == "rbf":
            frame = geometry.own_frame(x, others=() if aim is None else (aim,))
            pool = geometry.points(x, frame=frame, precision=precision)
            if aim is not None:
                target = geometry.points(aim, frame=frame, precision=precision)
            gamma = self.bandwidth * geometry.mean_squared_distance(pool)
            measure = distances.rbf(gamma, x.shape[1], precision)
        else:
            pool = distances.unit_points(x, precision)
            if aim is not None:
                target = distances.unit_points(aim, precision, pool.frame)
            measure = distances.cosine(x.shape[1], precision)
        return Measured(pool, None, measure, target, measure, measure)

    def _measured_by_matrix(self, ground: Ground) -> Measured:
        own = aimed = back = distances.of_matrix(jnp.zeros((0, 0)))
        target, rows, valid = None, None, jnp.ones(ground.n, bool)
        if ground.target is not None:
            s, valid, counts = clean(ground.target["similarity"])
            target, aimed, back = distances.matrix_points(counts), distances.of_matrix(s.T), distances.of_matrix(s)
        if self.covers_pool(ground.target is not None):
            s, valid, counts = clean(ground.columns["similarity"])
            rows, own = distances.matrix_points(counts), distances.of_matrix(s.T)
        return Measured(distances.matrix_points(valid), rows, own, target, aimed, back)

    def likeness(self, ground: Ground, *, to_target: bool) -> Likeness:
        """Of the candidates to the target's rows or to the pool's, by definition: the oracle's."""
        rows = ground.target if to_target and ground.target is not None else ground.columns
        if by_matrix(ground):
            s, valid, counts = clean(np.asarray(rows["similarity"], np.float64), np)
            return Likeness(s.T, valid, counts)
        (x, valid), (z, counts) = float64.clean(ground.columns["embedding"]), float64.clean(rows["embedding"])
        if self.similarity == "rbf":
            scale = max(self.bandwidth * float(float64.squared_distances(x[valid], x[valid]).mean()), 1e-300)
            s = np.exp(-float64.squared_distances(x, z) / scale)
        else:
            s = np.maximum(float64.cosines(x, z), 0)
        return Likeness(np.where(valid[:, None] & counts, s, 0), valid, counts)


def by_matrix(ground: Ground) -> bool:
    """Whether similarities are given, and embeddings are not looked at."""
    return "similarity" in ground.columns or "similarity" in (ground.target or ())


def grounded(
    x: Any, similarities: Any, target: Any = None, *, labelled: Any = None, of_target: Any = None, **columns: Any
) -> Ground:
    """The ground of a function's arguments: embeddings of the pool x and of a target, or similarities of the pool and
    `of_target`; and columns of the pool, None where there is none."""
    aim = {"embedding": target, "similarity": of_target}
    aim = {name: a for name, a in aim.items() if a is not None}
    there = {"embedding": x, "similarity": similarities, **columns}
    there = {name: a for name, a in there.items() if a is not None}
    if "embedding" not in there and of_target is not None:
        there = {"row": jnp.arange(np.shape(of_target)[-1]), **there}
    return Ground(there, given=labelled, target=aim or None)


def _matrix(columns: Any, n: int, said: str) -> jax.Array:
    if "similarity" not in columns:
        raise ValueError(f"{said}: similarities are given of some rows, and those of these are missing")
    made = checks.check_pool(columns["similarity"], "similarity")
    if made.shape[1] != n:
        raise ValueError(f"{said}, a row for each row represented, got {made.shape}")
    return made.astype(jnp.float32)


def clean(given: Any, xp: Any = jnp) -> tuple[Any, Any, Any]:
    """Similarities (m, n) clipped at 0, and 0 where they are not finite; which columns (n,) and rows (m,) hold numbers.

    A row without any counts for nothing; a column that lacks one in another row cannot be judged, and is all 0.
    """
    finite = xp.isfinite(given)
    counts = finite.any(axis=1)
    valid = (finite | ~counts[:, None]).all(axis=0)
    return xp.where(finite & valid, xp.maximum(given, 0), 0), valid, counts
