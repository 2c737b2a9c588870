"""One vector a prompt from the hidden states of its tokens."""

from __future__ import annotations

import jax.numpy as jnp

from edjax.keep.errors import UsageError
from edjax.lm.decode import last_hidden
from edjax.lm.decoder import Array


def pool(hidden: Array, lengths: Array, how: str = "mean") -> Array:
    """sum_t w_t h_t over each row's real tokens, (b, d) float32.

    "mean": w_t = 1/n. "weighted_mean": w_t = t / (1 + ... + n), t from 1 (Muennighoff 2022, SGPT). "last": the last
    real token's own state.

    Args:
      hidden: (b, t, d) hidden states of right-padded rows; what is in the padding changes nothing, NaN included.
      lengths: (b,) int, real tokens a row; a row of length 0 gets zeros, but for "last" its first state.

    Raises:
      UsageError: another `how`.
    """
    if how == "last":
        return last_hidden(hidden, lengths).astype(jnp.float32)
    if how not in ("mean", "weighted_mean"):
        raise UsageError(f"pooling {how!r} is not one of mean, last, weighted_mean")
    place = jnp.arange(hidden.shape[1])
    real = place[None, :] < lengths[:, None]
    weight = real * (place + 1 if how == "weighted_mean" else 1)
    weight = (weight / jnp.maximum(weight.sum(1, keepdims=True), 1)).astype(jnp.float32)
    states = jnp.where(real[:, :, None], hidden.astype(jnp.float32), 0)
    return jnp.einsum("bt,btd->bd", weight, states, precision="highest")
