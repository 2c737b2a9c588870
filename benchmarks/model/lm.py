"""The language model against transformers + PEFT on torch: the same weights, tokens, dtype, threads and machine.

    python -m benchmarks.model.lm                                  # SmolLM2-135M, float32: ten minutes on two cores
    python -m benchmarks.model.lm --cases decode-8x64+32 --repeats 9
    python -m benchmarks.model.lm --quick --out /tmp/lm.json       # a tiny random model: seconds, says nothing of speed

Both run in one process and take turns, so that what else the machine does hits both; a ratio is torch's median seconds
over ours. What they computed is compared before a time is reported: hidden states and logits by their largest
difference, greedy ids place by place (they may part only after a near tie, whose gap in logits is given), LoRA steps
by their losses. A LoRA step is timed with and without gradient checkpointing on both sides; its `ratio` is that of the
fastest of each, and `ratios` has like against like (edjax keeps the results of matrix products where it does not
recompute everything, torch all that autograd asks for).

Peak memory is that of a process of its own a side, which loads the model and makes the call twice: resident bytes
(VmHWM) from the moment the model is loaded, compilation included; on an accelerator the bytes its allocator had in use.
CPU seconds are those of all threads of the process during the call.

FLOP/s count useful work only: a forward pass 2 N a token, a LoRA step 4 N (forward, and backward to the activations;
the frozen weights have no gradient, and what rematerialisation computes again does not count), with N the weights of
the projections, the head on those positions that have logits, and attention 4 t h k / 2 a token and layer forward
(causal), three times that in a step. `mfu` is the share of what one large matmul of the same dtype reached on the
device.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import click
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.harness import runner
from benchmarks.model.lm_cases import (
    CASES,
    GPU_CASES,
    QUICK,
    SEED,
    Case,
    batch_for,
    ids_for,
    model_directory,
    write_adapter,
)
from edjax.lm.decode import Decoded, decode
from edjax.lm.decoder import CausalLM
from edjax.lm.peft import import_adapter
from edjax.lm.train import Batch, Trainer

RATE = 1e-4
NEAR_TIE = {"float32": 1e-3, "bfloat16": 0.5}
REMAT = "gradient checkpointing"


@jax.jit
def _hidden(model: CausalLM, tokens: jax.Array) -> jax.Array:
    return model.hidden(tokens)


@jax.jit
def _logits(model: CausalLM, tokens: jax.Array) -> jax.Array:
    return model.logits(model.hidden(tokens))


@partial(jax.jit, static_argnames=("new", "scores"))
def _greedy(model: CausalLM, tokens: jax.Array, new: int, scores: bool) -> Decoded:
    hidden, _, kept = model.prefill(tokens)
    lengths = jnp.full(len(tokens), tokens.shape[1])
    return decode(model, hidden, kept, lengths, max_new_tokens=new, eos_ids=(), statistics=scores)


class Ours:
    """A model directory as edjax runs it. `last` holds the compiled step of the last `lora`."""

    def __init__(self, directory: Path, dtype: str):
        from transformers import AutoConfig

        from edjax.lm.checkpoint import load_weights
        from edjax.lm.config import LMConfig

        self.model = load_weights(directory, LMConfig.from_hf(AutoConfig.from_pretrained(directory)), jnp.dtype(dtype))

    def forward(self, tokens: np.ndarray, logits: bool) -> Callable[[], Any]:
        """The last hidden states (b, t, d), or the logits (b, t, v)."""
        return partial(_logits if logits else _hidden, self.model, jnp.asarray(tokens))

    def decode(self, tokens: np.ndarray, new: int, scores: bool) -> Callable[[], Any]:
        """A `Decoded`; with `scores` the statistics of every token are computed."""
        return partial(_greedy, self.model, jnp.asarray(tokens), new=new, scores=scores)

    def lora(self, adapter: Path, batch: Batch, rate: float, remat: bool) -> Callable[[], tuple[float, float]]:
        """A training step: (loss, gradient norm)."""
        trainer = Trainer(import_adapter(self.model, adapter)[0], remat=remat)
        return lambda: tuple(float(v) for v in trainer.step(batch, rate)[:2])  # type: ignore[return-value]


def peer(directory: Path, dtype: str) -> Any:
    """The torch side, or the reason why there is none."""
    try:
        from benchmarks.model import lm_torch
    except ImportError as e:
        return f"{e}: pip install 'edjax[parity]' (Python 3.11)"
    if jax.default_backend() != "cpu" and not lm_torch.torch.cuda.is_available():
        return "torch has no GPU here"
    return lm_torch.Torch(directory, dtype, _cores())


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def call(side: Any, case: Case, adapter: Path | None, remat: bool) -> Callable[[], Any]:
    """What is timed: a function of no arguments."""
    config = side.model.config
    if case.kind == "lora":
        return side.lora(adapter, batch_for(case, config.vocab_size), RATE, remat)
    tokens = ids_for(case, config.vocab_size)
    if case.kind in ("hidden", "logits"):
        return side.forward(tokens, case.kind == "logits")
    return side.decode(tokens, case.new, case.kind == "scores")


def run(name: str, case: Case, dtype: str, repeats: int) -> dict[str, Any]:
    """One case on both sides, compared."""
    with model_directory(case.model, dtype) as directory, tempfile.TemporaryDirectory() as folder:
        sides = {"edjax": Ours(directory, dtype), "torch": peer(directory, dtype)}
        skipped = {who: side for who, side in sides.items() if isinstance(side, str)}
        sides = {who: side for who, side in sides.items() if who not in skipped}
        lora = case.kind == "lora"
        adapter = write_adapter(sides["edjax"].model, Path(folder)) if lora else None
        calls = {
            f"{who}, {REMAT}" if remat else who: call(side, case, adapter, remat)
            for remat in ((False, True) if lora else (False,))
            for who, side in sides.items()
        }
        timed, history = measure(calls, repeats)
        results = {who: t.pop("result") for who, t in timed.items()}
        flops = useful_flops(sides["edjax"].model.config, case)
        agree = compare(case, sides["edjax"].model, results, history, dtype)
    tokens = case.rows * (case.new if case.kind in ("ids", "scores") else case.tokens)
    for t in timed.values():
        t["tokens_per_s"] = tokens / t["median_s"]
        if flops:
            t["flops_per_s"] = flops / t["median_s"]
    fastest = {who: min(t["median_s"] for n, t in timed.items() if n.split(",")[0] == who) for who in sides}
    return {
        "job": name if dtype == "float32" else f"{name} {dtype}",
        **case._asdict(),
        "dtype": dtype,
        "threads": _cores(),
        **runner.stamp(),
        "ratio": fastest["torch"] / fastest["edjax"] if "torch" in fastest else None,
        "ratios": _ratios(timed, "median_s"),
        "cpu_ratios": _ratios(timed, "cpu_s"),
        "agree": agree,
        "timed": timed,
        "skipped": skipped,
    }


def measure(
    calls: dict[str, Callable[[], Any]], repeats: int
) -> tuple[dict[str, dict[str, Any]], dict[str, list[Any]]]:
    """`runner.side_by_side` with the CPU seconds of each call beside the wall's, and all results of a step."""
    spent: dict[str, list[float]] = {who: [] for who in calls}
    history: dict[str, list[Any]] = {who: [] for who in calls}

    def watched(who: str) -> Any:
        start = time.process_time()
        result = jax.block_until_ready(calls[who]())
        spent[who].append(time.process_time() - start)
        if isinstance(result, tuple) and isinstance(result[0], float):
            history[who].append(result)
        return result

    timed = runner.side_by_side({who: partial(watched, who) for who in calls}, repeats)
    for who, t in timed.items():
        t["cpu_s"] = statistics.median(spent[who][1:])
    return timed, history


