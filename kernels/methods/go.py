"""Designs for given targets: pick the rows whose labels leave the least uncertainty about the target's answers."""

from dataclasses import replace
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .. import checks, float64, geometry
from ..geometry import Points, Precision
from ..ground import Ground, Method, method, option
from ..objective import EXCLUDED, INVALID, Block, Objective
from ..shapes import Plan, Shape, resident
from .d_optimal import DEFAULT_RIDGE, check_ridge, default_ridge, ridge_in

_PICKS = 256  # after which everything is computed afresh

# And when the targets' variance, or that of a label of the row that is to be picked, has fallen by this factor: what is
# updated by subtraction carries the rounding of the numbers it was subtracted from.
_FALL = 16.0
_SQUARES = 64.0  # the same for what the mean sums of that row: it is a square

# Of a row that is orthogonal to a target, rounding leaves a gain of about 2^-48 of the target's variance.
_NOTHING = 2.0**-40


@method
class _Posterior(Method):
    """What GO and SAL share: a linear model with a Gaussian prior, of which labels are noisy values."""

    noise: Any = option(
        "variance of a label; default 0.1 of the rows' spread, times tau squared", default=None, traced=True, above=0
    )
    tau: Any = option("standard deviation of a weight before any label", default=1.0, traced=True, above=0)

    targets = True
    needs_target = True
    shrinks = False

    @property
    def worst(self) -> bool:
        """Whether the target of largest variance counts, rather than their mean."""
        raise NotImplementedError(f"{self.name} does not say which targets count: write its worst()")

    def block_for(self, n: int, m: int) -> int:
        return 8192  # gains are known for all rows: a block costs nothing

    def ready(self, ground: Ground, key: jax.Array | None) -> "tuple[Method, Ground]":
        checks.check_positive(self.tau, "tau")
        if self.noise is not None:
            checks.check_positive(self.noise, "noise")
        return replace(self, noise=check_ridge(self.noise)), checks.check_target(ground)

    def objective(self, ground: Ground, *, block: int, precision: Precision, shards: int | None) -> Objective:
        assert ground.target is not None
        x, z = ground.columns["embedding"], ground.target["embedding"]
        frame = geometry.own_frame(x, centre="none", others=(z,))
        pool = geometry.points(x, frame=frame, precision=precision)
        target = geometry.points(z, frame=frame, precision=precision)
        # Picks follow from noise / tau^2 alone; so the prior's variance is 1 here, and gains are scaled at the end.
        tau = jnp.asarray(self.tau, jnp.float32)
        if self.noise is None:
            noise = default_ridge(pool)
        else:
            mantissa, power = self.noise
            noise = ridge_in((mantissa / jnp.square(tau), power), frame.scale, 1.0)
        made = objective(
            pool, target, noise, worst=self.worst, labelled=ground.given, precision=precision, shards=shards
        )
        return made._replace(report=lambda gains: gains * jnp.square(tau / frame.scale))

    def gains(self, ground: Ground, rows: list[int]) -> np.ndarray:
        assert ground.target is not None
        x, valid = float64.clean(ground.columns["embedding"])
        z, counted = float64.clean(ground.target["embedding"])
        z = z[counted]
        noise = self.noise
        if noise is None:
            spread = float(np.mean(np.sum((x[valid] - x[valid].mean(0)) ** 2, axis=1)))
            noise = (DEFAULT_RIDGE * spread or 1.0) * self.tau**2
        chosen = x[[j for j in rows if valid[j]]]
        information = np.eye(x.shape[1]) / self.tau**2 + chosen.T @ chosen / noise
        after = np.linalg.inv(information + x[:, :, None] * x[:, None, :] / noise)
        of: Any = np.max if self.worst else np.mean
        now = of(np.sum(z @ np.linalg.inv(information) * z, axis=1))
        return now - of(np.einsum("kd,nde,ke->nk", z, after, z), axis=1)

    def plan(self, shape: Shape, *, form: str | None = None, **how: Any) -> Plan:
        n, d, m = shape.n, shape.d, shape.represented or 1
        each = 2 * n * (d + 2 * m) if self.worst else 4 * n * d
        work = each * shape.budget + 2 * n * d * (m + (d + m) * (shape.budget // _PICKS))
        whole = n * d <= geometry._WHOLE_ELEMENTS  # the rows times a root of Sigma, when all is computed afresh
        again = 4 * n * d if whole else 8 * geometry._TILE_ELEMENTS
        held = 4 * (2 * n * m if self.worst else 6 * n) + 16 * (n + d * d)
        return resident(self.name, shape, form, work, held + again)


@method
class Go(_Posterior):
    """Pick the rows whose labels lower the variance of the target's predictions most: G-optimal, and V-optimal.

    A linear model w of prior N(0, tau^2 I), a label y = x^T w + e, e of variance s^2. With

        Sigma^-1 = I / tau^2 + sum over the picks of x x^T / s^2

    pick t is argmin_i of the mean, or the maximum, over targets z of z^T (Sigma^-1 + x_i x_i^T / s^2)^-1 z. Its gain is
    the fall of that mean or maximum. Mukherjee et al. 2024, arXiv 2404.08846, whose GO takes the maximum; the mean is
    V-optimality, and the default here: with the maximum all gains are 0, and the lowest rows are picked, once the worst
    target is orthogonal to every row. Not submodular: a row may gain more after another was picked. Noise and prior of
    the paper are not known.

    columns: "embedding" (n, d), and target "embedding" (m, d) in the same units. A row that holds NaN is picked last, a
    target that does counts for nothing. given: rows that are labelled start Sigma.

    float32 knows the gains to 2^-24 of the condition number of Sigma: 1 + tau^2 / s^2 times the picks' largest square.

    Held are Sigma, the variances of rows and targets, and X Sigma Z^T, of which the mean needs the norms of rows alone;
    a pick is an update of rank one. Cost: 4 n d FLOPs a pick ("max": 2 n d + 4 n m), 2 n d m at the start, and
    2 n d (d + m) every 256 picks, and whenever a variance has fallen by a factor of 16. Memory: 16 d^2 bytes ("max":
    and 8 n m) beside a copy of the rows.

    >>> from ..ground import select
    >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, 0.0], [0.1, 3.0]])
    >>> there = Ground({"embedding": x}, target={"embedding": jnp.array([[0.0, 1.0], [1.0, 0.2]])})
    >>> picks = select(Go(noise=1.0), there, 3)
    >>> picks.indices.tolist(), [round(float(g), 4) for g in picks.gains]
    ([4, 3, 2], [0.474, 0.3951, 0.021])
    """

    aggregate: Literal["mean", "max"] = option(
        "of the targets' variances, what is lowered", default="mean", choices=("mean", "max")
    )

    name = "go"
    summary = "labels that leave the least uncertainty about the target"
    paper = "Mukherjee et al. 2024, arXiv 2404.08846"

    @property
    def worst(self) -> bool:
        return self.aggregate == "max"

    def ready(self, ground: Ground, key: jax.Array | None) -> "tuple[Method, Ground]":
        if self.aggregate not in ("mean", "max"):
            raise ValueError(f"aggregate must be 'mean' or 'max', got {self.aggregate!r}")
        return super().ready(ground, key)


@method
class Sal(_Posterior):
    """Pick the rows that lower the largest entropy of a target's answer most, in the linear-Gaussian surrogate.

    SAL (Mukherjee et al. 2024, arXiv 2404.08846) simulates m answers to a candidate, appends each, and measures the
    entropy of the targets' answers. In the surrogate that entropy is ln(2 pi e v) / 2 of the variance v, and v depends
    on which rows are labelled, not on what the labels say: whatever is simulated, and however often, the picks are
    those of `Go(aggregate="max")`, and so they are made here. With a language model in the surrogate's place SAL would
    call it n m times a pick and target, which is not offered; for what is left of it the same bounds are kept: 200 rows
    and 20 targets. Gains as for `Go`.

    >>> from ..ground import select
    >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, 0.0], [0.1, 3.0]])
    >>> there = Ground({"embedding": x}, target={"embedding": jnp.array([[0.0, 1.0], [1.0, 0.2]])})
    >>> select(Sal(noise=1.0), there, 3).indices.tolist()
    [2, 4, 3]
    """

    name = "sal"
    summary = "least entropy of the target's most uncertain answer, in a linear model"
    paper = "Mukherjee et al. 2024, arXiv 2404.08846"
    worst = True

    def ready(self, ground: Ground, key: jax.Array | None) -> "tuple[Method, Ground]":
        made, ground = super().ready(ground, key)
        assert ground.target is not None
        n, m = ground.n, ground.target["embedding"].shape[0]
        if n > _MOST_ROWS or m > _MOST_TARGETS:
            raise ValueError(
                f"sal is for up to {_MOST_ROWS} rows and {_MOST_TARGETS} targets, got {n} and {m}: "
                "take Go(aggregate='max'), whose picks are the same"
            )
        return made, ground


_MOST_ROWS, _MOST_TARGETS = 200, 20


class _State(NamedTuple):
    """covariance: (d, d) Sigma. gram: (d, d) X_S^T X_S. cross: X Sigma Z^T (n, m) for the worst target, and for their
    mean the squared norms of its rows (n,). left: (m,) variances of the targets. spread: (n,) variances of the rows.
    gains: (n,). anchor, reach, begun: the sum of `left`, `spread`, and for the mean `cross`, when all was last computed
    afresh, and since: () int32 how many picks ago, which `gram` lacks. recent: (256,) int32 these picks."""

    covariance: jax.Array
    gram: jax.Array
    cross: jax.Array
    left: jax.Array
    spread: jax.Array
    gains: jax.Array
    anchor: jax.Array
    reach: jax.Array
    begun: jax.Array
    recent: jax.Array
    since: jax.Array


def objective(
    pool: Points,
    target: Points,
    noise: jax.Array,
    *,
    worst: bool,
    labelled: jax.Array | None = None,
    precision: Precision = "highest",
    shards: int | None = None,
) -> Objective:
    """Variance of the targets as an `Objective` for `maximize_sequential`, with a prior of variance 1."""
    d = pool.x.shape[1]
    x, z, counted = pool.x, target.x.astype(jnp.float32), target.valid
    share = 1 / jnp.maximum(jnp.sum(counted), 1).astype(jnp.float32)

    def gains_of(cross, left, spread):
        most = jnp.max(left)
        if worst:
            less = jnp.square(cross) / (noise + spread)[:, None]
            # max s - max (s - r) as a sum of what is not negative: nothing cancels.
            gains = jnp.min(jnp.where(counted, most - left, jnp.inf) + less, axis=1)
            gains = jnp.minimum(gains, most)  # where no target counts
        else:
            gains = cross / (noise + spread) * share
        return jnp.where(gains > _NOTHING * most, gains, 0)

    def afresh(gram):
        eye = jnp.eye(d, dtype=jnp.float32)
        factor = jnp.linalg.cholesky(eye + (gram + gram.T) / (2 * noise))
        root = lax.linalg.triangular_solve(factor, eye, left_side=True, lower=True)
        return measured(geometry.matmul(root.T, root.T, precision), gram, lambda a: geometry.matmul(a, root, precision))

    def measured(covariance, gram, halved):
        """The state of a covariance, of which `halved` multiplies rows with a square root."""
        of_targets = halved(z)

        def of_tile(x):
            half = halved(x.astype(jnp.float32))
            cross = geometry.matmul(half, of_targets, precision)
            return cross if worst else geometry.square_norms(cross), geometry.square_norms(half)

        cross, spread = geometry.over_rows(of_tile, x, width=d, shards=shards)
        left = geometry.square_norms(of_targets)
        gains = gains_of(cross, left, spread)
        return _State(
            covariance,
            gram,
            cross,
            left,
            spread,
            gains,
            jnp.sum(left),
            spread,
            spread if worst else cross,
            jnp.zeros(_PICKS, jnp.int32),
            jnp.int32(0),
        )

    def gram_of(rows, counts=True):
        rows = jnp.where(jnp.reshape(counts, (-1, 1)), x[rows].astype(jnp.float32), 0)
        return geometry.matmul(rows.T, rows.T, precision)

    def add(state, j, counts=1):
        # Two indices: one alone would be a slice, for which a pool on several devices is gathered on each.
        row = jnp.where(counts > 0, x[jnp.stack([j, j])][0].astype(jnp.float32), 0)  # a row of zeros tells nothing
        a = geometry.matmul(state.covariance, row[None], precision)[:, 0]
        g = noise + state.spread[j]
        p = geometry.matmul(z, a[None], precision)[:, 0]
        if worst:
            u = geometry.matmul(x, a[None], precision)[:, 0]
            cross = state.cross - u[:, None] * (p / g)
        else:
            # |c - u p / g|^2 of each row c of the cross matrix, which is not held: c p is a product with X as well, and
            # both are made in one pass over the rows.
            back = geometry.matmul(state.covariance, geometry.matmul(z.T, p[None], precision).T, precision)[:, 0]
            u, along = geometry.matmul(x, jnp.stack([a, back]), precision).T
            cross = jnp.maximum(state.cross - 2 * u * along / g + jnp.square(u) * (p @ p) / g**2, 0)
        left = jnp.maximum(state.left - jnp.square(p) / g, 0)
        spread = jnp.maximum(state.spread - jnp.square(u) / g, 0)
        covariance = state.covariance - a[:, None] * (a / g)
        return state._replace(
            covariance=covariance,
            cross=cross,
            left=left,
            spread=spread,
            gains=gains_of(cross, left, spread),
            recent=state.recent.at[state.since].set(j),
            since=state.since + counts,
        )

    def renewed(gram, otherwise):
        """All from the gram matrix; `otherwise()` where a noise too small beside it leaves no Cholesky factor."""
        fresh = afresh(gram)
        return lax.cond(jnp.all(jnp.isfinite(fresh.covariance)), lambda: fresh, otherwise)

    def init():
        state = measured(jnp.eye(d, dtype=jnp.float32), jnp.zeros((d, d), jnp.float32), lambda rows: rows)
        if labelled is not None and labelled.shape[0]:
            gram = gram_of(labelled)

            def one_by_one():
                added = lax.fori_loop(0, labelled.shape[0], lambda i, state: add(state, labelled[i]), state)
                return added._replace(gram=gram, since=state.since)

            state = renewed(gram, one_by_one)
        bounds = jnp.where(pool.valid, state.gains, INVALID)
        return state, bounds if labelled is None else bounds.at[labelled].set(EXCLUDED)

    def refresh(state, ids):
        return Block(jnp.where(pool.valid[ids], state.gains[ids], INVALID), ids, ())

    def take(fixed, live, gains, j):
        return live, gains  # a round takes one pick, and `commit` has the gains after it

    def commit(state, bounds, block, order, count):
        state = add(state, block.fixed[order[0]], count)  # of a row at most
        best = jnp.argmax(jnp.where(bounds < 0, -1, state.gains))
        fallen = (noise + state.spread[best]) * _FALL < state.reach[best]
        if not worst:
            fallen = fallen | (state.cross[best] * _SQUARES < state.begun[best])
        due = (state.since >= _PICKS) | (jnp.sum(state.left) * _FALL < state.anchor) | fallen

        def anew():
            gram = state.gram + gram_of(state.recent, jnp.arange(_PICKS) < state.since)
            begun = state.spread if worst else state.cross
            as_fresh = state._replace(
                gram=gram, anchor=jnp.sum(state.left), reach=state.spread, begun=begun, since=jnp.int32(0)
            )
            return renewed(gram, lambda: as_fresh)

        return lax.cond(due, anew, lambda: state), bounds

    return Objective(init, refresh, take, commit, limit=1)
