"""The float64 NumPy twin of each kernel: plain, slow, the oracle of the tests.

Nothing here is blocked, lazy or clever: every gain is computed for every row at every step, from its definition.
Each twin can also follow a given order (`follow=`) and say how good each of its picks was, which is how an order
that swaps two rows within rounding is told from a wrong one.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from .d_optimal import DEFAULT_RIDGE, TIES
from .facility_location import DEFAULT_BANDWIDTH
from .k_center import START_TIES
from .uncertainty import SequenceScores


class Trace(NamedTuple):
    """indices: (k,) int64, the picks in order. gains: (k,) float64, of each pick when taken. best, second: (k,)
    float64, the largest and second largest gain then on offer; a greedy order has gains == best, up to ties."""

    indices: np.ndarray
    gains: np.ndarray
    best: np.ndarray
    second: np.ndarray


def k_center(
    x: np.ndarray,
    budget: int,
    *,
    first: int | None = None,
    labelled: Sequence[int] = (),
    weights: np.ndarray | None = None,
    follow: Sequence[int] | None = None,
) -> Trace:
    """Twin of `edjax.kernels.k_center`.

    >>> k_center(np.array([[0.0], [1.0], [9.0]]), 2).indices.tolist()
    [1, 2]
    """
    x, valid = _clean(x)
    w = np.ones(len(x)) if weights is None else np.asarray(weights, np.float64)
    nearest, empty = np.full(len(x), np.inf), True
    centre = np.sum((x - x[valid].mean(0)) ** 2, axis=1) if valid.any() else np.zeros(len(x))
    centre = np.where(valid, centre, np.inf)
    nearest_the_mean = centre <= float(np.min(centre, initial=np.inf)) * (1 + START_TIES)
    start = int(np.argmax(nearest_the_mean)) if first is None else int(first)

    def add(j: int) -> None:
        nonlocal nearest, empty
        nearest, empty = np.minimum(nearest, np.linalg.norm(x - x[j], axis=1)), False

    def gains() -> np.ndarray:
        if empty:
            return np.where(np.arange(len(x)) == start, np.inf, np.finfo(np.float64).max)
        return w * nearest

    return _greedy(gains, add, valid, budget, labelled, follow)


def d_optimal(
    x: np.ndarray,
    budget: int,
    *,
    ridge: float | None = None,
    labelled: Sequence[int] = (),
    weights: np.ndarray | None = None,
    centre: bool = False,
    follow: Sequence[int] | None = None,
) -> Trace:
    """Twin of `edjax.kernels.d_optimal`; A is formed and solved anew at every step. Leverages tie as they do there.

    >>> d_optimal(np.array([[3.0, 0.0], [2.9, 0.0], [0.0, 1.0]]), 3, ridge=0.1).indices.tolist()
    [0, 2, 1]
    """
    x, valid = _clean(x)
    if centre:
        x = np.where(valid[:, None], x - x[valid].mean(0), 0)
    if weights is not None:
        x = x * np.asarray(weights, np.float64)[:, None]
    if ridge is None:
        ridge = DEFAULT_RIDGE * float(np.mean(np.sum((x[valid] - x[valid].mean(0)) ** 2, axis=1))) or 1.0
    state = {"a": ridge * np.eye(x.shape[1])}

    def add(j: int) -> None:
        state["a"] = state["a"] + np.outer(x[j], x[j])

    def gains() -> np.ndarray:
        return np.log1p(np.maximum(np.sum(x * np.linalg.solve(state["a"], x.T).T, axis=1), 0))

    return _greedy(
        gains, add, valid, budget, labelled, follow, tied=lambda g: np.expm1(g) >= np.expm1(g.max()) * (1 - TIES)
    )


def facility_location(
    x: np.ndarray,
    budget: int,
    *,
    similarity: str = "rbf",
    bandwidth: float = DEFAULT_BANDWIDTH,
    represented: np.ndarray | None = None,
    labelled: Sequence[int] = (),
    weights: np.ndarray | None = None,
    quality: np.ndarray | None = None,
    follow: Sequence[int] | None = None,
) -> Trace:
    """Twin of `edjax.kernels.facility_location`; holds the (n, m) similarities.

    >>> facility_location(np.array([[0.0], [0.1], [0.2], [5.0], [5.1]]), 2).indices.tolist()
    [1, 3]
    """
    x, valid = _clean(x)
    z, covered = (x, valid) if represented is None else _clean(represented)
    if similarity == "rbf":
        d2 = _squared_distances(x, z)
        s = np.exp(-d2 / max(bandwidth * float(_squared_distances(x[valid], x[valid]).mean()), 1e-300))
    else:
        norms = np.maximum(np.linalg.norm(x, axis=1), 1e-300)[:, None] * np.maximum(np.linalg.norm(z, axis=1), 1e-300)
        s = np.maximum(x @ z.T / norms, 0)
    w = np.where(covered, 1.0 if weights is None else weights, 0.0)
    q = np.ones(len(x)) if quality is None else np.asarray(quality, np.float64)
    state = {"cover": np.zeros(len(z))}

    def add(j: int) -> None:
        state["cover"] = np.maximum(state["cover"], s[j])

    def gains() -> np.ndarray:
        return q * (np.maximum(s - state["cover"], 0) @ w)

    return _greedy(gains, add, valid, budget, labelled, follow)


def token_uncertainty(logits: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> SequenceScores:
    """Twin of `edjax.kernels.token_uncertainty`, a token at a time.

    >>> scores = token_uncertainty(np.zeros((1, 1, 4)), np.array([[2]]), np.array([[True]]))
    >>> round(float(scores.mean_entropy[0]), 4)
    1.3863
    """
    scores = []
    for z, y, keep in zip(np.asarray(logits, np.float64), tokens, np.asarray(mask, bool), strict=True):
        entropy, margin, nll = [], [], []
        for row, token in zip(z[keep], y[keep], strict=True):
            p = np.exp(row - row.max())
            p = p / p.sum()
            first, second = np.sort(p)[::-1][:2]
            entropy.append(-sum(v * np.log(v) for v in p if v > 0))
            margin.append(first - second)
            nll.append(-np.log(p[token]))
        if entropy:
            mean = (np.mean(entropy), np.max(entropy), np.sum(nll), np.mean(nll))
            scores.append((*mean, -np.mean(margin), -np.min(margin)))
        else:
            scores.append((0.0,) * 6)
    return SequenceScores(*np.array(scores).reshape(-1, 6).T)


def lloyd(x: np.ndarray, centres: np.ndarray, iterations: int) -> tuple[np.ndarray, np.ndarray]:
    """Twin of `edjax.kernels.kmeans` from given centres: (centres, labels).

    >>> lloyd(np.array([[0.0], [2.0], [9.0]]), np.array([[0.0], [9.0]]), 1)[0].tolist()
    [[1.0], [9.0]]
    """
    x, centres = np.asarray(x, np.float64), np.array(centres, np.float64)
    for _ in range(iterations):
        labels = np.argmin(_squared_distances(x, centres), axis=1)
        for c in np.unique(labels):
            centres[c] = x[labels == c].mean(axis=0)
    return centres, np.argmin(_squared_distances(x, centres), axis=1)


def near_duplicates(
    x: np.ndarray, threshold: float, *, order: Sequence[int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Twin of `edjax.kernels.near_duplicates`: (keeper, similarity), a pair of rows at a time.

    >>> near_duplicates(np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 0.01]]), 0.99)[0].tolist()
    [0, 1, 0]
    """
    x, valid = _clean(x)
    norms = np.linalg.norm(x, axis=1)
    keeper, similarity = np.arange(len(x)), np.ones(len(x))
    kept: list[int] = []
    for i in range(len(x)) if order is None else order:
        for j in kept if valid[i] else ():
            both = norms[i] > 0 and norms[j] > 0
            s = x[i] @ x[j] / (norms[i] * norms[j]) if both else float(norms[i] == norms[j])
            if s >= threshold or (s > 1 - 1e-9 and threshold == 1):
                keeper[i], similarity[i] = j, s
                break
        else:
            kept += [i] if valid[i] else []
    return keeper, similarity


