"""RELIABILITY R6 and S2: `edjax verify` finds every flipped bit, lost file, stranger and way out, and names it."""

import json
import random
import re
import shutil

import numpy as np
import pytest

import edjax.cli
from edjax.data.features import read_features
from edjax.data.pool import read_pool
from edjax.keep.errors import DataError
from edjax.keep.store import atomic_write, write_json, writing
from edjax.keep.verify import verify
from edjax.selection.choose import select
from edjax.selection.selection import write_selection

CONFIG = {"learning_rate": 5e-4, "text": "é\u2028", "modules": ["q_proj"]}
KINDS = ("features", "selection", "adapter", "evaluation", "run")


def features(path, rows=12):
    import pyarrow as pa
    import pyarrow.parquet as pq

    x = np.random.Generator(np.random.PCG64(0)).normal(size=(rows, 4)).tolist()
    with writing(path, kind="features", config=CONFIG, inputs={"pool": "p", "model": "m"}) as artifact:
        pq.write_table(pa.table({"id": [f"r{i}" for i in range(rows)], "embedding": x}), path / "shard-00000.parquet")
        artifact.finish(rows=rows, seconds=0.25, pool="pool.jsonl")


def adapter(path, seed=0):
    from safetensors.numpy import save_file

    with writing(path, kind="adapter", config=CONFIG | {"seed": seed}, inputs={"pool": "p"}) as artifact:
        x = np.random.Generator(np.random.PCG64(seed)).normal(size=(8, 8)).astype(np.float32)
        save_file({"base_model.model.lora_A.weight": x}, path / "adapter_model.safetensors")
        write_json(path / "adapter_config.json", {"r": 8})
        artifact.finish(steps=3, train_loss=1.25)


def evaluation(path, of=None):
    from edjax.keep.store import sha256_file

    inputs = {"pool": "p", "adapter": None if of is None else sha256_file(of / "adapter_model.safetensors")}
    with writing(path, kind="evaluation", config=CONFIG, inputs=inputs) as artifact:
        with atomic_write(path / "rows.jsonl", "w") as f:
            f.writelines(json.dumps({"id": f"r{i}", "rouge_l": i / 7}) + "\n" for i in range(6))
        write_json(path / "scores.json", {"scores": {"rouge_l": 0.5}})
        artifact.finish()


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A run directory with an artefact of every kind in it, as `edjax run` lays them out."""
    out = tmp_path_factory.mktemp("verify") / "run"
    pool = out.parent / "pool.jsonl"
    pool.write_text("".join(json.dumps({"id": f"r{i}", "prompt": f"Question {i}?"}) + "\n" for i in range(12)))
    with writing(out, kind="run", config=CONFIG, inputs={"pool": "p"}) as artifact:
        features(out / "features")
        found = read_features(out / "features")
        chosen = select(found, "random", 4)
        write_selection(
            chosen, found, read_pool(pool), out / "selections" / "random-b4-s0", config={"strategy": "random"}
        )
        cell = out / "cells" / "random-b4-s0"
        adapter(cell / "adapter")
        evaluation(cell / "evaluation", cell / "adapter")
        evaluation(out / "base" / "evaluation")
        write_json(out / "results.json", {"verdict": "as good as random"})
        artifact.finish(grid={"budgets": [4]})
    return out


@pytest.fixture
def run(sound, tmp_path):
    """A copy of it, to damage."""
    return shutil.copytree(sound, tmp_path / "run")


def faults(*paths):
    return [(str(f.path), f.what) for f in verify(paths).faults]


def test_a_sound_run_and_each_part_of_it(sound):
    found = verify([sound])
    assert (found.faults, found.notes) == ([], [])
    assert sorted(found.artefacts.values()) == sorted([*KINDS, "evaluation"])
    assert found.files == sum(p.is_file() for p in sound.rglob("*")) - 1, "every file but the outer manifest is hashed"
    for directory in found.artefacts:
        assert not verify([directory]).faults


def directory_of(run, kind):
    return next(d for d, k in verify([run]).artefacts.items() if k == kind)


@pytest.mark.parametrize("kind", KINDS)
def test_one_flipped_bit_is_found_a_hundred_times_of_a_hundred_and_the_file_is_named(run, kind):
    directory, rng = directory_of(run, kind), random.Random(kind)
    files = [p for p in sorted(directory.rglob("*")) if p.is_file()]
    assert {"manifest.json", "plan.json"} < {p.name for p in files}
    silent = []
    for n in range(100):
        path = files[n % len(files)]
        raw = path.read_bytes()
        at, bit = rng.randrange(len(raw)), rng.randrange(8)
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 1 << bit]) + raw[at + 1 :])
        if str(path) not in {name for name, _ in faults(directory)}:
            silent.append((path.name, at, bit))
        path.write_bytes(raw)
    assert silent == [] and not faults(directory)


@pytest.mark.parametrize("kind", ["features", "run"])
def test_every_single_bit_of_a_manifest_counts(run, kind, monkeypatch):
    """Whitespace, the case of an escape or exponent, and the seal's own key and digits are no exception."""
    from edjax.keep.verify import Verified, _manifest

    directory = directory_of(run, kind)
    path = directory / "manifest.json"
    raw = path.read_bytes()
    monkeypatch.setattr(type(path), "exists", lambda self: True)
    for at in range(len(raw)):
        for bit in range(8):
            changed = raw[:at] + bytes([raw[at] ^ 1 << bit]) + raw[at + 1 :]
            monkeypatch.setattr(type(path), "read_bytes", lambda self, b=changed: b)
            found = Verified()
            assert _manifest(directory, found) is None and found.faults[0].path == path, (at, bit, changed[at : at + 9])


