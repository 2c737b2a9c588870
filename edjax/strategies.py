"""The table of strategies: a name, what it reads, and the function that orders the pool."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from edjax.features import Features
from edjax.stream import Spill, Stream, View

_SMALL = 64 << 20  # bytes of rows that are read into memory where the rest of the pool stays on disk
Order = tuple[np.ndarray, np.ndarray | None]
Rows = np.ndarray | Stream | Spill


class Problem(NamedTuple):
    """What a strategy is asked: `budget` of the `candidates`, given what is `labelled`; rows are those of `features`.

    `x` (n, d) are the embeddings as prepared by `edjax.select.prepare`, for strategies that need them. `candidates`
    (m,) int64 ascending are the rows that may be picked, `labelled` (p,) those that start the state; other rows do not
    count at all. `weights` (n,) float32 scale diversity by quality, see `edjax.select.quality`. `bandwidth` is facility
    location's. `alike`: shapes are padded, so that many problems of about one size share a compilation.
    """

    features: Features
    x: Rows
    candidates: np.ndarray
    budget: int
    seed: int = 0
    labelled: np.ndarray = np.zeros(0, np.int64)
    weights: np.ndarray | None = None
    bandwidth: float | None = None
    alike: bool = False


class Strategy(NamedTuple):
    """A named way to spend a budget.

    `order(problem)` gives the picks (k,) in the order taken and the gain of each, or None where a pick has no gain.
    `streams`: whether `x` may lie on disk.
    """

    needs: str  # "nothing", "embeddings", or the name of a score
    summary: str
    order: Callable[[Problem], Order]
    seeded: bool = False
    streams: bool = False


def _random(p: Problem) -> Order:
    """A shuffle of all rows, of which those that may not be picked are passed over: a second round goes on in it."""
    order = np.random.Generator(np.random.PCG64(p.seed)).permutation(len(p.features))
    free = np.zeros(len(p.features), bool)
    free[p.candidates] = True
    return order[free[order]][: p.budget], None


def by_score(name: str) -> Callable[[Problem], Order]:
    """Largest score first; ties go to the lowest row."""

    def order(p: Problem) -> Order:
        values = p.features.scores[name][p.candidates]
        picks = np.argsort(-values, kind="stable")[: p.budget]
        return p.candidates[picks], values[picks]

    return order


def _kernel(name: str) -> Callable[[Problem], Order]:
    def order(p: Problem) -> Order:
        from edjax import kernels

        rows = np.union1d(p.candidates, p.labelled)
        whole = len(rows) == len(p.features)
        weights = None if p.weights is None else p.weights[rows]
        labelled, budget = np.searchsorted(rows, np.unique(p.labelled)), p.budget
        options = {"bandwidth": p.bandwidth} if name == "facility_location" and p.bandwidth else {}
        assert not isinstance(p.x, Stream)
        small = not whole and 4 * len(rows) * p.x.shape[1] <= _SMALL
        x: np.ndarray | Spill | View = p.x[rows] if small or (isinstance(p.x, np.ndarray) and not whole) else p.x
        select = getattr(kernels, name if isinstance(x, np.ndarray) else f"{name}_streamed")
        if isinstance(x, np.ndarray) and p.alike:
            x, weights, labelled, budget = _padded(x, weights, labelled, budget)
        elif isinstance(x, Spill):
            scale, weights = (weights, None) if name == "d_optimal" else (None, weights)
            x = x if whole and scale is None else View(x, rows, scale)
        if weights is not None:
            options["quality" if name == "facility_location" else "weights"] = weights
        got = select(x, budget, labelled=labelled if len(labelled) else None, **options)
        return rows[np.asarray(got.indices)[: p.budget]], np.asarray(got.gains)[: p.budget]

    return order


def _padded(
    x: np.ndarray, weights: np.ndarray | None, labelled: np.ndarray, budget: int
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray, int]:
    """The same problem with the next power of 2 of rows and picks: NaN rows are taken last and count nothing."""
    n = max(32, 1 << (len(x) - 1).bit_length())
    more = n - len(x)
    x = np.pad(x, ((0, more), (0, 0)), constant_values=np.nan)
    weights = None if weights is None else np.pad(weights, (0, more), constant_values=1)
    return x, weights, labelled, min(max(8, 1 << max(budget - 1, 0).bit_length()), n - len(labelled))


STRATEGIES: dict[str, Strategy] = {
    "random": Strategy("nothing", "uniformly at random: what every other strategy is compared with", _random, True),
    "mean_entropy": Strategy("mean_entropy", "largest mean entropy of the model's answer", by_score("mean_entropy")),
    "max_entropy": Strategy("max_entropy", "largest entropy of any token of it", by_score("max_entropy")),
    "least_confidence": Strategy(
        "least_confidence", "smallest probability of the whole answer", by_score("least_confidence")
    ),
    "mean_nll": Strategy("mean_nll", "largest negative log-likelihood a token", by_score("mean_nll")),
    "mean_margin": Strategy("mean_margin", "smallest mean gap between the two top tokens", by_score("mean_margin")),
    "min_margin": Strategy("min_margin", "smallest gap at any token", by_score("min_margin")),
    "k_center": Strategy(
        "embeddings", "farthest first: no prompt is far from a chosen one", _kernel("k_center"), streams=True
    ),
    "d_optimal": Strategy(
        "embeddings", "largest log-determinant of the information matrix", _kernel("d_optimal"), streams=True
    ),
    "facility_location": Strategy("embeddings", "every prompt has a similar chosen one", _kernel("facility_location")),
}
