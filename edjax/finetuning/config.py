"""The settings of a finetuning run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from edjax.finetuning.trackers import names
from edjax.keep.errors import UsageError
from edjax.lm.bounds import OWN, Bounds, own_bounds
from edjax.lm.session import MODEL, ROW, Session
from edjax.settings import check, same_as, setting

LENGTH, BATCH, LORA = "How long, how fast", "Batches", "Adapters"
CORESET = "Part of every batch"
METHODS = ("none", "colm", "random")
OF_COLM = ("batch_directions", "batch_resample", "batch_weights")
CHOICE = (  # settings that say nothing where all rows of a batch are taken
    "batch_method",
    "batch_ratio",
    "source_column",
    "batch_keep_sources",
    *OF_COLM,
)
VALIDATION, RUNNING = "Validation", "Running"
SCHEDULES = ("cosine", "linear", "constant")


@dataclass(frozen=True)
class FinetuneConfig:
    """Hyper-parameters under their Hugging Face names.

    Attributes:
      max_steps: where above 0, the number of updates in place of `num_train_epochs`.
      per_device_train_batch_size: rows of a micro-batch on one device. An update sees this many rows times the devices
        along the mesh's axes data and fsdp times `gradient_accumulation_steps`, and its gradient is that of the mean
        over all their trained tokens: the one of the big batch.
      max_length: bounds prompt plus response in tokens, and never goes beyond the model's window: a prompt keeps its
        last tokens, at most three quarters of it, a response its first, as many as are left (`edjax.lm.bounds`).
      assistant_only_loss: train every assistant turn of a conversation; else the last one only, the response.
      max_prompt, max_response: bound each of the two, as `edjax.lm.bounds.Bounds` says; None: `max_length` alone does.
      packing: lay several rows into sequences of up to `max_length` tokens, which then count as the rows of a batch.
        They do not see each other, and the loss is the same.
      lora_target_modules: projections of the model's layers, or ("all-linear",): all of them.
      dtype: of base weights and activations, float32 or bfloat16. Adapters and the optimiser are float32.
      quantize: none, or int8 or nf4: how the frozen projections are kept in memory.
      mesh: devices to train on, as "fsdp=8" (`edjax.lm.mesh.parse_mesh`); "": one.
      group_by_length: put rows of like length into one batch.
      batch_method: of the B rows of an update, as many as without it, in all micro-batches, only round(batch_ratio B)
        carry its gradient: those of colm (`edjax.finetuning.colm`), or as many of each source at random
        (`edjax.finetuning.shares`); none: all. Not with packing or a mesh.
      source_column, batch_keep_sources: what sources there are, and whose rows are all taken while those of the others
        compete, each source for its share: "small", of sources with fewer rows than an even share; "none"; or names
        with commas between them, each of a source of the pool.
      batch_directions, batch_resample, batch_weights: see directions, resample, weighted of `edjax.finetuning.colm`.
      validation_split: the share of rows held out of training, drawn with `seed`, where no validation rows are given.
      eval_steps: updates between evaluations on the validation rows; 0: at the end of every epoch.
      early_stopping_patience: stop after so many evaluations in a row without a loss that is lower by more than
        `early_stopping_threshold`; 0: never.
      load_best_model_at_end: with validation rows, write the adapter of the lowest validation loss, not the last one.
      save_steps: updates between checkpoints; 0 keeps none.
      keep_checkpoints: write so many adapters of the run's way to trajectory/, evenly spaced over its updates, the last
        one's among them; not with early stopping, which leaves the number of updates open.
      report_to: trackers that are told what goes into metrics.jsonl: none, or tensorboard, wandb, trackio with commas
        between them. It decides nothing of the result: a run may go on with another.

    Raises:
      UsageError: a value of the wrong kind or one that makes no sense.
    """

    num_train_epochs: float = setting(2.0, "Passes over the rows.", section=LENGTH, above=0)
    max_steps: int = setting(-1, "Updates in place of epochs, where above 0.", section=LENGTH)
    per_device_train_batch_size: int = setting(8, "Rows of a micro-batch on one device.", section=BATCH, above=0)
    gradient_accumulation_steps: int = setting(1, "Micro-batches an update.", section=BATCH, above=0)
    learning_rate: float = setting(5e-4, "Largest, after the warm-up.", section=LENGTH, above=0)
    lr_scheduler_type: str = setting(
        "cosine", "cosine, linear or constant, after the warm-up.", section=LENGTH, choices=SCHEDULES
    )
    warmup_ratio: float = setting(0.05, "Share of the updates that warm up.", section=LENGTH, least=0, below=1)
    weight_decay: float = setting(0.0, "Of AdamW.", section=LENGTH, least=0)
    max_grad_norm: float = setting(1.0, "Gradients are scaled down to this norm.", section=LENGTH, above=0)
    lora_r: int = setting(8, "Rank of the adapters.", section=LORA, least=1)
    lora_alpha: float = setting(16.0, "An adapter counts alpha / r times.", section=LORA)
    lora_dropout: float = setting(0.0, "Share of an adapter's inputs left out.", section=LORA, least=0, below=1)
    lora_target_modules: tuple[str, ...] = setting(
        ("all-linear",), "Comma-separated projections, or all-linear.", section=LORA
    )
    use_rslora: bool = setting(False, "Scale the adapter by alpha / sqrt(r) in place of alpha / r.", section=LORA)
    max_length: int = same_as(Session, "max_length")
    max_prompt: int | None = same_as(Session, "max_prompt")
    max_response: int | None = same_as(Session, "max_response")
    assistant_only_loss: bool = setting(
        False, "Train every assistant turn; else the response, the last one, only.", section=ROW
    )
    packing: bool = setting(False, "Lay several rows into one sequence; they do not see each other.", section=BATCH)
    template: str = same_as(Session, "template")
    dtype: str = same_as(Session, "dtype", help="float32 or bfloat16, of the base model; adapters are float32.")
    quantize: str = same_as(
        Session,
        "quantize",
        help="Keep the base model's projections in int8 or nf4; needs pip install 'edjax[quant]'.",
    )
    mesh: str = same_as(Session, "mesh")
    group_by_length: bool = setting(True, "Batch rows of like length.", section=BATCH)
    batch_method: str = setting(
        "none",
        "Which rows of a batch an update is made of: all (none), colm (medoids by slope), or random, its control.",
        section=CORESET,
        choices=METHODS,
    )
    batch_ratio: float = setting(0.5, "Share of a batch's rows that are taken.", section=CORESET, above=0)
    source_column: str | None = setting(
        None, "Column with a row's source; rows compete within theirs. None: one source.", section=CORESET, kind=str
    )
    batch_keep_sources: str = setting(
        "small",
        "Sources all of whose rows are taken: small (fewer rows than an even share), none, or names with commas.",
        section=CORESET,
    )
    batch_directions: int = setting(1, "Directions along which slopes are taken.", section=CORESET, least=1)
    batch_resample: bool = setting(
        False, "Draw directions anew at every update; else once for the run.", section=CORESET
    )
    batch_weights: bool = setting(False, "Weigh a taken row by how many of its source it stands for.", section=CORESET)
    gradient_checkpointing: bool = setting(
        True, "Recompute activations in the backward pass: less memory.", section=MODEL
    )
    validation_split: float = setting(
        0.0, "Share of ROWS held out for validation.", section=VALIDATION, least=0, below=1
    )
    eval_steps: int = setting(
        0, "Updates between validations; 0 for the end of every epoch.", section=VALIDATION, least=0
    )
    early_stopping_patience: int = setting(
        0, "Validations without a gain before training stops; 0 for never.", section=VALIDATION, least=0
    )
    early_stopping_threshold: float = setting(
        0.0, "How much lower a validation loss must be to be a gain.", section=VALIDATION, least=0
    )
    load_best_model_at_end: bool = setting(
        True, "With validation, write the best adapter, not the last.", section=VALIDATION
    )
    save_steps: int = setting(50, "Steps between checkpoints; 0 for none.", section=RUNNING, least=0)
    keep_checkpoints: int = setting(
        0, "Adapters that stay in OUT/trajectory, evenly spaced over the steps.", section=RUNNING, least=0
    )
    seed: int = setting(0, "Of the adapters' start, the order of rows, and dropout.", section=RUNNING, least=0)
    report_to: str = setting(
        "none",
        "Trackers: none, or tensorboard, wandb, trackio with commas; metrics.jsonl is always written.",
        section=RUNNING,
    )

    def __post_init__(self):
        check(self)
        object.__setattr__(self, "lora_target_modules", tuple(self.lora_target_modules))
        names(self.report_to)  # refuses a tracker that there is not
        self._check_choice()
        Bounds.of(self.max_length, **own_bounds(vars(self)))
        if self.keep_checkpoints and self.early_stopping_patience:
            raise UsageError(
                "keep_checkpoints spaces adapters over all updates, and early_stopping_patience leaves open how many "
                "there are; give one of them"
            )

    def record(self) -> dict[str, Any]:
        """What decides the result, by name, for its manifest; what is only there where it is asked for, only then."""
        # Without a choice its settings are left out: an adapter of before there was one stays that of these settings.
        idle = CHOICE if self.batch_method == "none" else ()
        own = {k: v for k, v in asdict(self).items() if k not in (*OWN, *idle, "report_to", "keep_checkpoints")}
        kept = {"keep_checkpoints": self.keep_checkpoints} if self.keep_checkpoints else {}
        return own | own_bounds(vars(self)) | kept

    def updates(self, sequences: int, shards: int = 1) -> int:
        """How many updates a run makes of so many sequences, which are rows where they are not packed; `shards` are the
        devices that rows are shared out to."""
        batch = self.per_device_train_batch_size * shards * self.gradient_accumulation_steps
        return self.max_steps if self.max_steps > 0 else max(1, round(-(-sequences // batch) * self.num_train_epochs))

    def _check_choice(self) -> None:
        if self.batch_ratio > 1:
            raise UsageError(f"batch_ratio is {self.batch_ratio}; it must be above 0 and 1 at the most")
        if self.batch_method == "none":
            if idle := [f.name for f in fields(self) if f.name in CHOICE and getattr(self, f.name) != f.default]:
                readers = "colm" if idle[0] in OF_COLM else "colm and random"
                raise UsageError(f"{idle[0]} is read by batch_method {readers}; give one, or leave {idle[0]} out")
            return
        if self.packing:
            raise UsageError(
                f"batch_method {self.batch_method} picks rows, and packing lays several into one: choose one of the two"
            )
        if self.mesh:
            raise UsageError(
                f"batch_method {self.batch_method} compares all rows of a batch with each other on one device: "
                "leave mesh out, or batch_method"
            )