def test_what_is_missing_too_long_unknown_or_a_link_is_named(run):
    cell = run / "cells" / "random-b4-s0"
    (run / "features" / "shard-00000.parquet").unlink()
    (cell / "evaluation" / "rows.jsonl").write_text("{}\n")
    (cell / "adapter" / "notes.txt").write_text("mine")
    (cell / "evaluation" / "link").symlink_to(run)
    (cell / "adapter" / ".lock").write_text("")
    (cell / "adapter" / "x.tmp-12").write_text("half")
    said = dict(faults(run))
    assert said.pop(f"{run}/features/shard-00000.parquet").startswith("is missing; run the command")
    assert said.pop(f"{cell}/evaluation/rows.jsonl").startswith("is damaged: it does not have the size")
    assert said.pop(f"{cell}/adapter/notes.txt") == "is in no manifest"
    assert said.pop(f"{cell}/evaluation/link") == "is a link, and edjax writes none"
    assert said == {}


def test_unfinished_directories_are_named_and_what_is_whole_beside_them_is_checked(run):
    cell = run / "cells" / "random-b4-s0"
    for path in (run, cell / "adapter"):
        (path / "manifest.json").unlink()
    (cell / "evaluation" / "scores.json").write_text("{}")
    said = faults(run)
    assert [p for p, what in said if "is unfinished" in what] == [str(run), f"{cell}/adapter"]
    assert f"{cell}/evaluation/scores.json" in dict(said)


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "sub/../../secret", "link", "below/secret", "", "."])
def test_a_manifest_that_points_outside_is_refused_and_nothing_outside_is_read(tmp_path, name, monkeypatch):
    path = tmp_path / "x"
    with writing(path, kind="adapter", config={}, inputs={}) as artifact:
        (tmp_path / "secret").write_text("content")
        (path / "link").symlink_to(tmp_path / "secret")
        (path / "below").symlink_to(tmp_path)
        artifact.finish(files={})
    raw = (path / "manifest.json").read_text()
    manifest = json.loads(raw) | {"schema": 1, "files": {name: {"size": 7, "sha256": "0"}}}
    del manifest["sha256"]
    (path / "manifest.json").write_text(json.dumps(manifest))
    read = []
    monkeypatch.setattr("edjax.keep.verify.sha256_file", lambda p: read.append(p.name) or "0")
    what = dict(faults(path))[str(path / "manifest.json")]
    assert what == f"names {name!r}, which is outside {path} or behind a link" and read == ["plan.json"]


