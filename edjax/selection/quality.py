"""Quality times diversity: a score that scales the design, or one that decides who is looked at."""

from __future__ import annotations

import math

import numpy as np


def weights(score: np.ndarray, strength: float) -> np.ndarray:
    """q_i = (rank of the score of row i / n)^strength, in (0, 1], (n,) float32; ties share the mean of their ranks.

    d_optimal sees q_i x_i, k_center the distance times q_i, facility_location a gain of candidate i times q_i. Ranks
    make scores of any unit and tail comparable; strength 0 is no weighting, a large one leaves the best-scored alone.

    >>> weights(np.float32([0.1, 7.0, 0.1, 9.0]), 1.0).tolist()
    [0.375, 0.75, 0.375, 1.0]
    """
    _, place, counts = np.unique(score, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    return ((ranks[place] / max(len(score), 1)) ** strength).astype(np.float32)


def prefilter(score: np.ndarray, candidates: np.ndarray, budget: int, ratio: float) -> np.ndarray:
    """The ceil(ratio x budget) candidates of largest score (all, where there are fewer), ascending; ties go to the
    lowest row.

    >>> prefilter(np.float32([1, 5, 3, 5]), np.array([0, 1, 2, 3]), 1, 2.0).tolist()
    [1, 3]
    """
    keep = min(len(candidates), math.ceil(ratio * budget))
    return np.sort(candidates[np.argsort(-score[candidates], kind="stable")[:keep]])
