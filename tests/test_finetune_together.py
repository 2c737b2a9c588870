"""Adapters that are trained at once become what they become alone."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from lm_cases import story_pool
from safetensors.numpy import load_file

from edjax.finetuning import FinetuneConfig, Job, finetune, finetune_together
from edjax.finetuning.room import MOST, bytes_of_one, cells_at_once
from edjax.keep.errors import UsageError
from edjax.lm.batch import Example, make_batch
from edjax.lm.lora import LoraConfig, add_lora
from edjax.lm.together import Together, alike
from edjax.lm.train import Trainer

CONFIG = FinetuneConfig(
    max_steps=20, per_device_train_batch_size=4, learning_rate=5e-3, max_length=48, save_steps=0, lora_r=4
)
FACTS = ("steps", "response_tokens", "best_step")
ADAPTER = "adapter_model.safetensors"


def jobs(out, *configs):
    """Jobs on different rows of different lengths, each with its own seed."""
    return [
        Job(story_pool(12 + 4 * i), out / str(i), dataclasses.replace(config, seed=i))
        for i, config in enumerate(configs)
    ]


def losses(out):
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [e["loss"] for e in lines if "loss" in e]


def compare(stories, tmp_path, *configs):
    """Train jobs together and each alone; hold the losses and the adapters against each other."""
    together = finetune_together(jobs(tmp_path / "a", *configs), "s", loaded=stories, show_progress=False)
    for done, job in zip(together, jobs(tmp_path / "b", *configs), strict=True):
        alone = finetune(job.pool, "s", out=job.out, config=job.config, loaded=stories, show_progress=False)
        assert (done.steps, done.response_tokens, done.best_step) == (
            alone.steps,
            alone.response_tokens,
            alone.best_step,
        )
        np.testing.assert_allclose(losses(done.directory), losses(job.out), rtol=1e-5)
        ours, theirs = load_file(done.directory / ADAPTER), load_file(job.out / ADAPTER)
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            np.testing.assert_allclose(ours[name], value, rtol=1e-3, atol=2e-4 * np.abs(value).max(), err_msg=name)
    return together


def test_losses_over_20_steps_are_those_of_training_alone(stories, tmp_path):
    compare(stories, tmp_path, CONFIG, dataclasses.replace(CONFIG, learning_rate=1e-3, warmup_ratio=0.3), CONFIG)
    assert len(losses(tmp_path / "a" / "2")) == 20


def test_packed_accumulated_and_with_dropout(stories, tmp_path):
    config = dataclasses.replace(CONFIG, packing=True, gradient_accumulation_steps=2, lora_dropout=0.2, max_steps=6)
    compare(stories, tmp_path, config, config)


def test_runs_of_other_lengths_and_those_that_stop_early_go_on_by_themselves(stories, tmp_path):
    config = dataclasses.replace(
        CONFIG, max_steps=-1, num_train_epochs=3, validation_split=0.25, eval_steps=2, early_stopping_patience=1,
        early_stopping_threshold=0.5,
    )  # fmt: skip
    done = compare(stories, tmp_path, dataclasses.replace(config, num_train_epochs=1), config, config)
    assert done[0].steps < done[1].steps and done[2].steps < 12, "of four an epoch"


def test_stopped_and_gone_on_with(stories, tmp_path, monkeypatch):
    config = dataclasses.replace(CONFIG, max_steps=8, save_steps=3)
    whole = finetune_together(jobs(tmp_path / "a", config, config), "s", loaded=stories, show_progress=False)
    step, real = [0], Together.step

    def stops(self, *args):
        step[0] += 1
        if step[0] == 6:
            raise KeyboardInterrupt
        return real(self, *args)

    monkeypatch.setattr(Together, "step", stops)
    with pytest.raises(KeyboardInterrupt):
        finetune_together(jobs(tmp_path / "b", config, config), "s", loaded=stories, show_progress=False)
    again = finetune_together(jobs(tmp_path / "b", config, config), "s", loaded=stories, show_progress=False)
    assert step[0] == 6 + 5, "from the checkpoint of update 3 on"
    for a, b in zip(whole, again, strict=True):
        assert (a.directory / ADAPTER).read_bytes() == (b.directory / ADAPTER).read_bytes()
    assert step[0] == len(losses(again[0].directory)) + 3
    third = finetune_together(jobs(tmp_path / "b", config, config), "s", loaded=stories, show_progress=False)
    assert step[0] == 11 and [d.train_loss for d in third] == [d.train_loss for d in again], "done before"


def test_what_cannot_be_trained_together_is_refused(stories, tmp_path):
    def refused(match, *configs):
        with pytest.raises(UsageError, match=match):
            finetune_together(jobs(tmp_path, *configs), "s", loaded=stories, show_progress=False)

    refused("have one lora_r; .*1 has another", CONFIG, dataclasses.replace(CONFIG, lora_r=2))
    refused("take no mesh", *[dataclasses.replace(CONFIG, mesh="data=1")] * 2)
    one = jobs(tmp_path, CONFIG)[0]
    with pytest.raises(UsageError, match="one directory"):
        finetune_together([one, one], "s", loaded=stories, show_progress=False)
    trainers = [Trainer(add_lora(stories.model, LoraConfig(r))) for r in (2, 3)]
    with pytest.raises(ValueError, match="one kind of adapter"):
        Together(trainers)


def test_batches_are_brought_into_one_shape():
    short, long = Example.of([5, 6], [7]), Example.of(list(range(5, 40)), list(range(20)))
    first, second = make_batch([[short]], 1), make_batch([[long], [short]], 3)
    padded = alike([first, second])
    assert {b.tokens.shape for b in padded} == {second.tokens.shape}
    assert {b.weights.shape for b in padded} == {second.weights.shape}
    assert padded[0].weights.sum() == 1 and (padded[0].tokens[:1, :3] == [[5, 6, 7]]).all()
    assert padded[0].segments is None


class Device:
    platform = "gpu"

    def __init__(self, limit, used=0):
        self.limit, self.used = limit, used

    def memory_stats(self):
        return {"bytes_limit": self.limit, "bytes_in_use": self.used}


def test_how_many_fit(stories, monkeypatch):
    model = stories.model.config
    assert cells_at_once(model, CONFIG) == 1, "a CPU"
    one = bytes_of_one(model, CONFIG)

    def on(*device):
        monkeypatch.setattr(jax, "local_devices", lambda: [Device(*device)])
        return cells_at_once(model, CONFIG)

    assert (on(int(3.5 * one / 0.7)), on(int(3.5 * one / 0.7), int(2 * one / 0.7))) == (3, 1)
    assert on(10**15) == MOST and on(0) == 1
    assert cells_at_once(model, dataclasses.replace(CONFIG, mesh="data=1")) == 1
    assert bytes_of_one(model, dataclasses.replace(CONFIG, gradient_checkpointing=False)) > one
