"""Finetuning: what carries loss, which rows when, and the same adapter bytes however often a run is killed."""

import dataclasses
import json
import math
import shutil

import numpy as np
import pytest
from lm_cases import make_pool, nll_of, pair_batch, story_pool

from edjax.finetuning import FinetuneConfig, finetune
from edjax.finetuning.examples import encode_rows
from edjax.finetuning.order import batch_rows
from edjax.keep.errors import DataError, UsageError
from edjax.lm.batching import bucket
from edjax.lm.encode import Encoder
from edjax.lm.lora import LoraConfig, add_lora
from edjax.lm.train import Trainer, schedule

ADAPTER = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def encoder(stories):
    return Encoder(stories.tokenizer)


# What carries loss


def test_make_batch():
    batch = pair_batch([([5, 6, 7], [8, 2]), ([9], [10, 11, 2])], 3)
    assert batch.tokens.shape == (3, 16)
    assert batch.tokens[0].tolist() == [5, 6, 7, 8, 2] + [0] * 11
    assert batch.where[0, :2].tolist() == [2, 3]
    assert batch.where[1, :3].tolist() == [0, 1, 2]
    assert batch.targets[1, :3].tolist() == [10, 11, 2]
    assert batch.weights.sum(1).tolist() == [2, 3, 0]


def halves(example):
    """(prompt, response) of an example whose response is all that is trained."""
    first = example.trained[0]
    assert example.trained == list(range(first, len(example.tokens)))
    return example.tokens[:first], example.tokens[first:]


def test_first_loss_is_the_base_models(stories, encoder, tmp_path):
    """Step 1 of a fresh adapter: the mean over response tokens of a hand-made full forward, nothing else."""
    pool = story_pool(6)
    _, rows = encode_rows(pool, encoder)
    config = FinetuneConfig(num_train_epochs=1, per_device_train_batch_size=6, save_steps=0)
    finetune(pool, "stories", out=tmp_path / "a", config=config, loaded=stories, show_progress=False)
    first = json.loads((tmp_path / "a" / "metrics.jsonl").read_text().splitlines()[0])
    parts = [halves(e) for e in rows]
    want = np.concatenate([nll_of(stories.model, p, r) for p, r in parts]).mean()
    assert abs(first["loss"] - want) < 1e-4
    assert all(r[-1] == stories.tokenizer.eos_token_id for _, r in parts)


def test_prompt_tokens_carry_no_loss(stories):
    """Without a response token there is neither loss nor gradient, whatever the prompt."""
    trainer = Trainer(add_lora(stories.model, LoraConfig()))
    rows = [(list(range(10, 30)), [40, 41, 2]), ([7] * 30, [50, 2])]
    batch = pair_batch(rows, 2)
    loss, _ = trainer.gradients(trainer.state.lora, trainer.frozen, batch)
    only_first = batch._replace(weights=batch.weights * np.array([[1], [0]], np.float32))
    one, grads = trainer.gradients(trainer.state.lora, trainer.frozen, only_first)
    np.testing.assert_allclose(float(one), nll_of(stories.model, *rows[0]).mean(), atol=1e-4)
    assert abs(float(one) - float(loss)) > 1e-3
    changed = batch.tokens.copy()
    changed[1] = 3  # the whole other row, prompt and response
    again, grads_again = trainer.gradients(trainer.state.lora, trainer.frozen, only_first._replace(tokens=changed))
    assert float(again) == float(one)
    for a, b in zip(_leaves(grads), _leaves(grads_again), strict=True):
        np.testing.assert_array_equal(a, b)
    none, grads = trainer.gradients(
        trainer.state.lora, trainer.frozen, batch._replace(weights=np.zeros_like(batch.weights))
    )
    assert float(none) == 0
    assert not any(np.asarray(g).any() for g in _leaves(grads))


def _leaves(tree):
    import jax

    return jax.tree.leaves(tree)


