"""D-optimal design: pick rows that together carry the most information about a linear model on the features."""

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .. import checks, float64, geometry
from ..geometry import Points, Precision
from ..ground import Ground, Method, method, option, select
from ..objective import EXCLUDED, INVALID, Block, Objective, Selection
from ..shapes import Plan, Shape, blocked

_LIMIT = 64  # the most picks of a round
_CHUNK = 32  # picks a pass over the pool takes in: a round brings about 25, and a pass costs in proportion to its width

# A^-1 and the gains are computed afresh when the gains have fallen by this factor: each carries the rounding of the
# numbers it was subtracted from.
_FALL = 32.0

# Leverages closer than this share count as equal: of rows of one length the first are, and carry rounding of a few
# 1e-7; later ones carry up to 4e-6.
TIES = 2.0**-16

DEFAULT_RIDGE = 0.1  # times the mean squared norm of the centred rows

_NO_SPREAD = 2.0**-40  # the share of the mean squared norm below which the spread is what rounding the mean leaves


@method
class DOptimal(Method):
    """log det of the information matrix: see `d_optimal`."""

    name = "d_optimal"
    summary = "most new directions: largest log-determinant of the information matrix"
    paper = "Chen, Zhang & Zhou 2018, arXiv 1709.05135; Bhatt et al. 2024, arXiv 2401.06692"
    takes = ("weight",)

    ridge: Any = option("in squared units of the rows; default 0.1 of their spread", default=None, traced=True, above=0)
    centre: bool = option("subtract the mean first", default=False)

    def ready(self, ground: Ground, key: jax.Array | None) -> "tuple[DOptimal, Ground]":
        ground = checks.check_column(ground, "weight", "weights")
        return replace(self, ridge=check_ridge(self.ridge), centre=bool(self.centre)), ground

    def objective(self, ground: Ground, *, block: int, precision: Precision, shards: int | None) -> Objective:
        weights = ground.columns.get("weight")
        unit: jax.Array | float = 1.0
        if weights is not None:
            weights, unit = geometry.unit_weights(weights)
        pool = design(ground.columns["embedding"], weights, centre=self.centre, precision=precision)
        ridge = default_ridge(pool) if self.ridge is None else ridge_in(self.ridge, pool.frame.scale, unit)
        return objective(pool, ridge, labelled=ground.given, precision=precision, shards=shards)

    def gains(self, ground: Ground, rows: list[int]) -> np.ndarray:
        x, valid = float64.clean(ground.columns["embedding"])
        if self.centre:
            x = np.where(valid[:, None], x - x[valid].mean(0), 0)
        x = x * np.asarray(ground.columns.get("weight", np.ones(len(x))), np.float64)[:, None]
        ridge = self.ridge
        if ridge is None:
            ridge = DEFAULT_RIDGE * float(np.mean(np.sum((x[valid] - x[valid].mean(0)) ** 2, axis=1))) or 1.0
        chosen = x[[j for j in rows if valid[j]]]
        a = ridge * np.eye(x.shape[1]) + chosen.T @ chosen
        return np.log1p(np.maximum(np.sum(x * np.linalg.solve(a, x.T).T, axis=1), 0))

    def ties(self, gains: np.ndarray) -> np.ndarray:
        return np.expm1(gains) >= np.expm1(gains.max()) * (1 - TIES)

    def plan(self, shape: Shape, *, form: str | None = None, **how: Any) -> Plan:
        n, d = shape.n, shape.d
        block = min(shape.block or self.block_for(n, n), n)
        temporary = 4 * (2 * d * d + (block + _LIMIT) * (block + d)) + 4 * block * d
        return blocked(self.name, shape, form or "auto", 2 * (n + d) * d * shape.budget, temporary)


