"""Near-duplicates: rows that another row of the pool already stands for."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from edjax.data.stream import Spill


class Alike(NamedTuple):
    """keep: the rows that stay, ascending. gone, keeper, similarity: each row that goes, the row that stands for it,
    and their cosine similarity."""

    keep: np.ndarray
    gone: np.ndarray
    keeper: np.ndarray
    similarity: np.ndarray


def find(x: np.ndarray | Spill, threshold: float, labelled: np.ndarray, weights: np.ndarray | None) -> Alike:
    """Keep one row of each bunch of near-duplicates: a labelled one, else that of highest weight, else the first.

    Args:
      x: (n, d) embeddings, centred and of length 1.
      threshold: rows whose cosine similarity is at least this are near-duplicates; see
        `edjax.kernels.near_duplicates`.
      labelled: rows that are never removed. weights: (n,) or None.
    """
    from edjax import kernels

    later = np.ones(len(x), bool)
    later[labelled] = False
    by_weight = np.zeros(len(x)) if weights is None else -weights
    found = kernels.near_duplicates(x, threshold, order=np.lexsort((np.arange(len(x)), by_weight, later)))
    stays = (found.keeper == np.arange(len(x))) | ~later
    gone = np.flatnonzero(~stays)
    return Alike(np.flatnonzero(stays), gone, found.keeper[gone], found.similarity[gone])
