"""What a result here depends on: versions, devices, memory, the cache. It is what one pastes into an issue.

Nothing is fetched, no socket is opened, no model is loaded.
"""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

PACKAGES = (
    "edjax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "transformers",
    "tokenizers",
    "datasets",
    "huggingface-hub",
    "safetensors",
    "numpy",
    "pyarrow",
    "click",
)
EXTRAS = {  # what it is for -> the packages
    "demo": ("gguf",),
    "quant": ("qwix",),
    "tensorboard": ("tensorboardX",),
    "wandb": ("wandb",),
    "trackio": ("trackio",),
    "parity": ("torch", "peft"),
}
VARIABLES = (
    "EDJAX_CACHE",
    "HF_HOME",
    "HF_HUB_OFFLINE",
    "JAX_PLATFORMS",
    "JAX_COMPILATION_CACHE_DIR",
    "XLA_FLAGS",
    "XLA_PYTHON_CLIENT_MEM_FRACTION",
    "CUDA_VISIBLE_DEVICES",
    "NO_COLOR",
)


def environment() -> dict[str, Any]:
    """The facts as JSON values, by group."""
    return {
        "packages": {name: _version(name) for name in PACKAGES},
        "extras": {extra: {n: _version(n) for n in names} for extra, names in EXTRAS.items()},
        "python": {"version": platform.python_version(), "executable": sys.executable},
        "platform": platform.platform(),
        "machine": {"processor": _processor(), "cores": _cores(), "memory": _memory()},
        "jax": _devices(),
        "cache": _cache(),
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def _version(name: str) -> str | None:
    """A package's version; "unknown" where it can be imported and was not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown" if find_spec(name.replace("-", "_")) else None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    found = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return found or platform.processor() or platform.machine()


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory() -> int | None:
    """Bytes of the machine's memory."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _devices() -> dict[str, Any]:
    """JAX's backend and devices, or why it has none."""
    try:
        import jax

        devices = jax.devices()
    except Exception as e:  # a driver that does not fit raises what it likes
        return {"backend": None, "devices": [], "problem": " ".join(str(e).split())[:300]}
    kinds = [{"id": d.id, "kind": d.device_kind, "memory": _limit(d)} for d in devices]
    return {"backend": jax.default_backend(), "devices": kinds, "processes": jax.process_count()}


def _limit(device: Any) -> int | None:
    try:
        return (device.memory_stats() or {}).get("bytes_limit")
    except Exception:  # backends without the figure raise, or give None
        return None


def _cache() -> dict[str, Any]:
    """Where edjax keeps models and compiled programs, how much that is, and whether the default model is there."""
    from edjax.lm.smollm2 import NAME, WHEEL_SHA256, cache_dir

    home = cache_dir()
    model = home / "models" / f"{NAME}-{WHEEL_SHA256[:12]}"
    here = all((model / name).exists() for name in ("tokenizer_config.json", "model.safetensors"))
    return {"directory": str(home), "bytes": _size(home), "default_model": str(model) if here else None}


def _size(directory: Path) -> int:
    total = 0
    for name, _, files in os.walk(directory):
        for file in files:
            try:
                total += os.lstat(os.path.join(name, file)).st_size
            except OSError:
                continue  # a compiled program that another process just replaced
    return total


def lines(facts: dict[str, Any]) -> list[str]:
    """The facts for people, a line each."""
    jax, cache, machine = facts["jax"], facts["cache"], facts["machine"]
    memory = machine["memory"]
    kinds = [d["kind"] + (f" ({d['memory'] / 1e9:.0f} GB)" if d["memory"] else "") for d in jax["devices"]]
    rows = [
        *facts["packages"].items(),
        ("python", facts["python"]["version"]),
        ("platform", facts["platform"]),
        ("processor", f"{machine['processor']}, {machine['cores']} cores"),
        ("memory", f"{memory / 1e9:.1f} GB" if memory else "unknown"),
        ("jax backend", jax["backend"] or f"none: {jax['problem']}"),
        ("devices", ", ".join(f"{kinds.count(k)} x {k}" for k in dict.fromkeys(kinds)) or "none"),
        ("cache", f"{cache['directory']} ({cache['bytes'] / 1e6:,.0f} MB)"),
        ("default model", "cached" if cache["default_model"] else "not cached: the first command fetches it"),
    ]
    for extra, names in facts["extras"].items():
        found = ", ".join(f"{n} {v}" for n, v in names.items() if v)
        lacking = [n for n, v in names.items() if not v]
        rows.append((f"extra {extra}", found if not lacking else f"pip install 'edjax[{extra}]'"))
    rows += facts["variables"].items()
    return [f"{name:24} {value if value is not None else 'not installed'}" for name, value in rows]
