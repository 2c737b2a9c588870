"""`edjax doctor`: it finds a sound machine sound, and names the remedy of each fault."""

import json
import os

import numpy as np
import pytest

from edjax.cli import doctor
from edjax.demo.tiny import write_tiny_model


def only(monkeypatch, *names):
    monkeypatch.setattr(doctor, "CHECKS", tuple(c for c in doctor.CHECKS if c.name in names))


def test_a_sound_machine(edjax_, tmp_path, monkeypatch):
    """Without the default model, and with no network, which the tests cut off."""
    monkeypatch.setenv("EDJAX_CACHE", str(tmp_path / "cache"))
    code, out, err = edjax_("doctor", "--out", tmp_path / "out", "--json")
    record = json.loads(out)
    assert code == 0 and record["sound"], (record["checks"], err)
    assert [c["name"] for c in record["checks"]] == ["packages", "devices", "kernels", "disk", "road", "torch"]
    assert all(c["ok"] and c["remedy"] is None and c["detail"] for c in record["checks"])
    assert record["environment"]["packages"]["jax"]
    assert not [*tmp_path.iterdir()], "nothing stays"


def test_directories_that_were_there_stay(tmp_path, monkeypatch):
    monkeypatch.setenv("EDJAX_CACHE", str(tmp_path / "cache"))
    (tmp_path / "own" / "empty").mkdir(parents=True)
    doctor.disk(tmp_path / "own" / "empty" / "a" / "b")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["empty", "own"]


def wrong_twin(monkeypatch, tmp_path):
    from edjax.kernels import reference

    right = reference.k_center
    monkeypatch.setattr(reference, "k_center", lambda x, k: right(x[::-1], k))


def no_device(monkeypatch, tmp_path):
    import jax

    def broken():
        raise RuntimeError("Unable to initialize backend\n 'cuda'")

    monkeypatch.setattr(jax, "local_devices", broken)


def wrong_product(monkeypatch, tmp_path):
    import jax

    monkeypatch.setattr(jax, "jit", lambda f: lambda x, y: np.asarray(f(x, y)) + np.eye(256))


def cache_is_a_file(monkeypatch, tmp_path):
    (tmp_path / "cache").write_text("")
    monkeypatch.setenv("EDJAX_CACHE", str(tmp_path / "cache"))


def no_rename(monkeypatch, tmp_path):
    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "replace", refuse)


def old_package(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "requires", lambda name: ["jax>=0.10", "flax>=0.12", "gguf>=99; extra == 'demo'"])
    monkeypatch.setattr(doctor, "version", lambda name: {"jax": "0.4.30", "flax": "0.12.8"}[name])


def nothing_learnt(monkeypatch, tmp_path):
    import edjax.evaluation
    import edjax.finetuning
    from edjax.evaluation.result import Evaluation

    tried = Evaluation({"response_loss": 2.5}, {"response_loss": 8}, [], 0.1)
    monkeypatch.setattr(edjax.evaluation, "evaluate", lambda *a, **k: tried)
    monkeypatch.setattr(edjax.finetuning, "finetune", lambda *a, **k: None)


FAULTS = [
    ("kernels", wrong_twin, "k_center picks", "set JAX_PLATFORMS=cpu"),
    ("devices", no_device, "RuntimeError: Unable to initialize backend 'cuda'", "pip install --upgrade 'edjax[gpu]'"),
    ("devices", wrong_product, "a product of matrices is wrong on", "update its driver"),
    ("disk", cache_is_a_file, "cache cannot be written", "set EDJAX_CACHE to a directory of yours"),
    ("disk", no_rename, "cannot be written", "free space, or set EDJAX_CACHE"),
    ("packages", old_package, "jax is 0.4.30 and must be >=0.10", "pip install 'jax>=0.10'"),
    ("road", nothing_learnt, "from 2.500 to 2.500", "send this with the output of `edjax env`"),
]


@pytest.mark.parametrize(("name", "spoil", "what", "remedy"), FAULTS, ids=lambda v: getattr(v, "__name__", ""))
def test_a_fault_has_a_remedy(edjax_, tmp_path, monkeypatch, name, spoil, what, remedy):
    only(monkeypatch, name, "torch")
    spoil(monkeypatch, tmp_path)
    code, out, err = edjax_("doctor", "--out", tmp_path)
    line = [text for text in out.splitlines() if text.startswith(f"{name} ")][-1]
    assert code == 1 and line[10:].startswith(" failed: ") and what in line
    assert remedy in line.partition("; ")[2]
    assert "\ntorch      ok: not needed" in out, "the others are tried all the same"
    assert err == f"edjax: error: {name} failed; the remedy stands in the line of each\n"


def test_a_fault_as_json(edjax_, monkeypatch, tmp_path):
    only(monkeypatch, "packages")
    old_package(monkeypatch, tmp_path)
    code, out, _ = edjax_("doctor", "--json")
    record = json.loads(out)
    assert code == 1 and not record["sound"] and record["checks"][0]["remedy"] == "pip install 'jax>=0.10'"


def test_the_tiny_model_is_the_same_on_every_machine(tmp_path):
    from edjax.lm.load import digest, load

    one, two = (write_tiny_model(tmp_path / name) for name in "ab")
    assert digest(one) == digest(two) != digest(write_tiny_model(tmp_path / "c", seed=1))
    text = "Größe: 3 µm\n"
    tokenizer = load(str(one)).tokenizer
    assert tokenizer.decode(tokenizer.encode(text)) == text and len(tokenizer.encode(text)) == len(text.encode())
