"""A saving in figures, as the verdict and the page write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Entry = Mapping[str, Any]


def has_interval(s: Entry) -> bool:
    """Whether an interval was computed; one of its ends may be beyond what the budgets measure."""
    return s["low"] is not None or s["high"] is not None


def is_lead(s: Entry) -> bool:
    """Whether the baseline reaches as much against itself: then a saving is a lead, whatever its interval says."""
    return bool(s.get("null")) and s["share_saved"] <= s["null"]["high"]


def ends(s: Entry) -> str:
    """ "12 to 40 %"; an end that no budget bounds is open."""
    if s["low"] is None:
        return f"up to {percent(s['high'])}"
    if s["high"] is None:
        return f"{percent(s['low'])} or more"
    return f"{percent(s['low']).removesuffix(' %')} to {percent(s['high'])}"


def percent(share: float) -> str:
    """ "25 %"; what rounds to nothing has no sign."""
    text = f"{100 * share:.0f}"
    return f"{'0' if text == '-0' else text} %"