def _ratios(timed: dict[str, dict[str, Any]], key: str) -> dict[str, float]:
    """torch over edjax, like against like."""
    pairs = {who: who.replace("edjax", "torch") for who in timed if who.startswith("edjax")}
    return {
        who.removeprefix("edjax, "): timed[other][key] / timed[who][key]
        for who, other in pairs.items()
        if other in timed
    }


def compare(
    case: Case, model: CausalLM, results: dict[str, Any], history: dict[str, list], dtype: str
) -> dict[str, Any]:
    """How far what the sides computed agrees; empty without a peer."""
    if "torch" not in results:
        return {}
    from benchmarks.model import lm_torch

    mine, theirs = results["edjax"], results["torch"]
    if case.kind == "lora":
        steps = [abs(a[0] - b[0]) for a, b in zip(history["edjax"], history["torch"], strict=True)]
        return {
            "loss": {who: r[0] for who, r in results.items()},
            "grad_norm": {who: r[1] for who, r in results.items()},
            "worst_loss_difference": max(steps),
            "steps": len(steps),
        }
    if case.kind in ("hidden", "logits"):
        theirs = lm_torch.array_of(theirs)
        return {"worst_difference": float(np.abs(np.asarray(mine, np.float32) - theirs).max())}
    a, b = np.asarray(mine.tokens), lm_torch.ids_of(theirs, case.tokens)
    gaps = [_gap(model, case, a, b, i) for i in np.flatnonzero((a != b).any(1))]
    found = {
        "rows": len(a),
        "same_rows": int((a == b).all(1).sum()),
        "same_places": int((a == b).sum()),
        "places": a.size,
        "gaps_where_rows_part": gaps,
        "only_near_ties": all(g <= NEAR_TIE[dtype] for g in gaps),
    }
    if case.kind == "scores":
        same = (a == b).cumprod(1).astype(bool)
        found["worst_nll_difference"] = float(np.abs(np.asarray(mine.nll) - lm_torch.nll_of(theirs))[same].max())
    return found


