"""Whitening: principal components of unit variance, so that no few directions hold what distances see."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

ROWS_A_DIMENSION = 4
_NOTHING = 1e-10  # of the largest variance: what is below is no direction


class Whitening(NamedTuple):
    """rough, rest: (d,) float32, the mean in two terms. axes: (d, q) float32, each principal component divided by the
    standard deviation along it."""

    rough: np.ndarray
    rest: np.ndarray
    axes: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """(m, q) float32 rows, not scaled to length 1."""
        return ((x - self.rough) - self.rest) @ self.axes


def dimensions(n: int, d: int, whiten_dims: int) -> int:
    """q: at most `whiten_dims`, and so few that there are `ROWS_A_DIMENSION` rows for each: along n - 1 directions of
    unit variance n rows are all equally far from each other."""
    return max(1, min(d, whiten_dims, n // ROWS_A_DIMENSION))


def flops(n: int, d: int, q: int) -> int:
    """Of the covariance, its eigendecomposition (about 9 d^3: Golub & Van Loan, Matrix Computations, 8.3) and the
    projection."""
    return 2 * n * d * d + 9 * d**3 + 2 * n * d * q


def fit_bytes(rows: int, d: int) -> int:
    """Peak of `fit` with parts of so many rows: a part centred in both precisions; the covariance, its product of a
    part, its eigenvectors and their workspace."""
    return 12 * rows * d + 8 * 5 * d * d


def fit(parts: Iterable[np.ndarray], rough: np.ndarray, rest: np.ndarray, n: int, whiten_dims: int) -> Whitening:
    """PCA of n rows given in parts, their mean known, in float64.

    The first q principal components of (1/n) sum_i (x_i - mean)(x_i - mean)^T, each divided by the square root of its
    variance; of a component's two signs the one that makes its largest entry positive. Directions without variance are
    left out, and those that are the rounding of float32 rows far from zero; of rows that are all alike one axis of
    zeros is left.

    Cost: 2 n d^2 FLOPs and an eigendecomposition of (d, d).
    """
    d = len(rough)
    covariance = np.zeros((d, d))
    for part in parts:
        x = ((part - rough) - rest).astype(np.float64)
        covariance += x.T @ x
    values, vectors = np.linalg.eigh(covariance / max(n, 1))
    first = np.argsort(-values, kind="stable")[: dimensions(n, d, whiten_dims)]
    rounding = 4 * np.square(np.finfo(np.float32).eps * np.abs(rough).max(initial=0.0, where=np.isfinite(rough)))
    first = first[values[first] > max(_NOTHING * float(values[-1]), float(rounding), 1e-300)]
    if not len(first):  # rows that do not differ
        return Whitening(rough, rest, np.zeros((d, 1), np.float32))
    axes = vectors[:, first]
    axes = axes * np.where(axes[np.abs(axes).argmax(0), np.arange(len(first))] < 0, -1.0, 1.0)
    return Whitening(rough, rest, (axes / np.sqrt(values[first])).astype(np.float32))
