"""How far one learning curve lies beside another along log2 of the labels, and how sure that is.

All arrays may have leading batch axes. Quality is larger for better; x is log2 of what was paid.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from edjax.study.analysis.seeds import quantile, welch

BEYOND = 0.5  # doublings that a curve is continued beyond its span: further out nothing was measured
SLOPE_OVER = 0.5  # doublings to either side that a slope is taken over: it jumps at every budget
NODES = 40  # points at which an interval's end is sought, to either side


class Curve(NamedTuple):
    """A learning curve: x (..., k) ascending, quality (..., k), and what its n seeds contribute to the errors of both.

    `errors` (..., n, k) are the deviations of each seed from the mean of its budget over the number of seeds there, so
    that their sum would be the error of the mean; `spread` the same of x.
    """

    x: np.ndarray
    quality: np.ndarray
    errors: np.ndarray
    spread: np.ndarray


class Shift(NamedTuple):
    """Doublings (...,) by which a curve lies to the left of the reference, infinite where that is beyond reach, NaN
    where the reference is level; the ends of the 95 % interval, infinite where none was found within reach."""

    doublings: np.ndarray
    low: np.ndarray
    high: np.ndarray


def monotone(quality: np.ndarray) -> np.ndarray:
    """The non-decreasing sequence nearest to quality (..., j) by least squares (isotonic regression).

    f_j = max over a <= j of min over b >= j of mean(quality[a..b]) (Robertson, Wright & Dykstra 1988, theorem 1.4.4).

    >>> monotone(np.array([1.0, 3.0, 2.0, 4.0])).tolist()
    [1.0, 2.5, 2.5, 4.0]
    """
    count, first = quality.shape[-1], quality[..., :1]  # from the first on, so that what is level is so to the last bit
    sums = np.concatenate([np.zeros((*quality.shape[:-1], 1)), np.cumsum(quality - first, -1)], -1)
    a, b = np.arange(count)[:, None], np.arange(count)[None, :]
    means = (sums[..., None, 1:] - sums[..., :-1, None]) / np.where(b >= a, b - a + 1, 1)
    means = np.where(b >= a, means, np.inf)
    least = np.minimum.accumulate(means[..., ::-1], -1)[..., ::-1]
    return first + np.diagonal(np.maximum.accumulate(least, -2), axis1=-2, axis2=-1)


def along(x: np.ndarray, quality: np.ndarray, at: np.ndarray) -> np.ndarray:
    """(..., k) the curve through the knots at `at` (..., k): linear between them, beyond them with the end slopes."""
    width = np.diff(x, axis=-1)
    slope = np.diff(quality, axis=-1) / width
    least, most = np.zeros_like(width), width.copy()
    least[..., 0], most[..., -1] = -np.inf, np.inf
    steps = np.clip(at[..., None] - x[..., None, :-1], least[..., None, :], most[..., None, :])
    return quality[..., :1] + (slope[..., None, :] * steps).sum(-1)


def fitted(x: np.ndarray, curve: np.ndarray, at: np.ndarray, quality: np.ndarray) -> np.ndarray:
    """(...,) the shift d for which sum over k of (quality_k - curve(at_k + d))^2 is least; of several the smallest.

    Exact: between two shifts that bring a point onto a knot the sum is a parabola. d is within `reach`.
    """
    least, most = (end[..., None] for end in reach(x, at))
    knots = (x[..., None, :] - at[..., :, None]).reshape(*at.shape[:-1], -1)
    d = np.sort(np.clip(np.concatenate([knots, least, 0 * most, most], -1), least, most), -1)
    off = quality[..., None, :] - along(x[..., None, :], curve[..., None, :], at[..., None, :] + d[..., None])
    turn = np.diff(off, axis=-2)
    square = (turn**2).sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        t = np.where(square > 0, np.clip(-(off[..., :-1, :] * turn).sum(-1) / square, 0, 1), 0)
    loss = ((off[..., :-1, :] + t[..., None] * turn) ** 2).sum(-1)
    d = d[..., :-1] + t * np.diff(d, axis=-1)
    near = loss <= loss.min(-1, keepdims=True) + 1e-12 * (quality**2).sum(-1, keepdims=True)
    best = np.where(near, np.abs(d), np.inf).argmin(-1)
    return np.take_along_axis(d, best[..., None], -1)[..., 0]


def reach(x: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(...,) the least and the most doublings by which points `at` (..., k) can be shifted along a curve with knots x
    (..., j): one of them has to stay within BEYOND of the knots."""
    return x[..., 0] - at.max(-1) - BEYOND, x[..., -1] - at.min(-1) + BEYOND


