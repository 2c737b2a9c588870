"""How a pool is read: the options of every verb that takes one, remembered in what is made of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edjax.settings import setting

READING = "What is read"
STDIN = "-"
Named = str | Path | Sequence[str | Path]  # what names a pool


def called(source: Named) -> str:
    """A source in a message: its name, or the first of several and how many more."""
    names = [source] if isinstance(source, str | Path) else list(source)
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]}{more}" if names else "nothing"


@dataclass(frozen=True)
class Reading:
    """The options of `read_pool` that say what a pool is: whoever reads it again needs the same ones."""

    text_column: str | None = setting(
        None, "Column with the prompt, where the name is none edjax knows.", section=READING, kind=str
    )
    id_column: str | None = setting("id", "Column that names the rows.", section=READING)
    split: str | None = setting(
        None, "Split of a `datasets` directory or hub data set that has several.", section=READING, kind=str
    )
    revision: str | None = setting(None, "Branch, tag or commit of a hub data set.", section=READING, kind=str)
    skip_bad_lines: bool = setting(False, "Leave malformed lines out and count them.", section=READING)

    @classmethod
    def of(cls, given: Mapping[str, Any], remembered: Mapping[str, Any] | None = None, source: Named = "") -> Reading:
        """What is given; where that is None, what a manifest remembers, else the default. A `source` that is made of
        files has no split to remember, one on this machine no revision."""
        paths = [Path(p) for p in ([source] if isinstance(source, str | Path) else source)]
        apart = {"split"} if all(p.is_file() for p in paths) else set()
        apart |= {"revision"} if all(p.exists() for p in paths) else set()
        names = {f.name for f in dataclasses.fields(cls)} - apart
        found = {k: v for k, v in (remembered or {}).items() if k in names}
        return cls(**found | {k: v for k, v in given.items() if v is not None})

    def record(self) -> dict[str, Any]:
        """What a manifest remembers: the options that are not the defaults."""
        return {k: v for k, v in dataclasses.asdict(self).items() if v != getattr(Reading, k)}
