"""The one pass over a batch: embedding, greedy decoding and its uncertainties, in one program a shape."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from edjax.batching import pad
from edjax.score.layout import Batch, Layout


@functools.cache
def _jitted() -> Any:
    import jax
    import jax.numpy as jnp

    from edjax.kernels.uncertainty import sequence_scores
    from edjax.lm.decode import decode
    from edjax.lm.pooling import pool

    @functools.partial(jax.jit, static_argnames=("layer", "pooling", "max_new_tokens", "eos_ids"))
    def run(model, tokens, lengths, *, layer, pooling, max_new_tokens, eos_ids):
        hidden, wanted, cache = model.prefill(tokens, layer=layer)
        embedding = pool(wanted, lengths, pooling)
        if max_new_tokens == 0:
            return {"embedding": embedding}
        out = decode(model, hidden, cache, lengths, max_new_tokens=max_new_tokens, eos_ids=eos_ids)
        scores = sequence_scores(out.entropy, out.margin, out.nll, out.mask)
        n_new = out.mask.sum(1).astype(jnp.int32)
        return {"embedding": embedding, "tokens": out.tokens, "n_new_tokens": n_new} | scores._asdict()

    return run


class Forward:
    """The pass of one model with the settings of `edjax.score.score`.

    Given tokens (b, t) int32, right-padded, and lengths (b,) int32, it computes `embedding` (b, d) float32 and, where
    tokens are decoded, `tokens` (b, max_new_tokens), `n_new_tokens` (b,) and the six scores, each (b,) float32.
    """

    def __init__(self, loaded: Any, config: dict[str, Any], mesh: Any):
        self.model, self.rows, self.mesh = loaded.model, config["batch_size"], mesh
        self.static = {k: config[k] for k in ("layer", "pooling", "max_new_tokens")} | {"eos_ids": loaded.eos_ids}

    def padded(self, layout: Layout, batch: Batch, prompts: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
        """A batch's tokens and lengths."""
        return pad([prompts[i] for i in layout.firsts(batch)], self.rows, batch.width)

    def compile(self, width: int) -> Any:
        """The program for rows of `width` tokens, for `call`."""
        with _on(self.mesh):
            return _jitted().lower(self.model, *pad([], self.rows, width), **self.static).compile()

    def call(self, program: Any, layout: Layout, batch: Batch, prompts: Sequence[Sequence[int]]) -> dict[str, Any]:
        """What a program of `compile` computes for a batch."""
        with _on(self.mesh):
            return program(self.model, *self.padded(layout, batch, prompts))

    def stream(
        self, layout: Layout, batches: Iterable[Batch], prompts: Sequence[Sequence[int]]
    ) -> Iterator[tuple[Batch, dict[str, np.ndarray]]]:
        """(batch, its results on the host) of every batch.

        An accelerator is given the next batch before the last one's results are read. A CPU has nothing to gain by it
        (docs/log.md), and a process only ends when what it began to compute is done.
        """
        import jax

        ahead = jax.default_backend() != "cpu"
        waiting: tuple[Batch, dict[str, Any]] | None = None
        for batch in batches:
            with _on(self.mesh):
                got = (batch, _jitted()(self.model, *self.padded(layout, batch, prompts), **self.static))
            if not ahead:
                yield _read(*got)
                continue
            if waiting:
                yield _read(*waiting)
            waiting = got
        if waiting:
            yield _read(*waiting)


def _on(mesh: Any) -> Any:
    from edjax.lm.mesh import using

    return using(mesh)


def _read(batch: Batch, got: dict[str, Any]) -> tuple[Batch, dict[str, np.ndarray]]:
    return batch, {k: np.asarray(v)[: batch.stop - batch.start] for k, v in got.items()}
