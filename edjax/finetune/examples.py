"""Labelled rows to training examples: which tokens a row has and which of them carry loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edjax.errors import DataError
from edjax.lm.batch import Example

if TYPE_CHECKING:
    from edjax.lm.encode import Encoder
    from edjax.pool import Pool


def encode_rows(pool: Pool, encoder: Encoder, max_length: int, *, every_turn: bool = False) -> list[Example]:
    """The examples of labelled rows, cut to `max_length` tokens: a long prompt loses its beginning, a long response
    its end.

    Args:
      every_turn: whether the assistant turns before the response carry loss too.

    Raises:
      DataError: a row without a response, or one whose earlier turns cannot be told apart, named by its id.
      UsageError: `every_turn` with an encoder that has no chat template.
    """
    return [_example(pool, i, encoder, max_length, every_turn) for i in range(len(pool))]


def _example(pool: Pool, i: int, encoder: Encoder, max_length: int, every_turn: bool) -> Example:
    text = pool.responses[i]
    if text is None:
        raise DataError(f"{pool.source}: row {pool.ids[i]!r} has no response to learn; label it, or leave it out")
    try:
        response = encoder.response(text)[: max(max_length - 1, 1)]
        prompt = encoder.prompt(pool.messages[i])
        earlier = encoder.answered(pool.messages[i]) if every_turn else []
    except DataError as e:
        raise DataError(f"{pool.source}: row {pool.ids[i]!r}: {e}") from e
    cut = max(len(prompt) + len(response) - max_length, 0)
    whole = Example.of(prompt[cut:], response)
    return whole._replace(trained=[place - cut for place in earlier if place > cut] + whole.trained)
