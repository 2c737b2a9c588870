"""Preparation of rows that stay on the host, in NumPy: fitted in float64, a part at a time, as `measure` does in JAX.

What a command line and files need: a pool may be larger than memory, and the precision is that of the host whatever the
device has. The result is the same `measure.Preparation`, with as many axes as there are directions.
"""

from collections.abc import Iterable

import numpy as np

from .measure import NOISE, NOTHING, Preparation, dimensions


def fit(parts: Iterable[np.ndarray], n: int, normalise: str = "whiten", whiten_dims: int = 200) -> Preparation:
    """`measure.fit` of n finite rows given in parts, gone through once for the mean and again for the components.

    Covariance and eigenvectors in float64. `least` is left at None where rows are to be scaled to length 1, for the
    pass that applies it: see `scaled`. Directions without variance are left out of the axes; of rows that are all alike
    one axis of zeros is left.

    Cost: 2 n d^2 FLOPs and an eigendecomposition of (d, d), see `flops`; memory, see `fit_bytes`.

    >>> rows = np.array([[9.0, 5.0], [11.0, 5.0], [9.0, 5.5], [11.0, 5.5]] * 2)
    >>> fit([rows[:5], rows[5:]], 8).axes.tolist()
    [[1.0, 0.0], [0.0, 4.0]]
    """
    if normalise == "none":
        return Preparation()
    total = np.sum([part.sum(axis=0, dtype=np.float64) for part in parts], axis=0)
    by = Preparation(two_terms(total / n))
    return by._replace(axes=_axes(parts, by, n, whiten_dims)) if normalise == "whiten" else by


def two_terms(mean: np.ndarray) -> np.ndarray:
    """(2, d), a float64 mean as two float32 terms."""
    rough = mean.astype(np.float32)
    return np.stack([rough, (mean - rough).astype(np.float32)])


def _axes(parts: Iterable[np.ndarray], by: Preparation, n: int, whiten_dims: int) -> np.ndarray:
    d = by.mean.shape[1]
    covariance = np.zeros((d, d))
    for part in parts:
        x = projected(by, part).astype(np.float64)
        covariance += x.T @ x
    values, vectors = np.linalg.eigh(covariance / max(n, 1))
    first = np.argsort(-values, kind="stable")[: dimensions(n, d, whiten_dims)]
    rough = by.mean[0]
    rounding = 4 * np.square(np.finfo(np.float32).eps * np.abs(rough).max(initial=0.0, where=np.isfinite(rough)))
    first = first[values[first] > max(NOTHING * float(values[-1]), float(rounding), 1e-300)]
    if not len(first):  # rows that do not differ
        return np.zeros((d, 1), np.float32)
    axes = vectors[:, first]
    axes = axes * np.where(axes[np.abs(axes).argmax(0), np.arange(len(first))] < 0, -1.0, 1.0)
    return (axes / np.sqrt(values[first])).astype(np.float32)


def projected(by: Preparation, x: np.ndarray) -> np.ndarray:
    """Rows less the mean, on the axes; not yet of length 1."""
    if by.mean is None:
        return x
    x = x - by.mean[0]
    x -= by.mean[1]
    return x if by.axes is None else x @ by.axes


def scaled(by: Preparation, x: np.ndarray) -> tuple[Preparation, np.ndarray]:
    """Projected rows of the whole pool, scaled to length 1 in place; and the preparation with `least`, which these say.

    >>> by, x = scaled(Preparation(), np.array([[3.0, 4.0], [0.0, 1e-9]]))
    >>> x.tolist()
    [[0.6, 0.8], [0.0, 0.0]]
    """
    norms = np.linalg.norm(x, axis=1)
    by = by._replace(least=least(norms))
    x /= divisors(norms, by.least)[:, None]
    return by, x


def least(norms: np.ndarray) -> float:
    """`Preparation.least` of a pool whose rows have these lengths."""
    return NOISE * max(float(norms.max(initial=0.0)), 1e-30)


def divisors(norms: np.ndarray, least: float) -> np.ndarray:
    """What to divide each row by: its length, or infinity where the row is rounding about the mean."""
    return np.where(norms > least, norms, np.float32(np.inf))


def apply(by: Preparation, x: np.ndarray) -> np.ndarray:
    """`measure.apply` of rows on the host.

    >>> apply(Preparation(np.array([[1.0, 1.0], [0.0, 0.0]]), least=1e-6), np.array([[1.0, 3.0]])).tolist()
    [[0.0, 1.0]]
    """
    x = projected(by, x)
    return x if by.least is None else x / divisors(np.linalg.norm(x, axis=1), by.least)[:, None]


def flops(n: int, d: int, q: int) -> int:
    """Of whitening: the covariance, its eigendecomposition (about 9 d^3: Golub & Van Loan, Matrix Computations, 8.3)
    and the projection."""
    return 2 * n * d * d + 9 * d**3 + 2 * n * d * q


def fit_bytes(rows: int, d: int) -> int:
    """Peak of `fit` with parts of so many rows: a part centred in both precisions; the covariance, its product of a
    part, its eigenvectors and their workspace."""
    return 12 * rows * d + 8 * 5 * d * d
