"""RELIABILITY R2, R4, R5 and T1 for finetuning, by commands in processes of their own: what a stop must not change."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from lm_cases import story_pool

from edjax.finetuning.health import check_update
from edjax.keep.checkpoints import Checkpoints
from edjax.keep.errors import DataError
from edjax.keep.signals import held_signals

ROWS, STEPS, PER_EPOCH = 24, 12, 6
SETTINGS = {
    "num_train_epochs": 2,
    "per_device_train_batch_size": 4,
    "learning_rate": 3e-3,
    "lora_r": 2,
    "max_length": 32,
}
# The command, with a signal to itself `delay` seconds after the `at`-th call of a method began, and a line a step.
DRIVER = """
import os, signal, sys, threading, time
from edjax.keep.checkpoints import Checkpoints
from edjax.cli import main
from edjax.lm.train import Trainer

steps, method, at, number, delay = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:5]), float(sys.argv[5])

def watch(owner, name, key):
    real, calls = getattr(owner, name), 0

    def call(self, *args, **kw):
        nonlocal calls
        calls += 1
        if key == "step":
            with open(steps, "a") as f:
                f.write(f"{time.time()}\\n")
        if key == method and calls == at:
            timer = threading.Timer(delay, os.kill, (os.getpid(), number))
            timer.start()
        done = real(self, *args, **kw)
        if key == method and calls == at:
            timer.join()  # a step is not waited for: the signal is there before the run looks for it
        return done

    setattr(owner, name, call)

watch(Trainer, "step", "step")
watch(Checkpoints, "save", "save")
del sys.argv[1:6]
main()
"""


class Edjax:
    """`edjax finetune` on stories260k in processes of its own, which share compiled programs."""

    def __init__(self, cwd, model):
        self.cwd, self.model = cwd, str(model)
        self.rows = cwd / "rows.jsonl"
        records = [r | {"dataset": "abbc"[i % 4]} for i, r in enumerate(story_pool(ROWS).records)]
        self.rows.write_text("".join(json.dumps(r) + "\n" for r in records))
        cache = {"JAX_COMPILATION_CACHE_DIR": str(cwd / "xla"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        self.env = os.environ | cache | {"EDJAX_CACHE": str(cwd / "cache")}

    def __call__(self, out, method="none", at=0, number=0, delay=0.0, **changes):
        """Run to its end, or to a signal; says the exit code, stderr, updates begun, and seconds since the last."""
        log = out.with_suffix(".log")
        log.unlink(missing_ok=True)
        options = [(f"--{k.replace('_', '-')}", str(v)) for k, v in (SETTINGS | changes).items()]
        command = ["finetune", self.rows, "--model", self.model, "--out", out, *(x for o in options for x in o)]
        argv = [log, method, at, int(number), delay, *command]
        done = subprocess.run(
            [sys.executable, "-c", DRIVER, *map(str, argv)], capture_output=True, text=True, env=self.env, timeout=240
        )
        assert "Traceback" not in done.stderr, done.stderr
        began = [float(t) for t in log.read_text().split()] if log.exists() else []
        err = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("edjax: note")]
        return SimpleNamespace(
            code=done.returncode, err=err, steps=len(began), seconds=time.time() - max(began, default=0)
        )


@pytest.fixture(scope="module")
def edjax(shared, tmp_path_factory):
    return Edjax(tmp_path_factory.mktemp("finetune"), shared / "models" / "stories260k")


@pytest.fixture(scope="module")
def straight(edjax):
    """The sha256 of an undisturbed run's adapter."""
    out = edjax.cwd / "straight"
    done = edjax(out)
    assert (done.code, done.steps) == (0, STEPS), done.err
    return sha256(out)


def sha256(out):
    return hashlib.sha256((out / "adapter_model.safetensors").read_bytes()).hexdigest()


def saved(out):
    return sorted(int(p.name) for p in (out / "checkpoints").glob("*") if p.name.isdigit())


# R4


ENDS = {signal.SIGINT: (130, "interrupted"), signal.SIGTERM: (143, "terminated")}


