"""What rows are measured with, from JAX: preparation fitted on a pool and applied to any rows, distances, similarities.

All of it traces under `jit` and `vmap`, in float32. Nothing is fitted on rows that hold NaN or infinity; they stay such
when they are prepared, and are at no finite distance from any row. Rows on the host are fitted in float64 by `on_host`,
with the same `Preparation` as result.

>>> import jax
>>> from edjax.kernels import measure
>>> pool, target = 50 + jax.random.normal(jax.random.key(0), (60, 4)), 50 + jnp.ones((3, 4))
>>> by = measure.fit(pool)  # centred, whitened, of length 1: fitted on the pool, and targets are seen alike
>>> measure.rbf_similarity(measure.apply(by, pool), measure.apply(by, target)).shape
(60, 3)
"""

import operator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from . import checks, distances, geometry
from .geometry import Points, Precision

NORMALISE = ("l2", "whiten", "centre", "none")
ROWS_A_DIMENSION = 4
NOTHING = 1e-10  # of the largest variance: what is below is no direction
NOISE = 1e-6  # of the longest row: what is shorter is rounding about the mean


class Preparation(NamedTuple):
    """How rows are seen: less a mean, on axes, of length 1. A pytree; what is None is not done.

    mean: (2, d) float32, in two terms, since at an offset of 10,000 times the spread one alone is too coarse. axes:
    (d, q) float32, each principal component divided by the standard deviation along it. least: () float32, the length
    up to which a row is rounding about the mean and becomes 0; longer rows are scaled to length 1.
    """

    mean: Any = None
    axes: Any = None
    least: Any = None


