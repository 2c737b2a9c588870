"""report_to: every number once, however often a run is stopped; nothing asked for, nothing imported; same adapter."""

import hashlib
import json
import sys
import types

import pytest
from handoff_cases import edjax_, fails  # noqa: F401
from lm_cases import story_pool

from edjax.errors import EnvError, UsageError
from edjax.finetune import FinetuneConfig, finetune
from edjax.finetune.log import REPORTED, MetricsLog
from edjax.finetune.trackers import names, open_trackers, require
from edjax.lm.train import Trainer

SETTINGS = {"num_train_epochs": 2, "per_device_train_batch_size": 4, "lora_r": 2, "max_length": 32, "save_steps": 3}
ROWS, STEPS = 16, 8


class Fake(types.ModuleType):
    """Any of the three packages: what it was told, a list a run."""

    def __init__(self, name):
        super().__init__(name)
        self.runs, self.told, self.closed = [], [], 0

    def init(self, **settings):
        self.runs.append(settings)
        return self

    def SummaryWriter(self, logdir, filename_suffix):
        return self.init(logdir=logdir)

    def log(self, values, step):
        self.told += [(name, step, value) for name, value in values.items()]

    def add_scalar(self, name, value, step):
        self.told.append((name, step, value))

    def flush(self):
        pass

    def finish(self):
        self.closed += 1

    close = finish


@pytest.fixture
def fakes(monkeypatch):
    made = {n: Fake(n) for n in ("tensorboardX", "wandb", "trackio")}
    for name, module in made.items():
        monkeypatch.setitem(sys.modules, name, module)
    return made