def test_encode_rows_cuts(stories, encoder):
    """Together at most `limit`: of a prompt the end, three quarters at the most; of a response the beginning, what is
    left."""
    pool = make_pool([("Once upon a time there was a dog. " * 5, "The dog ran and ran. " * 3), ("Hi", "Yes")])
    whole = [halves(e) for e in encode_rows(pool, encoder)[1]]
    (p, r), _ = whole
    for limit in (2, 5, len(r), len(r) + 1, len(r) + 9, 64, len(p) + len(r), 2 * len(p)):
        rows, examples = encode_rows(pool, Encoder(stories.tokenizer, max_length=limit))
        for (full_p, full_r), row, example in zip(whole, rows, examples, strict=True):
            cut_p, cut_r = halves(example)
            assert cut_p == full_p[-min(len(full_p), limit - max(limit // 4, 1)) :]
            assert cut_r == full_r[: limit - len(cut_p)]
            assert min(len(cut_p), len(cut_r)) >= 1
            assert row.cut == ((cut_p, cut_r) != (full_p, full_r))


def test_row_without_a_response(stories, tmp_path):
    pool = make_pool([("a", "b"), ("c", None)])
    with pytest.raises(DataError, match="'row-1' has no response"):
        finetune(pool, "stories", out=tmp_path / "a", loaded=stories, show_progress=False)
    assert not (tmp_path / "a" / "manifest.json").exists()
    assert not (tmp_path / "a" / ADAPTER).exists()


# Which rows when, how fast


@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize(("n", "size"), [(1, 8), (7, 8), (8, 8), (33, 8), (300, 4)])
def test_every_row_once_an_epoch(grouped, n, size):
    lengths = np.random.default_rng(0).integers(5, 200, n)
    before = lengths.copy()
    epochs = [batch_rows(lengths, size, epoch, 3, grouped) for epoch in range(3)]
    for batches in epochs:
        assert sorted(np.concatenate(batches).tolist()) == list(range(n))
        assert len(batches) == math.ceil(n / size)
        assert sum(len(b) < size for b in batches) == (n % size > 0)
    for epoch, batches in enumerate(epochs):
        again = batch_rows(lengths, size, epoch, 3, grouped)
        assert [b.tolist() for b in again] == [b.tolist() for b in batches]
    np.testing.assert_array_equal(lengths, before)
    if n > size:
        flat = [np.concatenate(b).tolist() for b in epochs]
        assert flat[0] != flat[1] != flat[2]
        assert np.concatenate(batch_rows(lengths, size, 0, 4, grouped)).tolist() != flat[0]


def test_grouping_saves_padding():
    lengths = np.random.default_rng(0).integers(5, 200, 512)

    def padded(grouped):
        return sum(len(b) * bucket(lengths[b].max()) for b in batch_rows(lengths, 8, 0, 0, grouped))

    assert padded(True) < 0.75 * padded(False)


def test_schedules():
    steps, peak = 20, 1e-3
    cosine = schedule("cosine", peak, steps, 0.1)
    got = [float(cosine(i)) for i in range(steps)]
    want = [peak / 3, peak * 2 / 3] + [peak * 0.5 * (1 + math.cos(math.pi * i / 18)) for i in range(18)]
    np.testing.assert_allclose(got, want, rtol=1e-5)
    linear = schedule("linear", peak, steps, 0.25)
    want = [peak * (i + 1) / 6 for i in range(5)] + [peak * (1 - i / 15) for i in range(15)]
    np.testing.assert_allclose([float(linear(i)) for i in range(steps)], want, rtol=1e-5)
    constant = schedule("constant", peak, steps, 0.0)
    assert [float(constant(i)) for i in (0, 19)] == pytest.approx([peak, peak])
    for n in (1, 2, 3):  # tiny runs
        for kind in ("cosine", "linear", "constant"):
            for ratio in (0.0, 0.05, 0.9):
                assert all(0 < float(schedule(kind, peak, n, ratio)(i)) <= peak * 1.0001 for i in range(n))
    with pytest.raises(UsageError, match="'wavy' is not one of"):
        schedule("wavy", peak, 10, 0.0)


@pytest.mark.parametrize(
    "bad",
    [
        {"num_train_epochs": 0},
        {"per_device_train_batch_size": 0},
        {"learning_rate": -1e-3},
        {"learning_rate": math.nan},
        {"max_grad_norm": 0},
        {"max_length": 0},
        {"warmup_ratio": 1.0},
        {"save_steps": -1},
    ],
)
def test_settings_that_make_no_sense(bad):
    with pytest.raises(UsageError, match=next(iter(bad))):
        FinetuneConfig(**bad)


# The same bytes

CONFIG = FinetuneConfig(
    num_train_epochs=4,
    per_device_train_batch_size=4,
    learning_rate=3e-3,
    lora_r=2,
    save_steps=3,
    warmup_ratio=0.1,
    max_length=32,  # few shapes to compile
)
ROWS = 32  # 8 steps an epoch, 32 in all, 10 checkpoints


@pytest.fixture(scope="module")
def straight(stories, tmp_path_factory):
    """The directory of a run that nothing disturbed."""
    out = tmp_path_factory.mktemp("straight") / "a"
    finetune(story_pool(ROWS), stories.name, out=out, config=CONFIG, loaded=stories, show_progress=False)
    return out


def again(stories, out, config=CONFIG):
    return finetune(story_pool(ROWS), stories.name, out=out, config=config, loaded=stories, show_progress=False)


def test_a_run_learns_and_ends_tidy(stories, straight):
    log = [json.loads(line) for line in (straight / "metrics.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log] == list(range(1, 33))
    assert np.mean([e["loss"] for e in log[-8:]]) < 0.7 * np.mean([e["loss"] for e in log[:8]])
    manifest = json.loads((straight / "manifest.json").read_text())
    assert set(manifest["files"]) == {ADAPTER, "adapter_config.json", "metrics.jsonl"}
    assert manifest["steps"] == 32
    assert not (straight / "checkpoints").exists()
    assert not list(straight.rglob("*.tmp-*"))


def test_two_runs_are_the_same_bytes(stories, straight, tmp_path):
    """Checkpoints or none: nothing about the result depends on them."""
    config = dataclasses.replace(CONFIG, save_steps=0)
    done = again(stories, tmp_path / "b", config)
    assert (tmp_path / "b" / ADAPTER).read_bytes() == (straight / ADAPTER).read_bytes()
    np.testing.assert_allclose(done.train_loss, json.loads((straight / "manifest.json").read_text())["train_loss"])
    assert again(stories, tmp_path / "b", config).noted == done.noted != {}
    other = dataclasses.replace(CONFIG, seed=1, num_train_epochs=1)
    again(stories, tmp_path / "c", other)
    assert (tmp_path / "c" / ADAPTER).read_bytes() != (straight / ADAPTER).read_bytes()


def test_done_is_done(stories, straight):
    before = {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in straight.iterdir()}
    done = again(stories, straight)
    assert {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in straight.iterdir()} == before
    assert done.steps == 32
    assert done.model.layers.q_proj.lora_b is not None
    with pytest.raises(UsageError, match="learning_rate"):
        again(stories, straight, dataclasses.replace(CONFIG, learning_rate=1e-3))
    with pytest.raises(UsageError, match="pool"):
        finetune(story_pool(9), stories.name, out=straight, config=CONFIG, loaded=stories, show_progress=False)


def saved(out):
    return sorted(int(p.name) for p in (out / "checkpoints").glob("*") if p.name.isdigit())


@pytest.fixture
def stopped(stories, tmp_path, monkeypatch):
    """A run that died at step 11 of 32, with checkpoints of steps 6 and 9."""
    real, calls = Trainer.step, []

    def step(self, *args):
        calls.append(1)
        if len(calls) == 11:
            raise KeyboardInterrupt
        return real(self, *args)

    with monkeypatch.context() as m:
        m.setattr(Trainer, "step", step)
        with pytest.raises(KeyboardInterrupt):
            again(stories, tmp_path / "a")
    assert saved(tmp_path / "a") == [6, 9]
    return tmp_path / "a"


def damage_nothing(checkpoints):
    pass


def damage_leftover(checkpoints):
    shutil.copytree(checkpoints / "9", checkpoints / "12.orbax-checkpoint-tmp-77")
    shutil.rmtree(checkpoints / "12.orbax-checkpoint-tmp-77" / "data")


def damage_empty(checkpoints):
    (checkpoints / "12").mkdir()


def damage_half(checkpoints):
    shutil.rmtree(checkpoints / "9" / "data")


def damage_truncated(checkpoints):
    for p in (checkpoints / "9").rglob("*"):
        if p.is_file():
            p.write_bytes(p.read_bytes()[: p.stat().st_size // 2])


def damage_all(checkpoints):
    for step in ("6", "9"):
        shutil.rmtree(checkpoints / step / "state")


@pytest.mark.parametrize(
    ("damage", "resumed"),
    [
        (damage_nothing, 9),
        (damage_leftover, 9),
        (damage_empty, 9),
        (damage_half, 6),
        (damage_truncated, 6),
        (damage_all, 0),
    ],
)
def test_resumes_from_the_last_whole_checkpoint(stories, straight, stopped, damage, resumed, monkeypatch, capfd):
    damage(stopped / "checkpoints")
    real, calls = Trainer.step, []
    monkeypatch.setattr(Trainer, "step", lambda self, *args: calls.append(1) or real(self, *args))
    again(stories, stopped)
    assert len(calls) == 32 - resumed
    assert (stopped / ADAPTER).read_bytes() == (straight / ADAPTER).read_bytes()
    named = "is damaged" in capfd.readouterr().err
    assert named == (damage not in (damage_nothing, damage_leftover))


def test_loss_that_is_not_finite(stories, tmp_path):
    """The step and its rows are named, the directory is not complete, checkpoints before it stay."""
    pool = story_pool(8)
    config = dataclasses.replace(CONFIG, num_train_epochs=8, learning_rate=1e30, save_steps=1, warmup_ratio=0.0)
    with pytest.raises(DataError, match=r"at step \d+ are not finite; rows row-\d") as e:
        finetune(pool, "stories", out=tmp_path / "a", config=config, loaded=stories, show_progress=False)
    step = int(str(e.value).split("at step ")[1].split()[0])
    _, rows = encode_rows(pool, Encoder(stories.tokenizer, max_length=CONFIG.max_length))
    lengths = np.array([len(e.tokens) for e in rows])
    chosen = batch_rows(lengths, 4, (step - 1) // 2, 0, True)[(step - 1) % 2]
    assert ", ".join(pool.ids[i] for i in chosen) in str(e.value)
    assert step > 1
    assert max(saved(tmp_path / "a")) == step - 1
    assert not (tmp_path / "a" / "manifest.json").exists()
    assert not (tmp_path / "a" / ADAPTER).exists()
