"""Labelled rows to training examples: which tokens a row has and which of them carry loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edjax.keep.errors import DataError
from edjax.lm.batch import Example

if TYPE_CHECKING:
    from edjax.data.pool import Pool
    from edjax.lm.bounds import Row
    from edjax.lm.encode import Encoder


def encode_rows(pool: Pool, encoder: Encoder, *, every_turn: bool = False) -> tuple[list[Row], list[Example]]:
    """Rows that teach (`teaching`) as the encoder cuts them, and the examples that they make.

    Args:
      every_turn: whether the assistant turns before the response carry loss too.

    Raises:
      DataError: a row whose earlier turns cannot be told apart, or that cannot be encoded, named by its id.
      UsageError: `every_turn` with an encoder that has no chat template.
    """
    rows = encoder.rows(pool.ids, pool.messages, pool.responses, tools=pool.tools, source=pool.source)
    examples = [Example.of(row.prompt, row.response) for row in rows]
    if every_turn:
        earlier = pool.each(lambda i: encoder.answered(pool.messages[i], pool.tools[i]))
        examples = [_with_earlier(*both) for both in zip(examples, earlier, strict=True)]
    return rows, examples


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


def _with_earlier(example: Example, earlier: list[int]) -> Example:
    """An example whose earlier assistant turns carry loss as well; the first token has nothing before it."""
    return example._replace(trained=[place for place in earlier if place > 0] + example.trained)
