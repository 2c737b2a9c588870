"""Artefacts on disk: atomic writes, one writer a directory, a manifest written last.

A verb writes its result into a directory as follows. `plan.json` first: what the directory will hold, from which
inputs, with which settings. Then the files, each by `atomic_write`. `manifest.json` last, with the size and sha256 of
every file. A reader trusts only a directory with a manifest. The same command again resumes what has a plan and no
manifest, and changes nothing where there is a manifest; other settings or inputs are refused with the difference.
The manifest also records the plan's sha256 and, under "sha256", its own, so that `edjax verify` finds any flipped bit.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from edjax.keep.errors import DataError, EnvError, LockedError, UsageError

SCHEMA = 1
SEALED = 2  # the schema of a manifest that holds its own sha256; a plan's stays 1, and older manifests are read as well
UNSEALED = "0" * 64


def sha256_file(path: str | Path) -> str:
    """Hex sha256 of a file's bytes."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """Hex sha256 of a JSON value in canonical form (sorted keys, no spaces)."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _fsync_dir(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def atomic_write(path: str | Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a file that appears under `path` whole, or not at all.

    Writes to `path.tmp-<pid>`, then fsync, `os.replace`, fsync of the parent directory. A full disk or a read-only
    directory becomes one `EnvError`; the old file stays.
    """
    path = Path(path)
    tmp = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = "b" not in mode
        with open(tmp, mode, encoding="utf-8" if text else None, newline="\n" if text else None) as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        os.replace(tmp, path)
        _fsync_dir(path.parent)
    except OSError as e:
        with contextlib.suppress(OSError):
            tmp.unlink()
        raise _os_error(e, path) from e
    except BaseException:
        with contextlib.suppress(OSError):
            tmp.unlink()
        raise


def scratch_file(directory: str | Path, size: int) -> IO[bytes]:
    """A nameless file of `size` bytes, all of them taken at once; it is gone when closed, however the process ends.

    `directory` need not be there: its nearest parent that is holds the file.
    """
    directory = Path(directory).resolve()
    place = next(p for p in (directory, *directory.parents) if p.is_dir())
    try:
        file = tempfile.TemporaryFile(dir=place)  # noqa: SIM115
        try:
            file.truncate(max(size, 1))
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, max(size, 1))
        except BaseException:
            file.close()
            raise
    except OSError as e:
        raise _os_error(e, place / "scratch") from e
    return file


def _os_error(e: OSError, path: Path) -> EnvError:
    remedy = {
        errno.ENOSPC: "the disk is full; free some space and run the same command again",
        errno.EROFS: "the file system is read-only; choose another --out",
        errno.EACCES: "permission denied; choose another --out",
        errno.ENOTDIR: "a part of the path is a file; choose another --out",
        errno.EEXIST: "a file is in the way; choose another --out",
    }.get(e.errno or 0, e.strerror or str(e))
    return EnvError(f"cannot write {path}: {remedy}")


def write_json(path: str | Path, value: Any) -> None:
    """Write a JSON value atomically, indented, keys in the order given."""
    with atomic_write(path, "w") as f:
        json.dump(value, f, indent=1, ensure_ascii=False, allow_nan=False)
        f.write("\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file; a damaged one is a `DataError` that names it."""
    try:
        with open(path, encoding="utf-8") as f:
            return json.load(f)
    except (ValueError, UnicodeDecodeError) as e:
        raise DataError(f"{path} is not valid JSON ({e}); run the command that wrote it again with --overwrite") from e


