"""Shows mkdocstrings the package as it is installed: pyproject.toml maps the directory kernels/ to edjax.kernels.

mkdocstrings reads source files, not the installed package, so it gets a copy in which edjax/kernels is there.
"""

import shutil
import tempfile
from pathlib import Path

from mkdocs.plugins import event_priority

ROOT = Path(__file__).parents[2]
_COPY = tempfile.TemporaryDirectory(prefix="edjax-docs-")  # gone when the build ends


@event_priority(100)  # before mkdocstrings reads its settings
def on_config(config):
    """Point mkdocstrings at a fresh copy, and at nothing else that is called edjax."""
    package = Path(_COPY.name) / "edjax"
    shutil.rmtree(package, ignore_errors=True)
    shutil.copytree(ROOT / "edjax", package, ignore=shutil.ignore_patterns("__pycache__", "kernels"))
    shutil.copytree(ROOT / "kernels", package / "kernels", ignore=shutil.ignore_patterns("__pycache__"))
    config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [_COPY.name]
    return config
