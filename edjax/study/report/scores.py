"""The label-efficiency curve and the table of every score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edjax.charts import charts
from edjax.charts.svg import Style
from edjax.charts.words import METRICS, MetricWords, duration, finite, metric_words, number
from edjax.study.analysis.shares import is_lead
from edjax.study.report.reading import (
    BASELINE,
    LOSS,
    best_saving,
    either,
    has_interval,
    is_clear,
    mean,
    part,
    primary,
)


def curve(results: Mapping[str, Any], looks: Mapping[str, Style], metric: MetricWords) -> dict[str, Any] | None:
    """The label-efficiency curve in two widths, and what is off the picture."""
    data = {str(name): points for name, points in part(results, "curves").items()}
    base = primary(results, part(results, "base"))
    best = best_saving(results)
    needed = finite(best.get("budget_needed")) if best and is_clear(best) and not is_lead(best) else None
    arrow = (best["strategy"], needed) if best and needed is not None else None
    wide, narrow = (
        charts.efficiency(data, looks, metric, base=base, needed=arrow, baseline=BASELINE, width=w)
        for w in (charts.WIDE, charts.NARROW)
    )
    if wide is None:
        return None
    return {
        "wide": wide,
        "narrow": narrow,
        "names": [n for n in looks if n in data],
        "base": metric.format(base) if base is not None else None,
        "off": base is not None and "before finetuning" not in wide,
        "banded": any(has_interval(p) for points in data.values() for p in points or ()),
        "no_baseline": BASELINE not in data,
    }


def cells(results: Mapping[str, Any]) -> dict[str, Any] | None:
    """The table of all cells: a strategy and budget a row, means over seeds, the best score of a budget marked."""
    runs = [c for c in results.get("cells") or () if c.get("strategy")]
    base = part(part(results, "base"), "scores")
    if not runs and not base:
        return None
    first = part(results, "metric").get("name") or LOSS
    by = part(results, "metric").get("group_by")
    seen = dict.fromkeys(k for scores in [base, *(part(c, "scores") for c in runs)] for k in scores)
    names = sorted(seen, key=lambda k: (k != first, list(METRICS).index(k) if k in METRICS else 99))
    better = part(results, "metric").get("higher_is_better")
    words = {n: metric_words(n, better if n == first else None) for n in names}
    heads = [words[n] for n in names]
    if by:
        heads = [words[first].by(str(by)), *heads] if first in words else heads

    grouped: dict[tuple[Any, str], list[Mapping[str, Any]]] = {}
    for c in runs:
        grouped.setdefault((c.get("budget"), c["strategy"]), []).append(c)
    sign = 1 if first in words and words[first].higher_is_better else -1
    means = {key: mean(primary(results, c) for c in group) for key, group in grouped.items()}

    def values(group: Sequence[Mapping[str, Any]]) -> list[list[Any]]:  # of each column
        over_rows = [[part(c, "scores").get(n) for c in group] for n in names]
        return [[primary(results, c) for c in group], *over_rows] if len(heads) > len(names) else over_rows

    order = sorted(grouped, key=lambda k: (either(finite(k[0]), 0), -sign * either(means[k], -sign * 1e300), k[1]))
    best: dict[Any, float] = {}
    for (budget, _), score in means.items():
        if score is not None:
            best[budget] = max(best.get(budget, sign * score), sign * score)

    def all_tied(budget: Any) -> bool:
        here = [m for (b, _), m in means.items() if b == budget]
        return len(here) > 1 and len(set(here)) == 1

    rows = []
    for key in order:
        group = grouped[key]
        score = means[key]
        rows.append(
            {
                "budget": number(key[0]),
                "strategy": key[1],
                "seeds": number(len(group)),
                "scores": [_cell(w, v) for w, v in zip(heads, values(group), strict=True)],
                "tokens": number(mean(c.get("response_tokens") for c in group), 4),
                "finetune": duration(mean(part(c, "seconds").get("finetune") for c in group)),
                "evaluate": duration(mean(part(c, "seconds").get("evaluate") for c in group)),
                "best": score is not None and sign * score == best[key[0]] and not all_tied(key[0]),
            }
        )
    return {
        "metrics": [
            (
                w.label,
                "higher is better" if w.higher_is_better else "lower is better",
                "↑" if w.higher_is_better else "↓",
            )
            for w in heads
        ],
        "rows": rows,
        "base": [_cell(w, v)[0] for w, v in zip(heads, values([part(results, "base")]), strict=True)] if base else None,
        "base_seconds": duration(part(results, "base").get("seconds")),
    }


def _cell(words: MetricWords, values: Sequence[Any]) -> tuple[str, str]:
    """Mean over seeds, and the range of them where there are several."""
    good = [x for v in values if (x := finite(v)) is not None]
    low, high = (words.format(min(good)), words.format(max(good))) if good else ("", "")
    return words.format(mean(good)), f"{low.removesuffix(' %')} to {high}" if low != high else ""
