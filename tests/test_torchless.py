"""A command line does without torch, and no package but transformers can tell."""

import json
import subprocess
import sys

import pytest

LINE = """
import sys
from edjax.cli import main
sys.argv = ["edjax", *{words!r}]
try: main()
except SystemExit as e: assert not e.code, e.code
"""
HIDDEN = """
from importlib.machinery import PathFinder
find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *a: None if name.partition(".")[0] == "torch" else find(name, *a)
"""


def run(code, cwd):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def words(shared, tmp_path):
    row = {"id": "a", "prompt": "One day, a girl", "response": "went to the park."}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    model = str(shared / "models" / "stories260k")
    return ["evaluate", "rows.jsonl", "--model", model, "--max-new-tokens", "2", "--out", "out"]


@pytest.mark.parametrize("before", ["", HIDDEN], ids=["as installed", "where torch is not"])
def test_evaluate_with_its_default_metrics(words, tmp_path, before):
    """rouge_score brings nltk and scipy, which look at whatever sys.modules calls torch."""
    said = run(before + LINE.format(words=words), tmp_path)
    assert "rouge_l" in said and (tmp_path / "out" / "scores.json").exists()


def test_only_transformers_goes_without_torch(words, tmp_path):
    seen = """
import importlib.util
assert "torch" not in sys.modules
there = importlib.util.find_spec("torch") is not None  # a None in sys.modules would raise here
import datasets.config
assert datasets.config.TORCH_AVAILABLE == there
"""
    run(LINE.format(words=words) + seen, tmp_path)


def test_a_library_call_leaves_transformers_as_it_is(torch, shared, tmp_path):
    code = f"""
import edjax
from edjax.lm.load import load
load({str(shared / "models" / "stories260k")!r})
from transformers.utils import is_torch_available
assert is_torch_available()
"""
    run(code, tmp_path)
