"""Validation while training: when it looks, what it keeps, when it stops, and the same bytes after a stop."""

import dataclasses
import hashlib
import json
import sys

import numpy as np
import pytest
from lm_cases import make_pool, nll_of
from tracker_cases import fakes  # noqa: F401

from edjax.finetuning import FinetuneConfig, finetune
from edjax.finetuning.examples import encode_rows
from edjax.finetuning.log import REPORTED, MetricsLog
from edjax.finetuning.validation import EarlyStopping
from edjax.keep.errors import UsageError
from edjax.lm.encode import Encoder
from edjax.lm.peft import import_adapter
from edjax.lm.train import Trainer

ADAPTER = "adapter_model.safetensors"
CONFIG = FinetuneConfig(
    num_train_epochs=6,
    per_device_train_batch_size=4,
    learning_rate=2e-2,
    lora_r=8,
    max_length=32,
    eval_steps=2,
    save_steps=3,
)


def contrary(words, n):
    """n rows over four prompts; two sets of words teach the same form and contradict each other on the rest."""
    asked = ("Tim saw", "Lily ran to", "The dog has", "Mom said")
    return make_pool([(asked[i % 4], f"It is a {words[i % 4]}.") for i in range(n)], words[0])


TRAIN = contrary(("ball", "dog", "cat", "tree"), 24)
HELD = contrary(("sun", "bird", "car", "bed"), 4)


def run(stories, out, config=CONFIG, validation=HELD):
    return finetune(TRAIN, "s", out=out, config=config, loaded=stories, show_progress=False, validation=validation)


def log_of(out):
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [e for e in lines if "loss" in e], [e for e in lines if "eval_loss" in e]


@pytest.fixture(scope="module")
def straight(stories, tmp_path_factory):
    out = tmp_path_factory.mktemp("straight") / "a"
    return run(stories, out)


def test_looks():
    looks = EarlyStopping()
    for step, loss in enumerate([3.0, 2.0, 1.95, 1.9, 2.5, 1.0], 1):
        looks = looks.after(loss, step, 0.2)
        if step == 4:
            assert looks == EarlyStopping(1.9, 4, 2)  # lower, but not by the threshold
    assert looks == EarlyStopping(1.0, 6, 0)
    assert EarlyStopping().after(1.0, 1, 0.0).after(1.0, 2, 0.0) == EarlyStopping(1.0, 1, 1)


def test_what_is_logged_and_kept(stories, straight):
    """The adapter is that of the lowest loss, last/ that of the end."""
    updates, looks = log_of(straight.directory)
    assert [e["step"] for e in updates] == list(range(1, 37))
    assert [e["step"] for e in looks] == list(range(2, 37, 2))
    assert {e["eval_rows"] for e in looks} == {4}
    assert set(updates[0]) == {"step", "epoch", "loss", "grad_norm", "learning_rate", "tokens_per_second"}
    best = min(looks, key=lambda e: e["eval_loss"])
    assert (straight.validation_loss, straight.best_step) == (best["eval_loss"], best["step"])
    assert best["step"] < 36, "the case should overfit, or best and last are one"
    rows = held_rows(stories)
    for directory, want in ((straight.directory, best), (straight.directory / "last", looks[-1])):
        model, _ = import_adapter(stories.model, directory)
        loss = np.concatenate([nll_of(model, p, r) for p, r in rows]).mean()
        np.testing.assert_allclose(loss, want["eval_loss"], atol=1e-5)
    manifest = json.loads((straight.directory / "manifest.json").read_text())
    assert {f"last/{ADAPTER}", "last/adapter_config.json", ADAPTER} <= set(manifest["files"])
    again = run(stories, straight.directory)
    assert (again.validation_loss, again.best_step) == (straight.validation_loss, straight.best_step)


def held_rows(stories):
    _, found = encode_rows(HELD, Encoder(stories.tokenizer, max_length=32))
    return [(e.tokens[: e.trained[0]], e.tokens[e.trained[0] :]) for e in found]


