"""What a run will do, and all that its settings, rows and model refuse of it, before it does anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from edjax.data.pool import Pool
from edjax.finetuning.config import FinetuneConfig
from edjax.finetuning.examples import encode_rows
from edjax.finetuning.order import Order, split_rows
from edjax.finetuning.sources import Sources
from edjax.keep.errors import UsageError
from edjax.lm.batch import Example
from edjax.lm.bounds import facts_of, notes_on
from edjax.lm.encode import Encoder
from edjax.lm.lora import LoraConfig, targets
from edjax.lm.mesh import parse_mesh, row_shards
from edjax.lm.slopes import values_among
from edjax.lm.train import schedule
from edjax.lm.trajectory import kept_steps

if TYPE_CHECKING:
    from edjax.lm.load import LoadedModel


@dataclass
class Rows:
    """Examples, the rows they came from, and what there is to note of these: in words, and as facts."""

    examples: list[Example]
    pool: Pool
    notes: list[str]
    facts: dict[str, Any]


class Plan(NamedTuple):
    """rows, validation: to train on, and to validate on. sources: whose the rows are, where a batch's are chosen.
    shards: devices that rows are shared out to. micro_batch, batch_size: rows, or sequences, of one and of an update.
    steps: updates; `kept`, those that leave an adapter; `rate`, the learning rate by update."""

    rows: Rows
    validation: Rows | None
    sources: Sources | None
    mesh: Any
    shards: int
    micro_batch: int
    batch_size: int
    order: Order
    steps: int
    kept: tuple[int, ...]
    rate: Callable[[int], Any]
    lora: LoraConfig

    @classmethod
    def of(
        cls, pool: Pool, validation: Pool | None, config: FinetuneConfig, loaded: LoadedModel, date: str | None
    ) -> Plan:
        """Encode and lay out the rows, and hold the settings against them and the model; nothing is written.

        Raises:
          DataError: rows that cannot be encoded, or without a source.
          UsageError: settings that do not fit: a projection that the model does not have or that a choice needs, more
            adapters to keep than updates, a mesh.
        """
        rows, held = _rows(pool, validation, Encoder.by(loaded, vars(config), date), config)
        sources = None
        if config.batch_method != "none":
            sources = Sources.of(rows.pool, config.source_column, config.batch_keep_sources)
        mesh = parse_mesh(config.mesh)
        shards = 1 if mesh is None else row_shards(mesh)
        micro_batch = config.per_device_train_batch_size * shards
        order = Order.of(
            np.asarray([len(e.tokens) for e in rows.examples]),
            micro_batch * config.gradient_accumulation_steps,
            config.seed,
            group_by_length=config.group_by_length,
            capacity=config.max_length if config.packing else None,
        )
        steps = config.updates(len(order.sequences), shards)
        lora = LoraConfig(
            config.lora_r, config.lora_alpha, config.lora_target_modules, config.lora_dropout, config.use_rslora
        )
        adapted = targets(loaded.model, lora)
        if config.batch_method == "colm":
            values_among(loaded.model, adapted)
        return cls(
            rows,
            held,
            sources,
            mesh,
            shards,
            micro_batch,
            order.batch_size,
            order,
            steps,
            kept_steps(steps, config.keep_checkpoints),
            schedule(config.lr_scheduler_type, config.learning_rate, steps, config.warmup_ratio),
            lora,
        )

    @property
    def notes(self) -> list[str]:
        """What a person should know of the rows."""
        held = self.validation.notes if self.validation else []
        said = self.sources.note() if self.sources else None
        return [*self.rows.notes, *(f"validation: {note}" for note in held), *([said] if said else [])]

    @property
    def facts(self) -> dict[str, Any]:
        """The same for a manifest."""
        return self.rows.facts | ({"sources": self.sources.facts()} if self.sources else {})


def _rows(pool: Pool, validation: Pool | None, encoder: Encoder, config: FinetuneConfig) -> tuple[Rows, Rows | None]:
    """The rows to train on and those to validate on."""

    def encoded(some: Pool) -> Rows:
        rows, examples = encode_rows(some, encoder, every_turn=config.assistant_only_loss)
        return Rows(examples, some, notes_on(rows, some.ids, encoder.bounds), facts_of(rows, some.ids))

    if validation is not None:
        return encoded(pool), encoded(validation)
    if not config.validation_split:
        return encoded(pool), None
    if len(pool) < 2:
        raise UsageError(f"validation_split needs 2 rows at the least; {pool.source} has {len(pool)}")
    kept, held = split_rows(len(pool), config.validation_split, config.seed)
    return encoded(pool.take(kept)), encoded(pool.take(held))
