"""What the names of a pool say before anything is read: standard input, a pattern, files, something with splits."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from pathlib import Path

from edjax.data.stored import is_saved

STDIN = "-"
Named = str | Path | Sequence[str | Path]  # what names a pool
SPLIT = re.compile(r"(train|test|validation|valid|val|dev|eval|evaluation)(?![A-Za-z0-9])", re.IGNORECASE)


def names_of(source: Named) -> list[str]:
    """Every name of a source."""
    return [str(source)] if isinstance(source, str | Path) else [str(s) for s in source]


def called(source: Named) -> str:
    """A source in a message: its name, or the first of several and how many more."""
    names = names_of(source)
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]}{more}" if names else "nothing"


def piped(source: Named | None) -> bool:
    """Whether rows come from standard input, and so cannot be read again."""
    return source is not None and STDIN in names_of(source)


def is_pattern(name: str) -> bool:
    """Whether a name that is no path stands for those that match it."""
    return re.search(r"[*?\[]", name) is not None


def is_here(name: str) -> bool:
    """Whether it is of this machine, so that no revision of a hub data set can be meant."""
    return name == STDIN or is_pattern(name) or Path(name).exists()


def may_have_splits(name: str) -> bool:
    """Whether a split can be one of it: of what `datasets` saved, a directory of files named after splits, a hub id."""
    path = Path(name)
    if path.is_dir():
        return is_saved(path) or any(SPLIT.match(p.name) for p in path.iterdir())
    if path.exists() or name == STDIN:
        return False
    return not is_pattern(name) or any(Path(p).is_dir() and may_have_splits(p) for p in glob.glob(name, recursive=True))
