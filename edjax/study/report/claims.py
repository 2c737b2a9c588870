"""What the run claims, and how far it can be trusted: the top of the page and the tables of savings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edjax.charts.svg import Style
from edjax.charts.words import NONE, MetricWords, count, finite, number, percent
from edjax.study.analysis import shares
from edjax.study.report.reading import (
    BASELINE,
    best_saving,
    by_saving,
    has_interval,
    interval_of,
    is_clear,
    largest_budget,
    part,
    place,
)


def tiles(results: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The figures in large type: (figure, what it is, the small print). A saving is one only beyond its interval."""
    out = []
    best, budget = best_saving(results), largest_budget(results)
    others = sum(s["strategy"] != BASELINE for s in by_saving(results))
    beyond = [s for s in by_saving(results) if s.get("reason") == "beyond"]
    for s in beyond:
        out.append((str(s["strategy"]), "saves more than random's budgets measure", str(s.get("note") or "")))
    if best and budget:
        small = "; ".join(t for t in (best["strategy"], _interval(best), _seeds(best), _null(best)) if t)
        needed = finite(best.get("budget_needed"))
        if is_clear(best):
            lead = shares.is_lead(best)
            of = f"the best of {count(others, 'strategy', 'strategies')}"
            what = "fewer labels than random" + (": a lead, random reaches as much against itself" if lead else "")
            out.append((_share(best), what, f"{small}; {of}"))
            if needed is not None and not lead:
                what = f"labels do what {number(budget)} random ones do"
                out.append((number(round(needed)), what, "random's curve shifted, over all budgets"))
        elif not beyond:
            what = "strategy was shown to save labels" if others == 1 else "strategies were shown to save labels"
            out.append((f"0 of {others}", what, f"nearest {_share(best)}: {small}"))
    share = finite(part(results, "overhead").get("select_share_of_finetune"))
    if share is not None:
        out.append((percent(share), "of finetuning time goes into selecting", "the scoring pass is listed under Time"))
    return out


def how_sure(results: Mapping[str, Any], metric: MetricWords) -> list[str]:
    """Sentences on how far the figures can be trusted, computed from seeds, rows and intervals."""
    out = []
    seeds: dict[Any, set[Any]] = {}
    for c in results.get("cells") or ():
        seeds.setdefault(c.get("strategy"), set()).add(c.get("seed"))
    rows = finite(part(results, "evaluation").get("rows"))
    if seeds:
        on = f" on {count(int(rows), 'evaluation row')}" if rows else ""
        fewest, most = (f(len(s) for s in seeds.values()) for f in (min, max))
        said = count(most, "seed") if fewest == most else f"{fewest} to {most} seeds a strategy"
        out.append(f"Measured with {said}{on}." + (" One seed is a lead, not a result." if fewest == 1 else ""))
    best = best_saving(results)
    name = best["strategy"] if best else None
    if name and (clear := _clear(results, name, metric)):
        out.append(clear)
    elif not name and savings(results):
        out.append("Of no strategy a saving can be said.")
    if column := part(results, "metric").get("group_by"):
        many = finite(part(results, "metric").get("groups"))
        values = count(int(many), "value") if many else "values"
        out.append(f"The {values} of {column} count alike; by the mean over rows the result stands beside.")
    if results.get("restated") and part(results, "metric").get("statistic"):
        out.append("An earlier version wrote this file; savings and intervals were worked out anew from its cells.")
    return out


def _clear(results: Mapping[str, Any], name: str, metric: MetricWords) -> str | None:
    """In how many budgets the strategy is better than random beyond the interval of their difference, if one was
    computed."""
    sign = 1 if metric.higher_is_better else -1
    apart = [d for d in results.get("differences") or () if d.get("strategy") == name and has_interval(d)]
    if apart:
        won = sum(min(sign * low, sign * high) > 0 for low, high in map(interval_of, apart))
        lost = sum(max(sign * low, sign * high) < 0 for low, high in map(interval_of, apart))
        text = f"{name} beats random beyond the interval of their difference at {won} of {count(len(apart), 'budget')}"
        return text + (f", and loses to it at {lost}." if lost else ".")
    curves = part(results, "curves")
    other = {p.get("budget"): p for p in curves.get(BASELINE) or () if has_interval(p)}
    both = [(p, other[p.get("budget")]) for p in curves.get(name) or () if has_interval(p) and p.get("budget") in other]
    if not both:
        return f"No interval was computed for {name}, so how sure its lead is cannot be said."
    won = 0
    for mine, yours in both:
        (a, b), (c, d) = interval_of(mine), interval_of(yours)
        won += a > d if metric.higher_is_better else b < c
    where = f"at {won} of {count(len(both), 'budget')}"
    return f"{name} and random have intervals that do not touch, in favour of {name}, {where}."


