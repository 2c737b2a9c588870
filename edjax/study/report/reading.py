"""Reading results that may lack anything: parts, means, intervals, the order of strategies."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from typing import Any

from edjax.charts.svg import Style
from edjax.charts.words import finite

BASELINE = "random"
LOSS = "response_loss"


def part(results: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The mapping under a key, or an empty one."""
    value = results.get(key)
    return value if isinstance(value, Mapping) else {}


def either(value: float | None, other: float) -> float:
    """The value, or the other one where it is None; 0 stays 0."""
    return other if value is None else value


def mean(values: Iterable[Any]) -> float | None:
    """The mean of those that are finite numbers, or None."""
    good = [x for v in values if (x := finite(v)) is not None]
    return statistics.fmean(good) if good else None


def has_interval(p: Mapping[str, Any]) -> bool:
    """Whether both `low` and `high` are finite numbers."""
    return finite(p.get("low")) is not None and finite(p.get("high")) is not None


def interval_of(p: Mapping[str, Any]) -> tuple[float, float]:
    """`low` and `high` of an entry that has an interval, the smaller first."""
    low, high = either(finite(p.get("low")), 0.0), either(finite(p.get("high")), 0.0)
    return min(low, high), max(low, high)


def strategies(results: Mapping[str, Any]) -> list[str]:
    """Every strategy named anywhere, in the order met; the savings come first, best first."""
    named = [s["strategy"] for s in by_saving(results)]
    named += list(part(results, "curves"))
    for key in ("cells", "selections"):
        named += [entry["strategy"] for entry in results.get(key) or () if entry.get("strategy")]
    named += list(part(results, "overlap").get("strategies") or ())
    named += list(part(part(results, "map"), "picks"))
    named += [d["strategy"] for d in results.get("differences") or () if d.get("strategy")]
    return list(dict.fromkeys(named))


def by_saving(results: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The savings, largest share first, those of which none can be said last."""
    rows = [s for s in results.get("savings") or () if s.get("strategy")]
    return sorted(rows, key=lambda s: -either(finite(s.get("share_saved")), -1e9))


def place(looks: Mapping[str, Style], name: str) -> int:
    """Where a strategy stands everywhere on the page: best saving first, random last."""
    return list(looks).index(name)


def largest_budget(results: Mapping[str, Any]) -> float | None:
    """The largest budget of random's curve, or of any curve, or of any cell."""
    curves = part(results, "curves")
    for points in (curves.get(BASELINE), [p for c in curves.values() for p in c or ()], results.get("cells")):
        budgets = [b for p in points or () if (b := finite(p.get("budget"))) is not None]
        if budgets:
            return max(budgets)
    return None


def best_saving(results: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The strategy that saved most, of those whose interval leaves out zero, where there are such."""
    rows = [s for s in by_saving(results) if s["strategy"] != BASELINE and finite(s.get("share_saved")) is not None]
    return next((s for s in rows if is_clear(s)), rows[0] if rows else None)


def is_clear(s: Mapping[str, Any]) -> bool:
    """Whether a saving can be claimed: its interval lies above zero."""
    return either(finite(s.get("low")), -1.0) > 0


def primary(results: Mapping[str, Any], scored: Mapping[str, Any]) -> float | None:
    """The primary metric of a cell or of the base model: by group where a column was named, else over rows."""
    metric = part(results, "metric")
    return finite(part(scored, "macro" if metric.get("group_by") else "scores").get(metric.get("name") or LOSS))
