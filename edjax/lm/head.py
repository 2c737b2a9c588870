"""Log-likelihood of given tokens from hidden states, without the whole (tokens, vocabulary) block."""

from __future__ import annotations

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
      (...) float32. Logits are computed a chunk of positions at a time. Under differentiation so is, from the same
      logits, the gradient by `hidden`; the head itself is frozen and gets none.
    """
    states, wanted = hidden.reshape(-1, hidden.shape[-1]), tokens.reshape(-1)
    n, size = wanted.shape[0], CHUNK * row_shards()
    pad = -n % size if n > size else 0
    size = min(n, size)
    # chunk i has the positions i, i + chunks, ...: rows shared out over devices stay where they are
    states = jnp.pad(states, ((0, pad), (0, 0))).reshape(size, -1, states.shape[-1]).swapaxes(0, 1)
    wanted = jnp.pad(wanted, (0, pad)).reshape(size, -1).T
    states, wanted = constrain(states, None, ROWS), constrain(wanted, None, ROWS)
    nll = _nll(model, states, wanted)
    return nll.reshape(-1, size).T.reshape(-1)[:n].reshape(tokens.shape)


def _chunk(model: CausalLM, hidden: Array, tokens: Array) -> Array:
    """On a CPU the vocabulary comes first: so the gradient's product has a layout that is faster there, and the
    logits' one that Eigen (`edjax.lm.eigen`) takes in a third of the time."""
    first = jax.default_backend() == "cpu"
    logits, at = model.logits(hidden, vocabulary_first=first), tokens[None] if first else tokens[:, None]
    axis = 0 if first else -1
    return jax.nn.logsumexp(logits, axis=axis) - jnp.take_along_axis(logits, at, axis=axis).reshape(tokens.shape)


def _mapped(f, states: Array, wanted: Array):
    """f of each chunk, one after the other."""
    if len(states) == 1:
        return jax.tree.map(lambda a: a[None], f((states[0], wanted[0])))
    return jax.lax.map(f, (states, wanted))


@jax.custom_vjp
def _nll(model: CausalLM, states: Array, wanted: Array) -> Array:
    return _mapped(lambda args: _chunk(model, *args), states, wanted)


def _nll_forward(model: CausalLM, states: Array, wanted: Array):
    def both(args):
        nll, pull = jax.vjp(lambda h: _chunk(model, h, args[1]), args[0])
        return nll, pull(jnp.ones_like(nll))[0]

    return _mapped(both, states, wanted)


def _nll_backward(slope: Array, dnll: Array):
    return None, dnll[..., None].astype(slope.dtype) * slope, None


_nll.defvjp(_nll_forward, _nll_backward)
