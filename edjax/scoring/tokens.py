"""States of a prompt's tokens, small enough to keep for every row: in few segments, in few dimensions."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from edjax.scoring.job import Asked, Measure

SEGMENTS, DIMS, SEED = 16, 128, 0


def tokens(asked: Asked) -> Measure:
    """`tokens` (r, 16, r') float32: last hidden states of the prompt's tokens, after the final norm, in 16 segments.

    The t tokens of a prompt are cut into 16 contiguous segments, token i into segment floor(16 i / t), and each is the
    mean of its tokens; of a prompt of fewer tokens each is a segment, and zero rows, which add nothing to H^T H, stand
    for the others. A segment is then projected on r' = 128 dimensions by `projection(d)`; states of no more dimensions
    than that stay whole. Segments and projection are ours, of the states that FisherSFT takes whole (Deb et al. 2025,
    arXiv 2505.14826).

    Cost: one pass over the distinct prompts. Memory: 8,192 bytes a row, in the features too.
    """
    from edjax.lm.batching import batches, by_length
    from edjax.lm.mesh import row_shards, using

    model, mesh, prompts = asked.job.forward.model, asked.session.devices, asked.job.prompts
    shards = 1 if mesh is None else row_shards(mesh)
    matrix = projection(model.config.hidden_size)
    asked.facts["tokens"] = {"segments": SEGMENTS, "dims": matrix.shape[1], "seed": SEED}

    def measure(rows: np.ndarray) -> dict[str, np.ndarray]:
        distinct: dict[tuple[int, ...], int] = {}
        which = np.array([distinct.setdefault(tuple(prompts[i]), len(distinct)) for i in rows], np.int64)
        texts = list(distinct)
        found = np.zeros((len(texts), SEGMENTS, matrix.shape[1]), np.float32)
        order = by_length([len(text) for text in texts])
        for part, padded, lengths in batches(texts, order, asked.config["batch_size"], shards):
            with using(mesh):
                found[part] = np.asarray(_program()(model, padded, lengths, matrix))[: len(part)]
        return {"tokens": found[which]}

    return measure


def projection(d: int) -> np.ndarray:
    """(d, 128) float32 with independent entries of N(0, 1 / 128): for every x, |x P|^2 is |x|^2 on average, and
    rarely far from it (Johnson & Lindenstrauss 1984). The same for every model of d dimensions. (d, d), the identity,
    where d is 128 or less.

    >>> projection(64).shape, projection(960).shape
    ((64, 64), (960, 128))
    """
    if d <= DIMS:
        return np.eye(d, dtype=np.float32)
    drawn = np.random.Generator(np.random.Philox(key=[SEED, d])).standard_normal((d, DIMS))
    return (drawn / np.sqrt(DIMS)).astype(np.float32)


@functools.cache
def _program() -> Any:
    import jax
    import jax.numpy as jnp

    @jax.jit
    def run(model: Any, padded: Any, lengths: Any, matrix: Any) -> Any:
        hidden = model.hidden(padded).astype(jnp.float32)
        place = jnp.arange(padded.shape[1])
        real = place < lengths[:, None]
        segment = place * SEGMENTS // jnp.maximum(lengths[:, None], SEGMENTS)
        inside = (jnp.arange(SEGMENTS)[:, None] == segment[:, None]) & real[:, None]  # (b, segments, t)
        weight = inside / jnp.maximum(inside.sum(2, keepdims=True), 1)
        states = jnp.where(real[:, :, None], hidden, 0)  # of padding nothing counts, NaN included
        means = jnp.einsum("bst,btd->bsd", weight, states, precision="highest")
        return jnp.einsum("bsd,dr->bsr", means, matrix, precision="highest")

    return run
