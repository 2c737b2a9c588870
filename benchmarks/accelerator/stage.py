"""What a stage works with, and the process it runs in."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from benchmarks.accelerator.record import Record, Row
from benchmarks.accelerator.sizes import DRY, Sizes

END, MACHINE = "end", "machine"
ANYWHERE = ("score", "select", "cells", "trials")  # what they leave says nothing of the device's speed


@dataclass
class Stage:
    """A stage's name, where its data lie, where its rows go, where it may leave what stays on this machine, and until
    when it may run (seconds since the epoch).

    die_after: kill this process and the one that started it once so many rows were left, as a lost machine would.
    """

    name: str
    data: Path
    out: Path
    work: Path
    until: float
    dry: bool = False
    die_after: int | None = None

    @cached_property
    def sizes(self) -> Sizes:
        return DRY if self.dry else Sizes()

    @cached_property
    def record(self) -> Record:
        return Record(self.out)

    @cached_property
    def device(self) -> str:
        from benchmarks.harness.runner import device_name

        return device_name()

    def done(self) -> dict[str, Row]:
        """By job, the rows that need not be had again."""
        return self.record.done(self.name, None if self.name in ANYWHERE else self.device)

    @property
    def left(self) -> float:
        """Seconds."""
        return self.until - time.time()

    def leave(self, job: str, **facts: Any) -> None:
        """Write a row."""
        self.record.add({"stage": self.name, "job": job, "device": self.device, "at": round(time.time(), 1), **facts})
        if self.die_after is not None:
            self.die_after -= 1
            if self.die_after <= 0:
                os.kill(os.getppid(), signal.SIGKILL)
                os.kill(os.getpid(), signal.SIGKILL)

    def job(self, name: str, facts: Callable[[], dict[str, Any]]) -> bool:
        """Leave what `facts()` gives as the row of a job that is not done yet; a failure is a row too.

        Returns:
          whether the job is done.
        """
        if name in self.done():
            return True
        start = time.monotonic()
        try:
            found = facts()
        except Exception as e:
            traceback.print_exc()
            self.leave(name, failed=f"{type(e).__name__}: {e}"[:500], seconds=round(time.monotonic() - start, 2))
            return False
        self.leave(name, **{"seconds": round(time.monotonic() - start, 2), **found})
        print(f"edjax: {self.name}: {name}, {self.left:.0f} s left", file=sys.stderr, flush=True)
        return True

    def jobs(self, facts: dict[str, Callable[[], dict[str, Any]]]) -> bool:
        """All of them one after the other, whichever fail; whether all are done."""
        return sum([self.job(name, f) for name, f in facts.items()]) == len(facts)


def machine(data: Path) -> dict[str, Any]:
    """What a stage runs on: device, driver, versions, and the commit that was packed."""
    from benchmarks.harness import runner
    from edjax.keep.store import versions

    packed = data / "commit"
    commit = packed.read_text().strip() if packed.exists() else runner.commit()
    return {"on": runner.machine(), "driver": driver(), "versions": versions() | torch_version(), "commit": commit}


@cache
def driver() -> str | None:
    """The card and its driver as nvidia-smi names them."""
    import subprocess

    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def torch_version() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("torch", "peft"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@contextmanager
def ends_with_its_parent() -> Iterator[None]:
    """End this process soon after the one that started it: an orphan would keep the card."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    yield


def run(stage: Stage) -> None:
    """Everything of a stage that is not done, in this process."""
    with ends_with_its_parent():
        now = machine(stage.data)
        known = [r for r in stage.record.rows() if r["stage"] == MACHINE and r["device"] == stage.device]
        if not known or any(known[-1][k] != now[k] for k in ("driver", "versions", "commit")):
            stage.record.add({"stage": MACHINE, "job": stage.name, "device": stage.device, **now})
        whole = importlib.import_module(f"benchmarks.accelerator.{stage.name}").run(stage)
        if whole:
            stage.leave(END)