def _clean(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x = np.asarray(x, np.float64)
    valid = np.isfinite(x).all(axis=1)
    return np.where(valid[:, None], x, 0), valid


def _squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.stack([np.sum((row - b) ** 2, axis=1) for row in a]) if len(a) else np.zeros((0, len(b)))


def _greedy(
    gains: Callable[[], np.ndarray],
    add: Callable[[int], None],
    valid: np.ndarray,
    budget: int,
    labelled: Sequence[int],
    follow: Sequence[int] | None,
    tied: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Trace:
    picked = np.zeros(len(valid), bool)
    for j in dict.fromkeys(int(j) for j in labelled):
        picked[j] = True
        if valid[j]:
            add(j)
    trace = []
    for t in range(budget):
        now = np.where(picked, -np.inf, np.where(valid, gains(), -1.0))
        best = int(np.argmax(now))
        own = best if tied is None or now[best] <= 0 else int(np.argmax(tied(now)))
        j = own if follow is None else int(follow[t])
        others = np.delete(now, best)
        trace.append((j, now[j], now[best], others.max() if len(others) else -np.inf))
        picked[j] = True
        if valid[j]:
            add(j)
    columns = np.array(trace, np.float64).reshape(-1, 4).T
    gain = np.where(columns[1] < 0, -np.inf, columns[1])
    return Trace(columns[0].astype(np.int64), gain, columns[2], columns[3])