@pytest.mark.parametrize(
    ("number", "method", "at"),
    [(signal.SIGINT, "step", 8), (signal.SIGTERM, "save", 2), (signal.SIGTERM, "step", STEPS)],
)
def test_a_signal_saves_what_was_done(edjax, straight, tmp_path, number, method, at):
    """Mid-epoch, in the middle of a checkpoint, and in the last update; without it, only `save` would have saved."""
    code, said = ENDS[number]
    save_steps = 3 if method == "save" else 1000
    out = tmp_path / "a"
    stopped = edjax(out, method, at, number, 0.01, save_steps=save_steps)
    assert stopped.code == code
    assert stopped.err == [f"edjax: error: {said}; the same command goes on from here"]
    assert stopped.seconds < 10
    done = at if method == "step" else at * save_steps
    assert done <= saved(out)[-1] == stopped.steps
    assert not (out / "manifest.json").exists()
    rest = edjax(out, save_steps=save_steps)
    assert (rest.code, rest.steps) == (0, STEPS - stopped.steps), rest.err
    assert sha256(out) == straight


# The signals themselves


@pytest.fixture
def own_handlers():
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    yield before
    assert {n: signal.getsignal(n) for n in before} == before
    for number, handler in before.items():
        signal.signal(number, handler)


def test_the_first_signal_waits_for_the_body(own_handlers):
    said = []
    with pytest.raises(KeyboardInterrupt), held_signals() as held:
        assert not held.stop
        signal.raise_signal(signal.SIGINT)
        assert held.stop
        said.append("saved")
    assert said == ["saved"]
    with held_signals() as held:
        said.append("again")
    assert not held.stop


def test_the_second_signal_does_not_wait(own_handlers):
    with pytest.raises(KeyboardInterrupt), held_signals():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("it was held back")


def test_an_error_goes_before_the_signal(own_handlers):
    with pytest.raises(DataError), held_signals():
        signal.raise_signal(signal.SIGINT)
        raise DataError("the disk is full")


def test_a_handler_that_lets_the_signal_pass_does_not_let_the_body_be_done(own_handlers):
    came = []
    signal.signal(signal.SIGTERM, lambda n, _: came.append(n))
    try:
        with pytest.raises(KeyboardInterrupt), held_signals():
            signal.raise_signal(signal.SIGTERM)
            assert not came
        assert came == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, own_handlers[signal.SIGTERM])


def test_an_ignored_signal_stays_ignored(own_handlers):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with held_signals() as held:
            signal.raise_signal(signal.SIGINT)
            assert not held.stop
    finally:
        signal.signal(signal.SIGINT, own_handlers[signal.SIGINT])


def test_other_threads_hold_nothing(own_handlers):
    def body():
        with held_signals() as held:
            stops.append(held.stop)

    stops = []
    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert stops == [False]


# R2


def killed(edjax, straight, out, method, at, delay):
    stopped = edjax(out, method, at, signal.SIGKILL, delay, save_steps=2)
    assert stopped.code == -signal.SIGKILL, stopped.err
    assert not (out / "manifest.json").exists()
    from_ = (saved(out) or [0])[-1]
    rest = edjax(out, save_steps=2)
    assert rest.code == 0, rest.err
    assert rest.steps >= STEPS - from_
    assert sha256(out) == straight


@pytest.mark.parametrize(("method", "at", "delay"), [("step", 3, 0.0), ("save", 2, 0.02), ("step", PER_EPOCH + 4, 0.0)])
def test_killed(edjax, straight, tmp_path, method, at, delay):
    """SIGKILL mid-epoch, inside a checkpoint's write, and in epoch 2; then the same command."""
    killed(edjax, straight, tmp_path / "a", method, at, delay)


