"""A part of every batch: how many rows each source gives, and the rows that an update is then made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from edjax.kernels.quotas import proportional
from edjax.lm.batch import Batch
from edjax.lm.decoder import Array, CausalLM

DRAWS = 2**31 - 1  # in place of an update's number, for what is drawn once a run


def key_data(seed: int) -> Array:
    """(2,) uint32, of a key apart from those of dropout, in the form that a checkpoint takes."""
    return jax.random.key_data(jax.random.fold_in(jax.random.key(seed), DRAWS))


def counts(most: int, ratio: float) -> list[int]:
    """How many rows are taken of 0, 1, ..., `most`: round(ratio n), and one at the least.

    >>> counts(8, 0.5)
    [0, 1, 1, 2, 2, 2, 3, 4, 4]
    """
    return [min(max(round(n * ratio), 1), n) for n in range(most + 1)]


class Shares(NamedTuple):
    """Of B rows: `taken` (B,) bool, those that are taken whatever they are like; `compete` (B,) bool, those of which
    each source gives `quotas` (g,) int32; `source` (B,) int32 from 0, which says nothing of rows that do not compete.
    """

    taken: Array
    compete: Array
    source: Array
    quotas: Array


def shares(sources: Array, keep: Array, ratio: float) -> Shares:
    """Rows of sources that are kept are taken, and the others share what is left in proportion to their rows here
    (`edjax.kernels.quotas.proportional`). Where those to be kept are more than an update takes they compete, and no
    other does. sources: (B,) int32 from 1, 0 where there is no row; keep: (g,) bool."""
    there, source = sources > 0, jnp.maximum(sources - 1, 0)
    wanted = jnp.asarray(counts(sources.shape[0], ratio))[there.sum()]
    kept = there & keep[source]
    fits = kept.sum() <= wanted
    taken, compete = kept & fits, jnp.where(fits, there & ~kept, kept)
    sizes = jnp.zeros(keep.shape[0], jnp.int32).at[source].add(compete.astype(jnp.int32))
    return Shares(taken, compete, source, proportional(sizes, wanted - taken.sum()))


def rows_of(batch: Batch, weights: Array, ratio: float) -> Batch:
    """The rows of a batch whose weight (B,) is above 0, in their order, each token weighing as its row does; after them
    rows that weigh nothing, up to as many as are taken of a full batch, or with micro-batches up to the next number
    that their number divides."""
    n, parts = weights.shape[0], batch.tokens.shape[0] if batch.tokens.ndim == 3 else 1
    rows = jax.tree.map(lambda v: v.reshape(n, v.shape[-1]), batch._replace(sources=None))
    most = -(-counts(n, ratio)[-1] // parts) * parts
    places = jnp.nonzero(weights > 0, size=most, fill_value=n)[0]
    rows = jax.tree.map(lambda v: v.at[places].get(mode="clip"), rows)
    own = weights.at[places].get(mode="fill", fill_value=0)
    return rows._replace(weights=rows.weights * own[:, None].astype(rows.weights.dtype)).split(parts)


class Drawing(NamedTuple):
    """What `RandomRows` knows: `key` (2,) uint32; `keep` (g,) bool, the sources whose rows are always taken."""

    key: Array
    keep: Array


@dataclass(frozen=True)
class RandomRows:
    """Of a batch of B rows round(ratio B): those that are kept, and of every other source its share at random.

    The control of a rule that picks: with the same quotas, so that what quotas do is not taken for what the rule does.
    """

    ratio: float = 0.5

    def start(self, model: CausalLM, keep: np.ndarray, seed: int) -> Drawing:
        """Before the first update. keep: (g,) bool, whether all rows of a source are taken."""
        return Drawing(key_data(seed), jnp.asarray(keep))

    def __call__(self, model: CausalLM, memory: Drawing, batch: Batch, number: Array) -> tuple[Drawing, Batch, None]:
        """(memory, the rows of this update, None): the loss of the others is not known."""
        assert batch.sources is not None
        share = shares(jnp.asarray(batch.sources).reshape(-1), memory.keep, self.ratio)
        key = jax.random.fold_in(jax.random.wrap_key_data(memory.key), number)
        # By a row's place among those that are there: beside other runs a batch has more places that hold none.
        place = jnp.cumsum(jnp.asarray(batch.sources).reshape(-1) > 0) - 1
        lot = jax.vmap(lambda at: jax.random.bits(jax.random.fold_in(key, at)))(place)
        first = (lot < lot[:, None]) | ((lot == lot[:, None]) & (place < place[:, None]))
        before = first & (share.source == share.source[:, None]) & share.compete
        drawn = share.compete & (before.sum(axis=1) < share.quotas[share.source])
        return memory, rows_of(batch, (share.taken | drawn).astype(jnp.float32), self.ratio), None
