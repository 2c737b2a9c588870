"""report_to: the lines of metrics.jsonl, also sent to TensorBoard, Weights & Biases or Trackio.

Nothing is imported, and nothing leaves the machine, unless it was asked for. TensorBoard's files are written by
tensorboardX, which needs neither torch nor TensorFlow.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import time
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from edjax.keep.errors import EnvError, UsageError

PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb", "trackio": "trackio"}


class Tracker(Protocol):
    """Where numbers by name go, a step at a time."""

    def log(self, step: int, values: dict[str, float]) -> None:
        """Take the numbers of a step."""

    def close(self) -> None:
        """Have everything written."""


def names(report_to: str) -> tuple[str, ...]:
    """The trackers that a setting like "tensorboard,wandb" names; "none" and "" are none.

    Raises:
      UsageError: an unknown name.
    """
    wanted = tuple(dict.fromkeys(n.strip() for n in report_to.split(",") if n.strip() not in ("", "none")))
    for name in wanted:
        if name not in PACKAGES:
            near = difflib.get_close_matches(name, PACKAGES, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UsageError(f"report_to {name!r} is unknown{hint}; known: none, {', '.join(PACKAGES)}")
    return wanted


def require(report_to: str) -> None:
    """Refuse a tracker whose package is missing before any work is done.

    Raises:
      EnvError: says what to install.
    """
    for name in names(report_to):
        try:
            import_module(PACKAGES[name])
        except ImportError as e:
            raise EnvError(
                f"report_to {name} needs the package {PACKAGES[name]} ({e}); pip install 'edjax[{name}]'"
            ) from e


def open_trackers(report_to: str, out: Path, settings: dict[str, Any]) -> list[Tracker]:
    """The trackers of a run that writes to `out`; a run that goes on is the same run to them.

    A run is told from another in the same directory by its plan, which is written when it begins.
    """
    plan = out / "plan.json"
    begun = plan.stat().st_mtime_ns if plan.exists() else 0
    key = hashlib.sha256(f"{out.resolve()} {begun}".encode()).hexdigest()[:12]
    name = "-".join(out.resolve().parts[-2:]).strip("/-")
    kinds: dict[str, type] = {"tensorboard": _TensorBoard, "wandb": _Wandb, "trackio": _Trackio}
    return [kinds[n](out, name, key, settings) for n in names(report_to)]


class _TensorBoard:
    def __init__(self, out: Path, name: str, key: str, settings: dict[str, Any]):
        # a file is named by the second it was opened in: without the suffix a run that goes on at once replaces it
        suffix = f".{time.time_ns()}"
        self._writer = import_module("tensorboardX").SummaryWriter(str(out / "tensorboard"), filename_suffix=suffix)

    def log(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class _Wandb:
    def __init__(self, out: Path, name: str, key: str, settings: dict[str, Any]):
        project = os.environ.get("WANDB_PROJECT", "edjax")
        wandb = import_module("wandb")
        self._run = wandb.init(project=project, name=name, id=key, resume="allow", config=settings)

    def log(self, step: int, values: dict[str, float]) -> None:
        self._run.log(values, step=step)

    def close(self) -> None:
        self._run.finish()


class _Trackio:
    def __init__(self, out: Path, name: str, key: str, settings: dict[str, Any]):
        project = os.environ.get("TRACKIO_PROJECT", "edjax")
        self._trackio = import_module("trackio")
        self._trackio.init(project=project, name=f"{name}-{key}", resume="allow", config=settings)

    def log(self, step: int, values: dict[str, float]) -> None:
        self._trackio.log(values, step=step)

    def close(self) -> None:
        self._trackio.finish()