@pytest.mark.parametrize("stop_after", [7, 20, 33])
def test_stopped_and_resumed_is_the_same(stories, straight, tmp_path, monkeypatch, stop_after):
    """Before, at and after the best look: adapter, last adapter and log."""
    real, calls = Trainer.step, []

    def step(self, *args):
        calls.append(1)
        if len(calls) > stop_after:
            raise KeyboardInterrupt
        return real(self, *args)

    with monkeypatch.context() as m:
        m.setattr(Trainer, "step", step)
        with pytest.raises(KeyboardInterrupt):
            run(stories, tmp_path / "a")
    with open(tmp_path / "a" / "metrics.jsonl", "a") as f:
        f.write('{"step": 34, "lo')  # what a kill may leave
    done = run(stories, tmp_path / "a")
    for name in (ADAPTER, f"last/{ADAPTER}"):
        assert (tmp_path / "a" / name).read_bytes() == (straight.directory / name).read_bytes()
    assert (done.validation_loss, done.best_step, done.train_loss) == (
        straight.validation_loss,
        straight.best_step,
        straight.train_loss,
    )
    timeless = [[{k: v for k, v in e.items() if "second" not in k} for e in part] for part in log_of(tmp_path / "a")]
    want = [[{k: v for k, v in e.items() if "second" not in k} for e in part] for part in log_of(straight.directory)]
    assert timeless == want


def test_early_stopping(stories, straight, tmp_path):
    config = dataclasses.replace(CONFIG, early_stopping_patience=3)
    done = run(stories, tmp_path / "a", config)
    _, looks = log_of(straight.directory)
    state = EarlyStopping()
    for entry in looks:
        state = state.after(entry["eval_loss"], entry["step"], 0.0)
        if state.without_gain == 3:
            break
    else:
        pytest.fail("the case should stop early")
    assert done.steps == entry["step"] < 36
    assert done.best_step == state.step
    assert [e["step"] for e in log_of(tmp_path / "a")[0]] == list(range(1, done.steps + 1))
    if state.step == straight.best_step:
        assert (tmp_path / "a" / ADAPTER).read_bytes() == (straight.directory / ADAPTER).read_bytes()
    assert (tmp_path / "a" / "last" / ADAPTER).read_bytes() != (straight.directory / "last" / ADAPTER).read_bytes()


def test_last_instead_of_best(stories, straight, tmp_path):
    done = run(stories, tmp_path / "a", dataclasses.replace(CONFIG, load_best_model_at_end=False))
    assert (tmp_path / "a" / ADAPTER).read_bytes() == (straight.directory / "last" / ADAPTER).read_bytes()
    assert not (tmp_path / "a" / "last").exists()
    assert done.validation_loss == straight.validation_loss


def test_when_it_looks_and_at_what(stories, tmp_path):
    """At the end of every epoch by default; a share of the rows, or rows of one's own, which belong to the plan."""
    config = dataclasses.replace(CONFIG, eval_steps=0, num_train_epochs=2)
    run(stories, tmp_path / "a", config)
    updates, looks = log_of(tmp_path / "a")
    assert (len(updates), [e["step"] for e in looks]) == (12, [6, 12])
    with pytest.raises(UsageError, match="validation"):
        run(stories, tmp_path / "a", config, validation=HELD.take(range(2)))
    share = dataclasses.replace(config, validation_split=0.5)
    run(stories, tmp_path / "b", share, validation=None)
    updates, looks = log_of(tmp_path / "b")
    assert (len(updates), [e["eval_rows"] for e in looks]) == (6, [12, 12])
    with pytest.raises(UsageError, match="choose one"):
        run(stories, tmp_path / "c", share)
    assert not (tmp_path / "c").exists()


def test_max_steps_and_a_pool_too_small(stories, tmp_path):
    assert run(stories, tmp_path / "a", dataclasses.replace(CONFIG, max_steps=5)).steps == 5
    config = dataclasses.replace(CONFIG, validation_split=0.5)
    with pytest.raises(UsageError, match="2 rows at the least"):
        finetune(TRAIN.take([0]), "s", out=tmp_path / "b", config=config, loaded=stories, show_progress=False)


def test_metrics_log_drops_what_comes_after_the_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path, 0) as log:
        for step in range(1, 6):
            log.write({"step": step, "loss": float(step)})
            assert len(path.read_text().splitlines()) == step  # to be read while the run goes on
    path.write_bytes(path.read_bytes()[:-9])
    with MetricsLog(path, 3) as log:
        assert log.losses() == [1.0, 2.0, 3.0]
        log.write({"step": 4, "loss": 0.5})
    assert [json.loads(line)["loss"] for line in path.read_text().splitlines()] == [1.0, 2.0, 3.0, 0.5]


# report_to

SHORT = dataclasses.replace(CONFIG, num_train_epochs=2)
STEPS = 12


