"""Time functions side by side and write what came out, with everything needed to repeat it."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from edjax.store import versions

RESULTS = Path(__file__).parent / "results"


def side_by_side(functions: dict[str, Callable[[], Any]], repeats: int) -> dict[str, dict[str, Any]]:
    """Median wall seconds of each function, the runs interleaved so that all see the same machine.

    The first call, which compiles, is timed apart. Every call waits for its result.
    """
    out: dict[str, dict[str, Any]] = {}
    for name, f in functions.items():
        start = time.perf_counter()
        result = jax.block_until_ready(f())
        out[name] = {"first_call_s": time.perf_counter() - start, "runs_s": [], "result": result}
    for _ in range(repeats):
        for name, f in functions.items():
            start = time.perf_counter()
            jax.block_until_ready(f())
            out[name]["runs_s"].append(time.perf_counter() - start)
    for row in out.values():
        row["median_s"] = statistics.median(row["runs_s"])
    return out


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        model = next((li.split(":")[1].strip() for li in cpuinfo.read_text().splitlines() if "model name" in li), model)
    return {
        "device": jax.devices()[0].device_kind,
        "backend": jax.default_backend(),
        "cpu": model,
        "cores": os.cpu_count(),
        "load_before": [round(v, 2) for v in os.getloadavg()],
    }


def write(name: str, rows: list[dict[str, Any]], **facts: Any) -> Path:
    """Write benchmarks/results/<name>.json: rows, machine, versions, commit and command."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    dirty = subprocess.run(["git", "status", "--porcelain", "-uno"], capture_output=True, text=True, check=False)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    value = {
        "command": " ".join(["python -m", __package__ + "." + Path(sys.argv[0]).stem, *sys.argv[1:]]),
        "commit": commit.stdout.strip() + ("-dirty" if dirty.stdout.strip() else ""),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": facts.pop("machine"),
        "versions": versions(),
        **facts,
        "rows": rows,
    }
    path.write_text(json.dumps(value, indent=1) + "\n")
    return path
