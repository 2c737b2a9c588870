"""The jitted LoRA step: loss on response tokens only, AdamW on the adapter, base weights untouched."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from edjax.batching import bucket
from edjax.errors import UsageError
from edjax.lm.decoder import Array, CausalLM
from edjax.lm.head import token_nll
from edjax.lm.mesh import Mesh, check, feed, gather, pin, place, using

RESPONSE_LENGTHS = (16, 64, 128, 256, 512, 1024)


class Batch(NamedTuple):
    """A training batch.

    `tokens` (b, t) int32, right-padded; `where` (b, r) int32, the positions whose next token is trained;
    `targets` (b, r) int32, these next tokens; `weights` (b, r) float32, 1 where there is one, else 0.
    """

    tokens: Array | np.ndarray
    where: Array | np.ndarray
    targets: Array | np.ndarray
    weights: Array | np.ndarray


def make_batch(rows: list[tuple[list[int], list[int]]], batch_size: int) -> Batch:
    """Pad (prompt ids, response ids) pairs to a bucketed batch; missing rows weigh nothing."""
    t = bucket(max(len(p) + len(r) for p, r in rows))
    width = bucket(max(len(r) for _, r in rows), RESPONSE_LENGTHS)
    tokens = np.zeros((batch_size, t), np.int32)
    where, targets = np.zeros((2, batch_size, width), np.int32)
    weights = np.zeros((batch_size, width), np.float32)
    for i, (prompt, response) in enumerate(rows):
        n = len(response)
        tokens[i, : len(prompt) + n] = [*prompt, *response]
        where[i, :n] = np.arange(len(prompt) - 1, len(prompt) + n - 1)
        targets[i, :n] = response
        weights[i, :n] = 1.0
    return Batch(tokens, where, targets, weights)


def response_nll(model: CausalLM, batch: Batch, *, remat: bool) -> Array:
    """-ln P(response token) in nats, (b, r), 0 where there is none. The head runs on response positions only."""
    hidden = model.hidden(jnp.asarray(batch.tokens), remat=remat)
    states = jnp.take_along_axis(hidden, batch.where[..., None], axis=1)
    return token_nll(model, states, jnp.asarray(batch.targets)) * batch.weights


def schedule(kind: str, learning_rate: float, steps: int, warmup_ratio: float) -> optax.Schedule:
    """Linear warm-up over `round(warmup_ratio * steps)` steps, then "cosine", "linear" (both to 0) or "constant".

    Step i of n warm-up steps has rate learning_rate (i + 1) / (n + 1), so no step is wasted at rate 0.
    """
    warmup = min(round(warmup_ratio * steps), max(steps - 1, 0))
    rest = max(steps - warmup, 1)
    kinds = {
        "cosine": optax.cosine_decay_schedule(learning_rate, rest),
        "linear": optax.linear_schedule(learning_rate, 0.0, rest),
        "constant": optax.constant_schedule(learning_rate),
    }
    if kind not in kinds:
        raise UsageError(f"lr_scheduler_type {kind!r} is not one of {', '.join(kinds)}")
    rise = optax.linear_schedule(learning_rate / (warmup + 1), learning_rate, max(warmup, 1))
    return optax.join_schedules([rise, kinds[kind]], [warmup]) if warmup else kinds[kind]


class TrainState(NamedTuple):
    """What training changes: adapter parameters and the optimiser's state."""

    lora: nnx.State
    opt_state: optax.OptState


class Trainer:
    """An adapted model split into its trained and frozen parts, and AdamW on the trained part.

    The learning rate is an argument of the compiled step, so that runs of different lengths share one program.

    Args:
      model: with an adapter (`edjax.lm.lora.add_lora`).
      max_grad_norm: gradients are scaled down to this global norm.
      weight_decay: decoupled, as in AdamW (Loshchilov & Hutter 2019).
      remat: recompute activations layer by layer in the backward pass.
      mesh: the devices to train on (`edjax.lm.mesh.parse_mesh`), those of every process; None: jax's first.
    """

    def __init__(
        self,
        model: CausalLM,
        *,
        max_grad_norm: float = 1.0,
        weight_decay: float = 0.0,
        remat: bool = True,
        mesh: Mesh | None = None,
    ):
        check(model.config, mesh)
        self.mesh = mesh
        self.graph, lora, frozen = nnx.split(model, nnx.LoRAParam, ...)
        self.frozen = place(frozen, mesh)
        optimizer, self._step, self.gradients = _programs(self.graph, max_grad_norm, weight_decay, remat)
        lora = jax.tree.map(jnp.copy, lora)  # the step donates its input; the caller's model keeps its own
        self.state = place(TrainState(lora, optimizer.init(lora)), mesh)

    def step(self, batch: Batch, learning_rate: float) -> tuple[float, float]:
        """One update; returns the loss (nats a response token) and the gradient's global norm before clipping."""
        with using(self.mesh):
            self.state, loss, norm = self._step(self.state, self.frozen, feed(batch, self.mesh), learning_rate)
        return float(loss), float(norm)

    def model(self) -> CausalLM:
        """The model with the adapter as trained so far, whole on every device of a mesh."""
        return nnx.merge(self.graph, gather(self.state.lora, self.mesh), self.frozen)


@functools.lru_cache(maxsize=8)
def _programs(graph: nnx.GraphDef, max_grad_norm: float, weight_decay: float, remat: bool):
    optimizer = optax.chain(
        optax.clip_by_global_norm(max_grad_norm), optax.scale_by_adam(), optax.add_decayed_weights(weight_decay)
    )

    def loss(lora, frozen, batch):
        nll = response_nll(nnx.merge(graph, lora, frozen), batch, remat=remat)
        return nll.sum() / jnp.maximum(batch.weights.sum(), 1.0)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state: TrainState, frozen, batch: Batch, learning_rate: Array):
        value, grads = jax.value_and_grad(loss)(state.lora, frozen, batch)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.lora)
        lora = optax.apply_updates(state.lora, jax.tree.map(lambda u: -learning_rate * u, updates))
        return pin(TrainState(lora, opt_state)), value, optax.tree.norm(grads)

    return optimizer, step, jax.jit(jax.value_and_grad(loss))
