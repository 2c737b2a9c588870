"""Decoding with a key-value cache, greedy or sampled, and the token uncertainties seen on the way."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from edjax.kernels.uncertainty import token_statistics
from edjax.lm.decoder import Array, Cache, CausalLM
from edjax.lm.head import token_nll
from edjax.lm.sampling import Sampling, draw


class Decoded(NamedTuple):
    """What decoding produced, each (b, max_new_tokens).

    `mask` marks tokens that count: up to and with the first end-of-text token. Where it is False, `tokens` and the
    statistics are 0. `entropy` (nats), `margin` (of probabilities) and `nll` (nats) are METHODS' per-token values of
    the model's own distribution, whatever was sampled from; `nll` is that of the token taken.
    """

    tokens: Array
    mask: Array
    entropy: Array
    margin: Array
    nll: Array


def last_hidden(hidden: Array, lengths: Array) -> Array:
    """The hidden state (b, d) of each row's last real token."""
    return jnp.take_along_axis(hidden, jnp.maximum(lengths - 1, 0)[:, None, None], axis=1)[:, 0]


def decode(
    model: CausalLM,
    hidden: Array,
    cache: Cache,
    lengths: Array,
    *,
    max_new_tokens: int,
    eos_ids: tuple[int, ...],
    statistics: bool = True,
    sampling: Sampling | None = None,
    keys: Array | None = None,
    together: str | None = None,
) -> Decoded:
    """Continue prefilled prompts, greedily or by sampling; traced, to be called under `jax.jit`.

    Args:
      hidden: (b, t, d) final hidden states of the prompts.
      cache: of the same prompts, t slots.
      lengths: (b,) int32 real tokens a row; a row of length 0 is batch padding and decodes nothing.
      max_new_tokens: the most tokens a row gets, and none beyond the model's window (`max_position_embeddings`); the
        loop ends earlier when every row has.
      statistics: whether to compute entropy, margin and nll (three passes over the logits) or leave them 0.
      sampling: how tokens are drawn; None takes the likeliest.
      keys: (b,) keys, one a row, for `sampling` (`edjax.lm.sampling.row_keys`); a row's tokens do not depend on the
        rows beside it.
      together: under `jax.vmap`, the name of its axis: the loop then goes on while any member has a live row. Without
        it each member has a condition of its own, and every step copies all caches.

    Cost: one forward of b tokens a step; the first token costs none, it comes from the prefill.
    """
    if sampling is not None and keys is None:
        raise ValueError("sampling needs keys, one a row: edjax.lm.sampling.row_keys(seed, rows)")
    b, t = hidden.shape[:2]
    stops = jnp.asarray(eos_ids, jnp.int32)
    slots = jnp.arange(t + max_new_tokens)
    prompt = (slots[None, :] < lengths[:, None]) & (slots < t)[None, :]
    room = model.config.max_position_embeddings - lengths

    def take(out: Decoded, step, live: Array, logits: Array) -> tuple[Decoded, Array, Array]:
        if sampling is None or keys is None:
            token = jnp.argmax(logits, axis=-1).astype(jnp.int32)
        else:
            token = draw(keys, step, logits, sampling)
        stats = token_statistics(logits, token) if statistics else (jnp.zeros(b),) * 3
        row = Decoded(token, live, *stats)
        kept = jax.tree.map(lambda a: jnp.where(live, a, jnp.zeros((), a.dtype)), row)
        out = jax.tree.map(lambda whole, a: whole.at[:, step].set(a.astype(whole.dtype)), out, kept)
        return out, token, live & ~jnp.isin(token, stops) & (step + 1 < room)

    shape = (b, max_new_tokens)
    out = Decoded(jnp.zeros(shape, jnp.int32), jnp.zeros(shape, bool), *(jnp.zeros(shape) for _ in range(3)))
    if max_new_tokens == 0:
        return out
    out, token, live = take(out, 0, (lengths > 0) & (room > 0), model.logits(last_hidden(hidden, lengths)))

    def go_on(state):
        _, step, _, live, _ = state
        some = live.any()
        if together is not None:
            some = jax.lax.pmax(some.astype(jnp.int32), together) > 0
        return (step < max_new_tokens) & some

    def body(state):
        out, step, token, live, cache = state
        valid = prompt | ((slots >= t) & (slots < t + step - 1))[None, :]
        h, cache = model.extend(token[:, None], cache, t + step - 1, (lengths + step - 1)[:, None], valid)
        out, token, live = take(out, step, live, model.logits(h[:, 0]))
        return out, step + 1, token, live, cache

    state = (out, jnp.asarray(1), token, live, cache.grow(max_new_tokens))
    return jax.lax.while_loop(go_on, body, state)[0]


def continuation_nll(
    model: CausalLM, hidden: Array, cache: Cache, lengths: Array, tokens: Array, counts: Array
) -> Array:
    """-ln P(token) in nats of given continuations of prefilled prompts, (b, r); 0 beyond each row's count.

    Args:
      hidden, cache, lengths: of the prompts, as in `decode`.
      tokens: (b, r) int32, right-padded continuations.
      counts: (b,) int32, real tokens of each continuation.
    """
    t, r = hidden.shape[1], tokens.shape[1]
    slots = jnp.arange(t + r)
    valid = slots[None, :] < lengths[:, None]
    positions = lengths[:, None] + jnp.arange(r)[None, :]
    h, _ = model.extend(tokens, cache.grow(r), t, positions, valid)
    h = jnp.concatenate([last_hidden(hidden, lengths)[:, None], h[:, :-1]], axis=1)
    real = jnp.arange(r)[None, :] < counts[:, None]
    return jnp.where(real, token_nll(model, h, tokens), 0.0)
