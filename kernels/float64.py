"""What the float64 oracles share, in NumPy."""

from typing import Any

import numpy as np


def clean(x: Any) -> tuple[np.ndarray, np.ndarray]:
    """Rows in float64, zero where they held NaN or infinity; and (n,) which did not."""
    x = np.asarray(x, np.float64)
    valid = np.isfinite(x).all(axis=1)
    return np.where(valid[:, None], x, 0), valid


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n, m) by differences, a row of `a` at a time."""
    return np.stack([np.sum((row - b) ** 2, axis=1) for row in a]) if len(a) else np.zeros((0, len(b)))


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n, m); 0 where a row is 0."""
    lengths = [np.maximum(np.linalg.norm(rows, axis=1), 1e-150) for rows in (a, b)]
    return a @ b.T / (lengths[0][:, None] * lengths[1])
