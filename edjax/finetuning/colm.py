"""CoLM: an update is made of the medoids of its batch's rows, by their slopes under Adam (Nguyen et al. 2024).

Nguyen, Yang, Anand, Yang & Mirzasoleiman, "Mini-batch Coresets for Memory-efficient Language Model Training on Data
Mixtures", ICLR 2025, arXiv 2407.19580; read beside it: their code, BigML-CS-UCLA/CoLM, in its efficient form.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from edjax.finetuning.config import FinetuneConfig
from edjax.finetuning.shares import RandomRows, counts, key_data, rows_of, shares
from edjax.kernels.medoids import NONE, medoids
from edjax.lm.batch import Batch
from edjax.lm.decoder import Array, CausalLM
from edjax.lm.slopes import value_slopes, values_shape

B1, B2, EPSILON = 0.9, 0.999, 1e-8  # Adam's, as the optimiser of the adapter has them
COORDINATES = 2560  # in which rows of a source are compared; the original's zo_dim


class Memory(NamedTuple):
    """What one update leaves to the next, with p = r g k numbers in the last layer's B of the values.

    `m`, `v` (p,) float32: Adam's moments of the picked rows' mean; `updates` () int32, how many are in them;
    `key` (2,) uint32, what directions are drawn from; `keep` (g,) bool, the sources whose rows are always taken.
    """

    m: Array
    v: Array
    updates: Array
    key: Array
    keep: Array


@dataclass(frozen=True)
class Colm:
    """Inside the compiled step: of a batch of B rows those round(ratio B) that the update is made of.

    Every row i has slopes c_i (`edjax.lm.slopes`) along z directions Z (z, p), normal numbers, and so an estimate of
    its gradient, g_i = c_i Z / z, whose mean over draws is the gradient. It stands for what Adam would make of it,

      r_i = m_i / (1 - b1^t) / (sqrt(v_i / (1 - b2^t)) + e),   m_i = b1 m + (1 - b1) g_i,   v_i = b2 v + (1 - b2) g_i^2

    with t - 1 updates in m and v. Rows of sources that are to be kept are all taken. The others compete, each source
    for its share of what is left (`edjax.kernels.quotas.proportional`): medoids by the L1 distance of r, in those 2,560
    coordinates in which the source's mean r is largest (`edjax.kernels.medoids`). Then m and v become the means of m_i
    and v_i over the picks among them. Where the rows to be kept alone are more than an update takes, they compete, and
    no other is taken; the original then keeps the first ones of one device.

    One direction that stays puts all g_i on one line, so that what is picked are medoids of a number a row. In the
    first update r_i = sign(c_i) sign(Z): rows of one sign are one point up to rounding, and which of them are picked
    says nothing. `directions` > 1, and directions drawn anew, are ours.

    Attributes:
      ratio: in (0, 1].
      directions: z.
      resample: whether every update draws directions of its own; else those of the first stay.
      weighted: whether a picked row's loss counts as often as it stands for rows of its source, itself included; rows
        that are always taken count once. The loss stays a mean over tokens, each with its row's weight.

    Cost: the slopes, and B p + B^2 2560 operations z times; g p + B 2560 numbers, never B p.
    """

    ratio: float = 0.5
    directions: int = 1
    resample: bool = False
    weighted: bool = False
    coordinates: int = COORDINATES

    def start(self, model: CausalLM, keep: np.ndarray, seed: int) -> Memory:
        """Before the first update. keep: (g,) bool, whether all rows of a source are taken.

        Raises:
          UsageError: the model has no adapter on its values.
        """
        size = int(np.prod(values_shape(model)))
        none = jnp.zeros(size, jnp.float32)
        return Memory(none, none, jnp.zeros((), jnp.int32), key_data(seed), jnp.asarray(keep))

    def __call__(self, model: CausalLM, memory: Memory, batch: Batch, number: Array) -> tuple[Memory, Batch, Array]:
        """(memory, batch, loss): for the next update, the rows of this one, and the mean over tokens of all that were
        drawn, NaN where a slope is not finite. `batch.sources` says whose the rows are; `number` is the update's."""
        shape = values_shape(model)
        key = jax.random.wrap_key_data(memory.key)
        key = jax.random.fold_in(key, number) if self.resample else key
        along = jax.random.normal(key, (self.directions, *shape), memory.m.dtype)
        if batch.tokens.ndim == 3:
            found = jax.lax.map(lambda part: value_slopes(model, part, along), batch)
            losses, slopes = (v.reshape(-1, *v.shape[2:]) for v in found)
        else:
            losses, slopes = value_slopes(model, batch, along)
        assert batch.sources is not None
        sources, slopes = jnp.asarray(batch.sources).reshape(-1), slopes.astype(memory.m.dtype)
        loss = losses.sum() / jnp.maximum(batch.weights.sum(), 1.0)
        memory, weights = self.choose(slopes, along.reshape(self.directions, -1), sources, memory)
        return memory, rows_of(batch, weights, self.ratio), jnp.where(jnp.isfinite(slopes).all(), loss, jnp.nan)

    def choose(self, slopes: Array, along: Array, sources: Array, memory: Memory) -> tuple[Memory, Array]:
        """The memory after this update, and the weight of every row, (B,), 0 where it is not taken.

        Args:
          slopes: (B, z). along: (z, p). sources: (B,) int32 from 1; 0 where there is no row.
        """
        share = shares(sources, memory.keep, self.ratio)
        apart = self.distances(slopes, along, share.source, share.compete, memory)
        groups = jnp.where(share.compete, share.source, NONE)
        found = medoids(apart, groups, share.quotas, counts(sources.shape[0], self.ratio)[-1])
        of_pick = found.sizes if self.weighted else (found.picks >= 0).astype(jnp.int32)
        # A pick that is not there is added to the last row, with the weight 0.
        weights = share.taken.astype(memory.m.dtype).at[found.picks].add(of_pick.astype(memory.m.dtype))
        return _after(memory, slopes, along, share.compete & (weights > 0)), weights

    def distances(self, slopes: Array, along: Array, source: Array, compete: Array, memory: Memory) -> Array:
        """(B, B) L1 distances of r, right between rows of one source that compete."""
        size = len(memory.m)
        if size <= self.coordinates:
            # All coordinates: the sources then share them.
            rows = jax.lax.map(lambda c: _normalised(c, along, memory.m, memory.v, memory.updates), slopes)
        else:
            where = self._largest(slopes, along, source, compete, memory)
            m, v, z = memory.m[where], memory.v[where], along[:, where]

            def row(of_row):
                c, g = of_row
                return _normalised(c, z[:, g], m[g], v[g], memory.updates)

            rows = jax.lax.map(row, (slopes, source))
        return jax.lax.map(lambda one: jnp.abs(rows - one).sum(axis=1), rows)

    def _largest(self, slopes: Array, along: Array, source: Array, compete: Array, memory: Memory) -> Array:
        """(g, 2560): where each source's sum of r is largest."""

        def add(sums, row):
            c, g, counts = row
            r = _normalised(c, along, memory.m, memory.v, memory.updates)
            return sums.at[g].add(jnp.where(counts, r, 0)), None

        start = jnp.zeros((len(memory.keep), len(memory.m)), memory.m.dtype)
        sums, _ = jax.lax.scan(add, start, (slopes, source, compete))
        return jax.lax.top_k(jnp.abs(sums), self.coordinates)[1]


