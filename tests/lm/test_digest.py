"""What results depend on is in the digest of a model, and a changed file is seen."""

import os
import time

import pytest
from lm_cases import tiny_model

from edjax.lm import load


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.setenv("EDJAX_CACHE", str(tmp_path / "cache"))
    tiny_model(tmp_path / "m")
    return tmp_path / "m"


@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors",
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "tokenizer.model",
        "spiece.model",
        "qwen.tiktoken",
        "vocab.txt",
        "merges.txt",
        "chat_template.jinja",
        "additional_chat_templates/tools.jinja",
    ],
)
def test_every_file_that_a_model_is_read_from_counts(model, name):
    before = load.digest(model)
    (model / name).parent.mkdir(exist_ok=True)
    with open(model / name, "ab") as f:
        f.write(b" ")
    assert load.digest(model) != before


def test_what_is_not_read_does_not_count(model):
    before = load.digest(model)
    (model / "README.md").write_text("a model")
    (model / "modeling_x.py").write_text("")
    assert load.digest(model) == before


def test_a_large_file_with_another_s_date_is_seen(model):
    """Remembered digests must not outlive the bytes: same size, same date, another content."""
    path, when = model / "big.safetensors", time.time() - 100
    path.write_bytes(bytes(11_000_000))
    os.utime(path, (when, when))
    memory = load.smollm2.cache_dir() / "digests.json"
    first = load.digest(model)
    assert not memory.exists(), "what changed just now may change again within the grain of the clock"
    for settled in (False, True):
        if settled:
            time.sleep(2.1)
            assert load.digest(model) == first and memory.exists()
        with open(path, "r+b") as f:
            f.write(b"\1" if settled else b"\2")
        os.utime(path, (when, when))
        assert load.digest(model) != first
        with open(path, "r+b") as f:
            f.write(b"\0")
        os.utime(path, (when, when))
        assert load.digest(model) == first


@pytest.mark.parametrize("text", ["", "[]", "3", "{"])
def test_a_damaged_memory_is_no_matter(model, text):
    (model / "big.safetensors").write_bytes(bytes(11_000_000))
    before = load.digest(model)
    memory = load.smollm2.cache_dir() / "digests.json"
    memory.parent.mkdir(parents=True, exist_ok=True)
    memory.write_text(text)
    assert load.digest(model) == before
