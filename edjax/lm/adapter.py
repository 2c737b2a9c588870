"""What an adapter says of where it came from, and whether that is what it is put on."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from edjax.keep.errors import DataError
from edjax.keep.store import read_json, sha256_file, sha256_json
from edjax.lm.load import TOKENIZER, LoadedModel, digest
from edjax.lm.peft import CONFIG, WEIGHTS
from edjax.lm.trajectory import TRAJECTORY

SMOLLM2 = "SmolLM2-135M-Instruct"
PROBE = "The naïve café's 12,345 cats said: “Hello, world!”\n\n  x = [1, 2];"


def adapter_digest(directory: str | Path) -> str:
    """One sha256 of what an adapter computes: its weights, and the config that scales them.

    The weights' own where edjax wrote both together; a config that was changed since, or another's, counts too, but for
    the name of its base model.
    """
    directory = Path(directory)
    weights, config = sha256_file(directory / WEIGHTS), directory / CONFIG
    written = _record(directory).get("files", {}).get(CONFIG)
    if isinstance(written, dict) and written.get("sha256") == sha256_file(config):
        return weights
    return bare_digest(directory)


def bare_digest(directory: str | Path) -> str:
    """One sha256 of an adapter's weights and config, but for the name of its base model: the same wherever it lies."""
    directory = Path(directory)
    config = {k: v for k, v in read_json(directory / CONFIG).items() if k != "base_model_name_or_path"}
    return sha256_json([sha256_file(directory / WEIGHTS), config])


def trained_template(directory: str | Path) -> str | None:
    """The template that edjax trained an adapter with, or one that was merged into this model; None: not known."""
    record = _record(Path(directory))
    of = {"adapter": record.get("config", {}), "model": record}.get(str(record.get("kind")), {})
    template = of.get("template")
    return template if isinstance(template, str) else None


def adapter_notes(directory: str | Path, loaded: LoadedModel, template: str | None = None) -> list[str]:
    """What to tell of an adapter put on this model: another base, a tokenizer of its own, another template.

    template: the one that was asked for by name.
    """
    directory = Path(directory)
    said = []
    if base := _other_base(directory, loaded):
        said.append(f"adapter {directory} was trained on {base}; it is put on {loaded.name}, which is another model")
    if differs := _other_tokenizer(directory, loaded.tokenizer):
        said.append(f"adapter {directory} brings a tokenizer of its own, and the model's is used: {differs}")
    trained = trained_template(directory)
    if template and trained and _chat(template, loaded) != _chat(trained, loaded):
        said.append(f"adapter {directory} was trained with --template {trained}, and is used with {template}")
    return said


def homes(directory: str | Path) -> list[Path]:
    """Where edjax may have written of an adapter: its directory, and for last/ and those of its way that of the run."""
    home = Path(directory).resolve()
    if home.parent.name == TRAJECTORY:
        return [home, home.parent.parent]
    return [home, home.parent] if home.name == "last" else [home]


def _record(directory: Path) -> dict[str, Any]:
    """What edjax wrote of a directory: its manifest, or its plan while it is not done; {} where there is neither."""
    for file in (place / name for place in homes(directory) for name in ("manifest.json", "plan.json")):
        with contextlib.suppress(OSError, DataError):
            found = read_json(file)
            if isinstance(found, dict) and all(
                isinstance(found.get(k, {}), dict) for k in ("config", "inputs", "files")
            ):
                return found
    return {}


def _chat(template: str, loaded: LoadedModel) -> bool:
    return template != "plain" and bool(getattr(loaded.tokenizer, "chat_template", None))


def _other_base(directory: Path, loaded: LoadedModel) -> str | None:
    """The model that an adapter was trained on, where it is not this one."""
    record, raw = _record(directory), read_json(directory / CONFIG)
    base = raw.get("base_model_name_or_path")
    if record.get("kind") == "adapter":  # its own record is exact, whatever the model is called
        name = record.get("config", {}).get("model") or base
        return None if record.get("inputs", {}).get("model") == digest(loaded.directory) else str(name)
    if not isinstance(base, str) or not base or base in (loaded.name, loaded.base_model):
        return None
    if (Path(base) / "config.json").exists():
        same = Path(base).resolve() == loaded.directory.resolve() or digest(Path(base)) == digest(loaded.directory)
        return None if same else base
    return None if _called(base) & _called(loaded.name) or _called(base) & _called(str(loaded.directory)) else base


def _called(name: str) -> set[str]:
    """What a model goes by: the last part of its name, or of the hub id whose snapshot a directory is."""
    path = Path(name)
    hub = [part.rpartition("--")[2] for part in path.parts if part.startswith("models--")]
    return {n.lower() for n in (path.stem if path.suffix.lower() == ".gguf" else path.name, *hub)} | (
        {SMOLLM2.lower()} if name == "smollm2" else set()
    )


def _other_tokenizer(directory: Path, own: Any) -> str | None:
    """How the tokenizer beside an adapter differs from the model's; None where there is none, or no difference.

    Trainers save a copy of the base's as a matter of course.
    """
    if not any(p.is_file() for pattern in TOKENIZER for p in directory.glob(pattern)):
        return None
    from transformers import AutoTokenizer

    try:
        other = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
        theirs, ours = other.get_vocab(), own.get_vocab()
        if theirs != ours:
            new = sorted((t for t, i in theirs.items() if ours.get(t) != i), key=theirs.__getitem__)
            some = f" ({', '.join(repr(t) for t in new[:3])}{', ...' if len(new) > 3 else ''})" if new else ""
            return f"{len(new)} of its {len(theirs)} tokens are not the model's{some}"
        if getattr(other, "chat_template", None) != getattr(own, "chat_template", None):
            return "it has another chat template"
        return None if other(PROBE).input_ids == own(PROBE).input_ids else "it cuts text into other tokens"
    except Exception as e:  # transformers raises many kinds for a damaged directory
        return f"it cannot be read ({str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__})"
