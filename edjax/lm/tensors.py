"""Tensors out of safetensors files, by name: found sound before memory is taken, read a piece at a time."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from edjax.keep.errors import DataError

FLOATS = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
# What real checkpoints hold and no logit depends on: rotary frequencies that follow from the config, TRL's value heads.
HARMLESS = re.compile(r"(.*\.)?rotary_emb\.inv_freq|v_head\..+")
EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"
SCRATCH = 1 << 18  # values read from a file at a time


def shard_of(directory: Path) -> dict[str, Path]:
    """Which safetensors file holds each tensor. Only names inside the directory are followed."""
    single, index = directory / "model.safetensors", directory / "model.safetensors.index.json"
    try:
        if single.exists():
            with safe_open(single, "np") as f:
                return dict.fromkeys(f.keys(), single)
        if index.exists():
            table = json.loads(index.read_text())["weight_map"]
            for name in set(table.values()):
                if Path(name).name != name or name == "..":
                    raise DataError(f"{index} points outside its directory ({name!r}); refused")
                if not (directory / name).exists():
                    raise DataError(f"{directory / name} is missing, though {index.name} lists it")
            return {key: directory / name for key, name in table.items()}
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise DataError(f"{directory}: the weights cannot be read ({e}); fetch or convert the model again") from e
    if any(directory.glob("*.bin")) or any(directory.glob("*.pt*")):
        raise DataError(f"{directory} holds pickled weights only; edjax reads safetensors: convert them first")
    raise DataError(f"{directory} holds no model.safetensors and no model.safetensors.index.json")


def as_float(path: Path, name: str, value: np.ndarray) -> np.ndarray:
    """The tensor itself, if its dtype is one that weights have."""
    if not np.issubdtype(value.dtype, np.floating) and value.dtype != ml_dtypes.bfloat16:
        raise DataError(f"{path}: tensor {name!r} has dtype {value.dtype}; float32, float16 or bfloat16 is read")
    return value


class Reader:
    """Tensors by name, one at a time, each shape checked.

    The files' headers are the safetensors library's to check; their data is read here, since a mapped file counts as
    memory of the process, and the library's tensors are copies of one.
    """

    def __init__(self, directory: Path, model_type: str):
        self.directory, self.where, self.model_type = directory, shard_of(directory), model_type
        self._headers: dict[Path, tuple[int, dict[str, Any]]] = {}

    def check(self, name: str, shape: tuple[int, ...]) -> tuple[int, str]:
        """(where its data begins in its file, its dtype's name) of a tensor that is there and has this shape."""
        if name not in self.where:
            raise DataError(f"{self.directory} has no tensor {name!r}; is it a complete {self.model_type} checkpoint?")
        path = self.where[name]
        try:
            start, header = self._headers.get(path) or self._headers.setdefault(path, _header(path))
            entry = header[name]
        except (OSError, SafetensorError) as e:
            raise self._damaged(name, e) from e
        except KeyError as e:
            raise self._damaged(name, "it is not in the file") from e
        if tuple(entry["shape"]) != shape:
            raise DataError(f"{path}: tensor {name!r} has shape {tuple(entry['shape'])}, the config asks for {shape}")
        if entry["dtype"] not in FLOATS:
            raise DataError(f"{path}: tensor {name!r} has dtype {entry['dtype']}; float32, float16 or bfloat16 is read")
        return start + entry["data_offsets"][0], entry["dtype"]

    def __call__(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """A new array of this dtype; beside it, SCRATCH values of the file are held."""
        start, kind = self.check(name, shape)
        out = _aligned(math.prod(shape), dtype)
        with open(self.where[name], "rb", buffering=0) as f:
            f.seek(start)
            for at in range(0, len(out), SCRATCH):
                part = out[at : at + SCRATCH]
                values = np.fromfile(f, FLOATS[kind], len(part))
                if len(values) != len(part):
                    raise self._damaged(name, "the file ends too early")
                part[:] = values
        return out.reshape(shape)

    def refuse_others(self, used: Collection[str]) -> None:
        """Every tensor of the files is one that the decoder uses: one left out would make the logits silently wrong.

        A copy of tied embeddings is no other tensor. What cannot be read is left to `check` to name.
        """
        held = dict(self.where)
        for path in dict.fromkeys(self.where.values()):
            try:
                names = (self._headers.get(path) or self._headers.setdefault(path, _header(path)))[1]
            except (OSError, SafetensorError):
                continue
            held |= dict.fromkeys(names.keys() - held.keys() - {"__metadata__"}, path)
        others = sorted(name for name in held if name not in used and not HARMLESS.fullmatch(name))
        if HEAD in others and EMBED in self.where and self._same(HEAD, EMBED):
            others.remove(HEAD)
        if not others:
            return
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        raise DataError(
            f"{held[others[0]]}: tensor {others[0]!r}{more} has no place in the {self.model_type} model of its "
            f"config.json, and leaving it out would change what the model says; {_remedy(others[0])}"
        )

    def _same(self, a: str, b: str) -> bool:
        """Whether two tensors hold the same bytes."""
        shapes = [tuple(_header(self.where[name])[1][name]["shape"]) for name in (a, b)]
        places = [self.check(name, shape) for name, shape in zip((a, b), shapes, strict=True)]
        if shapes[0] != shapes[1] or places[0][1] != places[1][1]:
            return False
        left = math.prod(shapes[0]) * np.dtype(FLOATS[places[0][1]]).itemsize
        with open(self.where[a], "rb") as f, open(self.where[b], "rb") as g:
            f.seek(places[0][0])
            g.seek(places[1][0])
            while left > 0:
                n = min(left, 8 * SCRATCH)
                if f.read(n) != g.read(n):
                    return False
                left -= n
        return True

    def _damaged(self, name: str, why: object) -> DataError:
        return DataError(
            f"{self.where[name]}: tensor {name!r} cannot be read ({why}); fetch or convert the model again"
        )


def _remedy(name: str) -> str:
    """What to look at where a tensor has no place."""
    if name == HEAD:
        return "it differs from the embedding: set tie_word_embeddings to false"
    if name.endswith(".bias"):
        return "set attention_bias or mlp_bias in config.json if it has such biases in all layers"
    if "lora_" in name or ".base_layer." in name:
        return "merge the adapter into its base first (PEFT's merge_and_unload), or give it with --adapter"
    if re.search(r"\.(weight_scale\w*|qweight|qzeros|scales|g_idx|absmax|quant_\w+|weight\.\w+)$", name):
        return "use the weights before they were quantised; --quantize does it at load"
    return "is it of another architecture, or are settings of config.json wrong?"


def _header(path: Path) -> tuple[int, dict[str, Any]]:
    """Where a file's data begins, and its JSON header, once the library has found it sound."""
    with safe_open(path, "np"), open(path, "rb") as f:
        n = int.from_bytes(f.read(8), "little")
        return 8 + n, json.loads(f.read(n))


def _aligned(n: int, dtype: np.dtype) -> np.ndarray:
    """n values at an address that XLA:CPU can take over as it is."""
    raw = np.empty(n * dtype.itemsize + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + n * dtype.itemsize].view(dtype)
