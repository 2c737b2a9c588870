"""What a crash, a full disk, a second writer or a stranger's directory does to an artefact: nothing."""

import errno
import hashlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from edjax.keep.errors import DataError, EnvError, LockedError, UsageError
from edjax.keep.store import Lock, atomic_write, read_json, read_manifest, sha256_json, write_json, writing

CONFIG, INPUTS = {"layer": -1, "pooling": "mean"}, {"pool": "abc"}


def open_artifact(path, *, kind="features", config=None, inputs=None, overwrite=False):
    return writing(path, kind=kind, config=config or CONFIG, inputs=inputs or INPUTS, overwrite=overwrite)


def make(path, **kw):
    with open_artifact(path, **kw) as artifact:
        with atomic_write(path / "part.txt", "w") as f:
            f.write("content")
        artifact.finish(rows=1)


def tree(path):
    """Every file below a directory and its bytes."""
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


# atomic_write


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "x.txt"
    path.write_text("old")
    with pytest.raises(error), atomic_write(path, "w") as f:
        f.write("half")
        raise error
    assert tree(tmp_path) == {"x.txt": b"old"}


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_says_so(tmp_path, monkeypatch, call):
    path = tmp_path / "x.txt"
    path.write_text("old")

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(EnvError, match=r"x\.txt: the disk is full; free some space"), atomic_write(path) as f:
        f.write(b"new")
    assert tree(tmp_path) == {"x.txt": b"old"}


def test_a_really_full_device_is_one_environment_error(tmp_path):
    """/dev/full takes no byte: the write itself fails, when the buffer is flushed."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    path = tmp_path / "x.txt"
    (tmp_path / f"x.txt.tmp-{os.getpid()}").symlink_to("/dev/full")
    with pytest.raises(EnvError, match="the disk is full"), atomic_write(path) as f:
        f.write(b"new")
    assert list(tmp_path.iterdir()) == []


def test_a_read_only_file_system_names_the_remedy(tmp_path, monkeypatch):
    def refuse(self, *args, **kwargs):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(EnvError, match="read-only; choose another --out"), open_artifact(tmp_path / "x"):
        pass


def test_a_file_in_the_way_is_an_environment_error_and_stays(tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("mine")
    with pytest.raises(EnvError, match="choose another --out"), atomic_write(blocker / "x.txt") as f:
        f.write(b"")
    with pytest.raises(EnvError, match="a file is in the way"), open_artifact(blocker):
        pass
    with pytest.raises(EnvError, match="choose another --out"), open_artifact(blocker / "below"):
        pass
    assert tree(tmp_path) == {"file": b"mine"}


def test_a_directory_in_place_of_the_file_is_refused(tmp_path):
    (tmp_path / "x.txt").mkdir()
    with pytest.raises(EnvError, match="cannot write"), atomic_write(tmp_path / "x.txt") as f:
        f.write(b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["x.txt"]


def test_text_is_utf8_with_plain_line_ends(tmp_path):
    with atomic_write(tmp_path / "deep" / "x.txt", "w") as f:
        f.write("a\nü\u2028😀\n")
    assert (tmp_path / "deep" / "x.txt").read_bytes() == "a\nü\u2028😀\n".encode()


def test_json_refuses_nan_and_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("data", [b"{", b"", b"\xff\xfe", b'{"a": 1'])
def test_damaged_json_names_the_file(tmp_path, data):
    (tmp_path / "x.json").write_bytes(data)
    with pytest.raises(DataError, match=r"x\.json is not valid JSON"):
        read_json(tmp_path / "x.json")


def test_the_hash_of_a_value_does_not_depend_on_key_order():
    assert sha256_json({"a": 1, "b": [2]}) == sha256_json({"b": [2], "a": 1}) != sha256_json({"a": 1, "b": [3]})


# One writer

CONTENDER = """
import sys
from pathlib import Path
from edjax.keep.errors import LockedError
from edjax.keep.store import Lock
print("ready", flush=True)
while room := sys.stdin.readline().strip():
    try:
        with Lock(Path(room)):
            print("won", flush=True)
            sys.stdin.readline()
        print("let go", flush=True)
    except LockedError as e:
        print(e, flush=True)
"""


def test_of_two_processes_exactly_one_wins_and_the_other_names_it(tmp_path):
    """Twenty rounds of two processes on one directory; odd rounds begin with a dead process's lock."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    two = [subprocess.Popen([sys.executable, "-c", CONTENDER], **pipes) for _ in range(2)]
    try:
        assert [p.stdout.readline() for p in two] == ["ready\n"] * 2
        for n in range(20):
            room = tmp_path / str(n)
            room.mkdir()
            if n % 2:
                (room / ".lock").write_text(json.dumps({"host": socket.gethostname(), "pid": dead.pid}))
            for p in two:
                p.stdin.write(f"{room}\n")
            said = [p.stdout.readline().strip() for p in two]
            assert said.count("won") == 1, said
            winner = said.index("won")
            assert f"is being written by process {two[winner].pid} on {socket.gethostname()}" in said[1 - winner]
            two[winner].stdin.write("\n")
            assert two[winner].stdout.readline() == "let go\n"
    finally:
        for p in two:
            p.stdin.close()
            p.stdout.close()
            p.wait()
    assert not list(tmp_path.rglob(".lock*")), "locks are left behind"


