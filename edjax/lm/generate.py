"""Answers to prompts, from Python: text in, text out, with the tokens and how unsure the model was of each."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from edjax.keep.errors import UsageError
from edjax.kernels.uncertainty import TokenStatistics
from edjax.lm.batching import batches, by_length
from edjax.lm.decode import decode
from edjax.lm.encode import Encoder, Message, Tools
from edjax.lm.load import LoadedModel
from edjax.lm.sampling import Sampling, row_keys


class Generated(NamedTuple):
    """One entry a prompt, in the order given.

    `tokens` holds the n ids of each answer, its end-of-text token included where it came to one; `statistics` the
    entropy, margin and nll, (n,) float32 each, that the model had before any filter.
    """

    texts: list[str]
    tokens: list[list[int]]
    statistics: list[TokenStatistics]


def generate(
    loaded: LoadedModel,
    prompts: Sequence[str | Sequence[Message]],
    *,
    tools: Sequence[Tools] | None = None,
    max_new_tokens: int = 64,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    seed: int = 0,
    batch_size: int = 16,
    template: str = "auto",
    max_length: int = 1024,
    max_prompt: int | None = None,
    max_response: int | None = None,
) -> Generated:
    """Answer every prompt.

    Args:
      loaded: from `edjax.lm.load.load`; for an adapter, `dataclasses.replace(loaded, model=import_adapter(...)[0])`.
      prompts: each a text, or messages with role and content.
      tools: the functions that each prompt offers (`edjax.data.tools`); None: none.
      max_new_tokens: the most tokens of an answer.
      temperature: 0 takes the likeliest token; above 0 draws, see `edjax.lm.sampling.Sampling` for `top_k`, `top_p`
        and `min_p`.
      seed: prompt i draws with a key of (seed, i): batch size and the other prompts do not change its answer.
      template, max_length, max_prompt, max_response: as in `edjax.lm.encode.Encoder`, so that a prompt is what it is in
        scoring and training.

    Raises:
      UsageError: numbers that make no sense, or filters without a temperature.
      DataError: a prompt without tokens, or messages that the chat template refuses.
    """
    if isinstance(prompts, str):
        raise UsageError("prompts is one text; give a list of them")
    if max_new_tokens < 1 or batch_size < 1:
        raise UsageError("max_new_tokens and batch_size are 1 or more")
    if temperature == 0 and (top_k, top_p, min_p) != (None, None, None):
        raise UsageError("top_k, top_p and min_p need a temperature above 0; at 0 the likeliest token is taken")
    sampling = Sampling(temperature, top_k, top_p, min_p) if temperature != 0 else None
    encoder = Encoder.of(loaded, template, max_length, max_prompt=max_prompt, max_response=max_response)
    offered = [None] * len(prompts) if tools is None else tools
    rows = [
        encoder.prompt([{"role": "user", "content": p}] if isinstance(p, str) else p, functions)
        for p, functions in zip(prompts, offered, strict=True)
    ]
    answers: list[Any] = [None] * len(rows)
    for batch, tokens, lengths in batches(rows, by_length([len(r) for r in rows]), batch_size):
        # Rows that only fill the batch draw as well, with keys of others; nobody reads what they say.
        keys = None if sampling is None else row_keys(seed, np.resize(batch, len(tokens)))
        out = _answer(loaded.model, tokens, lengths, keys, max_new_tokens, loaded.eos_ids, sampling)
        host: list[Any] = [np.asarray(a) for a in out]
        for at, i in enumerate(batch):
            n = int(host[1][at].sum())
            ids, _, *numbers = (a[at, :n] for a in host)
            taken = ids.tolist()
            answers[i] = (encoder.decode(taken), taken, TokenStatistics(*numbers))
    return Generated(*map(list, zip(*answers, strict=True))) if answers else Generated([], [], [])


@functools.partial(jax.jit, static_argnames=("max_new_tokens", "eos_ids", "sampling"))
def _answer(model, tokens, lengths, keys, max_new_tokens, eos_ids, sampling):
    hidden, _, cache = model.prefill(tokens)
    return decode(
        model, hidden, cache, lengths, max_new_tokens=max_new_tokens, eos_ids=eos_ids, sampling=sampling, keys=keys
    )
