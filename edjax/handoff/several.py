"""Several answers to one row: which of them counts."""

from __future__ import annotations

import re
from collections.abc import Sequence

from edjax.handoff.record import Answer

_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d")  # ISO 8601, which sorts as text


def several(given: Sequence[Answer]) -> bool:
    """Whether they say different things."""
    return len({a.text for a in given}) > 1


def decide(given: Sequence[Answer], annotator: str | None) -> list[Answer]:
    """The answers that are left of those to one row: those marked as ground truth, where any are; of these, where they
    differ, the first or the last made, or those of the person of this name, where there are any."""
    left = [a for a in given if a.truth] or list(given)
    if annotator is None or not several(left):
        return left
    if annotator in ("first", "last"):
        made = sorted(left, key=lambda a: a.at) if all(_TIME.match(a.at) for a in left) else left
        return [made[0 if annotator == "first" else -1]]
    return [a for a in left if annotator in a.names] or left