def versions() -> dict[str, str]:
    """Versions of what decides a result's bytes."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    out = {"python": platform.python_version()}
    for name in ("edjax", "jax", "jaxlib", "flax", "optax", "transformers", "numpy"):
        with contextlib.suppress(PackageNotFoundError):
            out[name] = version(name)
    return out


class Lock:
    """One writer a directory: a locked file that holds host and pid.

    The lock is the kernel's (`flock`), so it ends with its process, however that ends: a dead process's file is taken
    over, and a process that merely got the same pid later does not hold it. Where the file system has no `flock`, what
    the file says decides.
    """

    def __init__(self, directory: Path):
        self.path = directory / ".lock"
        self._fd = -1

    def __enter__(self) -> Lock:
        me = json.dumps({"host": socket.gethostname(), "pid": os.getpid()}).encode()
        try:
            self._fd = self._locked_file()
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, me, 0)
        except OSError as e:
            self._close()
            raise _os_error(e, self.path) from e
        return self

    def _locked_file(self) -> int:
        """A descriptor of the file at `path`, locked."""
        import fcntl

        while True:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise self._refusal(fd) from None
                except OSError:
                    held = _holder(fd)
                    if held and (held["host"] != socket.gethostname() or _alive(held["pid"])):
                        raise self._refusal(fd) from None
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(fd), self.path.stat()):
                        return fd
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)  # the holder before us has just deleted this file

    def _refusal(self, fd: int) -> LockedError:
        for _ in range(100):  # until the winner has written its name over a dead process's
            held = _holder(fd)
            if held and (held["host"] != socket.gethostname() or held["pid"] == os.getpid() or _alive(held["pid"])):
                break
            held = None
            time.sleep(0.01)
        who = f"process {held['pid']} on {held['host']}" if held else "another process"
        return LockedError(f"{self.path.parent} is being written by {who}; wait for it to end, or choose another --out")

    def __exit__(self, *exc: object) -> None:
        try:
            self.path.unlink(missing_ok=True)
        finally:
            self._close()

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


def _holder(fd: int) -> dict[str, Any] | None:
    try:
        held = json.loads(os.pread(fd, 4096, 0))
        return {"pid": int(held["pid"]), "host": str(held["host"])}
    except (ValueError, KeyError, TypeError):
        return None


def _alive(pid: int) -> bool:
    if pid <= 0 or pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:  # a pid that was reused after a reboot or a zombie is not the run that took the lock
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        return state != "Z"
    except OSError:
        return True


class Artifact:
    """A directory that one verb writes once; see the module's text for the protocol."""

    def __init__(self, path: Path, plan: dict[str, Any]):
        self.path = path
        self.plan = plan

    @property
    def complete(self) -> bool:
        """Whether the manifest is there: nothing is left to do."""
        return (self.path / "manifest.json").exists()

    def finish(self, **facts: Any) -> dict[str, Any]:
        """Write the manifest: every file's size and sha256, the plan's, versions, any further facts, and its seal."""
        files = {
            p.relative_to(self.path).as_posix(): _record(p)
            for p in sorted(self.path.rglob("*"))
            if p.is_file() and not p.is_symlink() and not _is_scratch(p, self.path)
        }
        own = {"versions": versions(), "files": files, "plan": _record(self.path / "plan.json"), "sha256": UNSEALED}
        manifest = {**self.plan, "schema": SEALED, **facts, **own}
        text = json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        manifest["sha256"] = seal(text.encode(), UNSEALED)
        head, _, tail = text.rpartition(UNSEALED)
        with atomic_write(self.path / "manifest.json", "w") as f:
            f.write(head + manifest["sha256"] + tail)
        return manifest


def seal(raw: bytes, written: str) -> str:
    """The sha256 that a manifest's bytes must hold: that of the bytes with zeros where `written` stands last."""
    head, _, tail = raw.rpartition(written.encode())
    return hashlib.sha256(head + UNSEALED.encode() + tail).hexdigest()


def _record(path: Path) -> dict[str, Any]:
    return {"size": path.stat().st_size, "sha256": sha256_file(path)}


def _is_scratch(p: Path, root: Path) -> bool:
    parts = p.relative_to(root).parts
    return ".tmp-" in p.name or parts[0] in ("plan.json", "manifest.json", "checkpoints") or p.name.startswith(".lock")


