"""From results to what the template prints: every number already text, every section a value or None."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from edjax.charts import charts
from edjax.charts.svg import styles, swatch
from edjax.charts.words import MetricWords, duration, finite, metric_words, percent
from edjax.selection.strategies import recorded
from edjax.study.report.claims import differences, facts, how_sure, savings, tiles
from edjax.study.report.picked import coverage, gains, overlap, picks
from edjax.study.report.pool_map import pool_map
from edjax.study.report.reading import BASELINE, part, strategies
from edjax.study.report.scores import cells, curve


def metric_of(results: Mapping[str, Any]) -> MetricWords:
    """The primary metric in words; the response loss where none is named."""
    said = part(results, "metric")
    metric = metric_words(said.get("name") or "response_loss", said.get("higher_is_better"))
    return metric.by(str(column)) if (column := said.get("group_by")) else metric


def view(results: Mapping[str, Any]) -> dict[str, Any]:
    """The template's variables. Nothing in `results` is required."""
    metric = metric_of(results)
    looks = styles(strategies(results), BASELINE)
    return {
        "title": results.get("title") or "Which prompts are worth annotating",
        "verdict": str(results.get("verdict") or "").replace(" %", "\N{NO-BREAK SPACE}%"),
        "sure": how_sure(results, metric),
        "tiles": tiles(results),
        "facts": facts(results),
        "metric": metric,
        "interval": part(results, "metric").get("interval"),
        "looks": looks,
        "swatches": {name: swatch(style) for name, style in looks.items()},
        "glossary": [(name, method.summary) for name in looks if (method := recorded(name))],
        "curve": curve(results, looks, metric),
        "savings": savings(results),
        "differences": differences(results, looks, metric),
        "cells": cells(results),
        "gains": gains(results, looks),
        "map": pool_map(results.get("map"), list(looks)),
        "map_total": finite(part(results, "map").get("total")) or finite(part(results, "pool").get("rows")),
        "picks": picks(results, looks),
        "overlap": overlap(results),
        "coverage": coverage(results, looks),
        "stages": stages(results),
        "provenance": provenance(results),
    }


def stages(results: Mapping[str, Any]) -> dict[str, Any] | None:
    """The bar of stage times, its legend, and the overhead in words."""
    data = [
        (str(s.get("name")), t)
        for s in results.get("stages") or ()
        if (t := finite(s.get("seconds"))) is not None and t >= 0
    ]
    over = part(results, "overhead")
    select, both = finite(over.get("select_share_of_finetune")), finite(over.get("score_and_select_share"))
    words = []
    if select is not None:
        words.append(f"Selecting took {percent(select)} of the time spent finetuning.")
    if both is not None:
        words.append(f"Scoring the pool and selecting together came to {percent(both)} of it.")
    total = sum(t for _, t in data)
    if not data and not words:
        return None
    rows = [(f"s{i % 4}", name, duration(t), percent(t / total) if total else "") for i, (name, t) in enumerate(data)]
    label = "Time by stage: " + ", ".join(f"{name} {duration(t)}" for name, t in data)
    bar = charts.stacked_bar([(name, t, duration(t)) for name, t in data], label) if total else ""
    return {"bar": bar, "rows": rows, "total": duration(total) if data else None, "words": " ".join(words)}


def provenance(results: Mapping[str, Any]) -> dict[str, Any]:
    """What it takes to make the same page again."""
    hashes = {str(k): str(v) for k, v in part(results, "hashes").items()}
    for key in ("pool", "evaluation"):
        if part(results, key).get("digest"):
            hashes.setdefault(key, str(part(results, key)["digest"]))
    recipe = results.get("recipe")
    return {
        "command": results.get("command"),
        "hashes": hashes,
        "altered": [words for key in ("pool", "evaluation") for words in altered(key, part(results, key))],
        "versions": {str(k): str(v) for k, v in part(results, "versions").items()},
        "recipe": json.dumps(recipe, indent=2, ensure_ascii=False, default=str) if recipe else None,
    }


CHANGES = {
    "cut": "were cut to max_length or the model's window",
    "spelt": "hold control tokens of the model, which were read as text",
}


def altered(key: str, source: Mapping[str, Any]) -> list[str]:
    """In words, which rows of the pool or of the evaluation the model did not see as they were written."""
    found = []
    for name, words in CHANGES.items():
        if count := finite(part(source, name).get("rows")):
            first = [str(i) for i in part(source, name).get("first") or ()]
            ids = ", ".join(first) + (", \N{HORIZONTAL ELLIPSIS}" if count > len(first) else ".")
            of = f" of {total:,.0f}" if (total := finite(source.get("rows"))) else ""
            found.append(f"{key.capitalize()}: {count:,.0f}{of} rows {words}" + (f": {ids}" if first else "."))
    return found
