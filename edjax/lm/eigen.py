"""A compiler option for programs of large matrix products on a CPU."""

from __future__ import annotations

import functools

import jax
import numpy as np

EIGEN = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}


@functools.cache
def options() -> dict[str, str]:
    """`compiler_options` for `jax.jit`: on a CPU products by Eigen, where XLA takes the option.

    Large ones are a tenth faster by it. Decoding's are slower, and so are logits whose vocabulary comes last
    (docs/log.md).
    """
    if jax.default_backend() != "cpu":
        return {}
    try:
        jax.jit(lambda x: x + 1, compiler_options=EIGEN).lower(np.float32(0)).compile()
    except Exception:  # another jax, which has no such option
        return {}
    return EIGEN
