"""Memory that runs out is one line with what to lower, in every verb that computes."""

import importlib

import jax
import numpy as np
import pytest
from lm_cases import make_pool, story_pool

from edjax.data.features import Features
from edjax.finetuning import finetune
from edjax.keep.errors import EnvError
from edjax.keep.memory import enough_memory, exhausted
from edjax.scoring import estimate, score
from edjax.scoring.forward import Forward

XLA = "RESOURCE_EXHAUSTED: Out of memory allocating 8589934592 bytes."


def full(*_, **__):
    raise jax.errors.JaxRuntimeError(XLA)


@pytest.mark.parametrize(
    ("error", "asked"),
    [
        (jax.errors.JaxRuntimeError(XLA), " (8.00 GiB more were asked for)"),
        (
            jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 2.5GiB."),
            " (2.50 GiB",
        ),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm."), ""),
        (MemoryError("Unable to allocate 3.73 GiB for an array with shape (1, 2)"), " (3.73 GiB"),
        (MemoryError(), ""),
        (jax.errors.JaxRuntimeError("INTERNAL: something else"), None),
        (ValueError("RESOURCE"), None),
    ],
)
def test_exhausted(error, asked):
    found = exhausted(error)
    assert (
        found is None if asked is None else found is not None and found.startswith(asked) and bool(found) == bool(asked)
    )


def test_numpys_own_error():
    with (
        pytest.raises(EnvError, match=r"x runs out of memory \(\d+\.\d\d GiB more were asked for\); y"),
        enough_memory("x", "y"),
    ):
        np.empty(2**58, np.float64)
    with pytest.raises(ValueError, match="other"), enough_memory("x", "y"):
        raise ValueError("other")


def test_scoring(stories, monkeypatch, tmp_path):
    monkeypatch.setattr(Forward, "_begin", full)
    monkeypatch.setattr(Forward, "timed", full)
    for call in (score, estimate):
        with pytest.raises(
            EnvError, match=r"scoring runs out of memory \(8\.00 GiB .*lower batch_size .* or max_length"
        ):
            call(make_pool([("a", None)]), stories.name, loaded=stories)
    with pytest.raises(EnvError, match="scoring runs out"):
        score(make_pool([("a", None)]), stories.name, loaded=stories, out=tmp_path / "s", show_progress=False)


def test_finetuning(stories, monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.import_module("edjax.lm.train").Trainer, "step", full)
    with pytest.raises(EnvError, match=r"finetuning runs out of memory .*per_device_train_batch_size"):
        finetune(story_pool(2), stories.name, out=tmp_path / "a", loaded=stories, show_progress=False)


def test_evaluating(stories, monkeypatch, fails, tmp_path):
    monkeypatch.setattr(importlib.import_module("edjax.evaluation.walk"), "_losses", full)
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a", "response": "b"}\n')
    line = fails(5, "evaluate", rows, "--model", stories.directory, "--metrics", "response_loss")
    assert "evaluating runs out of memory (8.00 GiB more were asked for); lower batch_size" in line


def test_selecting(monkeypatch):
    choose = importlib.import_module("edjax.selection.choose")
    monkeypatch.setattr(choose._Part, "picks", full)
    features = Features(("a", "b"), np.eye(2, dtype=np.float32), {}, {}, "")
    with pytest.raises(EnvError, match="selecting runs out of memory"):
        choose.select(features, "k_center", 1)


def test_anything_else_the_command_line_does(monkeypatch, fails, tmp_path):
    """Loading a model, for one: no `unexpected` error, and the exit code of the environment."""
    monkeypatch.setattr(importlib.import_module("edjax.lm.load"), "load", full)
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a", "response": "b"}\n')
    assert "memory runs out (8.00 GiB" in fails(5, "evaluate", rows)
