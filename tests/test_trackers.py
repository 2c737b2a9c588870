"""report_to without a model: names, missing packages, what is told when, real files. Runs: test_finetune_validation."""

import sys

import pytest
from tracker_cases import Fake

from edjax.finetuning import FinetuneConfig
from edjax.finetuning.log import MetricsLog
from edjax.finetuning.trackers import names, open_trackers, require
from edjax.keep.errors import EnvError, UsageError


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
def test_a_missing_package_is_said_before_any_work(tmp_path, fails, monkeypatch, name):
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
