"""The package as others meet it: doctests, what it imports, what it exports."""

import doctest
import importlib
import pkgutil
import subprocess
import sys

import pytest

import edjax.kernels

MODULES = [m.name for m in pkgutil.walk_packages(edjax.kernels.__path__, "edjax.kernels.")]


@pytest.mark.parametrize("module", MODULES)
def test_doctests(module):
    loaded = importlib.import_module(module)
    result = doctest.testmod(loaded, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


@pytest.mark.parametrize("name", [n for n in edjax.kernels.__all__ if n.islower()])
def test_public_functions_have_a_doctest(name):
    assert ">>>" in getattr(edjax.kernels, name).__doc__ or name == "sequence_scores"


def test_import_pays_for_jax_alone():
    code = """
import sys, edjax.kernels
heavy = {"flax", "transformers", "datasets", "torch", "optax", "orbax", "pyarrow", "rich", "click"}
ours = {m for m in sys.modules if m.split(".")[0] == "edjax"} - {"edjax"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
assert all(m.startswith("edjax.kernels") for m in ours), ours
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
