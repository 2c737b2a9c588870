"""LoRA supervised finetuning on labelled rows; resumable, and the same bytes whether it was interrupted or not."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from edjax.errors import UsageError
from edjax.finetune.config import FinetuneConfig as FinetuneConfig
from edjax.finetune.result import Finetuned as Finetuned
from edjax.memory import enough_memory
from edjax.pool import Pool
from edjax.store import sha256_json, writing

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
    model: str = "smollm2",
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
    rows also last/, the adapter of the last update; while it runs, checkpoints. `report_to` names trackers that get the
    numbers of metrics.jsonl too; TensorBoard's files are in tensorboard/. The same call resumes after a kill and
    ends in the same adapter bytes on the same backend. Ctrl-C and SIGTERM are held back until the update in progress
    is done and saved. In several processes (`jax.distributed`) each makes the same call, with a mesh over the
    devices of all and save_steps 0; process 0 writes.

    Args:
      pool: rows with responses.
      model: a name as in `edjax.lm.load.locate`.
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
    import jax

    from edjax.finetune.examples import teaching
    from edjax.finetune.log import REPORTED
    from edjax.finetune.loop import train
    from edjax.finetune.trackers import require
    from edjax.lm.dates import day_of
    from edjax.lm.load import digest, load
    from edjax.lm.mesh import agreed, parse_mesh

    if validation is not None and config is not None and config.validation_split:
        raise UsageError("validation rows and validation_split are both given; choose one")
    config = config or FinetuneConfig()
    require(config.report_to)
    every_turn = config.assistant_only_loss
    taught, held_out = teaching(pool, every_turn), None if validation is None else teaching(validation, every_turn)
    writes = jax.process_index() == 0
    if jax.process_count() > 1 and (config.save_steps or not config.mesh):
        raise UsageError("training in several processes needs a mesh, and save_steps 0: they keep no checkpoints")
    loaded = loaded or load(model, config.dtype, config.quantize, parse_mesh(config.mesh))
    out = Path(out)
    settings = {"model": model, **asdict(config)}
    del settings["report_to"]
    day = day_of(loaded.directory, config.template, None if overwrite else out)
    settings |= day and {"date": date or day["date"]}
    inputs = {"pool": pool.digest, "model": digest(loaded.directory)}
    if validation is not None:
        inputs["validation"] = validation.digest
    held = writing(out, kind="adapter", config=settings, inputs=inputs, overwrite=overwrite)
    with held if writes else contextlib.nullcontext() as artifact:
        if agreed(artifact is not None and artifact.complete):
            return _finished(out, loaded)
        with enough_memory("finetuning", LESS):
            date = settings.get("date", date)
            done = train(taught, held_out, loaded, out, config, date=date, show=show_progress, tell=log, writes=writes)
        if artifact is not None:
            shutil.rmtree(out / "checkpoints", ignore_errors=True)
            (out / REPORTED).unlink(missing_ok=True)
            facts = {name: getattr(done, name) for name in FACTS}
            artifact.finish(**facts, **done.noted, rows=len(taught), ids=sha256_json(sorted(pool.ids)))
        return done


FACTS = ("steps", "train_loss", "seconds", "response_tokens", "validation_loss", "best_step")


def _finished(out: Path, loaded: LoadedModel) -> Finetuned:
    from edjax.lm.peft import import_adapter
    from edjax.store import read_manifest

    manifest = read_manifest(out, "adapter")
    model, _ = import_adapter(loaded.model, out)
    noted: dict[str, dict[str, object]] = {name: manifest[name] for name in ("cut", "spelt") if name in manifest}
    return Finetuned(out, **{name: manifest[name] for name in FACTS}, noted=noted, model=model)
