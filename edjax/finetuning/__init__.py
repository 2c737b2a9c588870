"""LoRA supervised finetuning on labelled rows; resumable, and the same bytes whether it was interrupted or not."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from edjax.data.pool import Pool
from edjax.finetuning.config import FinetuneConfig as FinetuneConfig
from edjax.finetuning.result import Finetuned as Finetuned
from edjax.keep.errors import UsageError
from edjax.keep.memory import enough_memory
from edjax.keep.store import sha256_json, writing
from edjax.lm.session import Session

if TYPE_CHECKING:
    from edjax.lm.load import LoadedModel

LESS = (
    "lower per_device_train_batch_size (and raise gradient_accumulation_steps) or max_length, or take dtype bfloat16, "
    "quantize nf4 or a mesh"
)


def _silent(text: str) -> None:
    pass


def finetune(
    pool: Pool,
    model: str | Session = "smollm2",
    *,
    out: str | Path,
    config: FinetuneConfig | None = None,
    validation: Pool | None = None,
    date: str | None = None,
    overwrite: bool = False,
    show_progress: bool = True,
    loaded: LoadedModel | None = None,
    log: Callable[[str], None] = _silent,
) -> Finetuned:
    """Train a LoRA adapter on the responses of `pool` and write it in PEFT format.

    The loss is the mean negative log-likelihood (nats) of response tokens, the one that ends the response included,
    given all tokens before them; prompt tokens carry none, unless `assistant_only_loss` asks for earlier assistant
    turns. A turn of weight 0 carries none, and a row that ends in one is left out where it has no other to train.

    `out` receives adapter_model.safetensors, adapter_config.json, metrics.jsonl (a line an update: step, epoch,
    loss, grad_norm, learning_rate, tokens_per_second; a line an evaluation: eval_loss) and a manifest; with validation
    rows also last/, the adapter of the last update; with `keep_checkpoints` trajectory/step-*/, those of the way; while
    it runs, checkpoints. `report_to` names trackers that get the numbers of metrics.jsonl too; TensorBoard's files are
    in tensorboard/. The same call resumes after a kill and ends in the same adapter bytes on the same backend. Ctrl-C
    and SIGTERM are held back until the update in progress is done and saved. In several processes (`jax.distributed`)
    each makes the same call, with a mesh over the devices of all and save_steps 0; process 0 writes.

    Args:
      pool: rows with responses.
      model: a name as in `edjax.lm.load.locate`, or a `Session`, whose dtype, quantize, mesh, template and bounds
        then stand in place of the config's defaults.
      out: the directory to write.
      validation: rows with responses, for evaluation during training, early stopping and the choice of the adapter.
      date: the day that a chat template prints where it asks for today's; None: that of `out`, else today.
      loaded: the base model, if the caller has it already.
      log: is told how many rows are cut or hold control tokens.

    Raises:
      DataError: a row without a response; a loss that is not finite, or a gradient that is 0 (the step and its rows
        are named, the last good checkpoint stays).
      UsageError: settings that make no sense, or another run's directory.
      EnvError: a tracker whose package is not installed; memory runs out.
    """
    from edjax.finetuning.sources import refuse_unknown

    job = Job(pool, Path(out), config or FinetuneConfig(), validation)
    if job.config.batch_method != "none":
        refuse_unknown(pool, job.config.source_column, job.config.batch_keep_sources)
    return finetune_together(
        [job], model, date=date, overwrite=overwrite, show_progress=show_progress, loaded=loaded, log=log
    )[0]


class Job(NamedTuple):
    """One of several adapters of a model: the rows, the directory to write, the settings, rows to validate on."""

    pool: Pool
    out: Path
    config: FinetuneConfig
    validation: Pool | None = None


def finetune_together(
    jobs: Sequence[Job],
    model: str | Session = "smollm2",
    *,
    date: str | None = None,
    overwrite: bool = False,
    show_progress: bool = True,
    loaded: LoadedModel | None = None,
    log: Callable[[str], None] = _silent,
) -> list[Finetuned]:
    """`finetune` of each job, those with as many updates at once: one adapter of a small model leaves most of an
    accelerator idle. Each becomes what it becomes alone, up to rounding; `seconds` is its share of the time. Rows may
    be a part of a pool: sources in batch_keep_sources of which they hold none count for nothing.

    Args:
      jobs: their settings differ in `MAY_DIFFER` alone, and several need a `mesh` of "".
      date, overwrite, show_progress, loaded, log: as in `finetune`, for all of them.

    Raises:
      UsageError: settings that differ where they must not; else as `finetune`, which ends all of them.
    """
    import jax

    from edjax.finetuning.examples import teaching
    from edjax.finetuning.log import REPORTED
    from edjax.finetuning.loop import Training, train
    from edjax.finetuning.trackers import require
    from edjax.lm.dates import day_of
    from edjax.lm.mesh import agreed

    if not jobs:
        return []
    if isinstance(model, Session):
        jobs = [job._replace(config=model.settings(job.config)) for job in jobs]
    _check(jobs)
    first = jobs[0].config
    taught = [teaching(job.pool, job.config.assistant_only_loss) for job in jobs]
    held_out = [job.validation and teaching(job.validation, job.config.assistant_only_loss) for job in jobs]
    for job in jobs:
        require(job.config.report_to)
    writes = jax.process_index() == 0
    if jax.process_count() > 1 and (first.save_steps or not first.mesh):
        raise UsageError("training in several processes needs a mesh, and save_steps 0: they keep no checkpoints")
    session = Session.of(model, loaded, dtype=first.dtype, quantize=first.quantize, mesh=first.mesh)
    loaded = session.loaded
    done: dict[Path, Finetuned] = {}
    left: list[tuple[Job, Any, Training]] = []
    asked: list[tuple[Job, dict[str, Any], Training]] = []
    with enough_memory("finetuning", LESS):
        for job, rows, held in zip(jobs, taught, held_out, strict=True):
            settings = {"model": session.name, **job.config.record()}
            day = day_of(loaded.directory, job.config.template, None if overwrite else job.out)
            settings |= day and {"date": date or day["date"]}
            training = Training(rows, held, job.out, job.config, settings.get("date", date))
            if overwrite:  # what is refused is refused before anything is deleted
                training = training._replace(plan=training.planned(loaded))
            asked.append((job, settings, training))
    with contextlib.ExitStack() as stack:
        for job, settings, training in asked:
            inputs = {"pool": job.pool.digest, "model": session.digest}
            if job.validation is not None:
                inputs["validation"] = job.validation.digest
            artifact = None
            if writes:
                own = writing(job.out, kind="adapter", config=settings, inputs=inputs, overwrite=overwrite)
                artifact = stack.enter_context(own)
            if agreed(artifact is not None and artifact.complete):
                done[job.out] = _finished(job.out, loaded)
            else:
                left.append((job, artifact, training))
        with enough_memory("finetuning", LESS):
            trained = train([t for *_, t in left], loaded, show=show_progress, tell=log, writes=writes) if left else []
        for (job, artifact, training), result in zip(left, trained, strict=True):
            done[job.out] = result
            if artifact is not None:
                shutil.rmtree(job.out / "checkpoints", ignore_errors=True)
                (job.out / REPORTED).unlink(missing_ok=True)
                facts = {name: getattr(result, name) for name in FACTS}
                ids = sha256_json(sorted(job.pool.ids))
                artifact.finish(**facts, **result.noted, rows=len(training.pool), ids=ids)
    return [done[job.out] for job in jobs]


MAY_DIFFER = ("learning_rate", "lr_scheduler_type", "warmup_ratio", "seed", "num_train_epochs", "max_steps")


def _check(jobs: Sequence[Job]) -> None:
    """Refuse settings that make no sense, alone or together."""
    for job in jobs:
        if job.validation is not None and job.config.validation_split:
            raise UsageError("validation rows and validation_split are both given; choose one")
    if len({job.out for job in jobs}) < len(jobs):
        raise UsageError("two adapters would go into one directory")
    first = asdict(jobs[0].config)
    for job in jobs[1:]:
        differ = [k for k, v in asdict(job.config).items() if k not in MAY_DIFFER and v != first[k]]
        if differ:
            raise UsageError(f"adapters that are trained together have one {differ[0]}; {job.out} has another")
    if len(jobs) > 1 and jobs[0].config.mesh:
        raise UsageError("several adapters at once take no mesh")


FACTS = ("steps", "train_loss", "seconds", "response_tokens", "validation_loss", "best_step")
NOTED = ("cut", "spelt", "sources")


def _finished(out: Path, loaded: LoadedModel) -> Finetuned:
    from edjax.keep.store import read_manifest
    from edjax.lm.peft import import_adapter

    manifest = read_manifest(out, "adapter")
    model, _ = import_adapter(loaded.model, out)
    noted: dict[str, dict[str, object]] = {name: manifest[name] for name in NOTED if name in manifest}
    return Finetuned(out, **{name: manifest[name] for name in FACTS}, noted=noted, model=model)
