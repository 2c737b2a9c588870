"""The jitted LoRA step: loss on response tokens only, AdamW on the adapter, base weights untouched."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from edjax.keep.errors import UsageError
from edjax.lm import eigen
from edjax.lm.batch import Batch
from edjax.lm.decoder import Array, CausalLM
from edjax.lm.head import token_nll
from edjax.lm.lora import has_dropout
from edjax.lm.mesh import Mesh, check, feed, gather, pin, place, using


def response_nll(model: CausalLM, batch: Batch, *, remat: bool, key: Array | None = None) -> Array:
    """-ln P(trained token) in nats, (b, r), 0 where there is none. The head runs on the positions before these only.

    Args:
      batch: without an axis of micro-batches.
      key: for the adapter's dropout; None: no dropout.
    """
    segments = None if batch.segments is None else jnp.asarray(batch.segments)
    hidden = model.hidden(jnp.asarray(batch.tokens), segments=segments, remat=remat, key=key)
    # The head is the widest product there is: it sees the few positions that carry loss, not all tokens.
    states = jnp.take_along_axis(hidden, batch.where[..., None], axis=1)
    return token_nll(model, states, jnp.asarray(batch.targets)) * batch.weights


def total_nll(model: CausalLM, batch: Batch) -> Array:
    """-ln P in nats, (b,), of all that a batch trains in a row."""
    return response_nll(model, batch, remat=False).sum(1)


def schedule(kind: str, learning_rate: float, steps: int, warmup_ratio: float) -> optax.Schedule:
    """Linear warm-up over `round(warmup_ratio * steps)` steps, then "cosine", "linear" (both to 0) or "constant".

    Step i of n warm-up steps has rate learning_rate (i + 1) / (n + 1), so no step is wasted at rate 0.
    """
    # However long the warm-up, one step is left for the kind of schedule that was asked for.
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
    """What training changes: adapter parameters, the optimiser's state, and what a `Chooser` remembers."""

    lora: nnx.State
    opt_state: optax.OptState
    memory: Any = None


class StepInfo(NamedTuple):
    """Of one update: the loss (nats a trained token) and the gradient's global norm before clipping; where a `Chooser`
    says which rows an update is made of, also the loss of all that were drawn. float32 ()."""

    loss: Array
    grad_norm: Array
    batch_loss: Array | None = None


class Chooser(Protocol):
    """Which rows of a batch an update is made of, found inside the compiled step; hashable, as programs are kept by it.

    It is given the model before the update, what it remembers, the batch and the update's number, and returns what it
    remembers then, a batch with as many axes, and the mean loss over the trained tokens of all rows, None if unknown.
    """

    def __call__(
        self, model: CausalLM, memory: Any, batch: Batch, number: Array
    ) -> tuple[Any, Batch, Array | None]: ...

    def __hash__(self) -> int: ...


class Trainer:
    """An adapted model split into its trained and frozen parts, and AdamW on the trained part.

    The learning rate is an argument of the compiled step, so that runs of different lengths share one program.

    Args:
      model: with an adapter (`edjax.lm.lora.add_lora`).
      max_grad_norm: gradients are scaled down to this global norm.
      weight_decay: decoupled, as in AdamW (Loshchilov & Hutter 2019).
      remat: recompute activations layer by layer in the backward pass.
      seed: of the adapter's dropout.
      mesh: the devices to train on (`edjax.lm.mesh.parse_mesh`), those of every process; None: jax's first.
      chooser: which rows of a batch an update is made of, all where it is None; not with a mesh of several devices.
      memory: what the chooser remembers at the start, a pytree of arrays.
    """

    def __init__(
        self,
        model: CausalLM,
        *,
        max_grad_norm: float = 1.0,
        weight_decay: float = 0.0,
        remat: bool = True,
        seed: int = 0,
        mesh: Mesh | None = None,
        chooser: Chooser | None = None,
        memory: Any = None,
    ):
        check(model.config, mesh)
        if chooser is not None and mesh is not None:
            raise ValueError("rows are chosen from a batch that lies on one device, not on a mesh")
        self.mesh, self.seed = mesh, seed
        self.graph, lora, frozen = nnx.split(model, nnx.LoRAParam, ...)
        self.frozen = place(frozen, mesh)
        programs = _programs(self.graph, max_grad_norm, weight_decay, remat, has_dropout(model), chooser)
        optimizer, self._step, self.together, self.gradients, self._nll = programs
        lora = jax.tree.map(jnp.copy, lora)  # the step donates its input; the caller's model keeps its own
        self.state = place(TrainState(lora, optimizer.init(lora), jax.tree.map(jnp.copy, memory)), mesh)

    def step(self, batch: Batch, learning_rate: float, number: int = 0) -> StepInfo:
        """One update, not waited for.

        The gradient is that of the mean over all trained tokens of the batch, micro-batches or not. `number` is the
        step's own: dropout is a function of it and the seed.
        """
        with using(self.mesh):
            batch = feed(batch, self.mesh, batch.tokens.ndim - 2)
            self.state, info = self._step(self.state, self.frozen, batch, learning_rate, self.seed, number)
        return info

    def loss(self, batches: Iterable[Batch]) -> float:
        """Mean negative log-likelihood (nats) over the trained tokens of all batches, without dropout."""
        total, count = 0.0, 0.0
        for batch in batches:
            count += float(batch.weights.sum())
            with using(self.mesh):
                total += float(self._nll(self.state.lora, self.frozen, feed(batch, self.mesh)))
        return total / max(count, 1.0)

    def model(self) -> CausalLM:
        """The model with the adapter as trained so far, whole on every device of a mesh."""
        return self.with_adapter(self.state.lora)

    def copy(self) -> nnx.State:
        """The adapter as trained so far, in arrays of its own: the next step does not take them."""
        return jax.tree.map(jnp.copy, self.state.lora)

    def with_adapter(self, lora: nnx.State) -> CausalLM:
        """The model with another state of the adapter."""
        return nnx.merge(self.graph, gather(lora, self.mesh), self.frozen)


