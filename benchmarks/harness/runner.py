"""Time functions side by side and write what came out, with everything needed to repeat it."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from edjax.keep.store import versions

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
GENERATED = (":!benchmarks/results", ":!docs", ":!README.md")  # rewriting these does not make a measurement dirty


def side_by_side(
    functions: dict[str, Callable[[], Any]], repeats: int, slow_s: float = 15.0
) -> dict[str, dict[str, Any]]:
    """Median wall seconds of each function, the runs interleaved so that all see the same machine.

    The first call, which compiles, is timed apart; `compile_s` is how much longer it took than the median. Every call
    waits for its result. A function whose first timed run takes longer than `slow_s` is not run again: `runs_s` says
    how many runs a median stands on.
    """
    out: dict[str, dict[str, Any]] = {}
    for name, f in functions.items():
        seconds, result = timed(f)
        out[name] = {"first_call_s": seconds, "runs_s": [], "result": result}
    for _ in range(repeats):
        for name, f in functions.items():
            runs = out[name]["runs_s"]
            if not runs or runs[0] <= slow_s:
                runs.append(timed(f)[0])
    for row in out.values():
        row["median_s"] = statistics.median(row["runs_s"])
        row["compile_s"] = max(0.0, row["first_call_s"] - row["median_s"])
    return out


def timed(f: Callable[[], Any]) -> tuple[float, Any]:
    """Wall seconds until the result of `f()` is there, and the result."""
    start = time.perf_counter()
    result = jax.block_until_ready(f())
    return time.perf_counter() - start, result


def compile_s(f: Callable[..., Any], *args: Any) -> float:
    """Seconds that tracing, lowering and compiling `f(*args)` take; it is not run."""
    return timed(lambda: jax.jit(f).lower(*args).compile() and None)[0]


def peak_rss(function: str, **arguments: Any) -> int:
    """Peak resident bytes of a new process that imports "module:function" and calls it with JSON-able `arguments`.

    The imports count: compare with the peak of a function that does nothing. Memory on an accelerator does not: see
    `device_peak`.
    """
    code = (
        f"from benchmarks.harness import runner; runner._call_and_print_peak({function!r}, {json.dumps(arguments)!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{function} failed in its own process:\n{done.stderr[-2000:]}")
    return int(done.stdout.split()[-1])


def nothing() -> None:
    """What `peak_rss` of an empty call takes: the imports."""


def _call_and_print_peak(function: str, arguments: str) -> None:
    module, _, name = function.partition(":")
    jax.block_until_ready(getattr(importlib.import_module(module), name)(**json.loads(arguments)))
    print(_own_peak())


def _own_peak() -> int:
    """This process's peak. `ru_maxrss` is the fallback: on Linux a child inherits its parent's through exec."""
    status = Path("/proc/self/status")
    if status.exists() and (found := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
        return int(found[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def resident() -> int | None:
    """Resident bytes of this process now; None where there is no /proc."""
    status = Path("/proc/self/status")
    found = re.search(r"VmRSS:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return int(found[1]) * 1024 if found else None


def forget_peak() -> int | None:
    """Count this process's peak from now on, where Linux lets it be; `resident` at this moment."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return resident()


def device_peak() -> int | None:
    """Peak bytes in use on the accelerator since this process began; None where the device does not say (a CPU)."""
    return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def device_name() -> str:
    """The device in a file's name: cpu, nvidia-h200."""
    return re.sub(r"[^a-z0-9]+", "-", jax.devices()[0].device_kind.lower()).strip("-")


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
        "load_before": load(),
    }


def load() -> list[float]:
    """The machine's load over 1, 5 and 15 minutes."""
    return [round(v, 2) for v in os.getloadavg()]


def commit() -> str:
    """The commit that is measured, "-dirty" where tracked files differ from it; results and tables do not count."""
    head = _git("rev-parse", "--short", "HEAD")
    return head + ("-dirty" if _git("status", "--porcelain", "-uno", "--", ".", *GENERATED) else "")


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()


def stamp() -> dict[str, Any]:
    """When and on what a row was measured: what `write` gives to each row that does not have it."""
    return {"commit": commit(), "date": time.strftime("%Y-%m-%d", time.gmtime()), "load": load()}


def write(name: str, rows: list[dict[str, Any]], *, out: Path | None = None, merge: bool = False, **facts: Any) -> Path:
    """Write benchmarks/results/<name>.json, or `out`: rows, machine, versions, commit and command.

    merge: keep the rows of an existing file whose "job" is not among `rows`, with the commit, date and load they were
    measured at, and their versions where those were others.

    Raises:
        ValueError: merging into the results of another machine.
    """
    path = out or RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    now = stamp()
    value = {
        "command": " ".join(["python -m", _module(Path(sys.argv[0])), *sys.argv[1:]]),
        "commit": now["commit"],
        "date": now["date"],
        "machine": facts.pop("machine"),
        "versions": versions(),
        **facts,
        "rows": [{**row, **{k: v for k, v in now.items() if k not in row}} for row in rows],
    }
    if merge and path.exists():
        value["rows"] = _merged(json.loads(path.read_text()), value, path)
    path.write_text(json.dumps(value, indent=1) + "\n")
    return path


def _module(run: Path) -> str:
    """The name of the module that a path is of, that of the package where it is its `__main__`."""
    run = run.resolve()
    of = run.parent if run.stem == "__main__" else run.with_suffix("")
    return ".".join(of.relative_to(ROOT).parts) if of.is_relative_to(ROOT) else of.name


def _merged(old: dict[str, Any], new: dict[str, Any], path: Path) -> list[dict[str, Any]]:
    """The rows of both by "job", the new one where both have it, in the old order."""
    for key in ("device", "cpu", "cores"):
        if old["machine"][key] != new["machine"][key]:
            raise ValueError(
                f"{path.name} was measured on another machine ({key} {old['machine'][key]!r}, here "
                f"{new['machine'][key]!r}): write to another name"
            )
    kept = {"commit": old["commit"], "date": old["date"], "load": old["machine"]["load_before"]}
    if old["versions"] != new["versions"]:
        kept["versions"] = old["versions"]
    rows = {row["job"]: {**kept, **row} for row in old["rows"]}
    rows.update({row["job"]: row for row in new["rows"]})
    return list(rows.values())
