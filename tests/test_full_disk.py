"""RELIABILITY R5, R7 and R8 for every verb that writes: a disk that fills up at any write, a place that cannot be
written, two processes at once. The cause is one line, old files stay, the same command then gives the same bytes."""

import builtins
import errno
import importlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import edjax.cli
import edjax.keep.store
from edjax.evaluation import Evaluation

VERBS = ("select", "export", "import-labels", "evaluate")
PLACES = ("a file", "below a file", "read-only")


@pytest.fixture(scope="module", autouse=True)
def no_model():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edjax.cli.options.use_compilation_cache", lambda: None)
        patch.setattr("edjax.lm.load.load", lambda name, *_: SimpleNamespace(model=None, directory=Path(name)))
        patch.setattr(importlib.import_module("edjax.evaluation.passes"), "passes", scored)
        yield


def scored(pool, answers, jobs, *_):
    """An evaluation without a model: what is tested here is how it is written."""
    rows = [{"id": i, "response_loss": 0.5} for i in pool.ids]
    yield jobs, [Evaluation({"response_loss": 0.5}, {"response_loss": len(rows)}, rows, 0.1) for _ in jobs]


@pytest.fixture
def command(tmp_path):
    """The command line of a verb but for --out, and the name of its --out."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"id": f"r{i}", "prompt": f"Tim saw {i} dogs.", "response": "He ran."} for i in range(6)]
    pool, found = tmp_path / "p.jsonl", tmp_path / "f.parquet"
    pool.write_text("".join(json.dumps(r) + "\n" for r in rows))
    (tmp_path / "a.csv").write_text("id,response\n" + "".join(f"r{i},answer {i}\n" for i in range(6)))
    x = np.random.Generator(np.random.PCG64(0)).normal(size=(6, 4)).tolist()
    pq.write_table(pa.table({"id": [f"r{i}" for i in range(6)], "embedding": x}), found)

    def of(verb):
        if verb == "select":
            return ["select", found, "--pool", pool, "--strategy", "random", "--budget", 3], "out"
        if verb == "export":
            return ["export", pool, "--to", "label-studio"], "out"
        if verb == "import-labels":
            return ["import-labels", pool, tmp_path / "a.csv"], "answered.jsonl"
        return ["evaluate", pool, "--model", tmp_path], "out"

    return of


def result(path):
    """A verb's files and their bytes, but for what tells the time."""
    files = [path] if path.is_file() else [p for p in sorted(path.rglob("*")) if p.is_file()]
    return {
        p.relative_to(path.parent).parts[1:]: p.read_bytes()
        for p in files
        if p.name not in ("manifest.json", "scores.json")
    }


class Full:
    """A disk that is full at the n-th call, and from then on; `calls` counts them."""

    def __init__(self, at):
        self.at, self.calls = at, 0

    def __call__(self):
        self.calls += 1
        if self.calls >= self.at:
            raise OSError(errno.ENOSPC, "No space left on device")


def fill(monkeypatch, full, call):
    """Let `os.replace`, `os.fsync` or the write to an open file ask `full` first."""
    if call == "write":

        def opened(file, mode="r", *args, **kw):
            f = builtins.open(file, mode, *args, **kw)  # noqa: SIM115
            if "w" in mode:
                return _Writes(f, full)
            return f

        monkeypatch.setattr(edjax.keep.store, "open", opened, raising=False)
        return
    real = getattr(os, call)

    def checked(*args, **kw):
        full()
        return real(*args, **kw)

    monkeypatch.setattr(os, call, checked)


class _Writes:
    """A file whose writes ask first."""

    def __init__(self, file, full):
        self._file, self._full = file, full

    def write(self, data):
        self._full()
        return self._file.write(data)

    def writelines(self, parts):
        for part in parts:
            self.write(part)

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self._file.close()


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
@pytest.mark.parametrize("verb", VERBS)
def test_a_disk_that_fills_up_at_each_write(command, edjax_, fails, tmp_path, monkeypatch, verb, call):
    argv, name = command(verb)
    assert edjax_(*argv, "--out", tmp_path / "whole" / name)[0] == 0
    want = result(tmp_path / "whole" / name)
    (tmp_path / "counted").mkdir()
    with monkeypatch.context() as m:
        counter = Full(at=10**9)
        fill(m, counter, call)
        assert edjax_(*argv, "--out", tmp_path / "counted" / name)[0] == 0
    assert counter.calls >= 1
    steps = range(1, counter.calls + 1)
    for at in steps[:: 4 if verb == "evaluate" and call == "fsync" else 1]:
        out = tmp_path / str(at) / name
        with monkeypatch.context() as m:
            fill(m, Full(at), call)
            line = fails(5, *argv, "--out", out)
        assert "the disk is full; free some space and run the same command again" in line, line
        assert not [p for p in out.rglob("*.tmp-*") if p.is_file()], "nothing half-written is left"
        assert call == "fsync" or not (out / "manifest.json").exists(), "only what is whole is called whole"
        assert edjax_(*argv, "--out", out)[0] == 0
        assert result(out) == want, "the same command then gives the same bytes"


