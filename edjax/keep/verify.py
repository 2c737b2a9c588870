"""Check artefacts on disk against their manifests: every file's size and sha256, and that one was made from the other.

What is looked at, below each directory that is named:
  a manifest     its seal (the sha256 of itself), its kind and schema; a manifest from before there were seals is noted
  plan.json      as the manifest records it, and saying the same as the manifest
  every file     of the manifest: there, of its size and sha256, inside the directory and no link
  other files    in an artefact that no manifest knows
  unfinished     a directory with a plan and no manifest
  the chain      in a run: selections were made from its features, evaluations of its adapters
Files that another process is writing (`.lock`, `*.tmp-*`) and directories that edjax did not write are passed over.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from edjax.keep.errors import DataError
from edjax.keep.store import SCHEMA, SEALED, seal, sha256_file, sha256_json

MANIFEST, PLAN = "manifest.json", "plan.json"
AGAIN = "run the command that wrote it again with --overwrite"


class Fault(NamedTuple):
    """What is wrong with the file or directory at `path`, in one sentence."""

    path: Path
    what: str

    def __str__(self) -> str:
        return f"{self.path} {self.what}"


@dataclass
class Verified:
    """What was found: the artefacts that are whole (directory -> kind), the faults, and what is no fault but told."""

    artefacts: dict[Path, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    files: int = 0


def verify(paths: Iterable[str | Path]) -> Verified:
    """Check every artefact at and below the directories `paths`; each file is read once.

    Raises:
      DataError: no such directory, or one below which edjax wrote nothing.
    """
    found = Verified()
    hashes: dict[Path, str] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            raise DataError(f"{path} is not a directory; name one that edjax wrote")
        tree = _Tree(path)
        if not tree.artefacts:
            raise DataError(f"{path} holds nothing that edjax wrote: no {MANIFEST} at or below it")
        whole = {}
        for directory in tree.artefacts:
            manifest = _manifest(directory, found)
            if manifest is not None:
                whole[directory] = manifest
                found.faults += _files(directory, manifest, hashes)
                found.faults += tree.strangers(directory, manifest)
        found.faults += _chains(whole)
        found.artefacts |= {d: m["kind"] for d, m in whole.items()}
    found.files = len(hashes)
    found.faults = sorted(set(found.faults))
    return found


class _Tree:
    """What lies below a directory: artefacts from the outermost in, and for each the files and links that are its."""

    def __init__(self, root: Path):
        self.artefacts: list[Path] = []
        self._files: dict[Path, list[Path]] = {}
        owners: dict[Path, Path] = {}
        for name, directories, files in os.walk(root):
            at = Path(name)
            if {MANIFEST, PLAN} & set(files):
                self.artefacts.append(at)
                owners[at] = at
            elif at.parent in owners:
                owners[at] = owners[at.parent]
            if at in owners:
                links = [d for d in directories if (at / d).is_symlink()]
                self._files.setdefault(owners[at], []).extend(at / f for f in [*files, *links])

    def strangers(self, directory: Path, manifest: dict[str, Any]) -> Iterator[Fault]:
        """Files and links of an artefact that its manifest does not know."""
        for path in self._files[directory]:
            name = path.relative_to(directory).as_posix()
            if name in (MANIFEST, PLAN) or name in manifest["files"]:
                continue
            if not path.name.startswith(".lock") and ".tmp-" not in path.name:
                yield Fault(path, "is a link, and edjax writes none" if path.is_symlink() else "is in no manifest")


def _manifest(directory: Path, found: Verified) -> dict[str, Any] | None:
    """The manifest of an artefact; None where it cannot be trusted, and the reason among the faults."""

    def fault(path: Path, what: str) -> None:
        found.faults.append(Fault(path, what))

    file = directory / MANIFEST
    if file.is_symlink():
        fault(file, "is a link, and edjax writes none")
        return None
    if not file.exists():
        fault(directory, f"is unfinished: it has a {PLAN} and no {MANIFEST}; run the same command again")
        return None
    try:
        raw = file.read_bytes()
        manifest: dict[str, Any] = json.loads(raw)
        sizes = [(f["size"], f["sha256"]) for f in manifest["files"].values()]
        kind, schema, written = str(manifest["kind"]), manifest["schema"], manifest.get("sha256")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        fault(file, f"is damaged or no manifest; {AGAIN}")
        return None
    if isinstance(written, str) and seal(raw, written) != written:
        fault(file, f"is damaged: its bytes do not match its own sha256; {AGAIN}")
        return None
    if schema not in (SCHEMA, SEALED) or (schema == SEALED) != isinstance(written, str):
        newer = isinstance(schema, int) and schema > SEALED and isinstance(written, str)
        fault(file, f"is of schema {schema}; use a newer edjax" if newer else f"is damaged: no seal; {AGAIN}")
        return None
    if schema == SCHEMA:
        found.notes.append(f"{file} has no seal: it was written before there were any ({kind}, {len(sizes)} files)")
    return manifest


def _files(directory: Path, manifest: dict[str, Any], hashes: dict[Path, str]) -> Iterator[Fault]:
    """Every file of a manifest, and the plan."""
    known = dict(manifest["files"])
    if "plan" in manifest:
        known[PLAN] = manifest["plan"]
    for name, fact in known.items():
        path = directory / name
        if _outside(directory, name):
            yield Fault(directory / MANIFEST, f"names {name!r}, which is outside {directory} or behind a link")
            continue
        try:
            size = path.stat().st_size
            if size == fact["size"] and path not in hashes:
                hashes[path] = sha256_file(path)
        except FileNotFoundError:
            yield Fault(path, f"is missing; {AGAIN}")
            continue
        except OSError as e:
            yield Fault(path, f"cannot be read ({e.strerror or e})")
            continue
        if size != fact["size"]:
            yield Fault(path, f"is damaged: it does not have the size that the manifest says; {AGAIN}")
        elif hashes[path] != fact["sha256"]:
            yield Fault(path, f"is damaged: its sha256 is not the manifest's; {AGAIN}")
    yield from _plan(directory, manifest)


def _outside(directory: Path, name: str) -> bool:
    """Whether a name of a manifest leaves its directory: absolute, upwards, or by a link."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or Path(name).is_absolute():
        return True
    return any(directory.joinpath(*parts[:n]).is_symlink() for n in range(1, len(parts) + 1))


