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

from benchmarks.accelerator import drawn
from benchmarks.accelerator.record import Row
from benchmarks.accelerator.stage import Stage
from benchmarks.model import lm

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
            from benchmarks.model import lm_torch
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
    """What says most of each model first, then in the other order of the models what is left of each."""
    whole, names = True, stage.sizes.models
    for name, plans in [*((n, cases(stage, n)[:3]) for n in names), *((n, cases(stage, n)[3:]) for n in names[::-1])]:
        if all(job in stage.done() for job, *_ in plans):
            continue
        sides = Sides(name, "float32" if stage.dry else DTYPE)
        for job, case, remat, which in plans:
            twin = stage.done().get(_job(name, case, remat, "xla"))
            whole &= stage.job(job, partial(measured, sides, case, remat, which, stage.sizes.repeats, twin))
        sides.let_go()
    return whole


def cases(stage: Stage, name: str) -> list[tuple[str, lm.Case, bool, str]]:
    """(job, what is run, whether activations are computed again, attention) of a model."""
    s = stage.sizes
    hidden = lm.Case("hidden", *s.hidden[name], model=name)
    decoded = lm.Case("scores", *s.decoded[name], model=name)
    trained = lm.Case("lora", *s.trained[name], model=name)
    plans = [(hidden, False, "xla"), (decoded, False, "xla"), (trained, True, "xla")]
    plans += [(trained, True, "cudnn"), (trained, False, "xla"), (hidden, False, "cudnn"), (trained, False, "cudnn")]
    return [(_job(name, *p), *p) for p in plans]


def _job(name: str, case: lm.Case, remat: bool, which: str) -> str:
    size = f"{case.rows} x {case.tokens}" + (f" + {case.new}" if case.kind == "scores" else "")
    return f"{name}: {case.kind} {size}{', remat' if remat else ''}, {which}"


def measured(
    sides: Sides, case: lm.Case, remat: bool, which: str, repeats: int, twin: Row | None = None
) -> dict[str, Any]:
    """Seconds of both sides taking turns, their ratio, and how far their answers are apart.

    twin: the row of the same work with XLA's attention, whose time of torch counts for cuDNN's too. Where torch fails,
    of memory for one, ours alone is measured, and the row says so.
    """
    facts = {**case._asdict(), "dtype": sides.dtype, "remat": remat, "attention": which}
    if which == "cudnn" and jax.default_backend() == "cpu":
        return {**facts, "skipped": "cuDNN is of NVIDIA's cards"}
    ours, theirs, why, found = sides.ours(), None, "", None
    if which == "cudnn" and twin is not None and "timed" in twin:
        theirs = twin["timed"].get("torch")
    elif isinstance(other := sides.torch(), str):
        why = other
    else:
        try:
            found = _timed({"edjax": ours, "torch": other}, case, remat, repeats, sides.dtype)
        except Exception as e:
            why = f"{type(e).__name__}: {e}"[:300]
    if found is None:
        gc.collect()
        with attention_by(which) if which == "cudnn" else contextlib.nullcontext():
            found = _timed({"edjax": ours}, case, remat, repeats, sides.dtype)
    timed, agree = found
    tokens = case.rows * (case.new if case.kind == "scores" else case.tokens)
    flops = lm.useful_flops(ours.model.config, case)
    for t in timed.values():
        t["tokens_per_s"] = tokens / t["median_s"]
        if flops:
            t["flops_per_s"] = flops / t["median_s"]
    if theirs is not None:
        timed["torch"] = theirs
    ratio = timed["torch"]["median_s"] / timed["edjax"]["median_s"] if "torch" in timed else None
    verdict = {} if ratio is None else {"bar": BAR, "aim": AIM, "met": ratio >= BAR}
    skipped = {"torch": why} if why else {}
    return {**facts, "ratio": ratio, **verdict, "agree": agree, "timed": timed, "skipped_sides": skipped}


def _timed(
    both: dict[str, Any], case: lm.Case, remat: bool, repeats: int, dtype: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(seconds by side, how far the answers are apart)."""
    ours, other = both["edjax"], both.get("torch")
    with tempfile.TemporaryDirectory() as folder:
        adapter = lm.write_adapter(ours.model, Path(folder)) if case.kind == "lora" else None
        try:
            calls = {who: lm.call(side, case, adapter, remat) for who, side in both.items()}
            timed, history = lm.measure(calls, repeats)
            results = {who: t.pop("result") for who, t in timed.items()}
            return timed, lm.compare(case, ours.model, results, history, dtype)
        finally:
            calls = {}
            if other is not None and other.adapted is not None:
                unload(other)


def unload(side: Any) -> None:
    """Take a step's adapter off the base model that other calls share."""
    base = side.adapted.unload()
    base.gradient_checkpointing_disable()
    base.eval()
    for p in base.parameters():
        p.grad = None
    side.adapted = None
