"""`edjax finetune`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edjax.cli import options


def finetune_options(f: Any) -> Any:
    import dataclasses

    from edjax.finetune import FinetuneConfig

    helps = {
        "num_train_epochs": "Passes over the rows.",
        "lr_scheduler_type": "cosine, linear or constant, after the warm-up.",
        "max_steps": "Updates in place of epochs, where above 0.",
        "per_device_train_batch_size": "Rows of a micro-batch on one device.",
        "gradient_accumulation_steps": "Micro-batches an update.",
        "assistant_only_loss": "Train every assistant turn; else the response, the last one, only.",
        "packing": "Lay several rows into one sequence; they do not see each other.",
        "group_by_length": "Batch rows of like length.",
        "gradient_checkpointing": "Recompute activations in the backward pass: less memory.",
        "dtype": "float32 or bfloat16, of the base model; adapters are float32.",
        "template": "auto, chat (the model's chat template) or plain.",
        "validation_split": "Share of ROWS held out for validation.",
        "eval_steps": "Updates between validations; 0 for the end of every epoch.",
        "early_stopping_patience": "Validations without a gain before training stops; 0 for never.",
        "early_stopping_threshold": "How much lower a validation loss must be to be a gain.",
        "load_best_model_at_end": "With validation, write the best adapter, not the last.",
        "mesh": "Devices: data=8 shares out rows, fsdp=8 the weights too, tensor=2 splits layers; -1: the rest.",
        "save_steps": "Steps between checkpoints; 0 for none.",
        "lora_target_modules": "Comma-separated projections, or all-linear.",
        "use_rslora": "Scale the adapter by alpha / sqrt(r) in place of alpha / r.",
        "max_length": options.MOST,
        "report_to": "Trackers: none, or tensorboard, wandb, trackio with commas; metrics.jsonl is always written.",
        "quantize": "Keep the base model's projections in int8 or nf4; needs pip install 'edjax[quant]'.",
    }
    for field in reversed(dataclasses.fields(FinetuneConfig)):
        flag, about = "--" + field.name.replace("_", "-"), helps.get(field.name)
        if isinstance(field.default, bool):
            switch = f"{flag}/--no-{flag[2:]}"
            f = click.option(switch, field.name, default=field.default, show_default=True, help=about)(f)
        else:
            default = ",".join(field.default) if isinstance(field.default, tuple) else field.default
            f = click.option(flag, default=default, show_default=True, help=about)(f)
    return f


@click.command()
@click.argument("rows")
@options.MODEL
@options.OUT
@click.option("--validation", help="Rows to validate on while training; any pool format.")
@click.option("--validation-split-name", help="Split of VALIDATION, as --split is of ROWS.")
@finetune_options
@options.OVERWRITE
@options.pool_options
@options.JSON
def finetune(
    rows: str,
    model: str,
    out: Path,
    validation: str | None,
    overwrite: bool,
    validation_split_name: str | None,
    reading: dict[str, Any],
    **settings: Any,
) -> None:
    """Train a LoRA adapter on the responses of ROWS.

    \b
    Reads   ROWS: any pool format, every row with a response
    Writes  OUT/adapter_model.safetensors and adapter_config.json (PEFT format), OUT/metrics.jsonl
            With validation: the adapter of the lowest validation loss, and OUT/last/, that of the last step
    Stopped half-way, the same command goes on from the last checkpoint and ends in the same adapter.
    """
    from edjax.finetune import FinetuneConfig
    from edjax.finetune import finetune as run_finetune
    from edjax.finetune.examples import teaching

    options.use_compilation_cache()
    settings["lora_target_modules"] = tuple(m.strip() for m in settings["lora_target_modules"].split(","))
    data = options.read(rows, reading)
    if validation is None and validation_split_name is not None:
        raise click.UsageError("--validation-split-name needs --validation.", click.get_current_context())
    held = None if validation is None else options.read(validation, reading | {"split": validation_split_name})
    config = FinetuneConfig(**settings)
    done = run_finetune(data, model, out=out, config=config, validation=held, overwrite=overwrite, log=options.note)
    taught = len(teaching(data, config.assistant_only_loss))
    lines = [f"{done.steps} steps on {taught} rows in {done.seconds:.1f} s, last loss {done.train_loss:.4f}"]
    if done.validation_loss is not None:
        lines.append(f"lowest validation loss {done.validation_loss:.4f}, after step {done.best_step}")
    record: dict[str, Any] = {
        "steps": done.steps,
        "rows": taught,
        "seconds": done.seconds,
        "train_loss": done.train_loss,
    }
    record |= {"validation_loss": done.validation_loss, "best_step": done.best_step, "out": out}
    options.tell(record, *lines, f"adapter in {out}")
