"""The float64 NumPy twin of each kernel: plain, slow, the oracle of the tests.

Nothing here is blocked, lazy or clever: every gain is computed for every row at every step, from its definition.
Each twin can also follow a given order (`follow=`) and say how good each of its picks was, which is how an order
that swaps two rows within rounding is told from a wrong one.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from . import float64
from .ground import Ground, Method
from .methods import DOptimal, FacilityLocation, KCenter
from .methods.facility_location import DEFAULT_BANDWIDTH
from .uncertainty import PromptScores, SequenceScores


class Trace(NamedTuple):
    """indices: (k,) int64, the picks in order. gains: (k,) float64, of each pick when taken. best, second: (k,)
    float64, the largest and second largest gain then on offer; a greedy order has gains == best, up to ties."""

    indices: np.ndarray
    gains: np.ndarray
    best: np.ndarray
    second: np.ndarray


def greedy(method: Method, ground: Ground, budget: int, *, follow: Sequence[int] | None = None) -> Trace:
    """Plain greedy by a method's definition, `Method.gains`, in float64: every row at every step.

    >>> from edjax.kernels import METHODS
    >>> greedy(METHODS["k_center"], Ground({"embedding": np.array([[0.0], [1.0], [9.0]])}), 2).indices.tolist()
    [1, 2]
    """
    rows = [int(j) for j in dict.fromkeys(() if ground.given is None else ground.given)]
    may = np.ones(ground.n, bool) if ground.valid is None else np.asarray(ground.valid, bool)
    picked = ~may
    picked[rows] = True
    valid = float64.clean(ground.columns["embedding"])[1] if "embedding" in ground.columns else np.ones(ground.n, bool)
    trace = []
    for t in range(budget):
        gains = method.gains(ground, rows)
        sound = valid & ~np.isnan(gains) & ~picked
        # Rows that hold NaN come when no other is left.
        now = np.where(sound, gains, -np.inf)
        best = int(np.argmax(now if sound.any() else ~picked))
        own = best if now[best] <= 0 else int(np.argmax(method.ties(now)))
        j = own if follow is None else int(follow[t])
        others = np.delete(now, best)
        trace.append((j, now[j], now[best], others.max() if len(others) else -np.inf))
        picked[j] = True
        rows.append(j)
    columns = np.array(trace, np.float64).reshape(-1, 4).T
    return Trace(columns[0].astype(np.int64), *columns[1:])


def _columns(x: np.ndarray, weights: np.ndarray | None) -> dict[str, np.ndarray]:
    return {"embedding": np.asarray(x)} | ({} if weights is None else {"weight": np.asarray(weights)})


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
    return greedy(KCenter(first), Ground(_columns(x, weights), given=labelled), budget, follow=follow)


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
    return greedy(DOptimal(ridge, centre), Ground(_columns(x, weights), given=labelled), budget, follow=follow)


def facility_location(
    x: np.ndarray,
    budget: int,
    *,
    similarity: Literal["rbf", "cosine"] = "rbf",
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
    target = None if represented is None else _columns(represented, weights)
    columns = _columns(x, weights if represented is None else None)
    columns |= {} if quality is None else {"quality": np.asarray(quality)}
    ground = Ground(columns, given=labelled, target=target)
    return greedy(FacilityLocation(similarity, bandwidth), ground, budget, follow=follow)


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


def prompt_scores(logits: np.ndarray, hidden: np.ndarray) -> PromptScores:
    """Twin of `edjax.kernels.prompt_scores`; the gradient (d, v) is formed.

    >>> scores = prompt_scores(np.zeros((1, 4)), np.ones((1, 2)))
    >>> round(float(scores.energy[0]), 4), abs(float(scores.grad_norm[0]))
    (-1.3863, 0.0)
    """
    scores = []
    for z, h in zip(np.asarray(logits, np.float64), np.asarray(hidden, np.float64), strict=True):
        log_total = z.max() + np.log(np.sum(np.exp(z - z.max())))
        gradient = np.outer(h, np.exp(z - log_total) - 1 / len(z))  # of the mean over classes of the cross-entropy
        scores.append((-log_total, -np.abs(gradient).sum()))
    return PromptScores(*np.array(scores).reshape(-1, 2).T)


def lloyd(x: np.ndarray, centres: np.ndarray, iterations: int) -> tuple[np.ndarray, np.ndarray]:
    """Twin of `edjax.kernels.kmeans` from given centres: (centres, labels).

    >>> lloyd(np.array([[0.0], [2.0], [9.0]]), np.array([[0.0], [9.0]]), 1)[0].tolist()
    [[1.0], [9.0]]
    """
    x, centres = np.asarray(x, np.float64), np.array(centres, np.float64)
    for _ in range(iterations):
        labels = np.argmin(float64.squared_distances(x, centres), axis=1)
        for c in np.unique(labels):
            centres[c] = x[labels == c].mean(axis=0)
    return centres, np.argmin(float64.squared_distances(x, centres), axis=1)


def prepare(
    x: np.ndarray, normalise: str = "whiten", whiten_dims: int = 200, *, fitted_on: Sequence[int] | None = None
) -> np.ndarray:
    """Twin of `edjax.kernels.measure.fit` on some rows and `apply` to all, by a singular value decomposition.

    >>> prepare(np.array([[9.0, 5.0], [11.0, 5.0], [10.0, 4.0], [10.0, 6.0]]), "l2").tolist()
    [[-1.0, 0.0], [1.0, 0.0], [0.0, -1.0], [0.0, 1.0]]
    """
    x = np.asarray(x, np.float64)
    own = x if fitted_on is None else x[fitted_on]
    if normalise == "none":
        return x
    x, own = x - own.mean(axis=0), own - own.mean(axis=0)
    if normalise == "whiten":
        q = max(1, min(whiten_dims, own.shape[1], len(own) // 4))
        _, values, vectors = np.linalg.svd(own, full_matrices=False)
        vectors = vectors[:q] * np.sign(vectors[:q][np.arange(q), np.abs(vectors[:q]).argmax(axis=1)])[:, None]
        x = x @ vectors.T / (values[:q] / np.sqrt(len(own)))
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    return x if normalise == "centre" else x / np.where(lengths > 0, lengths, 1)


def near_duplicates(
    x: np.ndarray, threshold: float, *, order: Sequence[int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Twin of `edjax.kernels.near_duplicates`: (keeper, similarity), a pair of rows at a time.

    >>> near_duplicates(np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 0.01]]), 0.99)[0].tolist()
    [0, 1, 0]
    """
    x, valid = float64.clean(x)
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