def _plan(directory: Path, manifest: dict[str, Any]) -> Iterator[Fault]:
    path = directory / PLAN
    try:
        plan = json.loads(path.read_bytes())
        differs = [k for k in ("kind", "config", "inputs") if plan[k] != manifest.get(k)]
    except FileNotFoundError:
        if "plan" not in manifest:
            yield Fault(path, f"is missing; {AGAIN}")
        return
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        yield Fault(path, f"is damaged: its sha256 is not the manifest's; {AGAIN}")
        return
    if differs:
        yield Fault(path, f"does not say what {MANIFEST} says ({', '.join(differs)}); {AGAIN}")


def _chains(whole: dict[Path, dict[str, Any]]) -> Iterator[Fault]:
    """In each run: what a selection or an evaluation was made from is there, by its digest."""
    for run, manifest in whole.items():
        if manifest["kind"] != "run":
            continue
        inside = {d: m for d, m in whole.items() if d != run and d.is_relative_to(run)}
        made = {"features": {_features(m) for m in inside.values() if m["kind"] == "features"}}
        weights = (m["files"].get("adapter_model.safetensors") for m in inside.values() if m["kind"] == "adapter")
        made["adapter"] = {f["sha256"] for f in weights if f}
        for kind, source in (("selection", "features"), ("evaluation", "adapter")):
            for directory, m in inside.items():
                wanted = (m.get("inputs") or {}).get(source)
                if m["kind"] == kind and wanted is not None and wanted not in made[source]:
                    what = "these features" if source == "features" else "any adapter here"
                    yield Fault(directory, f"was not made from {what} ({source} {str(wanted)[:12]}...)")


def _features(manifest: dict[str, Any]) -> str:
    """The digest of features, as `edjax.data.features.read_features` gives it."""
    return sha256_json({n: f["sha256"] for n, f in sorted(manifest["files"].items()) if n.endswith(".parquet")})
