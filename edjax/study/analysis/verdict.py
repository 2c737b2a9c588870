"""The sentence: which strategy saved how many labels, and how sure that is; or that none did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edjax.study.analysis.seeds import FEW, FEWEST, NULL_FROM
from edjax.study.analysis.shares import Entry, ends, has_interval, is_lead, percent


def verdict(
    found: Mapping[str, Any],
    metric: str,
    higher_is_better: bool,
    *,
    group_by: str | None = None,
    baseline: str = "random",
) -> str:
    """One sentence on what `analyse` found: a saving is claimed where its interval leaves out zero, and nowhere else.

    group_by: the column whose values' means were averaged; a second sentence then says what the mean over rows gives.
    """
    points, savings = found["curves"].get(baseline), found["savings"]
    if not points:
        return f"No cell of {baseline} was run, so there is nothing to compare with."
    if not savings:
        return f"Only {baseline} was run, so nothing can be said about saving labels."
    largest, name = points[-1]["budget"], metric.replace("_", " ")
    if group_by:
        name += f" (mean over {group_by})"
    reason = savings[0].get("reason")
    if reason == "base":
        return (
            f"Finetuning on {largest} {baseline} labels did not improve {name} over the model before it, "
            "so there is nothing to save labels on."
        )
    if reason == "flat":
        return (
            f"More labels of {baseline} did not improve {name} from {points[0]['budget']} to {largest}, "
            "so no saving can be said."
        )
    if reason == "budgets" and len(points) < 2:
        said = against_baseline(found["differences"], higher_is_better, baseline)
        return f"{said} One budget is no curve: a saving takes two or more." if said else savings[0]["note"] + "."
    known = [s for s in savings if s["share_saved"] is not None]
    beyond = [f"{s['strategy']} {s['note']}." for s in savings if s.get("reason") == "beyond"]
    if not known and beyond:
        return f"In {name}: {' '.join(beyond)}"
    if not known:
        notes = "; ".join(f"{s['strategy']} {s['note']}" for s in savings)
        return f"No saving can be said: {notes}."
    clear = [s for s in known if s["low"] is not None and s["low"] > 0]
    best = max(clear or known, key=lambda s: s["share_saved"])
    rows = [s for s in (found.get("by_rows") or {}).get("savings", ()) if s["strategy"] == best["strategy"]]
    said = _of(best, len(savings), bool(beyond), name, largest, baseline)
    return " ".join([*beyond, said, *(_by_rows(s, baseline) for s in rows)])


def _of(best: Entry, strategies: int, beyond: bool, name: str, largest: int, baseline: str) -> str:
    """Of the best strategy whose saving the budgets measure; `beyond`: some save more than these do."""
    rank = "the best that was measured" if beyond else "the best"
    chance = f", {rank} of {strategies} strategies" if strategies > 1 else ""
    if best["low"] is not None and best["low"] > 0:
        said = (
            f"{best['strategy']} reached {baseline}'s {name} at {largest} labels with about "
            f"{best['budget_needed']:.0f}: {percent(best['share_saved'])} saved ({sure(best, baseline)}){chance}."
        )
        if is_lead(best):
            said += f" {baseline.capitalize()} against itself reaches as much: a lead, not a result."
        return said
    amount = f"{best['strategy']}{chance}, {percent(best['share_saved'])} ({sure(best, baseline)})"
    if has_interval(best) and (best["high"] is None or best["high"] > 0):
        return f"No saving of labels was shown in {name}, since the interval holds zero: {amount}."
    if best["share_saved"] <= 0.005:
        return f"No {'other ' if beyond else ''}strategy saved labels in {name}: {amount}."
    return f"A lead, not a result, by the curves of {name} alone: {amount}."


def _by_rows(s: Entry, baseline: str) -> str:
    if s["share_saved"] is None:
        return f"By the mean over rows no saving can be said of {s['strategy']}: {s['note']}."
    return f"By the mean over rows: {s['strategy']} {percent(s['share_saved'])} ({sure(s, baseline)})."


def sure(s: Entry, baseline: str = "random") -> str:
    """Interval, seeds and null of a saving, in words."""
    mine, theirs = s["seeds"], s["baseline_seeds"]
    seeds = f"{mine} {'seed' if mine == 1 else 'seeds'} against {theirs}"
    if has_interval(s):
        few = " few" if min(mine, theirs) < FEW else ""
        said = f"95 % interval {ends(s)} over{few} seeds, {mine} against {theirs}"
    else:
        said = f"no interval from {seeds}, it takes {FEWEST} each"
    null = s.get("null")
    if null:
        return f"{said}; {baseline} against itself {ends(null)}"
    few = f", it takes {NULL_FROM} seeds" if theirs < NULL_FROM else ""
    return f"{said}; {baseline} against itself not known{few}"


def against_baseline(differences: Sequence[Entry], higher_is_better: bool, baseline: str = "random") -> str:
    """The strategy that is farthest ahead at its budget; better or worse only where an interval leaves out zero."""
    if not differences:
        return ""
    sign = 1 if higher_is_better else -1
    best = max(differences, key=lambda d: sign * d["mean"])
    labels = f"With {best['budget']} labels {best['strategy']}"
    seeds = f"{best['seeds']} {'seed' if best['seeds'] == 1 else 'seeds'} against {best['baseline_seeds']}"
    if best["low"] is None:
        return f"{labels} is {best['mean']:+.3f} from {baseline} ({seeds}: too few for an interval, a lead at most)."
    low, high = sorted((sign * best["low"], sign * best["high"]))
    word = "better than" if low > 0 else "worse than" if high < 0 else "not clearly different from"
    interval = f"{best['mean']:+.3f}, 95 % interval {best['low']:+.3f} to {best['high']:+.3f}, {seeds}"
    return f"{labels} is {word} {baseline} ({interval})."