def _normalised(slopes: Array, along: Array, m: Array, v: Array, updates: Array) -> Array:
    """r of a row in the coordinates of `along` (z, c), `m` and `v` (c,); slopes (z,)."""
    g = _product(slopes, along) / along.shape[0]
    t = (updates + 1).astype(m.dtype)
    first = (B1 * m + (1 - B1) * g) / (1 - B1**t)
    second = (B2 * v + (1 - B2) * g * g) / (1 - B2**t)
    return first / (jnp.sqrt(second) + EPSILON)


def _after(memory: Memory, slopes: Array, along: Array, picked: Array) -> Memory:
    """With the means of m_i and v_i over the rows that were picked, (B,); as it was where there are none."""
    n = picked.sum()
    share = picked.astype(slopes.dtype)[:, None] / jnp.maximum(n, 1)
    # The mean over rows of (c_i Z)^2 is the quadratic form of the mean of c_i c_i^T: no row's g is needed.
    first = _product((share * slopes).sum(axis=0), along) / along.shape[0]
    together = _product((share * slopes).T, slopes)
    second = (_product(together, along) * along).sum(axis=0) / along.shape[0] ** 2
    m, v = B1 * memory.m + (1 - B1) * first, B2 * memory.v + (1 - B2) * second
    some = n > 0
    return memory._replace(
        m=jnp.where(some, m, memory.m), v=jnp.where(some, v, memory.v), updates=memory.updates + some.astype(jnp.int32)
    )


def _product(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision="highest")


def chooser_of(config: FinetuneConfig) -> Colm | RandomRows:
    """What the settings of a run ask for, which is not none."""
    if config.batch_method == "random":
        return RandomRows(config.batch_ratio)
    return Colm(config.batch_ratio, config.batch_directions, config.batch_resample, config.batch_weights)