def _gap(model: CausalLM, case: Case, a: np.ndarray, b: np.ndarray, row: int) -> float:
    """How far apart the logits of the two tokens are where a row's continuations part, by one forward of ours."""
    at = int(np.flatnonzero(a[row] != b[row])[0])
    ids = np.zeros((1, case.tokens + case.new), np.int32)
    ids[0, : case.tokens] = ids_for(case, model.config.vocab_size)[row]
    ids[0, case.tokens : case.tokens + at] = a[row, :at]
    logits = np.asarray(_logits(model, jnp.asarray(ids)))[0, case.tokens + at - 1]
    return float(abs(logits[a[row, at]] - logits[b[row, at]]))


def useful_flops(c: Any, case: Case) -> float | None:
    """Of one call, by the formula above; None for decoding, which reads weights more than it computes."""
    if case.kind in ("ids", "scores"):
        return None
    heads, kv = c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim
    weights = c.num_layers * (2 * c.hidden_size * (heads + kv) + 3 * c.hidden_size * c.intermediate_size)
    n, head = case.rows * case.tokens, c.vocab_size * c.hidden_size
    attention = 2 * case.tokens * heads * c.num_layers
    if case.kind == "lora":
        return n * (4.0 * weights + 3 * attention) + 4.0 * case.rows * case.new * head
    return n * (2.0 * weights + attention + (2 * head if case.kind == "logits" else 0))


@cache
def peak_flops(dtype: str) -> float:
    """FLOP/s of the best of ten large matmuls on the device."""
    n = 2048 if jax.default_backend() == "cpu" else 8192
    x = jax.random.normal(jax.random.key(0), (n, n), jnp.dtype(dtype))
    product = jax.jit(lambda a: a @ a)
    runner.timed(lambda: product(x))
    return 2 * n**3 / min(runner.timed(lambda: product(x))[0] for _ in range(10))


