"""Shows mkdocstrings the package as it is installed: pyproject.toml maps the directory kernels/ to edjax.kernels.

mkdocstrings reads source files, not the installed package, so it gets a directory of links in which edjax/kernels is
there.
"""

import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
_LINKS = tempfile.TemporaryDirectory(prefix="edjax-docs-")  # gone when the build ends


def on_config(config):
    """Point mkdocstrings at the links, and at nothing else that is called edjax."""
    package = Path(_LINKS.name) / "edjax"
    package.mkdir(exist_ok=True)
    for path in (ROOT / "edjax").iterdir():
        _link(package / path.name, path)
    _link(package / "kernels", ROOT / "kernels")
    config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [_LINKS.name]
    return config


def _link(link: Path, target: Path) -> None:
    if not link.is_symlink():
        link.symlink_to(target)
