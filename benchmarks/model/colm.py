"""What picking rows from a batch costs: an update of CoLM beside plain ones of the whole batch and of as many rows.

    python -m benchmarks.model.colm                        # SmolLM2-135M, 16 rows of 128 tokens: five minutes
    python -m benchmarks.model.colm --rows 32 --tokens 256 --directions 8
    python -m benchmarks.model.colm --model tiny --out /tmp/colm.json            # seconds, says nothing of speed

Each row is half prompt, half response. The updates take turns, so that what else the machine does hits all of them;
the median of `--repeats` counts, and CPU seconds are those of all threads during the call. Ratios are to the plain
update of the whole batch. `--memory` adds the peak of a process of its own a side, which loads the model and makes two
updates: resident bytes above those at the moment the model was there, or an accelerator's bytes in use.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import jax
import numpy as np

from benchmarks.harness import runner
from benchmarks.model.lm import Ours
from benchmarks.model.lm_cases import ADAPTER, SEED, Case, batch_for, model_directory
from edjax.finetuning.colm import Colm
from edjax.lm.batch import Batch
from edjax.lm.decoder import CausalLM
from edjax.lm.lora import add_lora
from edjax.lm.train import StepInfo, Trainer

RATE, SOURCES = 1e-4, 4
SIDES = ("whole batch", "as many rows", "colm")


def updates(model: CausalLM, rows: int, tokens: int, directions: int, remat: bool) -> dict[str, Callable[[], StepInfo]]:
    """An update of each side; each call goes on from the one before."""
    whole = batch_for(Case("lora", rows, tokens, tokens // 2), model.config.vocab_size)
    part = jax.tree.map(lambda v: v[: rows // 2], whole)
    sourced = whole._replace(sources=np.arange(rows, dtype=np.int32) % SOURCES + 1)
    adapted, chooser = add_lora(model, ADAPTER, SEED), Colm(0.5, directions)
    memory = chooser.start(adapted, np.zeros(SOURCES, bool), SEED)
    plain, picking = Trainer(adapted, remat=remat), Trainer(adapted, remat=remat, chooser=chooser, memory=memory)

    def of(trainer: Trainer, batch: Batch) -> Callable[[], StepInfo]:
        return lambda: trainer.step(batch, RATE)

    return dict(zip(SIDES, (of(plain, whole), of(plain, part), of(picking, sourced)), strict=True))


def timed(sides: dict[str, Callable[[], StepInfo]], repeats: int) -> dict[str, dict[str, Any]]:
    """Wall and CPU seconds of every side, taking turns."""
    found: dict[str, dict[str, Any]] = {name: {"runs_s": [], "cpu_runs_s": []} for name in sides}
    for name, update in sides.items():
        found[name]["first_call_s"] = runner.timed(update)[0]
    for _ in range(repeats):
        for name, update in sides.items():
            before = time.process_time()
            found[name]["runs_s"].append(runner.timed(update)[0])
            found[name]["cpu_runs_s"].append(time.process_time() - before)
    for side in found.values():
        side |= {"median_s": statistics.median(side["runs_s"]), "cpu_s": statistics.median(side["cpu_runs_s"])}
    return found


def peak(model: str, side: str, rows: int, tokens: int, directions: int, remat: bool, out: str) -> None:
    """Two updates in a process of its own; writes what they took to `out`."""
    with model_directory(model, "float32") as directory:
        update = updates(Ours(directory, "float32").model, rows, tokens, directions, remat)[side]
        before = runner.forget_peak() or 0
        for _ in range(2):
            jax.block_until_ready(update())
        Path(out).write_text(json.dumps({"before": before, "device": runner.device_peak()}))


def peak_memory(side: str, **arguments: Any) -> int:
    """Bytes that the updates of a side took beyond the model."""
    with TemporaryDirectory() as folder:
        out = Path(folder) / "peak.json"
        top = runner.peak_rss("benchmarks.model.colm:peak", side=side, out=str(out), **arguments)
        found = json.loads(out.read_text())
        return int(found["device"] or top - found["before"])


def says(row: dict[str, Any]) -> str:
    """A row in a line."""
    parts = [
        f"{name} {t['median_s']:.3f} s, {t['cpu_s']:.2f} CPU s ({row['ratios'][name]:.2f}x)"
        + (f", peak {t['peak_bytes'] / 1e9:.2f} GB" if "peak_bytes" in t else "")
        for name, t in row["timed"].items()
    ]
    return f"{row['job']}: " + "; ".join(parts)


@click.command()
@click.option("--model", default="smollm2", show_default=True, type=click.Choice(["smollm2", "tiny", "1b"]))
@click.option("--rows", default=16, show_default=True, help="Of the batch; half of them are taken.")
@click.option("--tokens", default=128, show_default=True, help="Of a row.")
@click.option("--directions", default=1, show_default=True, help="As --batch-directions of edjax finetune.")
@click.option("--remat/--no-remat", default=True, show_default=True, help="Gradient checkpointing, as finetune does.")
@click.option("--repeats", default=5, show_default=True, help="Timed updates a side; the median counts.")
@click.option("--memory", is_flag=True, help="Measure peaks too, in processes of their own.")
@click.option("--out", default=None, type=click.Path(path_type=Path), help="The file; benchmarks/results/colm.json.")
def main(
    model: str, rows: int, tokens: int, directions: int, remat: bool, repeats: int, memory: bool, out: Path | None
) -> None:
    """Measure, and write the results beside the jobs that are there."""
    on = runner.machine()
    with model_directory(model, "float32") as directory:
        found = timed(updates(Ours(directory, "float32").model, rows, tokens, directions, remat), repeats)
    if memory:
        shape = {"model": model, "rows": rows, "tokens": tokens, "directions": directions, "remat": remat}
        for side in SIDES:
            found[side]["peak_bytes"] = peak_memory(side, **shape)
    whole = found[SIDES[0]]
    row = {
        "job": f"{model} {rows}x{tokens}, {directions} directions" + ("" if remat else ", no checkpointing"),
        "timed": found,
        "ratios": {name: t["median_s"] / whole["median_s"] for name, t in found.items()},
        "cpu_ratios": {name: t["cpu_s"] / whole["cpu_s"] for name, t in found.items()},
    }
    path = runner.write("colm", [row], out=out, merge=True, machine=on, seed=SEED)
    click.echo(f"{says(row)} -> {path}")


if __name__ == "__main__":
    main()
