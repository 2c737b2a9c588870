"""The data the benchmarks run on: made from a seed, so that everybody measures the same rows."""

from __future__ import annotations

import numpy as np


def mixture(n: int, d: int, seed: int = 0, centres: int = 100) -> np.ndarray:
    """(n, d) float32 rows around `centres` Gaussian centres, centres and noise both of unit variance."""
    rng = np.random.default_rng(seed)
    middle = rng.standard_normal((centres, d)).astype(np.float32)
    return middle[rng.integers(0, centres, n)] + rng.standard_normal((n, d)).astype(np.float32)
