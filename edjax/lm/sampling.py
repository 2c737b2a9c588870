"""Drawing the next token: temperature, top-k, top-p and min-p filters of the logits, and one key a row."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from edjax.keep.errors import UsageError

Array = jax.Array


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn; names as in `transformers.GenerationConfig`. Hashable: static under `jax.jit`.

    `temperature` divides the logits. Of the tokens that are left, in this order: `top_k` keeps the k likeliest;
    `top_p` the smallest set of likeliest tokens whose probabilities sum to p or more (Holtzman et al. 2020); `min_p`
    those at least min_p times as likely as the likeliest (Nguyen et al. 2024). None leaves a filter out.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None

    def __post_init__(self):
        if not 0 < self.temperature < float("inf"):
            raise UsageError(f"temperature is {self.temperature}; to sample it must be above 0 (0 is greedy decoding)")
        if self.top_k is not None and self.top_k < 1:
            raise UsageError(f"top_k is {self.top_k}; it must be 1 or more")
        for name in ("top_p", "min_p"):
            if (value := getattr(self, name)) is not None and not 0 < value <= 1:
                raise UsageError(f"{name} is {value}; it must be above 0 and at most 1")


def filtered(logits: Array, sampling: Sampling) -> Array:
    """The logits (..., v), float32, of the distribution that is drawn from: scaled, -inf where a filter drops.

    Cost: a partial sort for top-k; a sort for top-p, of the k largest only where top-k goes before it.
    Differs from transformers' warpers in ties at the border of top-p: all are kept.
    """
    z = logits.astype(jnp.float32) / sampling.temperature
    v = z.shape[-1]
    least = jnp.full((*z.shape[:-1], 1), -jnp.inf)  # every filter keeps what is at or above a threshold
    largest = None
    if sampling.top_k is not None and sampling.top_k < v:
        largest = jax.lax.top_k(z, sampling.top_k)[0]
        least = largest[..., -1:]
    if sampling.top_p is not None and sampling.top_p < 1:
        largest = -jnp.sort(-z, axis=-1) if largest is None else largest
        p = jax.nn.softmax(largest, axis=-1)
        kept = jnp.cumsum(p, axis=-1) - p < sampling.top_p
        least = jnp.min(largest, axis=-1, keepdims=True, where=kept, initial=jnp.inf)
    if sampling.min_p is not None:
        least = jnp.maximum(least, jnp.max(z, axis=-1, keepdims=True) + jnp.log(sampling.min_p))
    return jnp.where(z >= least, z, -jnp.inf)


def draw(keys: Array, step: Array | int, logits: Array, sampling: Sampling) -> Array:
    """One token a row, (b,) int32, from logits (b, v).

    Row i is drawn with fold_in(keys[i], step), so it depends on its own key, logits and step only, not on which rows
    stand beside it.
    """
    own = jax.vmap(jax.random.fold_in, (0, None))(keys, step)
    return jax.vmap(jax.random.categorical)(own, filtered(logits, sampling)).astype(jnp.int32)


def row_keys(seed: int, rows: Array | np.ndarray) -> Array:
    """A key for every row id of rows (b,): fold_in(key(seed), id)."""
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), jnp.asarray(rows, jnp.uint32))