def run(stories, out, report_to="none", **change):
    config = FinetuneConfig(**SETTINGS | change, report_to=report_to)
    finetune(story_pool(ROWS), "s", out=out, config=config, loaded=stories, show_progress=False)
    return hashlib.sha256((out / "adapter_model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def straight(stories, tmp_path_factory):
    """An undisturbed run without trackers: its adapter's hash."""
    return run(stories, tmp_path_factory.mktemp("trackers") / "straight")


def test_every_tracker_is_told_what_metrics_jsonl_says(stories, straight, fakes, tmp_path):
    out = tmp_path / "a"
    assert run(stories, out, "tensorboard, wandb,trackio") == straight, "the adapter does not depend on it"
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    want = [(f"train/{k}", line["step"], v) for line in lines for k, v in line.items() if k != "step"]
    assert len(lines) == STEPS
    for fake in fakes.values():
        assert fake.told == want and fake.closed == 1 and len(fake.runs) == 1
    assert fakes["wandb"].runs[0]["config"]["lora_r"] == 2 and fakes["wandb"].runs[0]["project"] == "edjax"
    assert fakes["tensorboardX"].runs == [{"logdir": str(out / "tensorboard")}]
    assert not (out / REPORTED).exists() and REPORTED not in json.loads((out / "manifest.json").read_text())["files"]
    assert run(stories, out, "wandb") == straight and len(fakes["wandb"].runs) == 1, "done is done"


class Killed(BaseException):
    pass


def test_a_step_is_told_once_however_often_the_run_is_killed(stories, straight, fakes, tmp_path, monkeypatch):
    """Killed two steps after a checkpoint, then one step after it, then left alone; once without trackers."""
    out, real = tmp_path / "a", Trainer.step
    for last, report_to in ((5, "wandb"), (4, "wandb"), (4, "none"), (None, "wandb")):

        def step(self, batch, rate, at, last=last):
            if at == last:
                raise Killed
            return real(self, batch, rate, at)

        monkeypatch.setattr(Trainer, "step", step)
        if last is None:
            assert run(stories, out, report_to) == straight
        else:
            with pytest.raises(Killed):
                run(stories, out, report_to)
    told = [step for name, step, _ in fakes["wandb"].told if name == "train/loss"]
    assert told == list(range(1, STEPS + 1))
    ids = {(r["id"], r["name"], r["resume"]) for r in fakes["wandb"].runs}
    assert len(fakes["wandb"].runs) == 3 and len(ids) == 1, "the same run to the tracker"
    assert run(stories, out, report_to="trackio") == straight
    config = FinetuneConfig(**SETTINGS, report_to="wandb")
    finetune(story_pool(ROWS), "s", out=out, config=config, loaded=stories, show_progress=False, overwrite=True)
    assert fakes["wandb"].runs[-1]["id"] not in {i for i, _, _ in ids}, "started again, it is another run"


def test_a_tracker_that_comes_later_is_told_what_was_before(tmp_path):
    path, fake = tmp_path / "metrics.jsonl", Fake("x")
    with MetricsLog(path, 0) as log:
        for step in (1, 2, 3):
            log.write({"step": step, "loss": 1.0 / step})
        log.write({"step": 3, "eval_loss": 0.5, "eval_rows": 4})
        log.write({"step": 4, "loss": 0.25})

    class Tracker:
        def log(self, step, values):
            fake.log(values, step)

        close = fake.finish

    for _ in range(2):
        with MetricsLog(path, 3, [Tracker()]) as log:
            log.write({"step": 4, "loss": 0.25})
    want = [("train/loss", 1, 1.0), ("train/loss", 2, 0.5), ("train/loss", 3, 1 / 3)]
    want += [("eval/loss", 3, 0.5), ("eval/rows", 3, 4), ("train/loss", 4, 0.25)]
    assert fake.told == want


def test_names():
    assert names("none") == names("") == ()
    assert names("wandb, none ,tensorboard,wandb") == ("wandb", "tensorboard")
    with pytest.raises(UsageError, match="report_to 'tensorbord' is unknown; did you mean tensorboard"):
        FinetuneConfig(report_to="tensorbord")
    with pytest.raises(UsageError, match="report_to holds 3, which is not text"):
        FinetuneConfig(report_to=3)


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio"])
def test_a_missing_package_is_said_before_any_work(tmp_path, fails, monkeypatch, name):  # noqa: F811
    package = {"tensorboard": "tensorboardX"}.get(name, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        EnvError, match=rf"report_to {name} needs the package {package} .*pip install 'edjax\[{name}\]'"
    ):
        require(name)
    rows = tmp_path / "p.jsonl"
    rows.write_text('{"id": "a", "prompt": "q", "response": "r"}\n')
    argv = ["finetune", rows, "--model", tmp_path / "none", "--out", tmp_path / "o", "--report-to", name]
    assert f"pip install 'edjax[{name}]'" in fails(5, *argv)
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"pool: p.jsonl\nevaluation: p.jsonl\nout: o\nbudgets: [1]\nreport_to: {name}\n")
    assert f"pip install 'edjax[{name}]'" in fails(5, "run", recipe, "--out", tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_nothing_is_imported_that_was_not_asked_for(stories, straight, tmp_path, monkeypatch):
    for package in ("tensorboardX", "wandb", "trackio"):
        monkeypatch.setitem(sys.modules, package, None)
    assert run(stories, tmp_path / "a") == straight
    assert open_trackers("none", tmp_path, {}) == []


def test_real_tensorboard_files_hold_every_step_once(tmp_path):
    tensorboardx = pytest.importorskip("tensorboardX", reason="pip install 'edjax[tensorboard]'")
    for part in ((1, 2), (3,)):
        (tracker,) = open_trackers("tensorboard", tmp_path, {})
        for step in part:
            tracker.log(step, {"train/loss": 0.5**step})
        tracker.close()
    found = []
    for file in sorted((tmp_path / "tensorboard").iterdir()):
        for record in _records(file.read_bytes()):
            event = tensorboardx.proto.event_pb2.Event.FromString(record)
            found += [(event.step, v.tag, v.simple_value) for v in event.summary.value]
    assert found == [(1, "train/loss", 0.5), (2, "train/loss", 0.25), (3, "train/loss", 0.125)]


def _records(raw):
    """The records of a TFRecord file: length (8 bytes), its checksum (4), the record, its checksum (4)."""
    at = 0
    while at < len(raw):
        n = int.from_bytes(raw[at : at + 8], "little")
        yield raw[at + 12 : at + 12 + n]
        at += 16 + n
