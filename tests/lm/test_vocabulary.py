"""A tokenizer's ids are rows of the embedding, or the model is refused before anything is computed."""

import json
import shutil

import pytest
from lm_cases import tiny_model

from edjax.keep.errors import DataError
from edjax.lm.load import load


def add_token(directory, *contents, special=True, first=258, **settings):
    """Adds tokens to the tokenizer of a tiny model, whose embedding has 258 rows."""
    path = directory / "tokenizer.json"
    state = json.loads(path.read_text())
    like = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": special}
    state["added_tokens"] += [{"id": first + i, "content": c, **like} for i, c in enumerate(contents)]
    path.write_text(json.dumps(state))
    config = directory / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | settings))


@pytest.mark.parametrize("special", [True, False])
def test_tokens_beyond_the_rows_are_refused(tmp_path, special):
    tiny_model(tmp_path)
    add_token(tmp_path, "<|new|>", special=special)
    with pytest.raises(DataError, match=r"has 258 rows.*beyond them: '<\|new\|>' \(258\); take them out") as e:
        load(str(tmp_path))
    assert str(tmp_path) in str(e.value)


def test_many_are_counted(tmp_path):
    tiny_model(tmp_path)
    add_token(tmp_path, *(f"<{i}>" for i in range(5)))
    with pytest.raises(DataError, match=r"'<0>' \(258\), '<1>' \(259\), '<2>' \(260\) and 2 more"):
        load(str(tmp_path))


def test_a_vocabulary_for_another_model_is_refused(tmp_path):
    """Not an added token: the tokenizer's own vocabulary is larger."""
    tiny_model(tmp_path)
    state = json.loads((tmp_path / "tokenizer.json").read_text())
    state["model"]["vocab"] |= {f"w{i}": 258 + i for i in range(40)}
    (tmp_path / "tokenizer.json").write_text(json.dumps(state))
    with pytest.raises(DataError, match=r"'w0' \(258\).* and 37 more"):
        load(str(tmp_path))


def test_the_case_as_it_is_sent(shared, tmp_path, fails):
    for file in (shared / "cases" / "models" / "added_token").iterdir():
        shutil.copy(file, tmp_path)
    shutil.copy(shared / "models" / "stories260k" / "model.safetensors", tmp_path)
    rows = shared / "cases" / "newtok.jsonl"
    for verb in ("score", "finetune", "evaluate"):
        line = fails(3, verb, rows, "--model", tmp_path, "--out", tmp_path / "out")
        assert "512 rows" in line and "'<|new|>' (512)" in line


def test_fewer_tokens_than_rows_are_fine(tmp_path):
    """Embeddings are padded to round sizes: Qwen's and Phi-3's have rows without a token."""
    tiny_model(tmp_path, vocab_size=320)
    add_token(tmp_path, "<|new|>")
    assert load(str(tmp_path)).tokenizer("<|new|>").input_ids == [258]


@pytest.mark.parametrize("token", ["<image_soft_token>", "<pad>"])
def test_tokens_that_no_text_needs_are_read_as_text(tmp_path, token):
    """Gemma 3 1B is shipped with a mark of images one beyond its rows; finetunes add a padding token."""
    tiny_model(tmp_path)
    add_token(tmp_path, token, **({"pad_token": token} if token == "<pad>" else {}))
    tokenizer = load(str(tmp_path)).tokenizer
    ids = tokenizer(f"a{token}b").input_ids
    assert max(ids) < 258 and tokenizer.decode(ids) == f"a{token}b"
    assert tokenizer("a<|endoftext|>").input_ids == [64, 256]


def test_a_padding_token_that_ends_texts_is_needed(tmp_path):
    tiny_model(tmp_path)
    add_token(tmp_path, "<pad>", pad_token="<pad>", eos_token="<pad>")
    with pytest.raises(DataError, match="'<pad>'"):
        load(str(tmp_path))


def test_a_directory_without_a_tokenizer_says_so(tmp_path):
    tiny_model(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(DataError, match=r"it has no tokenizer\.json") as e:
        load(str(tmp_path))
    assert "\n" not in str(e.value)
