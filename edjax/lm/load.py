"""From the name a user gives to a model, a tokenizer and a digest of both."""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edjax.keep.errors import DataError, EnvError, UsageError
from edjax.keep.store import sha256_file, sha256_json, write_json
from edjax.lm import smollm2, torchless

DTYPES = ("float32", "bfloat16")
MOST_LAYERS = 10_000
TOKENIZER = (  # what a tokenizer and its chat template may be made of, beside the .json files
    "tokenizer*",
    "*.model",
    "*.tiktoken",
    "vocab.*",
    "merges.txt",
    "*.jinja",
    "additional_chat_templates/*.jinja",
)
FILES = ["*.safetensors", "*.json", *TOKENIZER]


@dataclass(frozen=True)
class LoadedModel:
    """A decoder, its tokenizer, the end-of-text ids that stop it, and where it came from."""

    model: Any
    tokenizer: Any
    eos_ids: tuple[int, ...]
    directory: Path
    name: str

    @property
    def base_model(self) -> str:
        """What `transformers` loads these very weights by: a hub id as it was given, else an absolute directory."""
        hub = self.name != "smollm2" and not Path(self.name).exists() and self.directory.parent.name == "snapshots"
        return self.name if hub else str(self.directory.resolve())


def locate(name: str) -> Path:
    """The Hugging Face directory of `name`: "smollm2", a directory, a .gguf file, or a hub id.

    Raises:
      EnvError: a hub id that cannot be fetched.
      DataError: a path that does not exist or holds no model.
    """
    path = Path(name)
    if name == "smollm2":
        return smollm2.directory()
    if path.is_dir():
        if not (path / "config.json").exists():
            raise DataError(f"{path} is not a model directory: it has no config.json")
        return path
    if path.suffix.lower() == ".gguf":
        if not path.is_file():
            raise DataError(f"model file {path} does not exist")
        return _converted(path)
    if path.exists():
        raise DataError(f"{path} is a file; a model is a directory, a .gguf file, a hub id, or smollm2")
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return _from_hub(name)
    raise DataError(f"model {name!r} was not found: neither a directory, a .gguf file, a hub id (org/name) nor smollm2")


def _converted(path: Path) -> Path:
    """The directory that a .gguf file was made into, under a name that changes with all that goes into it."""
    from edjax.lm.gguf import CONVERTER, convert, name_of, parts, tokenizer_of

    files = [*parts(path), tokenizer_of(path)]
    key = sha256_json([CONVERTER, *(_file_digest(f) if f.exists() else None for f in files)])
    out = smollm2.cache_dir() / "models" / f"{name_of(path)}-{key[:12]}"
    return out if (out / "tokenizer_config.json").exists() else convert(path, out)


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=FILES))
    except Exception as e:  # the hub client raises a dozen kinds, all of which mean: not fetched
        first = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
        hint = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
        raise EnvError(
            f"model {name!r} is not a local directory and could not be fetched from the hub{hint}: {first}"
        ) from e


def digest(directory: Path) -> str:
    """One sha256 over the weights, config and tokenizer files of a model directory."""
    files = {p for pattern in FILES for p in directory.glob(pattern) if p.is_file()}
    return sha256_json({p.relative_to(directory).as_posix(): _file_digest(p) for p in files})


def _file_digest(path: Path) -> str:
    """sha256 of a file; of a large one it is remembered, since hashing gigabytes takes a while.

    Remembered by size, inode and times of change; nobody can set the second time back, so a file that was put in
    another's place with its date is another one. What changed just now may change again within the clock's grain.
    """
    stat = path.stat()
    if stat.st_size <= 10_000_000:
        return sha256_file(path)
    memory = smollm2.cache_dir() / "digests.json"
    key = f"{path.resolve()}:{stat.st_size}:{stat.st_ino}:{stat.st_mtime_ns}:{stat.st_ctime_ns}"
    try:
        known = dict(json.loads(memory.read_text()))
    except (OSError, ValueError, TypeError):
        known = {}
    if key not in known:
        known[key] = sha256_file(path)
        if time.time_ns() - stat.st_ctime_ns > 2e9:
            with contextlib.suppress(EnvError):
                write_json(memory, known)
    return known[key]


def load(name: str = "smollm2", dtype: str = "float32", quantize: str = "none", mesh: Any = None) -> LoadedModel:
    """Load a model by name; see `locate` for what a name may be. No code from the model directory ever runs.

    Args:
      quantize: none, or int8 or nf4 to keep the layers' projections in 8 or 4 bits (`edjax.lm.quantize`).
      mesh: the devices to lay the weights on (`edjax.lm.mesh.parse_mesh`); None: jax's default device.

    Raises:
      UsageError: a dtype other than float32 or bfloat16, or another quantisation; a mesh that does not fit the model,
        or one together with quantisation.
      DataError, EnvError: the model is damaged, unsupported, or cannot be had; qwix is missing.
    """
    if dtype not in DTYPES:
        raise UsageError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}")
    from edjax.lm.quantize import check

    check(quantize)
    if mesh is not None and quantize != "none":
        raise UsageError("quantised weights are not laid out on a mesh; leave out quantize or mesh")
    directory = locate(name)
    torchless.apply()
    from transformers import AutoConfig, AutoTokenizer

    try:
        layers = json.loads((directory / "config.json").read_text(encoding="utf-8")).get("num_hidden_layers", 1)
        if layers > MOST_LAYERS:  # transformers would make lists of that length
            raise ValueError(f"num_hidden_layers is {layers}")
        hf = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except Exception as e:  # transformers raises many kinds for a damaged directory
        first = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
        if not (directory / "tokenizer.json").exists():
            first += " (it has no tokenizer.json: put the tokenizer's files beside config.json)"
        raise DataError(f"{directory}: config or tokenizer cannot be read: {first}") from e
    tokenizer.model_max_length = 2**62  # the encoder cuts; the tokenizer's own warning would be wrong
    import jax.numpy as jnp

    from edjax.lm.checkpoint import load_weights
    from edjax.lm.config import LMConfig
    from edjax.lm.vocabulary import check_tokens

    try:
        config = LMConfig.from_hf(hf)
    except DataError as e:
        raise DataError(f"{directory / 'config.json'}: {e}") from e
    check_tokens(tokenizer, config.vocab_size, directory)
    model = load_weights(directory, config, jnp.dtype(dtype), None if quantize == "none" else quantize, mesh)
    return LoadedModel(model, tokenizer, _eos_ids(hf, tokenizer, directory), directory, name)


def _eos_ids(hf: Any, tokenizer: Any, directory: Path) -> tuple[int, ...]:
    """Every id that ends an answer; chat models often name their end-of-turn token in generation_config.json only."""
    listed = [*_ids(getattr(hf, "eos_token_id", None)), *_ids(tokenizer.eos_token_id)]
    if (path := directory / "generation_config.json").exists():
        try:
            listed += _ids(json.loads(path.read_text(encoding="utf-8")).get("eos_token_id"))
        except (ValueError, AttributeError) as e:
            raise DataError(f"{path} cannot be read ({e}); fetch it again") from e
    if not listed:
        raise DataError("the model names no end-of-text token (eos_token_id), so its answers would have no end")
    return tuple(sorted(set(listed)))


def _ids(value: Any) -> list[int]:
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]