@functools.lru_cache(maxsize=8)
def _programs(
    graph: nnx.GraphDef,
    max_grad_norm: float,
    weight_decay: float,
    remat: bool,
    dropout: bool,
    chooser: Chooser | None = None,
):
    # Without a learning rate: the step multiplies by it, and the decay with the rest, as torch's AdamW does.
    optimizer = optax.chain(
        optax.clip_by_global_norm(max_grad_norm), optax.scale_by_adam(), optax.add_decayed_weights(weight_decay)
    )

    # The rate is left out of the chain and multiplied in by the step: inside, it would be part of the compiled program,
    # and every run length would compile anew.
    def nll(lora, frozen, batch, key=None):
        return response_nll(nnx.merge(graph, lora, frozen), batch, remat=remat, key=key).sum()

    def loss(lora, frozen, batch, key=None):
        return nll(lora, frozen, batch, key) / jnp.maximum(batch.weights.sum(), 1.0)

    def accumulated(lora, frozen, batch, key):
        """The loss of all micro-batches together and its gradient, one micro-batch in memory at a time."""
        # Sums are added and divided once: in a mean of the parts' means, a token of a short part would weigh more.
        trained = jnp.maximum(batch.weights.sum(), 1.0)

        def add(total, part):
            micro, i = part
            # Each micro-batch draws masks of its own, or all rows of a batch would drop the same units.
            own = None if key is None else jax.random.fold_in(key, i)
            found = jax.value_and_grad(nll)(lora, frozen, micro, own)
            return jax.tree.map(jnp.add, total, found), None

        zero = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, lora))
        total, _ = jax.lax.scan(add, zero, (batch, jnp.arange(batch.tokens.shape[0])))
        return jax.tree.map(lambda v: v / trained, total)

    def step(state: TrainState, frozen, batch: Batch, learning_rate: Array, seed: Array, number: Array):
        key = jax.random.fold_in(jax.random.key(seed), number) if dropout else None
        memory, drawn = state.memory, None
        if chooser is not None:
            memory, batch, drawn = chooser(nnx.merge(graph, state.lora, frozen), memory, batch, number)
        gradients = accumulated if batch.tokens.ndim == 3 else jax.value_and_grad(loss)
        value, grads = gradients(state.lora, frozen, batch, key)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.lora)
        lora = optax.apply_updates(state.lora, jax.tree.map(lambda u: -learning_rate * u, updates))
        # Left to itself the compiler may lay the new state out otherwise: the donated buffers would then not do for it,
        # and the next step, whose input it is, would be compiled anew.
        return pin(TrainState(lora, opt_state, memory)), StepInfo(value, optax.tree.norm(grads), drawn)

    # Runs trained together have a state, batch, rate and seed each, and share the frozen weights and the step's number.
    compiled = functools.partial(jax.jit, donate_argnums=0, compiler_options=eigen.options())
    alone, together = compiled(step), compiled(jax.vmap(step, (0, None, 0, 0, 0, None)))
    return optimizer, alone, together, jax.jit(jax.value_and_grad(loss)), jax.jit(nll)
