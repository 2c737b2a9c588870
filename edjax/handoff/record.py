"""What files of answers hold, whatever tool wrote them.

An `Entry` is one record and where it stands; an `Answer` is what it says about a row. The formats' modules turn one
into the other.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from edjax.keep.errors import DataError

SKIPPED, EMPTY = "skipped by the annotator", "empty"


class Entry(NamedTuple):
    """A record of a file and its place in it, for a person to find."""

    where: str
    record: dict[str, Any]


class Answer(NamedTuple):
    """What one record says: the row's id, the text (None: none), and the prompt as the tool had it.

    why: where there is no text, what was found in its place. names: whose answer it is, as their tool calls them.
    truth: whether somebody marked it as the right one. at: when it was made, as the tool writes it.
    """

    id: str
    text: str | None
    where: str
    prompt: Any = None
    row: dict[str, Any] | None = None
    why: str = ""
    names: tuple[str, ...] = ()
    truth: bool = False
    at: str = ""


class BadAnswer(DataError):
    """A record that is no answer to a row."""
