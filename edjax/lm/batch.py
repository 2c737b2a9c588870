"""Training examples and the arrays that a step takes: which tokens, which of them carry loss, and whose they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from edjax.lm.batching import bucket, by_length, chunks, height

Array = jax.Array
TRAINED = (16, 64, 128, 256, 512, 1024)


class Example(NamedTuple):
    """The tokens of one row, and the places among them, above 0 and rising, whose tokens carry loss."""

    tokens: list[int]
    trained: list[int]

    @classmethod
    def of(cls, prompt: Sequence[int], response: Sequence[int]) -> Example:
        """A prompt whose response is to be learned, all of it."""
        return cls([*prompt, *response], list(range(len(prompt), len(prompt) + len(response))))


class Batch(NamedTuple):
    """A training batch; with gradient accumulation every array has a leading axis of micro-batches.

    `tokens` (b, t) int32, right-padded; `where` (b, r) int32, the positions whose next token is trained; `targets`
    (b, r) int32, these next tokens; `weights` (b, r) float32, 1 where there is one, else 0; `segments` (b, t) int32,
    where rows are packed: 1, 2, ... for the examples of a row, 0 for padding; else None. `sources` (b,) int32, where
    rows of a batch compete by source: its number from 1, 0 for a missing row; else None.
    """

    tokens: Array | np.ndarray
    where: Array | np.ndarray
    targets: Array | np.ndarray
    weights: Array | np.ndarray
    segments: Array | np.ndarray | None = None
    sources: Array | np.ndarray | None = None

    def split(self, parts: int) -> Batch:
        """The same rows as `parts` micro-batches of equal size; 1: as it is."""
        if parts == 1:
            return self
        return jax.tree.map(lambda a: a.reshape(parts, -1, *a.shape[1:]), self)


def make_batch(rows: Sequence[Sequence[Example]], batch_size: int, *, packed: bool = False) -> Batch:
    """Lay examples, one a row or several where `packed`, into bucketed arrays; missing rows weigh nothing."""
    t = bucket(max(sum(len(e.tokens) for e in row) for row in rows))
    width = bucket(max(sum(len(e.trained) for e in row) for row in rows), TRAINED)
    tokens, segments = np.zeros((2, batch_size, t), np.int32)
    where, targets = np.zeros((2, batch_size, width), np.int32)
    weights = np.zeros((batch_size, width), np.float32)
    for i, row in enumerate(rows):
        if len(row) > 1 and not packed:
            raise ValueError("several examples in a row need packed=True, or they would see each other")
        start, n = 0, 0
        for number, example in enumerate(row, 1):
            end, more = start + len(example.tokens), len(example.trained)
            tokens[i, start:end] = example.tokens
            segments[i, start:end] = number
            # A token is foretold by the state before it. Places are above 0, so it is never that of another example.
            where[i, n : n + more] = np.asarray(example.trained) + start - 1
            targets[i, n : n + more] = np.asarray(example.tokens)[example.trained]
            weights[i, n : n + more] = 1.0
            start, n = end, n + more
    # Rows of one example are plainly causal, which attention knows without a mask.
    return Batch(tokens, where, targets, weights, segments if packed else None)


def batches_by_length(
    examples: Sequence[Example], batch_size: int, shards: int = 1
) -> Iterator[tuple[np.ndarray, Batch]]:
    """Examples of about one length together, one a row: their places, and the batch, whose last rows may be empty."""
    for part in chunks(by_length([len(e.tokens) for e in examples]), batch_size):
        yield part, make_batch([[examples[i]] for i in part], height(len(part), batch_size, shards))
