"""Several adapters of one base, updated at once.

The products with the frozen weights run on the rows of all adapters together; what belongs to an adapter has a leading
axis. Each has its own rows, learning rate and seed, and becomes what it becomes alone, up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from edjax.lm.batch import Batch
from edjax.lm.train import StepInfo, Trainer, TrainState


class Together:
    """Trainers of one model with the same settings, without a mesh; their states are here until `part` hands them back.

    Args:
      trainers: of the same base and the same kind of adapter (`edjax.lm.lora.LoraConfig`), remat and optimiser.
    """

    def __init__(self, trainers: Sequence[Trainer]):
        first = trainers[0]
        if any(t.mesh is not None or t.together is not first.together for t in trainers):
            raise ValueError(
                "trainers that run together have one model, one kind of adapter and optimiser, and no mesh"
            )
        self.trainers, self.frozen = list(trainers), first.frozen
        self.seeds = jnp.asarray([t.seed for t in trainers])
        self.state: TrainState = jax.tree.map(lambda *parts: jnp.stack(parts), *(t.state for t in trainers))

    def step(self, batches: Sequence[Batch], learning_rates: Sequence[float], number: int) -> StepInfo:
        """One update of each, not waited for; `batches` in the order of the trainers, of any shapes.

        Returns:
          (n,) arrays, in the order of the trainers.
        """
        batch = jax.tree.map(lambda *parts: np.stack(parts), *alike(batches))
        rates = jnp.asarray(learning_rates, jnp.float32)
        self.state, info = self.trainers[0].together(self.state, self.frozen, batch, rates, self.seeds, number)
        return info

    def part(self) -> None:
        """Give each trainer its own state."""
        for i, trainer in enumerate(self.trainers):
            trainer.state = jax.tree.map(lambda leaf, i=i: leaf[i], self.state)


def alike(batches: Sequence[Batch]) -> list[Batch]:
    """The batches in one shape: padded with rows and places that weigh nothing."""
    leaves, trees = zip(*(jax.tree.flatten(batch) for batch in batches), strict=True)
    largest = [np.max([np.shape(leaf) for leaf in of_all], axis=0) for of_all in zip(*leaves, strict=True)]
    padded = [[_padded(leaf, shape) for leaf, shape in zip(own, largest, strict=True)] for own in leaves]
    return [jax.tree.unflatten(tree, own) for tree, own in zip(trees, padded, strict=True)]


def _padded(leaf: np.ndarray, shape: np.ndarray) -> np.ndarray:
    return np.pad(leaf, [(0, size - have) for have, size in zip(leaf.shape, shape.tolist(), strict=True)])
