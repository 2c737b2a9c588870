"""How many adapters a device has memory to train at once."""

from __future__ import annotations

from edjax.finetuning.config import FinetuneConfig
from edjax.keep.memory import as_many_as_fit
from edjax.lm.config import LMConfig

MOST = 32
STATES = 4  # float32 numbers a parameter of an adapter: itself, its gradient, AdamW's two moments


def cells_at_once(model: LMConfig, config: FinetuneConfig) -> int:
    """As many adapters as fit beside what the first device holds already, 32 at the most.

    1 on a CPU, which one adapter keeps busy; with a mesh; and where the memory of a device is not to be known.
    """
    return 1 if config.mesh else as_many_as_fit(bytes_of_one(model, config), MOST)


def bytes_of_one(model: LMConfig, config: FinetuneConfig) -> int:
    """An estimate of what one adapter more takes: its states, and the activations of its rows at `max_length`."""
    size = 2 if config.dtype == "bfloat16" else 4
    queries, keys = model.num_heads * model.head_dim, model.num_kv_heads * model.head_dim
    d, f, layers = model.hidden_size, model.intermediate_size, model.num_layers
    inputs_and_outputs = 2 * (queries + d) + 2 * (d + keys) + 3 * (d + f)
    states = 4 * STATES * layers * config.lora_r * inputs_and_outputs
    a_layer = 2 * queries + 2 * keys + 3 * f + 3 * d
    kept = layers * d + a_layer if config.gradient_checkpointing else layers * a_layer
    tokens = config.per_device_train_batch_size * config.max_length
    return states + tokens * (size * kept + 4 * model.vocab_size)
