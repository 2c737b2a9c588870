"""The settings of a finetuning run."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from edjax.errors import UsageError
from edjax.finetune.trackers import names
from edjax.lm.bounds import Bounds
from edjax.settings import like_default

_ABOVE_ZERO = (
    "num_train_epochs",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "learning_rate",
    "max_grad_norm",
)
_BELOW_ONE = ("warmup_ratio", "lora_dropout", "validation_split")
_FROM_ZERO = ("weight_decay", "eval_steps", "early_stopping_patience", "early_stopping_threshold", "save_steps", "seed")


@dataclass(frozen=True)
class FinetuneConfig:
    """Hyper-parameters under their Hugging Face names.

    Attributes:
      max_steps: where above 0, the number of updates in place of `num_train_epochs`.
      per_device_train_batch_size: rows of a micro-batch on one device. An update sees this many rows times the devices
        along the mesh's axes data and fsdp times `gradient_accumulation_steps`, and its gradient is that of the mean
        over all their trained tokens: the one of the big batch.
      max_length: bounds prompt plus response in tokens, and never goes beyond the model's window: a prompt keeps its
        last three quarters of it, a response its beginning, as much as is left (`edjax.lm.bounds`).
      assistant_only_loss: train every assistant turn of a conversation; else the last one only, the response.
      packing: lay several rows into sequences of up to `max_length` tokens, which then count as the rows of a batch.
        They do not see each other, and the loss is the same.
      lora_target_modules: projections of the model's layers, or ("all-linear",): all of them.
      dtype: of base weights and activations, float32 or bfloat16. Adapters and the optimiser are float32.
      quantize: none, or int8 or nf4: how the frozen projections are kept in memory.
      mesh: devices to train on, as "fsdp=8" (`edjax.lm.mesh.parse_mesh`); "": one.
      group_by_length: put rows of like length into one batch.
      validation_split: the share of rows held out of training, drawn with `seed`, where no validation rows are given.
      eval_steps: updates between evaluations on the validation rows; 0: at the end of every epoch.
      early_stopping_patience: stop after so many evaluations in a row without a loss that is lower by more than
        `early_stopping_threshold`; 0: never.
      load_best_model_at_end: with validation rows, write the adapter of the lowest validation loss, not the last one.
      save_steps: updates between checkpoints; 0 keeps none.
      report_to: trackers that are told what goes into metrics.jsonl: none, or tensorboard, wandb, trackio with commas
        between them. It decides nothing of the result: a run may go on with another.

    Raises:
      UsageError: a value of the wrong kind or one that makes no sense.
    """

    num_train_epochs: float = 2.0
    max_steps: int = -1
    per_device_train_batch_size: int = 8
    gradient_accumulation_steps: int = 1
    learning_rate: float = 5e-4
    lr_scheduler_type: str = "cosine"
    warmup_ratio: float = 0.05
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    lora_r: int = 8
    lora_alpha: float = 16.0
    lora_dropout: float = 0.0
    lora_target_modules: tuple[str, ...] = ("all-linear",)
    use_rslora: bool = False
    max_length: int = 1024
    assistant_only_loss: bool = False
    packing: bool = False
    template: str = "auto"
    dtype: str = "float32"
    quantize: str = "none"
    mesh: str = ""
    group_by_length: bool = True
    gradient_checkpointing: bool = True
    validation_split: float = 0.0
    eval_steps: int = 0
    early_stopping_patience: int = 0
    early_stopping_threshold: float = 0.0
    load_best_model_at_end: bool = True
    save_steps: int = 50
    seed: int = 0
    report_to: str = "none"

    def __post_init__(self):
        for field in dataclasses.fields(self):
            like_default(field.name, getattr(self, field.name), field.default)
        object.__setattr__(self, "lora_target_modules", tuple(self.lora_target_modules))
        for name in _ABOVE_ZERO:
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be above 0")
        for name in _BELOW_ONE:
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be at least 0 and below 1")
        for name in _FROM_ZERO:
            if getattr(self, name) < 0:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be 0 or more")
        names(self.report_to)
        Bounds.of(self.max_length)