def told_run(stories, out, report_to="none", **more):
    """A run without validation rows that reports to these trackers: its adapter's hash."""
    config = dataclasses.replace(SHORT, report_to=report_to)
    finetune(TRAIN, "s", out=out, config=config, loaded=stories, show_progress=False, **more)
    return hashlib.sha256((out / ADAPTER).read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def untold(stories, tmp_path_factory):
    return told_run(stories, tmp_path_factory.mktemp("untold") / "a")


def test_every_tracker_is_told_what_metrics_jsonl_says(stories, untold, fakes, tmp_path):  # noqa: F811
    out = tmp_path / "a"
    assert told_run(stories, out, "tensorboard, wandb,trackio") == untold, "the adapter does not depend on it"
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    want = [(f"train/{k}", line["step"], v) for line in lines for k, v in line.items() if k != "step"]
    assert len(lines) == STEPS
    for fake in fakes.values():
        assert fake.told == want and fake.closed == 1 and len(fake.runs) == 1
    assert fakes["wandb"].runs[0]["config"]["lora_r"] == 8 and fakes["wandb"].runs[0]["project"] == "edjax"
    assert fakes["tensorboardX"].runs == [{"logdir": str(out / "tensorboard")}]
    assert not (out / REPORTED).exists() and REPORTED not in json.loads((out / "manifest.json").read_text())["files"]
    assert told_run(stories, out, "wandb") == untold and len(fakes["wandb"].runs) == 1, "done is done"


class Killed(BaseException):
    pass


def test_a_step_is_told_once_however_often_the_run_is_killed(stories, untold, fakes, tmp_path, monkeypatch):  # noqa: F811
    """Killed two steps after a checkpoint, then one step after it, then without trackers, then left alone."""
    out, real = tmp_path / "a", Trainer.step
    for last, report_to in ((5, "wandb"), (4, "wandb"), (4, "none"), (None, "wandb")):

        def step(self, batch, rate, at, last=last):
            if at == last:
                raise Killed
            return real(self, batch, rate, at)

        monkeypatch.setattr(Trainer, "step", step)
        if last is None:
            assert told_run(stories, out, report_to) == untold
        else:
            with pytest.raises(Killed):
                told_run(stories, out, report_to)
    told = [step for name, step, _ in fakes["wandb"].told if name == "train/loss"]
    assert told == list(range(1, STEPS + 1))
    ids = {(r["id"], r["name"], r["resume"]) for r in fakes["wandb"].runs}
    assert len(fakes["wandb"].runs) == 3 and len(ids) == 1, "the same run to the tracker"
    assert told_run(stories, out, report_to="trackio") == untold
    told_run(stories, out, "wandb", overwrite=True)
    assert fakes["wandb"].runs[-1]["id"] not in {i for i, _, _ in ids}, "started again, it is another run"


def test_nothing_is_imported_that_was_not_asked_for(stories, untold, tmp_path, monkeypatch):
    for package in ("tensorboardX", "wandb", "trackio"):
        monkeypatch.setitem(sys.modules, package, None)
    assert told_run(stories, tmp_path / "a") == untold


@pytest.mark.parametrize(
    "argv",
    [
        ["train.jsonl", "--validation", "val-0.jsonl", "val-1.jsonl"],
        ["--validation", "val-0.jsonl", "val-1.jsonl", "train.jsonl"],
        ["train.jsonl", "--validation=val-0.jsonl", "--validation", "val-1.jsonl", "val-2.jsonl"],
    ],
)
def test_a_pattern_that_a_shell_spelled_out_is_refused(edjax_, tmp_path, argv):
    code, _, err = edjax_("finetune", *argv, "--out", tmp_path / "a")
    assert code == 2 and "several files of --validation: one --validation each, or a quoted pattern" in err
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["a.jsonl", "b.jsonl", "--validation", "v.jsonl"], "a.jsonl does not exist"),
        (["--out", "o", "a.jsonl", "b.jsonl", "--validation=v.jsonl", "--validation", "w.jsonl"], "a.jsonl does not"),
        (["--validation", "v.jsonl", "a.jsonl"], "a.jsonl does not exist"),
        (["-", "--validation", "-"], "- is named twice, by ROWS and by --validation"),
    ],
)
def test_rows_beside_validation(edjax_, tmp_path, monkeypatch, argv, said):
    monkeypatch.chdir(tmp_path)
    code, _, err = edjax_("finetune", *argv, "--out", tmp_path / "o")
    assert code and said in err and "several files" not in err