def dimensions(n: int, d: int, whiten_dims: int) -> int:
    """How many principal components of n rows are kept: at most `whiten_dims`, and so few that there are
    `ROWS_A_DIMENSION` rows for each, since along n - 1 directions of unit variance n rows are all equally far apart.

    >>> dimensions(400, 576, 200), dimensions(4000, 576, 200)
    (100, 200)
    """
    return max(1, min(d, whiten_dims, n // ROWS_A_DIMENSION))


def fit(
    x: jax.Array, normalise: str = "whiten", whiten_dims: int = 200, *, valid: jax.Array | None = None
) -> Preparation:
    """Fit a preparation on rows.

    "whiten": z = L^-1/2 V^T (x - mean), where V L V^T = (1/n) sum_i (x_i - mean)(x_i - mean)^T, the first `dimensions`
    components alone, then z / |z|. "l2": (x - mean) / |x - mean|. "centre": x - mean. "none": x. Of a component's two
    signs the one that makes its largest entry positive. Directions with less than 10^-10 of the largest variance, and
    those that are rounding of float32 rows far from zero, are none: they become zeros, so that the shape depends on the
    arguments alone.

    Singular values of the rows rather than eigenvalues of their covariance: squares would halve the digits that
    float32 has. A component along which the rows' spread is 1/c of the widest is good to about c 10^-6, as long as no
    other has nearly its variance; `on_host.fit` computes in float64.

    Args:
        x: (n, d) rows, n >= 1, any real dtype; computed in float32.
        normalise: one of `NORMALISE`, static. whiten_dims: >= 1, static.
        valid: (n,) bool, the rows to fit on; None: all. Those that hold NaN or infinity never count.

    Raises:
        ValueError: naming the value, for a bad shape, dtype or option.

    Cost: 2 n d^2 FLOPs for a QR decomposition and about 20 d^3 for the singular values of R (Golub & Van Loan, Matrix
    Computations, 5.2 and 8.6), two copies of x.

    >>> import jax.numpy as jnp
    >>> pool = jnp.array([[9.0, 5.0], [11.0, 5.0], [9.0, 5.5], [11.0, 5.5]] * 2)
    >>> by = fit(pool)
    >>> by.mean[0].tolist(), jnp.round(by.axes, 3).tolist()
    ([10.0, 5.25], [[1.0, 0.0], [0.0, 4.0]])
    """
    x = checks.check_pool(x)
    n = x.shape[0]
    if n == 0:
        raise ValueError("x has no rows to fit on")
    if normalise not in NORMALISE:
        raise ValueError(f"normalise must be one of {', '.join(NORMALISE)}, got {normalise!r}")
    try:
        dims = operator.index(whiten_dims)
    except TypeError:
        raise ValueError(f"whiten_dims must be a whole number, got {whiten_dims!r}") from None
    if dims < 1:
        raise ValueError(f"whiten_dims must be at least 1, got {dims}")
    if valid is not None:
        valid = jnp.asarray(valid)
        if valid.shape != (n,) or valid.dtype != bool:
            raise ValueError(f"valid must be ({n},) true or false, got {valid.dtype} {tuple(valid.shape)}")
    return _fit(x, valid, normalise=normalise, dims=dims)


@partial(jax.jit, static_argnames=("normalise", "dims"))
def _fit(x, valid, *, normalise, dims):
    if normalise == "none":
        return Preparation()
    x = x.astype(jnp.float32)
    x = x if valid is None else jnp.where(valid[:, None], x, jnp.nan)
    pool = geometry.points(x, frame=geometry.own_frame(x, centre="mean"))
    by = Preparation(pool.frame.shift / pool.frame.scale)
    if normalise == "centre":
        return by
    if normalise == "whiten":
        by = by._replace(axes=_axes(pool, dims))
    longest = jnp.max(jnp.where(pool.valid, _sized(_projected(by, x))[1], 0))
    return by._replace(least=NOISE * jnp.maximum(longest, 1e-30))


def _axes(pool: Points, dims: int) -> jax.Array:
    """(d, q) principal components of centred rows, each divided by its standard deviation; zeros for none."""
    n, d = pool.x.shape
    count = jnp.sum(pool.valid)
    # Rows that do not count are zero in the frame, and add nothing to R.
    _, values, vectors = jnp.linalg.svd(jnp.linalg.qr(pool.x, mode="r"), full_matrices=False)
    q = min(dimensions(n, d, dims), values.shape[0])
    deviations = values[:q] / jnp.sqrt(jnp.maximum(count, 1).astype(jnp.float32))
    rounding = 2 * jnp.finfo(jnp.float32).eps * jnp.max(jnp.abs(pool.frame.shift[0]))
    floor = jnp.maximum(jnp.maximum(NOTHING**0.5 * deviations[0], rounding), jnp.finfo(jnp.float32).tiny)
    few = jnp.maximum(count // ROWS_A_DIMENSION, 1)  # as `dimensions` says of the rows that count
    kept = (deviations > floor) & (jnp.arange(q) < few)
    axes = vectors[:q].T
    largest = jnp.take_along_axis(axes, jnp.argmax(jnp.abs(axes), axis=0)[None], axis=0)
    axes = jnp.where(largest < 0, -axes, axes)
    return jnp.where(kept, axes / jnp.where(kept, deviations, 1) * pool.frame.scale, 0)


def apply(preparation: Preparation, x: jax.Array) -> jax.Array:
    """Rows as a preparation sees them, (m, q) float32: those it was fitted on, or any others, alike.

    A row no longer than `Preparation.least` becomes 0: nearly equal to the mean, it has no direction.

    Args:
        x: (m, d) rows, any real dtype.

    Raises:
        ValueError: for a bad shape or dtype, or another number of features than the preparation has.

    Cost: 2 m d q FLOPs.

    >>> import jax.numpy as jnp
    >>> pool = jnp.array([[9.0, 5.0], [11.0, 5.0], [10.0, 4.0], [10.0, 6.0]])
    >>> apply(fit(pool, "l2"), jnp.array([[10.0, 9.0], [10.0, 5.0]])).tolist()
    [[0.0, 1.0], [0.0, 0.0]]
    """
    x = checks.check_pool(x)
    if preparation.mean is not None and preparation.mean.shape[-1] != x.shape[1]:
        raise ValueError(f"x has {x.shape[1]} features, and the preparation is of {preparation.mean.shape[-1]}")
    return _apply(preparation, x)


@jax.jit
def _apply(preparation, x):
    x = _projected(preparation, x.astype(jnp.float32))
    if preparation.least is None:
        return x
    scaled, length = _sized(x)
    short = length <= preparation.least
    norms = jnp.sqrt(geometry.square_norms(scaled))
    return jnp.where(short[:, None], 0, scaled / jnp.where(short, 1, norms)[:, None])


def _projected(by: Preparation, x: jax.Array) -> jax.Array:
    """Rows less the mean, on the axes."""
    if by.mean is not None:
        x = (x - by.mean[0]) - by.mean[1]
    return x if by.axes is None else geometry.matmul(x, by.axes.T)


def _sized(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Each row times a power of two that keeps its square from overflowing, and the row's length (n,)."""
    power = geometry.exponent(jnp.max(jnp.abs(x), axis=1, initial=0))
    scaled = x * geometry.power_of_two(-power)[:, None]
    return scaled, jnp.sqrt(geometry.square_norms(scaled)) * geometry.power_of_two(power)


def squared_distances(a: jax.Array, b: jax.Array, *, precision: Precision = "highest") -> jax.Array:
    """||a_i - b_j||^2, (n, m) float32: one matrix product, and pairs that are close by their differences.

    Of close pairs far from the origin |a|^2 + |b|^2 - 2ab leaves rounding alone; see `distances`. Copies of a row are
    at distance 0 exactly. A row that holds NaN or infinity is infinitely far from every row.

    Args:
        a: (n, d), b: (m, d) rows, any real dtype; computed in float32.
        precision: "highest" or "fast", see `geometry`.

    Raises:
        ValueError: for a bad shape, dtype or precision, or where a and b have not the same number of features.

    Cost: 2 n m d FLOPs and 4 n m bytes; d FLOPs more for each close pair. It has no derivative.

    >>> import jax.numpy as jnp
    >>> squared_distances(jnp.array([[1.0, 0.0]]), jnp.array([[1.0, 0.0], [4.0, 4.0]])).tolist()
    [[0.0, 25.0]]
    """
    return _squared_distances(*_pair(a, b), precision=checks.check_precision(precision))


@partial(jax.jit, static_argnames="precision")
def _squared_distances(a, b, *, precision):
    rows, others = _placed(a, b, precision)
    return distances.squared_distances(rows, others, precision=precision) / rows.frame.scale / rows.frame.scale


def cosine_similarity(a: jax.Array, b: jax.Array, *, precision: Precision = "highest") -> jax.Array:
    """a_i . b_j / (|a_i| |b_j|), (n, m) float32 in [-1, 1], as 1 - ||a_i/|a_i| - b_j/|b_j|| ||^2 / 2.

    So it is 1 exactly for copies of a row, and keeps its digits where rows are nearly alike. 0 where one of the two is
    0 or holds NaN or infinity: such a row is like nothing. `facility_location` clips it at 0.

    Args, Raises, Cost: as `squared_distances`.

    >>> import jax.numpy as jnp
    >>> cosine_similarity(jnp.array([[2.0, 0.0]]), jnp.array([[5.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])).tolist()
    [[1.0, 0.0, -1.0]]
    """
    return _cosine(*_pair(a, b), precision=checks.check_precision(precision))


@partial(jax.jit, static_argnames="precision")
def _cosine(a, b, *, precision):
    pool = distances.unit_points(a, precision)
    others = distances.unit_points(b, precision, pool.frame)
    d2 = distances.squared_distances(pool, others, precision=precision)
    return jnp.where(d2 < jnp.inf, 1 - jnp.minimum(d2, 4) / 2, 0)


def rbf_similarity(
    a: jax.Array, b: jax.Array, bandwidth: jax.Array | float = 0.25, *, precision: Precision = "highest"
) -> jax.Array:
    """exp(-||a_i - b_j||^2 / gamma), (n, m) float32, gamma = bandwidth x the mean squared distance of two rows of a.

    As `facility_location` measures candidates a against the rows b that they are to cover. 1 for copies, also where
    gamma is 0; 0 where one of the two rows holds NaN or infinity.

    Args:
        a, b, precision: as in `squared_distances`. bandwidth: > 0; may be traced.

    Raises: as `squared_distances`; a bandwidth that is not above 0.

    Cost: as `squared_distances`; the mean has a closed form.

    >>> import jax.numpy as jnp
    >>> a = jnp.array([[0.0], [2.0]])
    >>> [round(float(s), 3) for s in rbf_similarity(a, a, 1.0)[0]]  # the mean of 0, 4, 4, 0 is 2
    [1.0, 0.135]
    """
    checks.check_positive(bandwidth, "bandwidth")
    precision = checks.check_precision(precision)
    return _rbf(*_pair(a, b), jnp.asarray(bandwidth, jnp.float32), precision=precision)


@partial(jax.jit, static_argnames="precision")
def _rbf(a, b, bandwidth, *, precision):
    rows, others = _placed(a, b, precision)
    gamma = jnp.maximum(bandwidth * geometry.mean_squared_distance(rows), jnp.finfo(jnp.float32).tiny)
    return jnp.exp(-distances.squared_distances(rows, others, precision=precision) / gamma)


def _pair(a: Any, b: Any) -> tuple[jax.Array, jax.Array]:
    a, b = checks.check_pool(a, "a"), checks.check_pool(b, "b")
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"a has {a.shape[1]} features, b has {b.shape[1]}")
    return a, b


def _placed(a: jax.Array, b: jax.Array, precision: Precision) -> tuple[Points, Points]:
    """Both in one frame, that of `a`, in which `b` has room."""
    frame = geometry.own_frame(a, others=(b,))
    return geometry.points(a, frame=frame, precision=precision), geometry.points(b, frame=frame, precision=precision)
