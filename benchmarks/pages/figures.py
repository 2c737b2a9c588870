"""The figures of docs/benchmarks.md and docs/evidence.md: SVG by matplotlib, the same for the same results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from benchmarks.pages import evidence_figures
from benchmarks.pages.drawings import OURS, compared, drawings
from benchmarks.pages.words import seconds, shape

COLOURS = {
    "k_center": "#0072b2",
    "d_optimal": "#d55e00",
    "facility_location resident": "#007a5a",
    "facility_location tiled": "#a3568f",
    "random": "#777777",
}
MARKERS = dict(zip(COLOURS, "osD^x", strict=True))
STYLE = {
    "svg.hashsalt": "edjax",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "axes.axisbelow": True,
    "figure.facecolor": "white",
    "legend.frameon": False,
}
AXES = {"n": "rows", "d": "features", "budget": "picks"}


def draw(results: dict[str, dict[str, Any]], folder: Path, suffix: str = "svg") -> list[Path]:
    """Draw what there are results for: FOLDER/<name of the results>.SUFFIX each."""
    folder.mkdir(parents=True, exist_ok=True)
    kinds = {
        "selection": selection,
        "scaling": scaling,
        "roofline": roofline,
        "label_efficiency": evidence_figures.label_efficiency,
        "against_random": evidence_figures.against_random,
        "overhead": evidence_figures.overhead,
    }
    paths = []
    with plt.rc_context(STYLE):
        for name, kind, result in drawings(results):
            if kind in kinds:
                figure = kinds[kind](result)
                paths.append(folder / f"{name}.{suffix}")
                fixed = {"metadata": {"Date": None, "Creator": None}} if suffix == "svg" else {}
                figure.savefig(paths[-1], bbox_inches="tight", dpi=110, **fixed)
                plt.close(figure)
    return paths


def selection(result: dict[str, Any]) -> Figure:
    """A panel a job: a bar a side, ours on top and in colour, with its seconds and its ratio."""
    rows = [row for row in compared(result) if row["ratios"]]
    heights = [1 + len(row["ratios"]) for row in rows]
    figure, panels = plt.subplots(
        len(rows), 1, figsize=(8, 0.3 * sum(heights) + 0.85 * len(rows)), height_ratios=heights, squeeze=False
    )
    for row, panel in zip(rows, panels[:, 0], strict=True):
        sides = [OURS, *sorted(row["ratios"], key=row["ratios"].get)]
        medians = [row["timed"][who]["median_s"] for who in sides]
        colours = [COLOURS.get(row["method"], COLOURS["facility_location resident"]), *["#b5b5b5"] * len(row["ratios"])]
        panel.barh(sides, medians, color=colours, height=0.72)
        panel.invert_yaxis()
        panel.grid(False)
        panel.spines["bottom"].set_visible(False)
        panel.tick_params(left=False, bottom=False, labelbottom=False)
        panel.set_title(f"{row['method']}: {shape(row)} picks", loc="left", fontsize=10, fontweight="bold")
        for i, (who, value) in enumerate(zip(sides, medians, strict=True)):
            ratio = "" if who == OURS else f"  ({times(row['ratios'][who])} times ours)"
            panel.annotate(
                f"{seconds(value)}{ratio}", (value, i), (4, 0), textcoords="offset points", va="center", fontsize=9
            )
        panel.set_xlim(0, max(medians) * 1.3)
    figure.tight_layout()
    return figure


def scaling(result: dict[str, Any]) -> Figure:
    """Three panels, time against rows, features and picks; a line a method, the plain loops dashed."""
    from benchmarks.selectors.scaling import on_axis

    figure, panels = plt.subplots(1, 3, figsize=(12, 4.6), sharey=True)
    methods = dict.fromkeys(row["method"] for row in result["rows"])
    for (axis, label), panel in zip(AXES.items(), panels, strict=True):
        ticks: set[int] = set()
        for method in methods:
            found = on_axis(result["rows"], result["base"], axis, method)
            values = [row[axis] for row in found]
            ticks.update(values)
            panel.plot(values, [row["median_s"] for row in found], **look(method))
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set_xlabel(label)
        panel.set_xticks(sorted(ticks), [short(v) if axis == "n" else str(v) for v in sorted(ticks)])
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.tick_params(axis="x", which="minor", bottom=False)
        held = [f"{result['base'][a]:,} {AXES[a]}" for a in AXES if a != axis]
        panel.set_title(", ".join(held), loc="left", fontsize=10)
    panels[0].yaxis.set_major_formatter(FuncFormatter(lambda v, _: seconds(v)))
    panels[0].set_ylabel("median time")
    handles = [Line2D([], [], label=method, **look(method)) for method in methods]
    figure.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.02), ncols=4)
    figure.tight_layout()
    return figure


def times(ratio: float) -> str:
    """1.2, 85."""
    return f"{ratio:.1f}" if ratio < 10 else f"{ratio:,.0f}"


def look(method: str) -> dict[str, Any]:
    """How a method's line is drawn."""
    ours, _, peer = method.partition(", ")
    line = {"color": COLOURS.get(ours, "#333333"), "marker": MARKERS.get(ours, "v"), "markersize": 5, "linewidth": 1.6}
    return {**line, "linestyle": "--", "markerfacecolor": "white"} if peer else line


def short(count: int) -> str:
    """1024 as 1k; others as they are."""
    return f"{count // 1024}k" if count % 1024 == 0 else str(count)


def roofline(result: dict[str, Any]) -> Figure:
    """FLOP/s of each selector against FLOPs a byte, under the matmul's and the copy's rates."""
    rows = [row for row in result["rows"] if "skipped" not in row]
    flops = result["ceilings"]["matmul_flops_s"]["float32"]["best"] / 1e9
    bandwidth = result["ceilings"]["copy_bytes_s"]["float32"] / 1e9
    ridge = flops / bandwidth
    intensities = [row["flops"] / row["bytes"] for row in rows]
    low, high = min(*intensities, ridge) / 4, max(*intensities, ridge) * 12
    figure, panel = plt.subplots(figsize=(8, 4.8))
    panel.plot([low, ridge, high], [low * bandwidth, flops, flops], color="#333333", linewidth=1.8)
    panel.annotate(
        f"float32 matmul {flops:,.0f} GFLOP/s", (high, flops), (0, 5), textcoords="offset points", ha="right"
    )
    start = low * 1.15
    panel.annotate(f"copy {bandwidth:,.0f} GB/s", (start, start * bandwidth), (10, -4), textcoords="offset points")
    for row, intensity in zip(rows, intensities, strict=True):
        label = f"{row['method']}: {row['share_of_matmul']:.0%}"
        panel.plot(
            intensity, row["flops_s"] / 1e9, **{**look(row["method"]), "linestyle": "", "markersize": 8}, label=label
        )
    panel.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_ylim(min(row["flops_s"] for row in rows) / 2e9, flops * 1.6)
    panel.set_xlabel("FLOPs a byte moved")
    panel.set_ylabel("GFLOP/s")
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.4g}"))
        axis.set_minor_formatter(NullFormatter())
    panel.set_title(f"{shape(rows[0])} picks; share of the matmul's rate", loc="left", fontsize=10)
    figure.tight_layout()
    return figure