def d_optimal(
    x: jax.Array,
    budget: int,
    *,
    ridge: float | jax.Array | None = None,
    labelled: jax.Array | None = None,
    weights: jax.Array | None = None,
    centre: bool = False,
    block: int = 256,
    precision: Precision = "highest",
    shards: int | None = None,
) -> Selection:
    """Pick rows greedily to maximise log det(I + X_S^T X_S / ridge).

    With A = ridge I + X_S^T X_S, pick t is argmax_i l_i, l_i = x_i^T A^-1 x_i, and its gain is log(1 + l_i): the
    growth of the log determinant (matrix determinant lemma). The same order as greedy MAP inference of the
    determinantal point process with L = I + X X^T / ridge (Chen, Zhang & Zhou 2018, arXiv 1709.05135, Algorithm 1),
    but held in feature space, (d, d) instead of (n, budget), so it goes on when budget > d. At least 1 - 1/e of the
    best value (Nemhauser, Wolsey & Fisher 1978). Leverages within 2^-16 of the largest count as equal to it, and the
    lowest row among them is picked: rounding alone sets apart those of rows of one length.

    Args:
        x: (n, d) rows, any real dtype; computed in float32. A row holding NaN or infinity is picked only when no
            other row is left, with gain -inf.
        budget: how many rows, 0 <= budget <= n - labelled; may be larger than d.
        ridge: > 0, in squared units of x; below 1e-30 of the largest square it counts as that. Default 0.1 times the
            mean squared norm of the centred rows (after `weights`): of the range 0.1 to 10 that covered a real pool
            well, the end that spreads most.
        labelled: (p,) int indices of rows that already have labels: they start A and are never picked; as in
            `k_center`.
        weights: (n,) float >= 0: row i counts as weights_i x_i (quality times diversity of a determinantal process).
        centre: subtract the mean first. The objective is not the same under a shift; centred it is, and float32 then
            holds at any offset.
        block: candidates refreshed at a time; changes the time, not the picks.
        precision, shards: as in `k_center`.

    Raises:
        ValueError: naming the value, for a bad shape, budget, block, ridge, row index or weight.

    Cost: 2 n d budget + (2 d^2 + 2 B d) B rounds FLOPs, and 2 n d^2 each time the gains have fallen by a factor of 32;
    memory one copy of the pool and 8 d^2 bytes.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([[3.0, 0.0], [2.9, 0.0], [0.0, 1.0]])
    >>> d_optimal(x, budget=3, ridge=0.1).indices.tolist()
    [0, 2, 1]
    """
    columns = {"embedding": x} if weights is None else {"embedding": x, "weight": weights}
    ground = Ground(columns, given=labelled)
    return select(DOptimal(ridge, centre), ground, budget, block=block, precision=precision, shards=shards)


def design(x: jax.Array, weights: jax.Array | None, *, centre: bool, precision: Precision) -> Points:
    """The rows whose information counts: cleaned, centred if asked, scaled by their weights."""
    frame = geometry.own_frame(x, centre="mean" if centre else "none")
    pool = geometry.points(x, frame=frame, precision=precision)
    if weights is None:
        return pool
    rows = (pool.x * weights[:, None]).astype(pool.x.dtype)
    return pool._replace(x=rows, norms=jnp.where(pool.valid, geometry.square_norms(rows), jnp.inf))


def default_ridge(pool: Points) -> jax.Array:
    """0.1 times the mean squared norm of the centred rows; 1 where that is zero."""
    count = jnp.maximum(jnp.sum(pool.valid), 1).astype(jnp.float32)
    size = jnp.sum(jnp.where(pool.valid, pool.norms, 0)) / count
    return ridge_of(geometry.mean_squared_distance(pool) / 2, size)


def ridge_of(spread: jax.Array, size: jax.Array) -> jax.Array:
    """The default ridge of rows whose mean squared norm is `size`, and `spread` once they are centred."""
    return jnp.where(spread > _NO_SPREAD * size, DEFAULT_RIDGE * spread, 1.0)


def ridge_in(ridge: tuple[jax.Array, jax.Array], scale: jax.Array, unit: jax.Array | float) -> jax.Array:
    """A ridge, as mantissa and exponent, in the unit of rows that were multiplied by `scale` and divided by `unit`.

    Kept between 2^-100 and 2^120, of squared norms around 1.
    """
    mantissa, power = ridge
    power = power + 2 * (geometry.exponent(scale) - geometry.exponent(jnp.float32(unit)))
    return mantissa * geometry.power_of_two(jnp.clip(power, -100, 120))