@pytest.mark.parametrize("verb", ["export", "import-labels"])
def test_old_files_stay_when_the_disk_is_full(command, edjax_, fails, tmp_path, monkeypatch, verb):
    argv, name = command(verb)
    out = tmp_path / "old" / name
    assert edjax_(*argv, "--out", out)[0] == 0
    for path in [out] if out.is_file() else out.iterdir():
        path.write_text("mine")
    before = result(out)
    with monkeypatch.context() as m:
        fill(m, Full(1), "fsync")
        assert "the disk is full" in fails(5, *argv, "--out", out, "--overwrite")
    assert result(out) == before and set(before.values()) == {b"mine"}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("verb", VERBS)
def test_a_place_that_can_not_be_written(command, fails, tmp_path, monkeypatch, verb, place):
    argv, name = command(verb)
    blocker = tmp_path / "mine"
    blocker.write_text("mine")
    out = blocker if place == "a file" else blocker / name
    if place == "read-only":
        out = tmp_path / "there" / name

        def refuse(*args, **kw):
            raise OSError(errno.EROFS, "Read-only file system")

        monkeypatch.setattr(os, "mkdir", refuse)
    code = (
        2 if (verb, place) == ("import-labels", "a file") else 5
    )  # its --out is a file: this one holds something else
    line = fails(code, *argv, "--out", out)
    assert "choose another --out" in line and "errno" not in line.lower()
    assert blocker.read_text() == "mine" and not (tmp_path / "there").exists()


@pytest.mark.parametrize("verb", ["select", "evaluate"])
def test_leftovers_of_a_crash_do_not_matter(command, edjax_, tmp_path, verb):
    argv, name = command(verb)
    whole, out = tmp_path / "whole", tmp_path / name
    assert edjax_(*argv, "--out", whole)[0] == 0
    assert edjax_(*argv, "--out", out)[0] == 0
    (out / "manifest.json").unlink()
    for path in list(out.iterdir()):
        if path.name != "plan.json":
            path.write_bytes(path.read_bytes()[:5])
    (out / "rows.jsonl.tmp-99999").write_text("half")
    (out / ".lock").write_text(json.dumps({"host": socket.gethostname(), "pid": 2**22 + 1}))
    assert edjax_(*argv, "--out", out)[0] == 0
    assert result(out) == result(whole) and edjax_("verify", out)[0] == 0


CONTENDER = """
import sys
from pathlib import Path
import edjax.cli
from edjax.keep import store

print("ready", flush=True)
real = store.Artifact.finish

def finish(self, **facts):
    print("won", flush=True)
    sys.stdin.readline()
    return real(self, **facts)

store.Artifact.finish = finish
for line in sys.stdin:
    try:
        edjax.cli.main(line.split())
    except SystemExit as e:
        print("exit", e.code or 0, flush=True)
"""


def test_of_two_commands_on_one_directory_one_wins_twenty_times(command, tmp_path):
    """The one that holds the directory is kept waiting before its manifest until the other has given up."""
    argv, _ = command("select")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "bufsize": 1}
    two = [subprocess.Popen([sys.executable, "-c", CONTENDER], **pipes) for _ in range(2)]
    try:
        assert [p.stdout.readline() for p in two] == ["ready\n"] * 2
        for n in range(20):
            for p in two:
                p.stdin.write(" ".join(map(str, [*argv, "--out", tmp_path / f"round-{n}"])) + "\n")
            said = [p.stdout.readline().strip() for p in two]
            assert sorted(said) == ["exit 4", "won"], said
            winner = said.index("won")
            error = two[1 - winner].stderr.readline()
            assert f"is being written by process {two[winner].pid} on {socket.gethostname()}" in error
            two[winner].stdin.write("\n")
            assert [two[winner].stdout.readline() for _ in range(3)][-1] == "exit 0\n"
    finally:
        for p in two:
            p.stdin.close()
            p.stdout.close()
            p.stderr.close()
            p.wait()
    assert len(list(tmp_path.glob("round-*/manifest.json"))) == 20
