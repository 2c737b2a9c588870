"""The wheels that a machine without a network lacks, with what they need in turn."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from benchmarks.harness.runner import ROOT

PYTHON = "3.12"
PLATFORMS = [f"manylinux_2_{glibc}_x86_64" for glibc in (39, 35, 34, 31, 28, 27, 24, 17)] + ["manylinux2014_x86_64"]
MARKERS = {"python_version": PYTHON, "sys_platform": "linux", "platform_system": "Linux", "extra": ""}
MARKERS |= {"python_full_version": f"{PYTHON}.3", "platform_machine": "x86_64", "os_name": "posix"}
MARKERS |= {"implementation_name": "cpython", "platform_python_implementation": "CPython"}

# What the machine has; anything else that edjax needs travels.
THERE = frozenset((Path(__file__).parent / "there.txt").read_text().split())


def needed() -> list[Requirement]:
    """What the project's pyproject.toml asks for, its demo included, that the machine lacks."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [Requirement(r) for r in (*project["dependencies"], *project["optional-dependencies"]["demo"])]
    return [r for r in asked if lacks(r)]


def lacks(requirement: Requirement) -> bool:
    wanted = requirement.marker is None or requirement.marker.evaluate(MARKERS)
    return wanted and canonicalize_name(requirement.name) not in THERE


def fetch(folder: Path) -> list[Path]:
    """Put the wheels of `needed`, and of what those need, into `folder`; a package without one is built."""
    folder.mkdir(parents=True, exist_ok=True)
    queue, seen = needed(), {}
    while queue:
        requirement = queue.pop(0)
        name = canonicalize_name(requirement.name)
        if name in seen:
            continue
        seen[name] = path = _held(folder, requirement) or _fetched(folder, requirement)
        queue += [r for r in _requirements(path) if lacks(r)]
    for path in folder.glob("*.whl"):
        if path not in seen.values():
            path.unlink()
    return sorted(seen.values())


def _held(folder: Path, requirement: Requirement) -> Path | None:
    """A wheel that is there from before."""
    for path in folder.glob("*.whl"):
        name, version, *_ = parse_wheel_filename(path.name)
        if name == canonicalize_name(requirement.name) and version in requirement.specifier:
            return path
    return None


def _fetched(folder: Path, requirement: Requirement) -> Path:
    plain = str(Requirement(f"{requirement.name}{requirement.specifier}"))
    there = set(folder.glob("*.whl"))
    common = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    target = ["--only-binary=:all:", "--python-version", PYTHON, "--implementation", "cp", "--abi", "cp312", "--abi"]
    target += ["abi3", "--abi", "none", *(a for p in [*PLATFORMS, "any"] for a in ("--platform", p))]
    tries = [
        [*common, "download", "--no-deps", *target, "-d", str(folder), plain],
        [*common, "wheel", "--no-deps", "-w", str(folder), plain],
    ]
    for command in tries:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if fresh := set(folder.glob("*.whl")) - there:
            return fresh.pop()
    raise SystemExit(f"no wheel of {plain} for Python {PYTHON} on Linux: {done.stderr.strip()[-500:]}")


def _requirements(path: Path) -> list[Requirement]:
    with zipfile.ZipFile(path) as z:
        name = next(n for n in z.namelist() if n.endswith(".dist-info/METADATA"))
        found = Parser().parsestr(z.read(name).decode()).get_all("Requires-Dist") or []
    return [Requirement(r) for r in found]
