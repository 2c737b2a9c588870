"""Llama 3.1's rope scaling out of a GGUF file, which holds what it does to each frequency, and not its settings."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from edjax.lm.rope import Rope

FACTORS = (8.0, 32.0, 4.0, 2.0, 16.0, 64.0)  # Llama 3.1 has the first, Llama 3.2 the second
CONTEXTS = (8192, *(2**n for n in range(5, 18)))
TOLERANCE = 1e-5


def scaling_of(divisors: np.ndarray, theta: float, dim: int) -> dict[str, Any] | None:
    """The `rope_scaling` of config.json by which frequency i is divided by `divisors[i]` (dim / 2,).

    Found by trying: frequencies are all that the model sees of the settings, so any that give these are right. Empty:
    nothing is scaled. None: no settings give these divisors, so they are of another scaling.
    """
    given = np.asarray(divisors, np.float64).ravel()
    if given.shape != (dim // 2,) or not np.isfinite(given).all():
        return None
    plain = np.asarray(Rope(theta).frequencies(dim), np.float64)
    if np.allclose(given, 1, rtol=TOLERANCE, atol=0):
        return {}
    for factor, context in product((float(given.max()), *FACTORS), CONTEXTS):
        rope = Rope(theta, "llama3", factor=factor, original_max_position_embeddings=context)
        if np.allclose(plain / np.asarray(rope.frequencies(dim), np.float64), given, rtol=TOLERANCE, atol=0):
            return {
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": rope.low_freq_factor,
                "high_freq_factor": rope.high_freq_factor,
                "original_max_position_embeddings": context,
            }
    return None
