"""What was picked: gain curves, the prompts as text, overlap and coverage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edjax.charts import charts
from edjax.charts.svg import Style
from edjax.charts.words import duration, finite, number, percent
from edjax.study.report.reading import (
    either,
    largest_budget,
    mean,
    part,
    place,
)

SPENT = 0.01  # gains below this share of the largest count as nothing


def _one_each(results: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The first selection listed of every strategy."""
    out: dict[str, Mapping[str, Any]] = {}
    for s in results.get("selections") or ():
        if s.get("strategy"):
            out.setdefault(s["strategy"], s)
    return out


def relative_gains(raw: Sequence[Any] | None) -> list[float] | None:
    """Gains from the second pick on, as shares of the largest of them; None where they are missing or no gains.

    The first pick is left out: its gain is measured against nothing and dwarfs the others (facility location), or does
    not exist (k-center). A series with a negative value is a score, not a gain.
    """
    series = [finite(g) for g in (raw or ())[1:]]
    good = [g for g in series if g is not None]
    if not good or len(good) < len(series) or min(good) < 0 or max(good) <= 0:
        return None
    return [g / max(good) for g in good]


def gains(results: Mapping[str, Any], looks: Mapping[str, Style]) -> dict[str, Any] | None:
    """The gain curves in two widths, and a sentence a strategy on where its gains end."""
    listed = _one_each(results)
    chosen = {name: listed[name] for name in looks if name in listed}
    if not chosen:
        return None
    series = {name: g for name in chosen if (g := relative_gains(chosen[name].get("gains")))}
    notes = []
    for name, s in chosen.items():
        if name in series:
            alive = [i for i, g in enumerate(series[name]) if g >= SPENT]
            last, total = alive[-1] + 2, len(series[name]) + 1
            spent = f"adds almost nothing after pick {number(last)} of {number(total)}"
            text = (
                spent if last < total else f"the last pick still brings {percent(series[name][-1])} of the largest gain"
            )
            notes.append((name, text, s.get("warning")))
        elif s.get("warning"):
            notes.append((name, "", s["warning"]))
    wide, narrow = (charts.gain_curves(series, looks, width=w) for w in (charts.WIDE, charts.NARROW))
    without = [name for name in chosen if name not in series]
    return {"wide": wide, "narrow": narrow, "names": list(series), "notes": notes, "without": without}


def picks(results: Mapping[str, Any], looks: Mapping[str, Style]) -> list[dict[str, Any]] | None:
    """First and last picks as text, one entry a strategy."""
    out = []
    for name, s in sorted(_one_each(results).items(), key=lambda item: place(looks, item[0])):
        first, last = list(s.get("first") or ()), list(s.get("last") or ())
        if first or last:
            total = len(s.get("ids") or ()) or None
            seed = s.get("seed")
            out.append({"strategy": name, "seed": seed, "first": first, "last": last, "total": total})
    return out or None


def overlap(results: Mapping[str, Any]) -> dict[str, Any] | None:
    """The heat table: (text, step 0-9) a cell, and what two random selections would share."""
    data = part(results, "overlap")
    names, matrix = list(data.get("strategies") or ()), list(data.get("matrix") or ())
    if len(names) < 2 or not matrix:
        return None
    rows = []
    for name, row in zip(names, matrix, strict=False):
        values = [finite(v) for v in row]
        rows.append((name, [(percent(v), min(9, max(0, int(either(v, 0.0) * 10)))) for v in values]))
    n, k = finite(part(results, "pool").get("rows")), largest_budget(results)
    chance = percent(k / (2 * n - k)) if n and k and 0 < k < n else None
    return {"names": names, "rows": rows, "chance": chance, "budget": number(k) if k else None}


def coverage(results: Mapping[str, Any], looks: Mapping[str, Style]) -> list[dict[str, Any]] | None:
    """Tasks reached and prompt length, a strategy a row, means over its seeds, widest first."""
    by_name: dict[str, list[Mapping[str, Any]]] = {}
    for s in results.get("selections") or ():
        if s.get("strategy"):
            by_name.setdefault(s["strategy"], []).append(s)
    out = []
    for name, group in by_name.items():
        covered = mean(s.get("tasks_covered") for s in group)
        total = mean(s.get("tasks_total") for s in group)
        tokens = mean(s.get("mean_prompt_tokens") for s in group)
        seconds = mean(s.get("seconds") for s in group)
        share = covered / total if covered is not None and total else None
        out.append(
            {
                "strategy": name,
                "share": share,
                "text": f"{number(covered)} of {number(total)}" if share is not None else number(covered),
                "meter": charts.meter(share, looks[name]) if share is not None else "",
                "tokens": number(tokens),
                "seconds": duration(seconds),
            }
        )
    return sorted(out, key=lambda row: -either(row["share"], -1)) or None