def test_a_dead_process_s_lock_is_taken_over_and_no_two_take_it(tmp_path):
    """The dangerous order: both see the dead lock, one takes it, then the other goes on with what it saw."""
    (tmp_path / ".lock").write_text(json.dumps({"host": socket.gethostname(), "pid": 2**22 + 1}))
    late = os.open(tmp_path / ".lock", os.O_RDWR)  # what a second process holds open meanwhile
    try:
        with Lock(tmp_path), pytest.raises(LockedError, match=f"process {os.getpid()} on"), Lock(tmp_path):
            pass
    finally:
        os.close(late)
    assert not (tmp_path / ".lock").exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "x", "host": 1}', '{"host": "elsewhere", "pid": 1}'])
def test_a_lock_file_that_nobody_holds_is_no_lock(tmp_path, content):
    (tmp_path / ".lock").write_text(content)
    with Lock(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text()) == {"host": socket.gethostname(), "pid": os.getpid()}


def test_a_killed_process_leaves_no_lock_in_force(tmp_path):
    code = "import sys, time\nfrom pathlib import Path\nfrom edjax.keep.store import Lock\n"
    code += "with Lock(Path(sys.argv[1])):\n print('held', flush=True)\n time.sleep(60)"
    p = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert p.stdout.readline() == "held\n"
    with pytest.raises(LockedError, match=f"process {p.pid} on"), Lock(tmp_path):
        pass
    p.kill()
    p.wait()
    p.stdout.close()
    with Lock(tmp_path):
        pass


def test_without_flock_the_file_decides(tmp_path, monkeypatch):
    import fcntl

    def unsupported(*args):
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    alive = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    (tmp_path / ".lock").write_text(json.dumps({"host": socket.gethostname(), "pid": alive.pid}))
    with pytest.raises(LockedError, match=f"process {alive.pid} on"), Lock(tmp_path):
        pass
    alive.kill()
    alive.wait()
    with Lock(tmp_path):
        pass
    (tmp_path / ".lock").write_text(json.dumps({"host": "elsewhere", "pid": 1}))
    with pytest.raises(LockedError, match="process 1 on elsewhere"), Lock(tmp_path):
        pass


def test_a_locked_directory_is_left_as_it_is(tmp_path):
    make(tmp_path / "x")
    before = tree(tmp_path)
    with Lock(tmp_path / "x"), pytest.raises(LockedError), open_artifact(tmp_path / "x", overwrite=True):
        pass
    assert tree(tmp_path) == before


# The protocol of a directory


def test_fresh_then_half_done_then_complete(tmp_path):
    path = tmp_path / "a" / "x"
    with pytest.raises(RuntimeError), open_artifact(path) as artifact:
        assert not artifact.complete
        assert json.loads((path / "plan.json").read_text())["config"] == CONFIG
        (path / "part.txt").write_text("content")
        (path / "next.txt.tmp-99").write_text("half")
        raise RuntimeError("power cut")
    with pytest.raises(DataError, match="is not complete: run the command that writes it again"):
        read_manifest(path, "features")
    with open_artifact(path) as artifact:
        assert not artifact.complete
        assert (path / "part.txt").read_text() == "content", "what was done is done"
        assert not (path / "next.txt.tmp-99").exists(), "what was half done is gone"
        artifact.finish(rows=7)
    before = tree(path)
    with open_artifact(path) as artifact:
        assert artifact.complete
    assert tree(path) == before
    manifest = read_manifest(path, "features")
    assert manifest["rows"] == 7 and manifest["inputs"] == INPUTS
    assert manifest["files"] == {"part.txt": {"size": 7, "sha256": hashlib.sha256(b"content").hexdigest()}}
    assert manifest["versions"]["python"].count(".") == 2


@pytest.mark.parametrize("complete", [True, False])
def test_other_settings_are_refused_with_the_difference(tmp_path, complete):
    path = tmp_path / "x"
    make(path)
    if not complete:
        (path / "manifest.json").unlink()
    before = tree(path)
    cases = [
        ({"config": {**CONFIG, "layer": 3}}, "layer: -1 there, 3 now"),
        ({"config": {"layer": -1}}, 'pooling: "mean" there, null now'),
        ({"inputs": {"pool": "def"}}, 'pool: "abc" there, "def" now'),
        ({"kind": "adapter"}, "kind 'features' is not 'adapter'"),
    ]
    for change, difference in cases:
        with pytest.raises(UsageError) as e, open_artifact(path, **change):
            pass
        assert difference in str(e.value) and "--overwrite to start again" in str(e.value)
    assert tree(path) == before


