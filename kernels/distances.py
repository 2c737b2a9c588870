"""Squared distances and unlikeness, exact where float32's expansion is not.

|a|^2 + |b|^2 - 2ab is one matrix product, but of rows that lie close together far from the origin it leaves rounding
noise. Pairs below a share of |a|^2 + |b|^2 are measured by their differences instead, which float32 holds to its last
digits, from the rows as given: they are few in ordinary pools and cost nothing where there are none, and copies of a
row are at distance zero exactly. Pools of up to `geometry.DIRECT` features are measured by differences throughout.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from . import geometry
from .geometry import DIRECT, Points, Precision

# The share of |a|^2 + |b|^2 below which a pair is measured by differences. What the expansion gets wrong is about
# 2e-7 of it ("highest"), so of a pair just above a distance is good to 1e-4.
_CLOSE = {"highest": 2.0**-10, "fast": 2.0**-6}

# What two evaluations of one distance by the expansion may differ by, as a share of |a|^2 + |b|^2.
NOISE = 2.0**-21

_ROWS = 128  # rows, or pairs, measured by differences at a time


def squared_distances(
    a: Points,
    b: Points,
    *,
    precision: Precision = "highest",
    doubtful: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
    same: jax.Array | None = None,
) -> jax.Array:
    """||a_i - b_j||^2 of rows in one frame, (n, m) float32 in its units; infinite where a row is invalid.

    doubtful: (d2, scale) -> (n, m), which pairs to measure by differences, where not those that are close against the
    scale |a|^2 + |b|^2. same: (n, m) pairs known to be one row, at distance 0.

    >>> a = geometry.points(jnp.array([[1e4, 0.0], [1e4, 0.01]]))
    >>> bool((squared_distances(a, a)[0] == jnp.array([0, jnp.float32(0.01) ** 2 * a.frame.scale**2])).all())
    True
    """
    if a.x.shape[1] <= DIRECT:
        return _differences(a, b)
    d2, scale = _expansion(a.x, a.norms, b.x, b.norms, precision)
    close = d2 <= _CLOSE[precision] * scale if doubtful is None else doubtful(d2, scale)
    close = close & (scale < jnp.inf)
    if same is not None:
        same = same & (scale < jnp.inf)
        d2, close = jnp.where(same, 0, d2), close & ~same
    return _with_differences(jnp.where(close, -1, jnp.maximum(d2, 0)), a, b)


def nearest(
    x: Points,
    known: jax.Array,
    centres: Points,
    count: jax.Array,
    *,
    precision: Precision = "highest",
) -> jax.Array:
    """min over the first `count` of `centres` (c, d) of ||x_i - c_j||^2, (n,); exact where `known` (n,) is above 0.

    Where it is not, nothing can come of it and 0 may be returned.
    """
    norms = jnp.where(jnp.arange(centres.norms.shape[0]) < count, centres.norms, jnp.inf)
    if x.x.shape[1] <= DIRECT:
        return jnp.min(_differences(x, centres._replace(norms=norms)), axis=1)
    d2, scale = _expansion(x.x, x.norms, centres.x, norms, precision)
    # Below zero is no distance: it marks rows that are close to a centre, at no cost beside the minimum's.
    low = jnp.min(jnp.where((d2 > _CLOSE[precision] * scale) | (scale == jnp.inf), d2, -1), axis=1)
    left, all_of_them = (low < 0) & (known > 0), geometry.every(centres.x)

    def measure(carry):
        low, left = carry
        at = _some(left)
        exact = _of_given(x.given(at)[:, None], centres.given(all_of_them)[None], x.frame.scale)
        exact = jnp.min(jnp.where(norms < jnp.inf, exact, jnp.inf), axis=1)
        return low.at[at].set(jnp.where(left[at], exact, low[at])), left.at[at].set(False)

    low, _ = lax.while_loop(lambda carry: jnp.any(carry[1]), measure, (low, left))
    return jnp.maximum(low, 0)


def to_row(x: Points, row: jax.Array) -> jax.Array:
    """||x_i - row||^2 to one row of the frame (d,) by differences, (n,); infinite where a row is invalid."""
    return jnp.where(x.valid, geometry.square_norms(x.x - row), jnp.inf)


def weighted(d2: jax.Array, square_weights: jax.Array) -> jax.Array:
    """w^2 d^2, infinite where d is, whatever the weight."""
    return jnp.where(d2 < jnp.inf, d2 * square_weights, jnp.inf)


class Unlikeness(NamedTuple):
    """How unlike rows are, in [0, 1]: one minus their similarity, which keeps the digits of what is nearly alike.

    between(a, b, same) -> (n, m). slack(gap, norms): what an unlikeness below a `gap` (m,) may differ by for rows that
    are copies of each other. most: the unlikeness of what has nothing in common: 1, or 0 in `of_matrix`.
    """

    between: Callable[[Points, Points, jax.Array | None], jax.Array]
    slack: Callable[[jax.Array, jax.Array], jax.Array]
    most: float = 1.0


def rbf(gamma: jax.Array, d: int, precision: Precision = "highest") -> Unlikeness:
    """1 - exp(-||a_i - b_j||^2 / gamma); 0 for copies even where gamma is 0."""
    gamma = jnp.maximum(gamma, jnp.finfo(jnp.float32).tiny)

    def between(a, b, same):
        return -jnp.expm1(-squared_distances(a, b, precision=precision, same=same) / gamma)

    def slack(gap, norms):
        expanded = gap > -jnp.expm1(-_CLOSE[precision] * norms / gamma)
        return jnp.where(expanded, jnp.minimum(2 * NOISE * norms / gamma, 1) * (1 - gap), 0)

    return Unlikeness(between, slack if d > DIRECT else lambda gap, norms: jnp.zeros_like(gap))


def cosine(d: int, precision: Precision = "highest") -> Unlikeness:
    """min(1, 1 - a_i . b_j) of unit rows, see `unit_points`, as half of ||a_i - b_j||^2."""

    def between(a, b, same):
        return jnp.minimum(squared_distances(a, b, precision=precision, same=same) / 2, 1)

    def slack(gap, norms):
        return jnp.where(2 * gap > _CLOSE[precision] * norms, NOISE * norms, 0)

    return Unlikeness(between, slack if d > DIRECT else lambda gap, norms: jnp.zeros_like(gap))


def of_matrix(similarities: jax.Array) -> Unlikeness:
    """Minus the similarities (n, m) that somebody made, which have no largest value to be counted from.

    `between(a, b)` takes rows of `matrix_points`; as many as m for b are all m, in order. Copies have the same numbers,
    so no slack.
    """

    def between(a, b, same):
        found = -similarities[a.places]
        return found if b.places.shape[0] == similarities.shape[1] else found[:, b.places]

    return Unlikeness(between, lambda gap, norms: jnp.zeros_like(gap), most=0.0)


def matrix_points(valid: jax.Array) -> Points:
    """Rows of which nothing but similarities is known, see `of_matrix`; valid: (n,) bool."""
    x, norms = jnp.zeros((valid.shape[0], 0), jnp.float32), jnp.where(valid, 0.0, jnp.inf)
    return Points(x, norms, valid, x, geometry.every(x), geometry.unmoved(0))


def unit_points(x: jax.Array, precision: Precision = "highest", frame: geometry.Frame | None = None) -> Points:
    """Rows scaled to length 1, then shifted to near their mean: a cosine is a distance, and that does not change.

    Rows of zeros have no direction: they are valid, with an infinite norm, and like nothing. `frame.scale` is 1.
    """
    unit, zero = unit_rows(x)
    if frame is None:
        frame = geometry.own_frame(unit)
        frame = geometry.unmoved(x.shape[1])._replace(shift=frame.shift / frame.scale)
    found = geometry.points(unit, frame=frame, precision=precision)
    return found._replace(norms=jnp.where(zero, jnp.inf, found.norms), raw=found.x)


def unit_rows(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Rows of length 1 (n, d) float32, 0 where they are 0, NaN where one held NaN or infinity; and (n,) which are 0."""
    x = x.astype(jnp.float32)
    largest = jnp.max(jnp.abs(x), axis=1)
    scaled = x * geometry.power_of_two(-geometry.exponent(largest))[:, None]
    norms = geometry.square_norms(scaled)
    unit = scaled / jnp.sqrt(jnp.where(norms > 0, norms, 1))[:, None]
    return jnp.where(geometry.finite_rows(x)[:, None], unit, jnp.nan), largest == 0