def peak_memory(case: Case, dtype: str, who: str, remat: bool) -> dict[str, Any]:
    """Peak bytes of one side in a process of its own, and what the model alone took before the calls."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "peak.json"
        peak = runner.peak_rss(
            "benchmarks.model.lm:in_own_process", case=list(case), dtype=dtype, who=who, remat=remat, out=str(out)
        )
        return {"peak_rss_bytes": peak, **json.loads(out.read_text())}


def in_own_process(case: list[Any], dtype: str, who: str, remat: bool, out: str) -> None:
    """Load the model, make the call twice, and write what was resident before to `out`."""
    what = Case(*case)
    with model_directory(what.model, dtype) as directory, tempfile.TemporaryDirectory() as folder:
        ours = Ours(directory, dtype) if who == "edjax" or what.kind == "lora" else None
        adapter = write_adapter(ours.model, Path(folder)) if what.kind == "lora" and ours else None
        if who == "torch":
            ours = None
            jax.clear_caches()
        side = ours or peer(directory, dtype)
        f = call(side, what, adapter, remat)
        found: dict[str, Any] = {"rss_before_bytes": runner.forget_peak()}
        for _ in range(2):
            jax.block_until_ready(f())
        if jax.default_backend() != "cpu":
            if who == "torch":
                import torch

                found["device_peak_bytes"] = torch.cuda.max_memory_allocated()
            else:
                found["device_peak_bytes"] = runner.device_peak()
        Path(out).write_text(json.dumps(found))


def says(row: dict[str, Any]) -> str:
    """A row in a line."""
    parts = []
    for who, t in row["timed"].items():
        memory = f", peak {t['memory']['peak_rss_bytes'] / 1e9:.2f} GB" if "memory" in t else ""
        parts.append(f"{who} {t['median_s']:.3f} s ({t['cpu_s']:.2f} CPU s, {t['tokens_per_s']:.0f} tok/s{memory})")
    parts += [f"{setting} {ratio:.2f}x" for setting, ratio in row["ratios"].items()]
    agree = row["agree"]
    if "same_rows" in agree:
        parts.append(
            f"same ids in {agree['same_rows']} of {agree['rows']} rows, parting at gaps {agree['gaps_where_rows_part']}"
        )
    elif agree:
        parts.append(", ".join(f"{k} {v:.2g}" for k, v in agree.items() if isinstance(v, float)))
    parts += [f"{who} left out: {reason}" for who, reason in row["skipped"].items()]
    return f"{row['job']}: " + "; ".join(parts)


@click.command()
@click.option("--cases", default="all", show_default=True, help="Names, comma-separated; or all.")
@click.option("--dtype", default="float32", show_default=True, type=click.Choice(["float32", "bfloat16"]))
@click.option("--repeats", default=5, show_default=True, help="Timed runs a side; the median counts.")
@click.option("--memory/--no-memory", default=True, show_default=True, help="Measure peaks in processes of their own.")
@click.option("--quick", is_flag=True, help="A tiny random model, two repeats: to try the programme.")
@click.option("--out", default=None, type=click.Path(path_type=Path), help="The file; benchmarks/results/lm.json.")
def main(cases: str, dtype: str, repeats: int, memory: bool, quick: bool, out: Path | None) -> None:
    """Measure, and write the results after every case, beside the cases that are there."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # a GPU is shared with torch
    gpu = jax.default_backend() != "cpu"
    known = QUICK if quick else CASES | (GPU_CASES if gpu else {})
    names = list(known) if cases == "all" else cases.split(",")
    if unknown := [name for name in names if name not in known]:
        raise click.BadParameter(f"{unknown[0]!r} is not one of all, {', '.join(known)}", param_hint="--cases")
    on = runner.machine()
    for name in names:
        case = known[name]
        kind = "bfloat16" if case.model == "1b" else dtype
        row = run(name, case, kind, 2 if quick else repeats)
        if not quick:
            row["peak_flops_per_s"] = peak_flops(kind)
            for who, t in row["timed"].items():
                if "flops_per_s" in t:
                    t["mfu"] = t["flops_per_s"] / row["peak_flops_per_s"]
                if memory:
                    t["memory"] = peak_memory(case, kind, who.split(",")[0], REMAT in who)
        path = runner.write("lm", [row], out=out, merge=True, machine=on, seed=SEED, peer=_peer_versions())
        click.echo(f"{says(row)} -> {path}")


def _peer_versions() -> dict[str, str]:
    try:
        from benchmarks.model import lm_torch
    except ImportError:
        return {}
    return lm_torch.versions()


if __name__ == "__main__":
    main()