def test_settings_that_json_writes_alike_are_alike(tmp_path):
    make(tmp_path / "x", config={"modules": ("q", "k")})
    with open_artifact(tmp_path / "x", config={"modules": ["q", "k"]}) as artifact:
        assert artifact.complete


def test_overwrite_starts_again(tmp_path):
    path = tmp_path / "x"
    make(path)
    (path / "checkpoints" / "5").mkdir(parents=True)
    with open_artifact(path, config={"layer": 2}, overwrite=True) as artifact:
        assert not artifact.complete
        assert [p.name for p in path.iterdir() if not p.name.startswith(".lock")] == ["plan.json"]
        assert read_json(path / "plan.json")["config"] == {"layer": 2}


def test_overwrite_that_is_killed_half_way_leaves_a_directory_that_can_be_overwritten(tmp_path, monkeypatch):
    path = tmp_path / "x"
    make(path)
    (path / "sub").mkdir()

    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    for call in ("rmtree", "unlink"):
        with monkeypatch.context() as m:
            m.setattr("shutil.rmtree", killed) if call == "rmtree" else m.setattr(Path, "unlink", killed)
            with pytest.raises(KeyboardInterrupt), open_artifact(path, config={"layer": 2}, overwrite=True):
                pass
    with open_artifact(path, config={"layer": 2}, overwrite=True) as artifact:
        assert not artifact.complete and not (path / "sub").exists()


@pytest.mark.parametrize("error", [UsageError, DataError])
def test_what_is_refused_before_anything_is_there_leaves_no_plan(tmp_path, error):
    def refused(path, layer, *files, overwrite=False):
        with pytest.raises(error, match="no"), open_artifact(path, config={"layer": layer}, overwrite=overwrite):
            for name in files:
                (path / name).write_text("")
            raise error("no")

    refused(tmp_path / "new", 1)
    assert not (tmp_path / "new").exists()
    old = tmp_path / "old"
    old.mkdir()
    refused(old, 1)
    refused(old, 2)
    assert old.exists() and not tree(old)
    refused(old, 3, "shard")
    refused(old, 3)
    assert set(tree(old)) == {"plan.json", "shard"}, "what was begun stays"
    refused(old, 4, overwrite=True)
    assert not tree(old)
    with pytest.raises(KeyboardInterrupt), open_artifact(old, config={"layer": 5}):
        raise KeyboardInterrupt
    refused(old, 5)
    assert set(tree(old)) == {"plan.json"}, "another call's plan"


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    "files", [{"thesis.tex": "x"}, {"plan.json": '{"floor": 2}', "a/b": "x"}, {"plan.json": "[1]"}]
)
def test_a_directory_of_somebody_else_is_refused_untouched(tmp_path, overwrite, files):
    path = tmp_path / "x"
    for name, text in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    before = tree(path)
    with pytest.raises(UsageError, match="was not written by `edjax`"), open_artifact(path, overwrite=overwrite):
        pass
    assert tree(path) == before


@pytest.mark.parametrize("damage", ["longer", "shorter", "missing", "directory"])
def test_the_manifest_finds_a_file_of_another_size(tmp_path, damage):
    path = tmp_path / "x"
    make(path)
    part = path / "part.txt"
    part.unlink()
    if damage == "directory":
        part.mkdir()
    elif damage != "missing":
        part.write_text("content!" if damage == "longer" else "conten")
    with pytest.raises(DataError, match=r"part\.txt is missing or damaged; run the command .* again with --overwrite"):
        read_manifest(path, "features")


def test_the_wrong_kind_and_no_artefact_are_named(tmp_path):
    make(tmp_path / "x", kind="adapter")
    with pytest.raises(DataError, match="holds 'adapter', not 'features'"):
        read_manifest(tmp_path / "x", "features")
    with pytest.raises(DataError, match="is not a directory that edjax wrote"):
        read_manifest(tmp_path, "features")


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "sub/../../secret", "link"])
def test_a_manifest_that_points_outside_is_refused(tmp_path, name):
    path = tmp_path / "x"
    make(path)
    (tmp_path / "secret").write_text("content")
    (path / "sub").mkdir()
    (path / "link").symlink_to(tmp_path / "secret")
    manifest = read_json(path / "manifest.json")
    size = Path("/etc/hostname").stat().st_size if name.startswith("/") else 7
    manifest["files"] = {name: {"size": size, "sha256": ""}}
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="which is outside"):
        read_manifest(path, "features")


def test_links_are_not_listed_and_overwriting_does_not_follow_them(tmp_path):
    path, outside = tmp_path / "x", tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("content")
    make(path)
    (path / "manifest.json").unlink()
    (path / "dir").symlink_to(outside)
    (path / "file").symlink_to(outside / "precious")
    with open_artifact(path) as artifact:
        artifact.finish()
    assert list(read_manifest(path, "features")["files"]) == ["part.txt"]
    with open_artifact(path, overwrite=True):
        pass
    assert (outside / "precious").read_text() == "content"