def shift(reference: Curve, mine: Curve, interval: bool = True) -> Shift:
    """The shift of the reference that lies on `mine`, and its interval over the seeds of both.

    The reference is made monotone first: where it turns, a horizontal distance has several values. The interval holds
    the shifts d that a Welch t-test does not refuse: of sum over k of slope_k (quality_k - reference(x_k + d)), which
    is linear in the seeds of both, against zero (Fieller's way: the error of the reference is in it).
    """
    x, curve = reference.x, monotone(reference.quality)
    d = fitted(x, curve, mine.x, mine.quality)
    least, most = reach(x, mine.x)
    inside, level = (least + 1e-9 < d) & (d < most - 1e-9), curve[..., -1] <= curve[..., 0]
    shown = np.where(level, np.nan, np.where(inside, d, np.where(d <= least + 1e-9, -np.inf, np.inf)))
    if not interval:
        return Shift(shown, np.full_like(d, -np.inf), np.full_like(d, np.inf))
    inside &= ~level
    start = np.where(inside, d, 0)[..., None]
    slope = _slope(x, curve, mine.x + start)
    pools = (curve[..., :, None] == curve[..., None, :]).astype(float)
    pools /= pools.sum(-1, keepdims=True)
    errors = reference.errors - _slope(x, curve, x)[..., None, :] * reference.spread
    own = ((mine.errors - slope[..., None, :] * mine.spread) * slope[..., None, :]).sum(-1)
    variance = _variance(own)

    def theirs(shifts: np.ndarray) -> np.ndarray:  # (..., m) -> the reference's part of the variance at each
        places = mine.x[..., None, :] + shifts[..., None]
        flat = places.reshape(*places.shape[:-2], 1, -1)
        share = along(x[..., None, :], pools, np.broadcast_to(flat, (*pools.shape[:-1], flat.shape[-1])))
        share = share.reshape(*pools.shape[:-1], *places.shape[-2:])  # of each knot in the curve at each place
        return _variance((errors @ (share * slope[..., None, None, :]).sum(-1)).swapaxes(-1, -2))

    freedom = welch(variance, theirs(start)[..., 0], own.shape[-1], errors.shape[-2])
    times = quantile(freedom)[..., None]
    ends = []
    for end in (least, most):
        nodes = start + (end[..., None] - start) * (np.arange(NODES) / (NODES - 1)) ** 2
        places = mine.x[..., None, :] + nodes[..., None]
        off = mine.quality[..., None, :] - along(x[..., None, :], curve[..., None, :], places)
        size = np.abs((off * slope[..., None, :]).sum(-1))
        ends.append(_last(nodes, size - times * np.sqrt(variance[..., None] + theirs(nodes))))
    return Shift(shown, np.where(inside, ends[0], -np.inf), np.where(inside, ends[1], np.inf))


def _slope(x: np.ndarray, curve: np.ndarray, at: np.ndarray) -> np.ndarray:
    return (along(x, curve, at + SLOPE_OVER) - along(x, curve, at - SLOPE_OVER)) / (2 * SLOPE_OVER)


def _variance(errors: np.ndarray) -> np.ndarray:
    n = errors.shape[-1]
    return (errors**2).sum(-1) * n / (n - 1)


def _last(nodes: np.ndarray, over: np.ndarray) -> np.ndarray:
    """Where `over` is above zero for good, by linear interpolation; infinite on the nodes' side where it never is."""
    count = nodes.shape[-1]
    accepted = over <= 0
    last = np.where(accepted.any(-1), count - 1 - accepted[..., ::-1].argmax(-1), 0)
    first, second = last, np.minimum(last + 1, count - 1)

    def pick(a: np.ndarray, i: np.ndarray) -> np.ndarray:
        return np.take_along_axis(a, i[..., None], -1)[..., 0]

    a, b = pick(over, first), pick(over, second)
    with np.errstate(invalid="ignore", divide="ignore"):
        t = np.where(b > a, np.clip(-a / (b - a), 0, 1), 0)
    found = pick(nodes, first) + t * (pick(nodes, second) - pick(nodes, first))
    outwards = np.sign(nodes[..., -1] - nodes[..., 0]) * np.inf
    return np.where(accepted[..., -1], outwards, found)
