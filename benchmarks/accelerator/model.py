"""The language model beside transformers + PEFT on the same card: hidden states, decoding, a LoRA step."""

from __future__ import annotations

import contextlib
import gc
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import jax

from benchmarks import lm
from benchmarks.accelerator import drawn
from benchmarks.accelerator.stage import Stage

DTYPE = "bfloat16"
ATTENTIONS = ("xla", "cudnn")
BAR, AIM = 1.0, 1.3  # times torch's speed


class Sides:
    """A model on both sides, each made when it is first asked for."""

    def __init__(self, name: str, dtype: str):
        self.name, self.dtype = name, dtype
        self._sides: dict[str, Any] = {}

    def ours(self) -> Any:
        if "edjax" not in self._sides:
            known = self.name in drawn.SHAPES
            self._sides["edjax"] = drawn.Drawn(self.name, self.dtype) if known else self._read("edjax")
        return self._sides["edjax"]

    def torch(self) -> Any:
        """torch's side, or the reason why there is none."""
        if "torch" not in self._sides:
            self._sides["torch"] = self._drawn_torch() if self.name in drawn.SHAPES else self._read("torch")
        return self._sides["torch"]

    def _read(self, who: str) -> Any:
        with lm.model_directory(self.name, self.dtype) as directory:
            return lm.Ours(directory, self.dtype) if who == "edjax" else lm.peer(directory, self.dtype)

    def _drawn_torch(self) -> Any:
        try:
            from benchmarks import lm_torch
        except ImportError as e:
            return str(e)
        if jax.default_backend() != "cpu" and not lm_torch.torch.cuda.is_available():
            return "torch has no GPU here"
        base = drawn.in_torch(self.name, self.dtype, self.ours().model)
        return lm_torch.Torch(None, self.dtype, lm._cores(), load=lambda: base)

    def let_go(self) -> None:
        """Of both, with their memory."""
        self._sides.clear()
        gc.collect()
        jax.clear_caches()
        with contextlib.suppress(ImportError):
            import torch

            torch.cuda.empty_cache()


@contextlib.contextmanager
def attention_by(which: str) -> Iterator[None]:
    """Attention by XLA's own operations or by cuDNN's fused kernel."""
    jax.clear_caches()
    real = jax.nn.dot_product_attention
    with mock.patch.object(jax.nn, "dot_product_attention", partial(real, implementation=which)):
        yield
    jax.clear_caches()


def run(stage: Stage) -> bool:
    whole = True
    for name in stage.sizes.models:
        sides = Sides(name, "float32" if stage.dry else DTYPE)
        for job, case, remat, which in cases(stage, name):
            whole &= stage.job(job, partial(measured, sides, case, remat, which, stage.sizes.repeats))
        sides.let_go()
    return whole


def cases(stage: Stage, name: str) -> list[tuple[str, lm.Case, bool, str]]:
    """(job, what is run, whether activations are computed again, attention) of a model."""
    s = stage.sizes
    hidden = lm.Case("hidden", *s.hidden[name], model=name)
    decoded = lm.Case("scores", *s.decoded[name], model=name)
    trained = lm.Case("lora", *s.trained[name], model=name)
    plans = [(hidden, False, "xla"), (decoded, False, "xla"), (trained, True, "xla"), (trained, False, "xla")]
    plans += [(hidden, False, "cudnn"), (trained, True, "cudnn"), (trained, False, "cudnn")]
    return [(_job(name, *p), *p) for p in plans]


def _job(name: str, case: lm.Case, remat: bool, which: str) -> str:
    size = f"{case.rows} x {case.tokens}" + (f" + {case.new}" if case.kind == "scores" else "")
    return f"{name}: {case.kind} {size}{', remat' if remat else ''}, {which}"


def measured(sides: Sides, case: lm.Case, remat: bool, which: str, repeats: int) -> dict[str, Any]:
    """Seconds of both sides taking turns, their ratio, and how far their answers are apart."""
    facts = {**case._asdict(), "dtype": sides.dtype, "remat": remat, "attention": which}
    if which == "cudnn" and jax.default_backend() == "cpu":
        return {**facts, "skipped": "cuDNN is of NVIDIA's cards"}
    ours, other = sides.ours(), sides.torch()
    skipped = {"torch": other} if isinstance(other, str) else {}
    both = {"edjax": ours} if skipped else {"edjax": ours, "torch": other}
    with attention_by(which), tempfile.TemporaryDirectory() as folder:
        adapter = lm.write_adapter(ours.model, Path(folder)) if case.kind == "lora" else None
        try:
            calls = {who: lm.call(side, case, adapter, remat) for who, side in both.items()}
            timed, history = lm.measure(calls, repeats)
            results = {who: t.pop("result") for who, t in timed.items()}
            agree = lm.compare(case, ours.model, results, history, sides.dtype)
        finally:
            calls = {}
            if case.kind == "lora" and not skipped and other.adapted is not None:
                unload(other)
    tokens = case.rows * (case.new if case.kind == "scores" else case.tokens)
    flops = lm.useful_flops(ours.model.config, case)
    for t in timed.values():
        t["tokens_per_s"] = tokens / t["median_s"]
        if flops:
            t["flops_per_s"] = flops / t["median_s"]
    ratio = None if skipped else timed["torch"]["median_s"] / timed["edjax"]["median_s"]
    verdict = {} if ratio is None else {"bar": BAR, "aim": AIM, "met": ratio >= BAR}
    return {**facts, "ratio": ratio, **verdict, "agree": agree, "timed": timed, "skipped_sides": skipped}


def unload(side: Any) -> None:
    """Take a step's adapter off the base model that other calls share."""
    base = side.adapted.unload()
    base.gradient_checkpointing_disable()
    base.eval()
    for p in base.parameters():
        p.grad = None
    side.adapted = None
