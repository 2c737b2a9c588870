"""The table of strategies: a name, what it reads, and the function that orders the pool."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from edjax.features import Features
from edjax.stream import Spill, Stream

Order = tuple[np.ndarray, np.ndarray | None]
Rows = np.ndarray | Stream | Spill


class Strategy(NamedTuple):
    """A named way to spend a budget.

    `order(features, x, budget, seed)` gives the picks (k,) in the order taken and the gain of each, or None where a
    pick has no gain. `x` (n, d) are the embeddings as prepared by `edjax.select.prepare`, for those that need them.
    `streams`: whether `x` may lie on disk.
    """

    needs: str  # "nothing", "embeddings", or the name of a score
    summary: str
    order: Callable[[Features, Rows, int, int], Order]
    seeded: bool = False
    streams: bool = False


def _random(features: Features, x: Rows, budget: int, seed: int) -> Order:
    return np.random.Generator(np.random.PCG64(seed)).permutation(len(features))[:budget], None


def by_score(name: str) -> Callable[[Features, Rows, int, int], Order]:
    """Largest score first; ties go to the lowest row."""

    def order(features: Features, x: Rows, budget: int, seed: int) -> Order:
        values = features.scores[name]
        picks = np.argsort(-values, kind="stable")[:budget]
        return picks, values[picks]

    return order


def _kernel(name: str) -> Callable[[Features, Rows, int, int], Order]:
    def order(features: Features, x: Rows, budget: int, seed: int) -> Order:
        from edjax import kernels

        got = getattr(kernels, name if isinstance(x, np.ndarray) else f"{name}_streamed")(x, budget)
        return np.asarray(got.indices), np.asarray(got.gains)

    return order


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