class Design(NamedTuple):
    """What the picks make up. inverse: (d, d) A^-1. gram: (d, d) X_S^T X_S. anchor: () the largest gain when the
    inverse was last computed from the gram matrix."""

    inverse: jax.Array
    gram: jax.Array
    anchor: jax.Array


def no_picks(d: int, ridge: jax.Array, gains: jax.Array) -> Design:
    """The design of the empty set, in which the rows have these gains."""
    inverse = jnp.eye(d, dtype=jnp.float32) / ridge
    return Design(inverse, jnp.zeros((d, d), jnp.float32), jnp.max(gains).astype(jnp.float32))


def labelled_block(state: Design, rows: jax.Array, gains: jax.Array, precision: Precision) -> Block:
    """Rows (c, d), already labelled, as a block for `commit` to take in; `gains`: those of the pool before."""
    u = update(state.inverse, rows, precision)
    live = (u, jnp.zeros((), jnp.int32), jnp.max(gains))
    return Block(jnp.zeros(0, jnp.float32), (jnp.zeros((0, 0), jnp.float32), rows), live)


def objective(
    pool: Points,
    ridge: jax.Array,
    *,
    labelled: jax.Array | None = None,
    precision: Precision = "highest",
    shards: int | None = None,
) -> Objective:
    """log det as an `Objective`; internal gains are the leverages l_i, the state is a `Design`, float32.

    Picks update A^-1 and the gains by subtraction. Where both have become small against what they were, they are
    computed afresh by a Cholesky factor of A: then float32 holds over thousands of picks.
    """
    d = pool.x.shape[1]

    def project(bounds, u, count):
        """l_i - |x_i^T U|^2 for all rows, for the first `count` of U^T (c, d); negative bounds are marks and stay."""
        chunk = min(_CHUNK, u.shape[0])
        u = jnp.pad(u, ((0, -u.shape[0] % chunk), (0, 0)))

        def of_tile(x, bounds):
            def step(i, left):
                some = lax.dynamic_slice_in_dim(u, i * chunk, chunk)
                return left - jnp.sum(jnp.square(geometry.matmul(x, some, precision)), axis=1)

            left = lax.fori_loop(0, (count + chunk - 1) // chunk, step, bounds)
            return jnp.where(bounds < 0, bounds, jnp.maximum(left, 0))

        return geometry.over_rows(of_tile, pool.x, bounds, width=chunk, shards=shards)

    def leverages(inverse, bounds):
        """x_i^T A^-1 x_i of all rows; marks stay."""

        def of_tile(x, bounds):
            x = x.astype(jnp.float32)
            return jnp.where(bounds < 0, bounds, jnp.maximum(jnp.sum(geometry.matmul(x, inverse, precision) * x, 1), 0))

        return geometry.over_rows(of_tile, pool.x, bounds, width=d, shards=shards)

    def init():
        bounds = jnp.where(pool.valid, pool.norms / ridge, INVALID)
        state = no_picks(d, ridge, bounds)
        if labelled is not None and labelled.shape[0]:
            rows = jnp.pad(pool.x[labelled].astype(jnp.float32), ((0, -labelled.shape[0] % _LIMIT), (0, 0)))

            def absorb(carry, rows):
                block = labelled_block(carry[0], rows, carry[1], precision)
                return commit(carry[0], carry[1], block, jnp.arange(_LIMIT), jnp.int32(_LIMIT)), None

            (state, bounds), _ = lax.scan(absorb, (state, bounds), rows.reshape(-1, _LIMIT, d))
            # Once more with no rows, for what the last ones did to the gains.
            (state, bounds), _ = absorb((state, bounds), jnp.zeros((_LIMIT, d), jnp.float32))
            bounds = bounds.at[labelled].set(EXCLUDED)
        return state, bounds

    def refresh(state, ids):
        x = pool.x[ids].astype(jnp.float32)
        half = geometry.matmul(x, state.inverse, precision)
        kernel = geometry.matmul(half, x, precision)
        size = ids.shape[0]
        # Row j of `both` is row j of [X_B A^-1 X_B^T, X_B A^-1]: one update downdates gains and gives A^-1's factor.
        both = jnp.concatenate([kernel, half], axis=1)
        columns = jnp.zeros((min(_LIMIT, size), size + d), jnp.float32)
        gains = jnp.maximum(jnp.diagonal(kernel), 0)
        return Block(gains, (both, x), (columns, jnp.zeros((), jnp.int32), jnp.zeros((), jnp.float32)))

    def take(fixed, live, gains, j):
        # The next row of L^-1 [X_S A^-1 X_B^T, X_S A^-1], with L L^T = I + X_S A^-1 X_S^T: a Cholesky factor grows by a
        # row a pick, and its squares are what the gains lose.
        columns, t, _ = live
        new = (fixed[0][j] - columns[:, j] @ columns) * lax.rsqrt(1 + gains[j])
        shrunk = jnp.maximum(gains - jnp.square(new[: gains.shape[0]]), 0)
        return (columns.at[t].set(new), t + 1, gains[j]), jnp.where(gains < 0, gains, shrunk)

    def commit(state, bounds, block, order, count):
        columns, _, last = block.live
        # What is left of each row is U^T = L^-1 X_S A^-1, and A^-1 becomes A^-1 - U U^T (Woodbury): see `update`.
        u = columns[:, block.gains.shape[0] :]
        taken = jnp.arange(u.shape[0]) < count
        rows = jnp.where(taken[:, None], block.fixed[1][order[: u.shape[0]]], 0)
        gram = state.gram + geometry.matmul(rows.T, rows.T, precision)
        fallen = (count > 0) & (last >= 0) & (last * _FALL < state.anchor)
        # A last gain of 0 is rounding: what is really left is unknown, so as much less as this test can tell is taken.
        anchor = jnp.where(fallen, jnp.where(last > 0, last, state.anchor / _FALL), state.anchor)

        def afresh(inverse, gains):
            eye = jnp.eye(d, dtype=jnp.float32)
            factor = lax.linalg.triangular_solve(
                jnp.linalg.cholesky(ridge * eye + (gram + gram.T) / 2), eye, left_side=True, lower=True
            )
            fresh = geometry.matmul(factor.T, factor.T, precision)
            # A ridge too small beside the gram matrix for float32 has no factor: then what was updated is all there is.
            real = jnp.all(jnp.isfinite(fresh))
            return jnp.where(real, fresh, inverse), jnp.where(real, leverages(fresh, gains), gains)

        updated = (state.inverse - geometry.matmul(u.T, u.T, precision), project(bounds, u, count))
        inverse, bounds = lax.cond(fallen, afresh, lambda *same: same, *updated)
        return Design(inverse, gram, anchor), bounds

    return Objective(init, refresh, take, commit, report=jnp.log1p, limit=_LIMIT, ties=TIES)


def update(inverse: jax.Array, rows: jax.Array, precision: Precision = "highest") -> jax.Array:
    """U^T (c, d) with (A + P^T P)^-1 = A^-1 - U U^T for rows P (c, d): U^T = L^-1 P A^-1, L L^T = I + P A^-1 P^T."""
    half = geometry.matmul(rows, inverse, precision)
    kernel = geometry.matmul(half, rows, precision)
    factor = jnp.linalg.cholesky(jnp.eye(rows.shape[0], dtype=jnp.float32) + (kernel + kernel.T) / 2)
    return lax.linalg.triangular_solve(factor, half, left_side=True, lower=True)


def check_ridge(ridge: Any) -> tuple[jax.Array, jax.Array] | None:
    """`ridge` as mantissa and exponent, which float32 may not hold together; or a ValueError that names it."""
    if ridge is None:
        return None
    checks.check_positive(ridge, "ridge")
    traced = isinstance(ridge, jax.core.Tracer)
    parts: Any = jnp.frexp(ridge.astype(jnp.float32)) if traced else np.frexp(np.asarray(ridge, np.float64))
    return jnp.asarray(parts[0], jnp.float32), jnp.asarray(parts[1], jnp.int32)