def test_a_manifest_from_before_seals_is_checked_and_noted(run):
    path = run / "features"
    old = json.loads((path / "manifest.json").read_text())
    old = {k: v for k, v in old.items() if k not in ("sha256", "plan")} | {"schema": 1}
    write_json(path / "manifest.json", old)
    found = verify([path])
    assert not found.faults and "has no seal: it was written before there were any" in found.notes[0]
    assert read_features(path).ids
    (path / "shard-00000.parquet").write_bytes(b"")
    assert faults(path)
    (path / "plan.json").write_text("{}")
    assert str(path / "plan.json") in dict(faults(path))


def test_a_newer_schema_and_no_manifest_at_all(tmp_path):
    from edjax.keep.store import UNSEALED, seal

    with writing(tmp_path / "x", kind="adapter", config={}, inputs={}) as artifact:
        artifact.finish()
    path = tmp_path / "x" / "manifest.json"
    manifest = json.loads(path.read_text()) | {"schema": 3, "sha256": UNSEALED}
    text = json.dumps(manifest)
    path.write_text(text.replace(UNSEALED, seal(text.encode(), UNSEALED)))
    assert faults(tmp_path) == [(str(path), "is of schema 3; use a newer edjax")]
    for text in ("[]", "{}", "", '{"files": {"a": 1}}', '{"files": {}, "kind": "x"}', "[" * 9999):
        path.write_text(text)
        assert faults(tmp_path)[0][0] == str(path)


def test_the_chain_inside_a_run(run):
    """Features or an adapter from elsewhere, each whole in itself, are not those that the rest was made from."""
    cell = run / "cells" / "random-b4-s0"
    (run / "manifest.json").unlink()
    shutil.rmtree(cell / "adapter")
    shutil.rmtree(run / "features")
    adapter(cell / "adapter", seed=1)
    features(run / "features", rows=11)
    with writing(run, kind="run", config=CONFIG, inputs={"pool": "p"}) as artifact:
        artifact.finish()
    said = dict(faults(run))
    assert said.pop(f"{run}/selections/random-b4-s0").startswith("was not made from these features")
    assert said.pop(f"{cell}/evaluation").startswith("was not made from any adapter here")
    assert said == {}


# The verb


def test_the_verb_on_what_is_sound(edjax_, sound):
    code, out, err = edjax_("verify", sound)
    assert (code, err) == (0, "") and re.fullmatch(r"6 artefacts sound, \d+ files read\n", out)
    code, out, _ = edjax_("verify", sound / "features", sound / "base", "--json")
    said = json.loads(out)
    assert code == 0 and said["sound"] and said["faults"] == []
    assert [a["kind"] for a in said["artefacts"]] == ["features", "evaluation"]


def test_the_verb_on_what_is_not(edjax_, run):
    shard = run / "features" / "shard-00000.parquet"
    shard.write_bytes(shard.read_bytes()[:-1] + b"X")
    code, out, err = edjax_("verify", run)
    assert code == 3 and out == f"{shard} is damaged: its sha256 is not the manifest's; {AGAIN}\n"
    assert err == f"edjax: error: 1 fault found below {run}\n"
    code, out, _ = edjax_("verify", run, "--json")
    assert code == 3 and [f["path"] for f in json.loads(out)["faults"]] == [str(shard)]


AGAIN = "run the command that wrote it again with --overwrite"


def test_what_can_not_be_verified(edjax_, tmp_path):
    assert edjax_("verify")[0] == 2
    for path, said in ((tmp_path / "none", "is not a directory"), (tmp_path, "holds nothing that edjax wrote")):
        code, out, err = edjax_("verify", path)
        assert (code, out) == (3, "") and said in err
    with pytest.raises(DataError):
        verify([tmp_path])


def test_a_file_that_can_not_be_read(run, monkeypatch):
    path = run / "features" / "shard-00000.parquet"

    def refuse(p):
        if p == path:
            raise PermissionError(13, "Permission denied")
        return real(p)

    real = edjax.keep.verify.sha256_file
    monkeypatch.setattr(edjax.keep.verify, "sha256_file", refuse)
    assert dict(faults(run))[str(path)].startswith("cannot be read (Permission denied)")
