"""The compiled programs of an evaluation: of one model, or of several adapters of one base at once.

The products with the base's weights run on the rows of all adapters together; what belongs to an adapter has a leading
axis. Programs of one model have no such axis.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from edjax.lm.batch import Batch
from edjax.lm.decode import Decoded, continuation_nll, decode
from edjax.lm.decoder import Array, Cache, CausalLM
from edjax.lm.train import total_nll

ADAPTERS = "adapters"  # the name of the axis


class Programs:
    """What is computed of n models on the same rows, b of them: every answer is (n, ...), on the host.

    Args:
      models: one, with or without an adapter; or several of one base, whose adapters are of one `kind`, without a mesh.
    """

    def __init__(self, models: Sequence[CausalLM]):
        self.n = len(models)
        self._given: tuple[Any, ...]
        if self.n == 1:
            self._run, self._given = _alone(), tuple(models)
        else:
            if len({kind(model) for model in models}) > 1:
                raise ValueError("models that are evaluated together have one base and one kind of adapter")
            parts = [nnx.split(model, nnx.LoRAParam, ...) for model in models]
            graph, _, frozen = parts[0]
            lora = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(lora for _, lora, _ in parts))
            self._run, self._given = _together(graph), (lora, frozen)

    def prefill(self, tokens: np.ndarray) -> Any:
        """Of prompts (b, t): the state that the others go on from, on the device."""
        return self._run.prefill(*self._given, tokens)

    def generate(
        self, state: Any, lengths: np.ndarray, *, max_new_tokens: int, eos_ids: tuple[int, ...]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Greedy answers: tokens and which of them count, (n, b, max_new_tokens) each."""
        out = self._run.generate(*self._given, state, lengths, max_new_tokens=max_new_tokens, eos_ids=eos_ids)
        return self._each(out.tokens), self._each(out.mask)

    def continuation(
        self, state: Any, lengths: np.ndarray, places: np.ndarray, tokens: np.ndarray, counts: np.ndarray
    ) -> np.ndarray:
        """-ln P in nats, (n, m), of m continuations (m, r), of the prompts in these places of the batch."""
        return self._each(self._run.continuation(*self._given, state, lengths, places, tokens, counts))

    def response(self, batch: Batch) -> np.ndarray:
        """-ln P in nats, (n, b), of what a batch trains, by one pass over prompt and response."""
        return self._each(self._run.response(*self._given, batch))

    def _each(self, x: Array) -> np.ndarray:
        return np.asarray(x)[None] if self.n == 1 else np.asarray(x)


def kind(model: CausalLM) -> Hashable:
    """What adapters have in common that are evaluated together: places, rank, scale and dropout."""
    graph, lora, _ = nnx.split(model, nnx.LoRAParam, ...)
    return graph, tuple(leaf.shape for leaf in jax.tree.leaves(lora))


def bytes_of_adapter(model: CausalLM) -> int:
    """What its parameters take."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(nnx.split(model, nnx.LoRAParam, ...)[1]))


def _prefill(lm: CausalLM, tokens: Array) -> tuple[Array, Cache]:
    hidden, _, cache = lm.prefill(tokens)
    return hidden, cache


def _generate(
    lm: CausalLM,
    state: Any,
    lengths: Array,
    *,
    max_new_tokens: int,
    eos_ids: tuple[int, ...],
    together: str | None = None,
) -> Decoded:
    hidden, cache = state
    return decode(
        lm,
        hidden,
        cache,
        lengths,
        max_new_tokens=max_new_tokens,
        eos_ids=eos_ids,
        statistics=False,
        together=together,
    )


def _continuation(lm: CausalLM, state: Any, lengths: Array, places: Array, tokens: Array, counts: Array) -> Array:
    hidden, cache = state
    rows = Cache(cache.k[:, places], cache.v[:, places])
    return continuation_nll(lm, hidden[places], rows, lengths[places], tokens, counts).sum(1)


class _Compiled(NamedTuple):
    prefill: Callable[..., Any]
    generate: Callable[..., Any]
    continuation: Callable[..., Any]
    response: Callable[..., Any]


STATIC = ("max_new_tokens", "eos_ids")


@functools.cache
def _alone() -> _Compiled:
    return _Compiled(
        jax.jit(_prefill), jax.jit(_generate, static_argnames=STATIC), jax.jit(_continuation), jax.jit(total_nll)
    )


@functools.lru_cache(maxsize=8)
def _together(graph: nnx.GraphDef) -> _Compiled:
    def of_all(program: Callable[..., Any], *axes: int | None) -> Callable[..., Any]:
        """The program with adapters along a leading axis; `axes` says which further arguments have it too."""

        def run(lora, frozen, *given, **fixed):
            def of_one(lora, *own):
                return program(nnx.merge(graph, lora, frozen), *own, **fixed)

            return jax.vmap(of_one, (0, *axes), axis_name=ADAPTERS)(lora, *given)

        return jax.jit(run, static_argnames=STATIC)

    return _Compiled(
        of_all(_prefill, None),
        of_all(functools.partial(_generate, together=ADAPTERS), 0, None),
        of_all(_continuation, 0, None, None, None, None),
        of_all(total_nll, None),
    )