def facts(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The small line under the verdict: model, pool, evaluation, date."""
    out = []
    if results.get("model"):
        out.append(("Model", str(results["model"])))
    for key, label in (("pool", "Pool"), ("evaluation", "Evaluation")):
        data = part(results, key)
        rows = finite(data.get("rows"))
        text = ", ".join(
            t for t in (str(data.get("source") or ""), count(int(rows), "row") if rows is not None else "") if t
        )
        if text:
            out.append((label, text))
    if results.get("created"):
        out.append(("Made", str(results["created"]).replace("T", " ")))
    return out


def savings(results: Mapping[str, Any]) -> dict[str, Any] | None:
    """The savings table, best first: `rows`, and whether it has columns for response tokens and for the mean over rows.

    A cell is {"saved", "interval", "null"}, or None where nothing was computed.
    """
    tokens = {s.get("strategy"): s for s in results.get("token_savings") or ()}
    by_rows = {s.get("strategy"): s for s in part(results, "by_rows").get("savings") or ()}
    rows = []
    for s in by_saving(results):
        if s["strategy"] == BASELINE:
            continue
        needed = finite(s.get("budget_needed"))
        rows.append(
            {
                "strategy": s["strategy"],
                "needed": number(round(needed)) if needed is not None else NONE,
                "labels": _cell(s),
                "tokens": _cell(tokens.get(s["strategy"])),
                "by_rows": _cell(by_rows.get(s["strategy"])),
                "seeds": _seeds(s),
                "note": str(s.get("note") or ""),
            }
        )
    return {"rows": rows, "tokens": bool(tokens), "by_rows": bool(by_rows)} if rows else None


def _cell(s: Mapping[str, Any] | None) -> dict[str, str] | None:
    if s is None:
        return None
    null = _null(s).replace("random against itself", "null").replace(":", "")
    return {"saved": _share(s), "interval": _interval(s) or "no interval", "null": null}


def _share(s: Mapping[str, Any]) -> str:
    share = finite(s.get("share_saved"))
    return "not said" if share is None else _signed(shares.percent(share))


def _interval(s: Mapping[str, Any]) -> str:
    known = {"low": finite(s.get("low")), "high": finite(s.get("high"))}
    return _signed(shares.ends(known)) if shares.has_interval(known) else ""


def _null(s: Mapping[str, Any]) -> str:
    """What random saves against itself, in words; that it is not known, where it is not."""
    low, high = (finite(part(s, "null").get(end)) for end in ("low", "high"))
    if low is None or high is None:
        return "random against itself: not known"
    return f"random against itself {_signed(shares.ends({'low': low, 'high': high}))}"


def _seeds(s: Mapping[str, Any]) -> str:
    mine, theirs = finite(s.get("seeds")), finite(s.get("baseline_seeds"))
    return f"{count(int(mine), 'seed')} against {number(theirs)}" if mine and theirs else ""


def _signed(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")


def differences(results: Mapping[str, Any], looks: Mapping[str, Style], metric: MetricWords) -> dict[str, Any] | None:
    """The table of strategy minus random: a strategy a row, a budget a column.

    A cell is (difference, interval, word); the word says better or worse only where the interval leaves out zero.
    """
    found: dict[str, dict[float, tuple[str, str, str]]] = {}
    for d in results.get("differences") or ():
        mean, budget = finite(d.get("mean")), finite(d.get("budget"))
        if mean is None or budget is None or not d.get("strategy"):
            continue
        text, word = "", ""
        if has_interval(d):
            low, high = interval_of(d)
            text = f"{metric.difference(low).removesuffix(' points')} to {metric.difference(high)}"
            word = "better" if (mean > 0) == metric.higher_is_better else "worse"
            word = word if low > 0 or high < 0 else "no clear difference"
        found.setdefault(d["strategy"], {})[budget] = (metric.difference(mean), text, word)
    if not found:
        return None
    budgets = sorted({b for row in found.values() for b in row})
    rows = [
        (name, [row.get(b, (NONE, "", "")) for b in budgets])
        for name, row in sorted(found.items(), key=lambda item: place(looks, item[0]))
    ]
    return {"budgets": [number(b) for b in budgets], "rows": rows}
