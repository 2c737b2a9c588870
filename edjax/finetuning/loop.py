"""The training loop: updates in a fixed order, looks at the validation rows, checkpoints, and the adapter written."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from edjax.data.pool import Pool
from edjax.finetuning.colm import chooser_of
from edjax.finetuning.config import FinetuneConfig
from edjax.finetuning.health import check_update
from edjax.finetuning.log import MetricsLog
from edjax.finetuning.plan import Plan
from edjax.finetuning.result import Finetuned
from edjax.finetuning.trackers import open_trackers
from edjax.finetuning.validation import EarlyStopping
from edjax.keep.checkpoints import Checkpoints
from edjax.keep.errors import DataError
from edjax.keep.progress import progress
from edjax.keep.signals import Held, held_signals
from edjax.lm.batch import Batch, Example, batches_by_length, make_batch
from edjax.lm.lora import add_lora
from edjax.lm.peft import export_adapter
from edjax.lm.together import Together
from edjax.lm.train import Trainer, TrainState
from edjax.lm.trajectory import place_of

if TYPE_CHECKING:
    from edjax.lm.load import LoadedModel

LAST = "last"  # where the adapter of the last update goes, if the one of the best look is handed out


class Training(NamedTuple):
    """An adapter to train: on which rows, validated on which, where it goes, with which settings, the day that a chat
    template prints, and the `Plan` of that where there is one already."""

    pool: Pool
    validation: Pool | None
    out: Path
    config: FinetuneConfig
    date: str | None
    plan: Plan | None = None

    def planned(self, loaded: LoadedModel) -> Plan:
        """The plan, made if it is not there."""
        return self.plan or Plan.of(self.pool, self.validation, self.config, loaded, self.date)


def train(
    jobs: Sequence[Training], loaded: LoadedModel, *, show: bool, tell: Callable[[str], None], writes: bool = True
) -> list[Finetuned]:
    """Train the adapter of each job and write it, going on from its last checkpoint if there is one.

    Jobs that are equally far are updated together (`edjax.lm.together`), and share the seconds. Of several processes
    that compute the same, one `writes` and tells what there is to note.
    """
    start = time.monotonic()
    with contextlib.ExitStack() as stack:
        runs, plans = [], [job.planned(loaded) for job in jobs]
        for job, plan in zip(jobs, plans, strict=True):
            run = stack.enter_context(contextlib.closing(_Run(job, plan, loaded, writes, start, len(jobs))))
            stack.enter_context(run.log)
            for note in run.notes if writes else ():
                tell(note)
            runs.append(run)
        with (
            progress("finetune", sum(r.steps for r in runs), "steps", show=show and writes) as bar,
            held_signals() as held,
        ):
            bar(sum(r.step for r in runs))
            while left := [r for r in runs if not r.done]:
                for some in _equally_far(left):
                    _advance(some, bar, held)
                if held.stop:
                    break
    return [run.finished() for run in runs]


def _equally_far(runs: Sequence[_Run]) -> list[list[_Run]]:
    """Runs whose next update is the same of as many, in groups."""
    groups: dict[tuple[int, int, int], list[_Run]] = {}
    for run in runs:
        # What a run remembers of its sources has a number for each, and is stacked with the others'.
        sources = len(run.sources.names) if run.sources else 0
        groups.setdefault((run.step, run.steps, sources), []).append(run)
    return list(groups.values())


def _advance(runs: Sequence[_Run], bar: Any, held: Held) -> None:
    """Updates of runs that are equally far, until one of them is done or a signal says stop."""
    together = Together([r.trainer for r in runs]) if len(runs) > 1 else None
    batches, stopping = [r.batch() for r in runs], False
    while not stopping and not any(r.done for r in runs):
        began, step = time.monotonic(), runs[0].step
        rates = [float(r.rate(step)) for r in runs]
        if together:
            info = together.step(batches, rates, step)
        else:
            info = runs[0].trainer.step(batches[0], rates[0], step)
        last = step + 1 == runs[0].steps
        # Dispatch returns at once: the next batch is laid out while the device computes, and only device_get waits.
        batches = [] if last else [r.batch(step + 1) for r in runs]
        info = jax.tree.map(lambda of_all: np.ravel(of_all).tolist(), jax.device_get(info))
        drawn = info.batch_loss or [None] * len(runs)
        for run, loss, norm, rate, of_batch in zip(runs, info.loss, info.grad_norm, rates, drawn, strict=True):
            run.took(loss, norm, rate, began, of_batch)
        stopping = held.stop  # read once, so that all runs of the group stop after the same update
        # Validation and what is kept read a trainer's own state, which is stacked with the others' while they go
        # together.
        if together and (last or stopping or any(r.looks_now or r.keeps_now or r.saves_now for r in runs)):
            together.part()
        for run in runs:
            bar(1, run.look())
            run.keep()  # before a checkpoint, which says that all up to its step is there
            if run.saves_now or stopping:
                run.save()


class _Run:
    """Everything a run needs, and how far it is: `step` updates are done."""

    def __init__(
        self, job: Training, plan: Plan, loaded: LoadedModel, writes: bool, start: float, sharing: int
    ) -> None:
        config, out = job.config, job.out
        self.job, self.config, self.loaded, self.writes = job, config, loaded, writes
        self.start, self.sharing = start, sharing
        self.examples, self.ids, self.facts = plan.rows.examples, plan.rows.pool.ids, plan.facts
        self.validation, self.notes, self.sources = plan.validation, plan.notes, plan.sources
        self.order, self.steps, self.kept = plan.order, plan.steps, plan.kept
        self.rate, self.lora = plan.rate, plan.lora
        self.lengths = np.asarray([len(e.tokens) for e in self.examples])
        # A small pool does not fill a batch: its arrays are as high as its rows need, so that no update computes
        # padding, and one height for all updates, so that the step is compiled once.
        least = plan.shards * config.gradient_accumulation_steps  # rows that are shared out evenly
        self.height = min(plan.batch_size, -(-len(self.order.sequences) // least) * least)
        model, chooser, memory = add_lora(loaded.model, self.lora, config.seed), None, None
        if self.sources:
            chooser = chooser_of(config)
            memory = chooser.start(model, self.sources.keep, config.seed)
        self.trainer = Trainer(
            model,
            max_grad_norm=config.max_grad_norm,
            weight_decay=config.weight_decay,
            remat=config.gradient_checkpointing,
            seed=config.seed,
            mesh=plan.mesh,
            chooser=chooser,
            memory=memory,
        )
        self.held_out = _whole(self.validation.examples, plan.micro_batch, plan.shards) if self.validation else []
        self.step, self.seconds, self.looks = 0, 0.0, EarlyStopping()
        self.best = self.trainer.copy() if self.validation else None
        self.checkpoints = Checkpoints(out / "checkpoints") if writes and config.save_steps else None
        if self.checkpoints and (found := self.checkpoints.latest(self._state())):
            self.step, state, data = found
            # The rows of an update are a function of its number, so nothing else is restored: no place in a stream.
            self.best = state.pop("best", None)
            self.trainer.state = TrainState(**state)
            self.seconds, self.looks = data["seconds"], EarlyStopping(**data["looks"])
        trackers = open_trackers(config.report_to, out, dataclasses.asdict(config)) if writes else []
        self.log = MetricsLog(out / "metrics.jsonl" if writes else None, self.step, trackers)

    def _state(self) -> dict[str, Any]:
        state = {name: part for name, part in self.trainer.state._asdict().items() if part is not None}
        return state | ({"best": self.best} if self.validation else {})

    @property
    def spent(self) -> float:
        """Seconds of all starts of this run so far; of those shared with other runs, its share."""
        return self.seconds + (time.monotonic() - self.start) / self.sharing

    @property
    def done(self) -> bool:
        """Whether all updates were made, or validation has gone without a gain for as long as the settings allow."""
        patience = self.config.early_stopping_patience
        return self.step >= self.steps or (bool(patience) and self.looks.without_gain >= patience)

    @property
    def looks_now(self) -> bool:
        """Whether the validation rows are due after the last update."""
        every = self.config.eval_steps or self.order.per_epoch
        return self.validation is not None and (self.step == self.steps or self.step % every == 0)

    @property
    def keeps_now(self) -> bool:
        """Whether the adapter after the last update is one of those that stay."""
        return self.step in self.kept

    @property
    def saves_now(self) -> bool:
        """Whether a checkpoint is due after the last update."""
        return bool(self.checkpoints) and self.step % self.config.save_steps == 0 and not self.done

    def took(self, loss: float, norm: float, rate: float, began: float, of_batch: float | None) -> None:
        """One update more; one whose loss is not finite, or that of all rows `of_batch`, ends the run."""
        self.last = self._entry(self.step, loss, norm, rate, began, of_batch)
        self.log.write(self.last)
        self.step += 1

    def look(self) -> str:
        """Evaluate on the validation rows if that is due; what the bar says."""
        if self.looks_now:
            self.log.write(self._look())
        return f"loss {self.last['loss']:.3f}" + (f", validation {self.looks.loss:.3f}" if self.looks.loss else "")

    def keep(self) -> None:
        """Write the adapter as it is now, if it is one of those that stay."""
        if self.keeps_now:
            model = self.trainer.model()  # gathered from the devices of every process
            if self.writes:
                place = place_of(self.job.out, self.step, self.steps)
                export_adapter(model, self.lora, place, self.loaded.base_model)

    def save(self) -> None:
        """Write a checkpoint, if the settings keep any."""
        if self.checkpoints:
            self.log.sync()  # a checkpoint that is there vouches for the lines before it
            data = {"seconds": self.spent, "looks": dataclasses.asdict(self.looks)}
            self.checkpoints.save(self.step, self._state(), data)

    def finished(self) -> Finetuned:
        """The adapter written, and what there is to say of it."""
        out, losses = self.job.out, self.log.losses()
        model, last = self.adapter(), self.trainer.model()
        if self.writes:
            export_adapter(model, self.lora, out, self.loaded.base_model)
            if self.hands_out_best:
                export_adapter(last, self.lora, out / LAST, self.loaded.base_model)
        return Finetuned(
            directory=out,
            steps=self.step,
            train_loss=float(np.mean(losses[-self.order.per_epoch :])),
            seconds=self.spent,
            response_tokens=sum(len(e.trained) for e in self.examples),
            validation_loss=self.looks.loss,
            best_step=self.looks.step if self.validation else None,
            noted=self.facts,
            model=model,
        )

    def batch(self, step: int | None = None) -> Batch:
        """The rows of an update, the next one if none is named."""
        step = self.step if step is None else step
        sequences = [[self.examples[i] for i in rows] for rows in self.order.rows(step)]
        whole = make_batch(sequences, self.height, packed=self.config.packing)
        if self.sources:
            sources = np.zeros(self.height, np.int32)
            own = [i for rows in self.order.rows(step) for i in rows]
            sources[: len(own)] = self.sources.of_row[own]
            whole = whole._replace(sources=sources)
        return whole.split(self.config.gradient_accumulation_steps)

    def _entry(
        self, step: int, loss: float, norm: float, rate: float, began: float, of_batch: float | None
    ) -> dict[str, Any]:
        """The log's line of an update; an update whose loss is not finite ends the run."""
        rows = [i for sequence in self.order.rows(step) for i in sequence]
        whole = of_batch is None or math.isfinite(of_batch)  # a row that broke may be none of those that were taken
        check_update(step + 1, loss if whole else math.nan, norm, [self.ids[i] for i in rows])
        return {
            "step": step + 1,
            "epoch": self._epoch(step + 1),
            "loss": loss,
            **({} if of_batch is None else {"batch_loss": of_batch}),
            "grad_norm": norm,
            "learning_rate": rate,
            "tokens_per_second": round(float(self.lengths[rows].sum()) / (time.monotonic() - began), 1),
        }

    def _epoch(self, step: int) -> float:
        return round(step / self.order.per_epoch, 4)

    def _look(self) -> dict[str, Any]:
        """Measure the validation loss, keep the adapter if it is the lowest, and give the log's line."""
        assert self.validation is not None
        began = time.monotonic()
        loss = self.trainer.loss(self.held_out)
        if not math.isfinite(loss):
            raise DataError(f"the validation loss after step {self.step} is {loss}; lower learning_rate")
        self.looks = self.looks.after(loss, self.step, self.config.early_stopping_threshold)
        if self.looks.step == self.step:
            self.best = self.trainer.copy()
        return {
            "step": self.step,
            "epoch": self._epoch(self.step),
            "eval_loss": loss,
            "eval_rows": len(self.validation.examples),
            "eval_seconds": round(time.monotonic() - began, 3),
        }

    @property
    def hands_out_best(self) -> bool:
        """Whether the adapter written is that of the best look, not that of the last update."""
        return self.validation is not None and self.config.load_best_model_at_end

    def adapter(self) -> Any:
        """The model with the adapter that is handed out."""
        return self.trainer.with_adapter(self.best) if self.hands_out_best else self.trainer.model()

    def close(self) -> None:
        """Let go of the checkpoints' threads."""
        if self.checkpoints:
            self.checkpoints.close()


def _whole(examples: Sequence[Example], batch_size: int, shards: int) -> list[Batch]:
    """All examples once, from short to long."""
    return [batch for _, batch in batches_by_length(examples, batch_size, shards)]