COLM = {"batch_method": "colm", "source_column": "dataset", "batch_keep_sources": "a"}
COLM |= {"per_device_train_batch_size": 12, "num_train_epochs": STEPS // 2}  # half of a batch are other rows each time


@pytest.fixture(scope="module")
def straight_colm(edjax):
    out = edjax.cwd / "colm"
    done = edjax(out, **COLM)
    assert (done.code, done.steps) == (0, STEPS), done.err
    return sha256(out)


def test_killed_while_batches_are_picked_from(edjax, straight_colm, tmp_path):
    """What the picks depend on, Adam's moments of the picks before and the directions' key, comes back too."""
    out = tmp_path / "a"
    stopped = edjax(out, "step", 8, signal.SIGKILL, save_steps=3, **COLM)
    assert stopped.code == -signal.SIGKILL and saved(out)[-1] == 6, stopped.err
    rest = edjax(out, save_steps=3, **COLM)
    assert (rest.code, rest.steps) == (0, STEPS - 6), rest.err
    assert sha256(out) == straight_colm


@pytest.mark.long
@pytest.mark.parametrize("seed", range(20))
def test_killed_20_times(edjax, straight, tmp_path, seed):
    """Each at another moment: half of them within a checkpoint's write, half within an update."""
    rng = random.Random(seed)
    method = ("save", "step")[seed % 2]
    at = rng.randint(1, STEPS // 2 - 1) if method == "save" else rng.randint(1, STEPS)
    killed(edjax, straight, tmp_path / "a", method, at, rng.uniform(0.0, 0.05))


# R5


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A directory with checkpoints of steps 3 and 6, and what is in them."""
    directory = tmp_path_factory.mktemp("two") / "c"
    checkpoints = Checkpoints(directory)
    rng = np.random.default_rng(0)
    state = {s: {"a": rng.standard_normal((40, 30)).astype(np.float32), "n": np.full(3, s, np.int32)} for s in (3, 6)}
    for step, value in state.items():
        checkpoints.save(step, value, {"seconds": step / 7})
    checkpoints.close()
    return directory, state


def files(directory):
    return sorted(p.relative_to(directory).as_posix() for p in directory.rglob("*") if p.is_file())


@pytest.mark.parametrize("how", ["cut", "empty", "gone"])
def test_a_checkpoint_is_whole_or_left_out(two, tmp_path, how, capfd):
    """Whichever file of the newest one is damaged, what comes back is that checkpoint in full, or the one before."""
    directory, state = two
    found = {}
    for name in files(directory / "6"):
        copy = tmp_path / name.replace("/", "-")
        shutil.copytree(directory, copy)
        path = copy / "6" / name
        if how == "gone":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 if how == "cut" else 0])
        checkpoints = Checkpoints(copy)
        step, got, data = checkpoints.latest(state[6])
        np.testing.assert_array_equal(got["a"], state[step]["a"])
        assert got["n"].tolist() == [step] * 3
        assert data == {"seconds": step / 7}
        err = capfd.readouterr().err
        assert ("going on from step 3" in err) == (step == 3)
        assert (f"{copy / '6'} is damaged" in err) == (step == 3)
        checkpoints.save(6, state[6], data)
        checkpoints.close()
        assert saved_in(copy) == [3, 6]
        again = Checkpoints(copy)
        assert again.latest(state[6])[0] == 6
        again.close()
        found[name] = step
    assert 3 in found.values()


def saved_in(directory):
    return sorted(int(p.name) for p in directory.iterdir() if p.name.isdigit())


def test_leftovers_of_a_write_are_no_checkpoint(two, tmp_path, capfd):
    directory, state = two
    copy = tmp_path / "c"
    shutil.copytree(directory, copy)
    shutil.copytree(copy / "6", copy / "9.orbax-checkpoint-tmp-77")
    (copy / "6.tmp-123").write_bytes(b"half")
    checkpoints = Checkpoints(copy)
    assert checkpoints.latest(state[6])[0] == 6
    assert capfd.readouterr().err == ""
    checkpoints.save(9, state[6], {"seconds": 1.0})
    checkpoints.close()
    assert max(saved_in(copy)) == 9


# T1


def test_a_learning_rate_of_1000(edjax, tmp_path):
    """The run stops at the update that shows it, names its rows, and keeps the checkpoints before it."""
    out = tmp_path / "a"
    done = edjax(out, learning_rate=1e3, save_steps=1, lr_scheduler_type="constant", warmup_ratio=0)
    assert done.code == 3
    (line,) = done.err
    assert "the gradient at step 3 is 0" in line and line.count("row-") == 4 and "Lower learning_rate" in line
    assert saved(out)[-1] == 2
    assert not (out / "manifest.json").exists()
    assert not (out / "adapter_model.safetensors").exists()


@pytest.mark.parametrize(("loss", "norm"), [(np.nan, 1.0), (1.0, np.inf), (-np.inf, 1.0), (1.0, np.nan), (1e-6, 0.0)])
def test_updates_that_end_a_run(loss, norm):
    with pytest.raises(DataError, match=r"at step 7 .*rows a, b"):
        check_update(7, loss, norm, ["a", "b"])


@pytest.mark.parametrize(("loss", "norm"), [(0.0, 0.0), (1e-6, 1e-30), (300.0, 1e6)])
def test_updates_that_do_not(loss, norm):
    check_update(7, loss, norm, ["a"])
