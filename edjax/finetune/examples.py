"""Labelled rows to training examples: which tokens a row has and which of them carry loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edjax.errors import DataError
from edjax.lm.batch import Example

if TYPE_CHECKING:
    from edjax.lm.bounds import Row
    from edjax.lm.encode import Encoder
    from edjax.pool import Pool


def encode_rows(pool: Pool, encoder: Encoder, *, every_turn: bool = False) -> tuple[list[Row], list[Example]]:
    """Labelled rows as the encoder cuts them, and the examples that they make.

    Args:
      every_turn: whether the assistant turns before the response carry loss too.

    Raises:
      DataError: a row without a response, or one whose earlier turns cannot be told apart, named by its id.
      UsageError: `every_turn` with an encoder that has no chat template.
    """
    answers = [text for text in pool.responses if text is not None]
    if len(answers) < len(pool):
        first = pool.ids[pool.responses.index(None)]
        raise DataError(f"{pool.source}: row {first!r} has no response to learn; label it, or leave it out")
    rows = encoder.rows(pool.ids, pool.messages, answers, source=pool.source)
    examples = [Example.of(row.prompt, row.response) for row in rows]
    if every_turn:
        examples = [_with_earlier(pool, i, encoder, example) for i, example in enumerate(examples)]
    return rows, examples


def _with_earlier(pool: Pool, i: int, encoder: Encoder, example: Example) -> Example:
    """An example whose earlier assistant turns carry loss as well; the first token has nothing before it."""
    try:
        earlier = encoder.answered(pool.messages[i])
    except DataError as e:
        raise DataError(f"{pool.source}: row {pool.ids[i]!r}: {e}") from e
    return example._replace(trained=[place for place in earlier if place > 0] + example.trained)
