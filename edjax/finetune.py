"""LoRA supervised finetuning on labelled rows; resumable, and the same bytes whether it was interrupted or not."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edjax.errors import DataError, UsageError
from edjax.pool import Pool
from edjax.progress import progress
from edjax.store import atomic_write, writing

if TYPE_CHECKING:
    from edjax.lm.load import LoadedModel

GROUP = 16  # batches that share one length-sorted window


@dataclass(frozen=True)
class FinetuneConfig:
    """Hyper-parameters under their Hugging Face names.

    `max_length` bounds prompt plus response in tokens: a longer prompt loses its beginning, a longer response its
    end. `lora_target_modules` names projections of the model's layers, or is ("all-linear",): all of them.
    `mesh` names devices (`edjax.lm.mesh.parse_mesh`); a step then has `per_device_train_batch_size` rows for each
    device along its axes data and fsdp. `group_by_length` puts rows of like length into one batch. `save_steps` 0
    keeps no checkpoints.
    """

    num_train_epochs: float = 2.0
    per_device_train_batch_size: int = 8
    learning_rate: float = 5e-4
    lr_scheduler_type: str = "cosine"
    warmup_ratio: float = 0.05
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    lora_r: int = 8
    lora_alpha: float = 16.0
    lora_target_modules: tuple[str, ...] = ("all-linear",)
    max_length: int = 1024
    template: str = "auto"
    dtype: str = "float32"
    mesh: str = ""
    group_by_length: bool = True
    gradient_checkpointing: bool = True
    save_steps: int = 50
    seed: int = 0

    def __post_init__(self):
        object.__setattr__(self, "lora_target_modules", tuple(self.lora_target_modules))
        for name in ("num_train_epochs", "per_device_train_batch_size", "learning_rate", "max_grad_norm", "max_length"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be above 0")
        if self.max_length < 2:
            raise UsageError(f"max_length is {self.max_length}; a prompt and a response need 2 tokens at the least")
        if not 0 <= self.warmup_ratio < 1:
            raise UsageError(f"warmup_ratio is {self.warmup_ratio}; it must be at least 0 and below 1")
        if self.save_steps < 0:
            raise UsageError(f"save_steps is {self.save_steps}; it must be 0 or more")


@dataclass(frozen=True)
class Finetuned:
    """An adapter on disk and how its training went."""

    directory: Path
    steps: int
    train_loss: float
    seconds: float
    response_tokens: int
    model: Any = None


def encode_rows(pool: Pool, encoder: Any, max_length: int) -> list[tuple[list[int], list[int]]]:
    """(prompt ids, response ids) of labelled rows, cut to `max_length` together.

    Raises:
      DataError: a row without a response, named by its id.
    """
    rows = []
    for i, response in enumerate(pool.responses):
        if response is None:
            raise DataError(f"{pool.source}: row {pool.ids[i]!r} has no response to learn; label it, or leave it out")
        answer = encoder.response(response)[: max(max_length - 1, 1)]
        prompt = encoder.prompt(pool.messages[i])[-(max_length - len(answer)) :]
        rows.append((prompt, answer))
    return rows


def batch_rows(lengths: np.ndarray, batch_size: int, epoch: int, seed: int, group_by_length: bool) -> list[np.ndarray]:
    """The row indices of every batch of an epoch: a pure function of its arguments."""
    rng = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    order = rng.permutation(len(lengths))
    if group_by_length:
        window = GROUP * batch_size
        order = np.concatenate(
            [w[np.argsort(-lengths[w], kind="stable")] for w in np.split(order, range(window, len(order), window))]
        )
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    if group_by_length:
        batches = [batches[i] for i in rng.permutation(len(batches))]
    return batches


def finetune(
    pool: Pool,
    model: str = "smollm2",
    *,
    out: str | Path,
    config: FinetuneConfig | None = None,
    overwrite: bool = False,
    show_progress: bool = True,
    loaded: LoadedModel | None = None,
) -> Finetuned:
    """Train a LoRA adapter on the responses of `pool` and write it in PEFT format.

    The loss is the mean negative log-likelihood of response tokens (the end-of-text token included) given the prompt;
    prompt tokens carry no loss. `out` receives adapter_model.safetensors, adapter_config.json, metrics.jsonl and a
    manifest; while it runs, checkpoints. The same call resumes after a kill and ends in the same adapter bytes on the
    same backend. In several processes (`jax.distributed`) each makes the same call, with a mesh over the devices of all
    and save_steps 0; process 0 writes.

    Args:
      pool: rows with responses.
      model: a name as in `edjax.lm.load.locate`.
      out: the directory to write.
      loaded: the base model, if the caller has it already.

    Raises:
      DataError: a row without a response; a loss that is not finite (the step and its rows are named, the last
        good checkpoint stays).
      UsageError: settings that make no sense, or another run's directory.
    """
    import jax

    from edjax.lm.load import digest, load
    from edjax.lm.mesh import agreed, parse_mesh

    config = config or FinetuneConfig()
    writes = jax.process_index() == 0
    if jax.process_count() > 1 and (config.save_steps or not config.mesh):
        raise UsageError("training in several processes needs a mesh, and save_steps 0: they keep no checkpoints")
    loaded = loaded or load(model, config.dtype, parse_mesh(config.mesh))
    out = Path(out)
    settings = {"model": model, **asdict(config)}
    inputs = {"pool": pool.digest, "model": digest(loaded.directory)}
    held = writing(out, kind="adapter", config=settings, inputs=inputs, overwrite=overwrite)
    with held if writes else contextlib.nullcontext() as artifact:
        if agreed(artifact is not None and artifact.complete):
            return _finished(out, loaded)
        done = _train(pool, loaded, out, config, show_progress and writes, writes)
        if artifact is None:
            return done
        shutil.rmtree(out / "checkpoints", ignore_errors=True)
        artifact.finish(
            steps=done.steps,
            train_loss=done.train_loss,
            seconds=round(done.seconds, 3),
            response_tokens=done.response_tokens,
        )
        return done


def _finished(out: Path, loaded: LoadedModel) -> Finetuned:
    from edjax.lm.peft import import_adapter
    from edjax.store import read_manifest

    m = read_manifest(out, "adapter")
    model, _ = import_adapter(loaded.model, out)
    return Finetuned(out, m["steps"], m["train_loss"], m["seconds"], m["response_tokens"], model)


def _train(pool: Pool, loaded: LoadedModel, out: Path, config: FinetuneConfig, show: bool, writes: bool) -> Finetuned:
    from edjax.checkpoints import Checkpoints
    from edjax.lm.encode import Encoder
    from edjax.lm.lora import LoraConfig, add_lora
    from edjax.lm.mesh import parse_mesh, row_shards
    from edjax.lm.peft import export_adapter
    from edjax.lm.train import Trainer, TrainState, make_batch, schedule

    start = time.monotonic()
    rows = encode_rows(pool, Encoder(loaded.tokenizer, config.template, config.max_length), config.max_length)
    lengths = np.asarray([len(p) + len(r) for p, r in rows])
    mesh = parse_mesh(config.mesh)
    size = config.per_device_train_batch_size * row_shards(mesh)
    per_epoch = math.ceil(len(rows) / size)
    steps = max(1, round(per_epoch * config.num_train_epochs))
    lora = LoraConfig(config.lora_r, config.lora_alpha, config.lora_target_modules)
    rate = schedule(config.lr_scheduler_type, config.learning_rate, steps, config.warmup_ratio)
    trainer = Trainer(
        add_lora(loaded.model, lora, config.seed),
        max_grad_norm=config.max_grad_norm,
        weight_decay=config.weight_decay,
        remat=config.gradient_checkpointing,
        mesh=mesh,
    )
    checkpoints = Checkpoints(out / "checkpoints") if config.save_steps else None
    first, log = 0, []
    if checkpoints and (found := checkpoints.latest(trainer.state._asdict())):
        first, state, data = found
        trainer.state, log = TrainState(**state), data["log"]
        spent = data["seconds"]
    else:
        spent = 0.0
    epoch, batches = -1, []
    with progress("finetune", steps, "steps", show=show) as advance:
        advance(first)
        for step in range(first, steps):
            if step // per_epoch != epoch:
                epoch = step // per_epoch
                batches = batch_rows(lengths, size, epoch, config.seed, config.group_by_length)
            chosen = batches[step % per_epoch]
            began = time.monotonic()
            loss, norm = trainer.step(make_batch([rows[i] for i in chosen], size), float(rate(step)))
            if not (math.isfinite(loss) and math.isfinite(norm)):
                ids = ", ".join(pool.ids[i] for i in chosen)
                raise DataError(
                    f"loss {loss} and gradient norm {norm} at step {step + 1} are not finite; rows {ids}. "
                    "Look at these rows or lower learning_rate"
                )
            log.append(
                {
                    "step": step + 1,
                    "epoch": round((step + 1) / per_epoch, 4),
                    "loss": loss,
                    "grad_norm": norm,
                    "learning_rate": float(rate(step)),
                    "tokens_per_second": round(float(lengths[chosen].sum()) / (time.monotonic() - began), 1),
                }
            )
            advance(1, f"loss {loss:.3f}")
            if checkpoints and (step + 1) % config.save_steps == 0 and step + 1 < steps:
                seconds = spent + time.monotonic() - start
                checkpoints.save(step + 1, trainer.state._asdict(), {"log": log, "seconds": seconds})
    if checkpoints:
        checkpoints.close()
    adapted = trainer.model()
    if writes:
        with atomic_write(out / "metrics.jsonl", "w") as f:
            f.writelines(json.dumps(entry) + "\n" for entry in log)
        export_adapter(adapted, lora, out, loaded.name)
    last_epoch = [entry["loss"] for entry in log[-per_epoch:]]
    return Finetuned(
        out,
        steps,
        float(np.mean(last_epoch)),
        spent + time.monotonic() - start,
        int(sum(len(r) for _, r in rows)),
        adapted,
    )