@contextlib.contextmanager
def writing(
    path: str | Path,
    *,
    kind: str,
    config: dict[str, Any],
    inputs: dict[str, Any],
    overwrite: bool = False,
    grows: tuple[str, ...] = (),
) -> Iterator[Artifact]:
    """Hold the lock on an artefact directory and yield it, fresh, half done or complete.

    Args:
      path: the directory; made where it is missing.
      kind: what it holds ("features", "selection", "adapter", ...).
      config: the settings that decide the content; JSON values.
      inputs: the sha256 of everything read.
      overwrite: start again, deleting what an earlier plan left.
      grows: settings that an older plan may hold and that no longer decide whether it is gone on with.

    What the caller refuses (UsageError, DataError) before it writes anything leaves no plan to be held against.

    Raises:
      UsageError: the directory holds something else, or was planned with other settings (the difference is named).
      LockedError: another process writes it.
    """
    path = Path(path)
    plan = json.loads(json.dumps({"schema": SCHEMA, "kind": kind, "config": config, "inputs": inputs}))
    made = not path.exists()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise _os_error(e, path) from e
    with contextlib.ExitStack() as stack:
        if made:
            stack.callback(_remove_empty, path)  # once the lock is gone too
        stack.enter_context(Lock(path))
        old = path / "plan.json"
        strangers = [p for p in path.iterdir() if not p.name.startswith(".lock") and ".tmp-" not in p.name]
        if strangers and not _ours(path):
            raise UsageError(
                f"{path} holds other files ({min(p.name for p in strangers)}, ...) and was not written by `edjax`; "
                "choose an empty or new --out"
            )
        if gone_on := old.exists() and not overwrite:
            _refuse_difference(path, was := read_json(old), plan, grows)
            plan = was
        else:
            # manifest first, plan last: killed in between, the directory is an unfinished one, and still ours
            for p in sorted(strangers, key=lambda p: p.name != "manifest.json"):
                if p != old:
                    shutil.rmtree(p) if p.is_dir() and not p.is_symlink() else p.unlink()
            write_json(old, plan)
        for p in path.rglob("*.tmp-*"):
            if p.is_file():
                p.unlink()
        try:
            yield Artifact(path, plan)
        except (UsageError, DataError):
            if not gone_on and all(p == old or p.name.startswith(".lock") for p in path.iterdir()):
                old.unlink()
            raise


def _remove_empty(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.rmdir()


def _ours(path: Path) -> bool:
    """Whether edjax wrote this directory: its plan or its manifest says what is in it."""
    for name in ("plan.json", "manifest.json"):
        with contextlib.suppress(DataError, FileNotFoundError):
            value = read_json(path / name)
            if isinstance(value, dict) and {"schema", "kind", "config", "inputs"} <= value.keys():
                return True
    return False


def _refuse_difference(path: Path, old: dict[str, Any], new: dict[str, Any], grows: tuple[str, ...]) -> None:
    """A setting that is null is one that the older plan did not know."""
    diff, back = [], []
    if old.get("kind") != new["kind"]:
        diff.append(f"kind {old.get('kind')!r} is not {new['kind']!r}")
    for part in ("config", "inputs"):
        a, b = old.get(part) or {}, new[part]
        for key in sorted((a.keys() | b.keys()) - set(grows)):
            if a.get(key) != b.get(key):
                diff.append(f"{key}: {_short(a.get(key))} there, {_short(b.get(key))} now")
                if part == "config" and key in b and isinstance(a.get(key), str | int | float | None):
                    back.append(f"without {key}" if a.get(key) is None else f"{key}: {a[key]}")
    if not diff and old.get("schema") == new["schema"]:
        return
    raise UsageError(
        f"{path} was made with other settings ({'; '.join(diff) or 'another schema'}); "
        "choose another --out, or --overwrite to start again"
        + (f"; to go on there, give it {', '.join(back)}" if len(back) == len(diff) else "")
    )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def read_manifest(path: str | Path, kind: str) -> dict[str, Any]:
    """The manifest of a complete artefact of this kind; sizes of its files are checked, hashes by `edjax verify`."""
    path = Path(path)
    file = path / "manifest.json"
    if not file.exists():
        state = (
            "is not complete: run the command that writes it again"
            if (path / "plan.json").exists()
            else ("is not a directory that edjax wrote")
        )
        raise DataError(f"{path} {state} ({kind} expected)")
    manifest = read_json(file)
    if manifest.get("kind") != kind:
        raise DataError(f"{path} holds {manifest.get('kind')!r}, not {kind!r}")
    for name, fact in manifest.get("files", {}).items():
        p = path / name
        if ".." in Path(name).parts or not p.resolve().is_relative_to(path.resolve()):
            raise DataError(f"{file} names {name!r}, which is outside {path}; do not trust this directory")
        if not p.is_file() or p.stat().st_size != fact["size"]:
            raise DataError(f"{p} is missing or damaged; run the command that wrote {path} again with --overwrite")
    return manifest
