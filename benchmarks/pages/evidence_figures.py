"""The figures of docs/evidence.md: learning curves, what was saved, and where the time goes."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from benchmarks.pages.evidence import LOSS, SET, by_last, measured
from benchmarks.pages.words import seconds

RANDOM, OURS, WORSE = "#777777", "#0072b2", "#d55e00"
STAGES = {"score": "#56b4e9", "select": "#d55e00", "finetune": "#777777", "evaluate": "#cccccc"}


def label_efficiency(result: dict[str, Any]) -> Figure:
    """A panel a strategy: its loss by budget with the interval, random's behind it."""
    curves = by_last(result["sets"][SET][LOSS])
    base = curves.pop("random")
    columns = min(4, max(1, len(curves)))
    lines = -(-len(curves) // columns)
    figure, panels = plt.subplots(
        lines, columns, figsize=(3 * columns, 2.6 * lines), sharex=True, sharey=True, squeeze=False
    )
    for panel, (strategy, points) in zip(panels.flat, curves.items(), strict=False):
        _curve(panel, base, RANDOM, "random")
        _curve(panel, points, OURS, strategy)
        panel.set_title(strategy, loc="left", fontsize=9)
        panel.set_xscale("log", base=2)
        budgets = [p["budget"] for p in base]
        panel.set_xticks(budgets, [str(b) for b in budgets])
        panel.xaxis.set_minor_formatter(NullFormatter())
    for panel in panels.flat[len(curves) :]:
        panel.set_visible(False)
    for panel in panels.flat[max(0, len(curves) - columns) : len(curves)]:
        panel.tick_params(labelbottom=True)
    for panel in panels[:, 0]:
        panel.set_ylabel("loss on pool_val")
    figure.supxlabel("labels; random in grey; bands are 95 % intervals over seeds", fontsize=10)
    figure.tight_layout()
    return figure


def _curve(panel: Any, points: list[dict[str, Any]], colour: str, label: str) -> None:
    x = [p["budget"] for p in points]
    if all(p["low"] is not None for p in points):
        low, high = ([p[end] for p in points] for end in ("low", "high"))
        panel.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    panel.plot(x, [p["mean"] for p in points], color=colour, marker="o", markersize=4, linewidth=1.6, label=label)


def against_random(result: dict[str, Any]) -> Figure:
    """A panel a budget: each strategy's difference from random with its interval; left of zero is better."""
    found = result["sets"][SET][LOSS]
    order = [s for s in by_last(found) if s != "random"][::-1]
    budgets = sorted({d["budget"] for d in found["differences"]})
    figure, panels = plt.subplots(
        1, len(budgets), figsize=(3 * len(budgets), 0.32 * len(order) + 1.4), sharey=True, squeeze=False
    )
    for panel, budget in zip(panels[0], budgets, strict=True):
        at = {d["strategy"]: d for d in found["differences"] if d["budget"] == budget}
        for y, strategy in enumerate(order):
            d, colour = at[strategy], RANDOM
            if d["low"] is not None:
                colour = OURS if d["high"] < 0 else WORSE if d["low"] > 0 else RANDOM
                panel.plot([d["low"], d["high"]], [y, y], color=colour, linewidth=1.8)
            panel.plot(d["mean"], y, "o", color=colour, markersize=5)
        panel.axvline(0, color="#333333", linewidth=1)
        panel.set_title(f"{budget} labels", loc="left", fontsize=10)
        panel.set_yticks(range(len(order)), order)
    figure.supxlabel("loss less random's at the same budget, 95 % interval over seeds; left is better", fontsize=10)
    figure.tight_layout()
    return figure


def overhead(result: dict[str, Any]) -> Figure:
    """A bar a job: the share of each stage in the whole, with the seconds; selection by its slowest strategy."""
    rows = measured(result)
    figure, panel = plt.subplots(figsize=(8, 0.6 * len(rows) + 1.6))
    for y, r in enumerate(rows[::-1]):
        slowest = max(t["again_s"] for t in r["select"].values())
        took = {**r["seconds"], "select": slowest}
        whole, left = sum(took[k] for k in STAGES), 0.0
        for stage, colour in STAGES.items():
            share = took[stage] / whole
            panel.barh(y, share, left=left, color=colour, height=0.6)
            if share > 0.08:
                panel.annotate(seconds(took[stage]), (left + share / 2, y), ha="center", va="center", fontsize=9)
            left += share
    panel.set_yticks(range(len(rows)), [r["job"] for r in rows][::-1])
    panel.set_xlim(0, 1)
    panel.xaxis.set_major_formatter(lambda v, _: f"{v:.0%}")
    panel.grid(False)
    handles = [plt.Rectangle((0, 0), 1, 1, color=c) for c in STAGES.values()]
    labels = [k if k != "select" else "select (the slowest strategy)" for k in STAGES]
    figure.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, 0.02), ncols=4)
    figure.tight_layout()
    return figure