def _expansion(a, a_norms, b, b_norms, precision):
    """|a|^2 + |b|^2 - 2ab and |a|^2 + |b|^2, (n, m)."""
    scale = a_norms[:, None] + b_norms[None, :]
    return scale - 2 * geometry.matmul(a, b, precision), scale


def _differences(a: Points, b: Points) -> jax.Array:
    """sum_k (a_ik - b_jk)^2, a feature at a time, so that one pass makes the (n, m) result."""
    total = jnp.zeros((a.x.shape[0], b.x.shape[0]), jnp.float32)
    x, y = a.x.astype(jnp.float32), b.x.astype(jnp.float32)
    for k in range(x.shape[1]):
        total = total + jnp.square(x[:, k, None] - y[None, :, k])
    return jnp.where((a.norms[:, None] < jnp.inf) & (b.norms[None, :] < jnp.inf), total, jnp.inf)


def _of_given(a, b, scale):
    """sum ((a - b) scale)^2 over the last axis, of rows as given."""
    return jnp.sum(jnp.square((a - b) * scale), axis=-1)


def _with_differences(d2, a, b):
    """`d2` (n, m), where it is below 0, which marks a pair, by differences: some pairs of a row at a time."""

    def row(i, d2):
        def measure(carry):
            of_row, left = carry
            at = _some(left)
            # One index alone would be a slice, for which a pool on several devices is gathered on each.
            exact = _of_given(a.given(jnp.full_like(at, i)), b.given(at), a.frame.scale)
            return of_row.at[at].set(jnp.where(left[at], exact, of_row[at])), left.at[at].set(False)

        return d2.at[i].set(lax.while_loop(lambda carry: jnp.any(carry[1]), measure, (d2[i], d2[i] < 0))[0])

    return lax.fori_loop(0, jnp.where(jnp.any(d2 < 0), d2.shape[0], 0), row, d2)


def _some(left):
    """The first places that are left, and others where they are few."""
    return lax.top_k(left.astype(jnp.float32), min(_ROWS, left.shape[0]))[1]
