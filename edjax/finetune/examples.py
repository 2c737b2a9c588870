"""Labelled rows to training examples: which tokens a row has and which of them carry loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edjax.errors import DataError
from edjax.lm.batch import Example

if TYPE_CHECKING:
    from edjax.lm.encode import Encoder
    from edjax.pool import Pool


def encode_rows(pool: Pool, encoder: Encoder, max_length: int, *, every_turn: bool = False) -> list[Example]:
    """The examples of rows that teach, cut to `max_length` tokens: a long prompt loses its beginning, a long response
    its end.

    Args:
      every_turn: whether the assistant turns before the response carry loss too.

    Raises:
      DataError: a row whose earlier turns cannot be told apart, or that cannot be encoded, named by its id.
      UsageError: `every_turn` with an encoder that has no chat template.
    """
    return pool.each(lambda i: _example(pool, i, encoder, max_length, every_turn))


def teaching(pool: Pool, every_turn: bool) -> Pool:
    """The rows that have a turn to train: without those whose last turn has weight 0, unless an earlier one counts.

    Raises:
      DataError: a row without a response, or none that is left; named by its id.
    """
    kept = []
    for i, response in enumerate(pool.responses):
        idle = response is None and (pool.withheld[i] or {}).get("weight") == 0
        if response is None and not idle:
            row = f"{pool.source}: row {pool.ids[i]!r}"
            raise DataError(f"{row} has no response to learn{pool.unanswered(i)}; label it, or leave it out")
        earlier = (m for m in pool.messages[i] if m["role"] == "assistant" and m.get("weight") != 0)
        if not idle or (every_turn and any(earlier)):
            kept.append(i)
    if not kept:
        raise DataError(f"{pool.source}: the last turn of every row has weight 0, so there is nothing to learn")
    return pool.take(kept) if len(kept) < len(pool) else pool


def _example(pool: Pool, i: int, encoder: Encoder, max_length: int, every_turn: bool) -> Example:
    text = pool.responses[i]
    response = [] if text is None else encoder.response(text)[: max(max_length - 1, 1)]
    prompt = encoder.prompt(pool.messages[i], pool.tools[i])
    earlier = encoder.answered(pool.messages[i], pool.tools[i]) if every_turn else []
    cut = max(len(prompt) + len(response) - max_length, 0)
    whole = Example.of(prompt[cut:], response)
    return whole._replace(trained=[place - cut for place in earlier if place > cut] + whole.trained)
