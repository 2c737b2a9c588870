"""Where compiled programs are kept between processes."""

from __future__ import annotations

import hashlib
import platform
from importlib.metadata import version
from pathlib import Path


def compiled_programs(base: Path) -> Path:
    """The directory below `base` for programs that run on this machine and with these versions.

    A program compiled for a CPU uses the instructions of the machine that compiled it, which JAX's own key does not
    hold: where a home directory serves several kinds of machine, a program of another kind could die by SIGILL.
    """
    kind = [platform.machine(), _instructions()]
    key = hashlib.sha256("\n".join(kind).encode()).hexdigest()[:8]
    return base / f"jax-{version('jax')}-jaxlib-{version('jaxlib')}-{key}"


def _instructions() -> str:
    """What this processor can do, as Linux lists it; elsewhere its name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    wanted = ("flags", "features", "model name")
    return "\n".join(sorted({" ".join(line.split()) for line in lines if line.lower().startswith(wanted)}))
