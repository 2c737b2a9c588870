"""Which rows when: the batches of every epoch, a pure function of the rows' lengths, the settings and the seed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

GROUP = 16  # batches that share one length-sorted window
VALIDATION = 2**32  # in place of an epoch's number, for the draw of the validation rows


def _rng(seed: int, epoch: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed, epoch]))


def batch_rows(lengths: np.ndarray, batch_size: int, epoch: int, seed: int, group_by_length: bool) -> list[np.ndarray]:
    """The row indices of every batch of an epoch: a pure function of its arguments."""
    rng = _rng(seed, epoch)
    order = rng.permutation(len(lengths))
    # Sorting windows of a shuffle, not all rows, keeps chance in who meets whom; the batches are shuffled once more, or
    # every window would go from long to short.
    if group_by_length:
        window = GROUP * batch_size
        order = np.concatenate(
            [w[np.argsort(-lengths[w], kind="stable")] for w in np.split(order, range(window, len(order), window))]
        )
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    if group_by_length:
        batches = [batches[i] for i in rng.permutation(len(batches))]
    return batches


def pack_rows(lengths: np.ndarray, capacity: int) -> list[list[int]]:
    """Rows in bins of at most `capacity` tokens by best-fit decreasing: longest first, each into the fullest bin that
    has room for it; a bin more where none has. At most 11/9 of the fewest bins possible, and 4 (Johnson 1974).

    Cost: O(n capacity); no row may be longer than `capacity`.
    """
    # Bins by the room they have left, and which rooms there are: the fullest that fits is the first True from `need`
    # on, so a row costs one search of `capacity` flags whatever the number of bins.
    bins: list[list[int]] = []
    with_room: list[list[int]] = [[] for _ in range(capacity + 1)]
    any_with = np.zeros(capacity + 1, bool)
    for row in np.argsort(-lengths, kind="stable"):
        need = int(lengths[row])
        room = need + int(np.argmax(any_with[need:]))
        if any_with[room]:
            place = with_room[room].pop()
            any_with[room] = bool(with_room[room])
        else:
            bins.append([])
            room, place = capacity, len(bins) - 1
        bins[place].append(int(row))
        with_room[room - need].append(place)
        any_with[room - need] = True
    return bins


def split_rows(n: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(training rows, validation rows): `share` of the rows, at least 1, drawn with `seed`; each in rising order."""
    held = max(round(share * n), 1)
    order = _rng(seed, VALIDATION).permutation(n)
    return np.sort(order[held:]), np.sort(order[:held])


@dataclass(frozen=True, eq=False)
class Order:
    """The updates of a run: `rows(step)` are the sequences of one, each a list of rows that are packed together."""

    sequences: list[list[int]]
    lengths: np.ndarray  # of the sequences, in tokens
    batch_size: int  # sequences an update
    seed: int
    group_by_length: bool

    @classmethod
    def of(
        cls, lengths: np.ndarray, batch_size: int, seed: int, *, group_by_length: bool, capacity: int | None
    ) -> Order:
        """Of rows of these lengths; packed where `capacity` says how many tokens a sequence holds."""
        alone = [[i] for i in range(len(lengths))]
        sequences = alone if capacity is None else pack_rows(lengths, capacity)
        totals = np.asarray([lengths[s].sum() for s in sequences])
        return cls(sequences, totals, batch_size, seed, group_by_length)

    @property
    def per_epoch(self) -> int:
        """Updates an epoch."""
        return math.ceil(len(self.sequences) / self.batch_size)

    def rows(self, step: int) -> list[list[int]]:
        """The sequences of an update, counted from 0 over all epochs."""
        epoch, place = divmod(step, self.per_epoch)
        return [self.sequences[i] for i in self._epoch(epoch)[place]]

    # Two: of this epoch and, as a batch is laid out ahead, of the next.
    @lru_cache(maxsize=2)  # noqa: B019
    def _epoch(self, epoch: int) -> list[np.ndarray]:
        return batch_rows(self.lengths, self.batch_size, epoch, self.seed, self.group_by_length)
