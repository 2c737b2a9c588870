"""The one pass over a batch: embedding, greedy decoding and its uncertainties, in two programs a shape."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from edjax.lm.batching import height, pad
from edjax.scoring.layout import Batch, Layout


@functools.cache
def _prefill() -> Any:
    import jax

    from edjax.lm import eigen
    from edjax.lm.pooling import pool

    @functools.partial(jax.jit, static_argnames=("layer", "pooling", "decoding"), compiler_options=eigen.options())
    def run(model, tokens, lengths, *, layer, pooling, decoding):
        hidden, wanted, cache = model.prefill(tokens, layer=layer)
        embedding = pool(wanted, lengths, pooling)
        return (embedding, hidden, cache) if decoding else (embedding,)

    return run


@functools.cache
def _decode() -> Any:
    import jax
    import jax.numpy as jnp

    from edjax.kernels.uncertainty import prompt_scores, sequence_scores
    from edjax.lm.decode import decode, last_hidden

    @functools.partial(jax.jit, static_argnames=("max_new_tokens", "eos_ids"))
    def run(model, hidden, cache, lengths, *, max_new_tokens, eos_ids):
        out = decode(model, hidden, cache, lengths, max_new_tokens=max_new_tokens, eos_ids=eos_ids)
        scores = sequence_scores(out.entropy, out.margin, out.nll, out.mask)
        last = last_hidden(hidden, lengths)
        before = prompt_scores(model.logits(last), last)  # the logits of the first token: XLA computes them once
        found = scores._asdict() | before._asdict()
        return {"tokens": out.tokens, "n_new_tokens": out.mask.sum(1).astype(jnp.int32)} | found

    return run


class Timed(NamedTuple):
    """A batch's results, the seconds to compile and to run its programs, and a device's bytes: the model's, and all
    that is held at once."""

    got: dict[str, np.ndarray]
    compile_s: float
    run_s: float
    weights: int
    peak: int


class Forward:
    """The pass of one model with the settings of `edjax.scoring.score`.

    Given tokens (b, t) int32, right-padded, and lengths (b,) int32, it computes `embedding` (b, d) float32 and, where
    tokens are decoded, `tokens` (b, max_new_tokens), `n_new_tokens` (b,) and the eight scores, each (b,) float32.
    """

    def __init__(self, loaded: Any, config: dict[str, Any], mesh: Any):
        from edjax.lm.mesh import row_shards

        self.model, self.mesh = loaded.model, mesh
        self._most, self._multiple = config["batch_size"], 1 if mesh is None else row_shards(mesh)
        new = config["max_new_tokens"]
        self.first = {"layer": config["layer"], "pooling": config["pooling"], "decoding": new > 0}
        self.then = {"max_new_tokens": new, "eos_ids": loaded.eos_ids}

    def padded(self, layout: Layout, batch: Batch, prompts: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
        """A batch's tokens and lengths."""
        return pad([prompts[i] for i in layout.firsts(batch)], self.rows(batch), batch.width)

    def rows(self, batch: Batch) -> int:
        """How many rows a batch is padded to."""
        return height(batch.stop - batch.start, self._most, self._multiple)

    def timed(self, tokens: np.ndarray, lengths: np.ndarray, programs: dict[Any, Any]) -> Timed:
        """A batch, compiled apart from being run; `programs` keeps what was compiled, by shape."""
        import jax

        spent = {"compile": 0.0, "run": 0.0}
        memory: list[Any] = []

        def run(jitted: Any, static: dict[str, Any], *args: Any) -> Any:
            key, start = (jitted, tokens.shape), time.perf_counter()
            if key not in programs:
                programs[key] = jitted.lower(self.model, *args, **static).compile()
                spent["compile"] += time.perf_counter() - start
            start = time.perf_counter()
            done = jax.block_until_ready(programs[key](self.model, *args))
            spent["run"] += time.perf_counter() - start
            memory.append(programs[key].memory_analysis())
            return done

        with _on(self.mesh):
            embedding, *rest = run(_prefill(), self.first, tokens, lengths)
            more = run(_decode(), self.then, *rest, lengths) if rest else {}
        got = {"embedding": np.asarray(embedding)} | {k: np.asarray(v) for k, v in more.items()}
        peak = max(m.argument_size_in_bytes + m.output_size_in_bytes + m.temp_size_in_bytes for m in memory)
        return Timed(got, spent["compile"], spent["run"], memory[0].argument_size_in_bytes, peak)

    def stream(
        self, layout: Layout, batches: Iterable[Batch], prompts: Sequence[Sequence[int]]
    ) -> Iterator[tuple[Batch, dict[str, np.ndarray]]]:
        """(batch, its results on the host) of every batch.

        An accelerator is given the next batch before the last one's results are read. A CPU has nothing to gain by it,
        and a process only ends when what it began to compute is done.
        """
        import jax

        ahead = jax.default_backend() != "cpu"
        waiting: tuple[Batch, dict[str, Any]] | None = None
        for batch in batches:
            got = (batch, self._begin(*self.padded(layout, batch, prompts)))
            if not ahead:
                yield _read(*got)
                continue
            if waiting:
                yield _read(*waiting)
            waiting = got
        if waiting:
            yield _read(*waiting)

    def _begin(self, tokens: np.ndarray, lengths: np.ndarray) -> dict[str, Any]:
        with _on(self.mesh):
            embedding, *rest = _prefill()(self.model, tokens, lengths, **self.first)
            more = _decode()(self.model, *rest, lengths, **self.then) if rest else {}
        return {"embedding": embedding} | more


def _on(mesh: Any) -> Any:
    from edjax.lm.mesh import using

    return using(mesh)


def _read(batch: Batch, got: dict[str, Any]) -> tuple[Batch, dict[str, np.ndarray]]:
    return batch, {k: np.asarray(v)[: batch.stop - batch.start] for k, v in got.items()}
