"""Log-likelihood of given tokens from hidden states, without the whole (tokens, vocabulary) block."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from edjax.lm.decoder import Array, CausalLM
from edjax.lm.mesh import ROWS, constrain, row_shards

CHUNK = 256  # positions whose logits a device holds at a time


def token_nll(model: CausalLM, hidden: Array, tokens: Array) -> Array:
    """-ln P(token) in nats.

    Args:
      hidden: (..., d) final hidden states, each at the position before its token.
      tokens: (...) int32.

    Returns:
      (...) float32. Logits are computed a chunk of positions at a time, and again in the backward pass.
    """
    states, wanted = hidden.reshape(-1, hidden.shape[-1]), tokens.reshape(-1)
    n, size = wanted.shape[0], CHUNK * row_shards()
    pad = -n % size if n > size else 0
    size = min(n, size)
    # chunk i has the positions i, i + chunks, ...: rows shared out over devices stay where they are
    states = jnp.pad(states, ((0, pad), (0, 0))).reshape(size, -1, states.shape[-1]).swapaxes(0, 1)
    wanted = jnp.pad(wanted, (0, pad)).reshape(size, -1).T
    states, wanted = constrain(states, None, ROWS), constrain(wanted, None, ROWS)

    def chunk(args):
        h, token = args
        logits = model.logits(h)
        return jax.nn.logsumexp(logits, axis=-1) - jnp.take_along_axis(logits, token[:, None], axis=-1)[:, 0]

    if len(states) == 1:
        nll = chunk((states[0], wanted[0]))
    else:
        nll = jax.lax.map(functools.partial(jax.checkpoint, prevent_cse=False)(chunk), (states, wanted))
    return nll.reshape(-1, size).T.reshape(-1)[:n].reshape(tokens.shape)
