"""Tables and figures from benchmarks/results/*.json: what README.md, docs/benchmarks.md and docs/evidence.md show.

    python -m benchmarks.pages.render            # rewrites the tables between markers, and docs/figures/*.svg
    python -m benchmarks.pages.render --check    # exit 1 if a table is not what the results give; needs no matplotlib

A table stands between `<!-- bench:NAME -->` and `<!-- /bench -->`; NAME is one of `SECTIONS`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from benchmarks.accelerator import tables
from benchmarks.evidence.control import table as control_table
from benchmarks.pages import (
    evidence,
    learned_table,
    systems_table,
    targets_table,
    trials_table,
    twin_table,
    where_table,
)
from benchmarks.pages.drawings import EVIDENCE, FIGURES, OURS, compared, drawings
from benchmarks.pages.words import EMPTY, Results, seconds, sections, shape, table, times, where

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = ("README.md", "docs/benchmarks.md", "docs/evidence.md")
MARKED = re.compile(r"(<!-- bench:([\w-]+) -->\n)(.*?)(<!-- /bench -->)", re.S)
MEMORY = "peak_rss_bytes"


def read(folder: Path | None = None) -> Results:
    """The results by file name."""
    return {p.stem: json.loads(p.read_text()) for p in sorted((folder or RESULTS).glob("*.json"))}


# Selection


def met(row: dict[str, Any], who: str) -> bool | None:
    """Whether the bar of a peer, or of the memory, is met; None where it has none or was not measured."""
    bar = row["bars"].get(who)
    if bar is None or (who != MEMORY and who not in row["ratios"]) or (who == MEMORY and MEMORY not in row):
        return None
    return row[MEMORY] <= bar if who == MEMORY else row["ratios"][who] >= bar


def bar(row: dict[str, Any], who: str) -> str:
    """The bar and whether it is met, said plainly."""
    if who not in row["bars"]:
        return ""
    aim = f"{row['bars'][who] / 1e9:g} GB at most" if who == MEMORY else f"{row['bars'][who]:g}x"
    return {True: f"{aim}: met", False: f"**{aim}: missed**", None: f"{aim}: not measured"}[met(row, who)]


def bars_in_short(row: dict[str, Any]) -> str:
    """All bars of a job in a few words; each that is missed by name."""
    verdicts = {who: met(row, who) for who in row["bars"]}
    missed = [who for who, ok in verdicts.items() if ok is False]
    unknown = sum(ok is None for ok in verdicts.values())
    parts = [f"**missed: {_against(row, who)}**" for who in missed]
    if good := sum(ok is True for ok in verdicts.values()):
        parts.append(f"{good} met")
    if unknown:
        parts.append(f"{unknown} not measured")
    return "; ".join(parts) or "none set"


def _against(row: dict[str, Any], who: str) -> str:
    if who == MEMORY:
        return f"{row[MEMORY] / 1e9:.2f} GB for {row['bars'][who] / 1e9:g} GB"
    return f"{who} {times(row['ratios'][who])} for {row['bars'][who]:g}x"


def selection(results: Results) -> str:
    """One line a job: ours, the fastest of the peers, their ratio, and how the bars were met."""

    def body(result: dict[str, Any]) -> str:
        lines = []
        for row in compared(result):
            who = min(row["ratios"], key=row["ratios"].get, default=None)
            rival = "" if who is None else f"{who} {seconds(row['timed'][who]['median_s'])}"
            ratio = f"{row[MEMORY] / 1e9:.2f} GB peak" if MEMORY in row else ""
            ratio = ratio if who is None else times(row["ratios"][who])
            mine = seconds(row["timed"][OURS]["median_s"])
            lines.append([f"`{row['method']}` {shape(row)}", mine, rival, ratio, bars_in_short(row)])
        head = ["job: rows x features, picks", "edjax", "fastest peer", "ratio", "bars"]
        return table(head, lines, "lrrrl") if lines else ""

    return sections("selection", results, body)


def selection_all(results: Results) -> str:
    """Every side of every job."""

    def body(result: dict[str, Any]) -> str:
        lines: list[list[str]] = []
        for row in compared(result):
            for i, who in enumerate([OURS, *row["ratios"]]):
                t = row["timed"][who]
                ratio = "" if who == OURS else times(row["ratios"][who])
                build = f", {seconds(t['build_s'])} of it the matrix" if "build_s" in t else ""
                name = f"`{row['method']}` {shape(row)}" if i == 0 else ""
                load = f"{row['load'][0]:.1f}" if i == 0 and "load" in row else ""
                cells = [seconds(t["median_s"]) + build, str(len(t["runs_s"])), seconds(t["first_call_s"])]
                lines.append([name, who, *cells, ratio, bar(row, who), load])
            if MEMORY in row:
                lines.append(["", "peak memory", f"{row[MEMORY] / 1e9:.2f} GB", "", "", "", bar(row, MEMORY), ""])
        head = ["job", "side", "median", "runs", "first call", "ratio", "bar", "load"]
        return "\n\n".join(p for p in (table(head, lines, "llrrrrlr"), remarks(result)) if p) if lines else ""

    return sections("selection", results, body)


def remarks(result: dict[str, Any]) -> str:
    """The peers that were left out, with the reason, and what to know of those that were not."""
    rows = compared(result)
    said = [f"- {row['job']}, {who} left out: {why}" for row in rows for who, why in row.get("skipped", {}).items()]
    notes = dict.fromkeys(f"- {who}: {note}" for row in rows for who, note in row.get("notes", {}).items())
    return "\n".join([*notes, *said])


def agreement(results: Results) -> str:
    """Whether the sides picked the same, and what their picks are worth."""

    def value(number: float | None) -> str:
        return "" if number is None else f"{number:.7g}"

    def body(result: dict[str, Any]) -> str:
        lines = []
        for row in compared(result):
            picks = row["budget"] * row.get("pools", 1)
            for i, (who, same) in enumerate(row.get("agree", {}).items()):
                job = [f"`{row['method']}` {shape(row)}" if i == 0 else "", who]
                counts = [f"{same['same_set']:,} of {picks:,}", f"{same['same_place']:,}"]
                worth = [value(same.get("value")), value(row.get("edjax_value")), row.get("objective") or ""]
                lines.append([*job, *counts, *worth])
        head = ["job", "peer", "same picks", "same place", "peer's value", "ours", "of"]
        return table(head, lines, "llrrrrl") if lines else ""

    return sections("selection", results, body)


# The language model

PEER = "torch"
WHAT = {
    "hidden": "hidden states of {rows} x {tokens}",
    "logits": "logits of {rows} x {tokens}",
    "ids": "decoding {new} tokens after {rows} x {tokens}",
    "scores": "decoding {new} with uncertainty after {rows} x {tokens}",
    "lora": "a LoRA step on {rows} x {tokens}",
}


def lm(results: Results) -> str:
    """Every job of the language model beside torch, and whether they computed the same."""

    def body(result: dict[str, Any]) -> str:
        lines = []
        for row in result["rows"]:
            for suffix in dict.fromkeys(who.removeprefix(OURS) for who in row["timed"] if who.startswith(OURS)):
                ours, theirs = row["timed"][OURS + suffix], row["timed"].get(PEER + suffix)
                job = WHAT.get(row["kind"], row["job"]).format(**row)
                ratio = "" if theirs is None else times(theirs["median_s"] / ours["median_s"])
                cpu = "" if theirs is None or "cpu_s" not in theirs else times(theirs["cpu_s"] / ours["cpu_s"])
                cells = [f"{job}{suffix}, {row['model']}", seconds(ours["median_s"])]
                cells += ["" if theirs is None else seconds(theirs["median_s"]), ratio, cpu]
                lines.append(
                    [*cells, f"{ours['tokens_per_s']:,.0f}", peak(ours), peak(theirs or {}), same(row["agree"])]
                )
        head = ["job", OURS, PEER, "ratio", "CPU ratio", "tokens/s", "peak", f"{PEER} peak", "differ by"]
        return table(head, lines, "lrrrrrrr") if lines else ""

    return sections("lm", results, body)


def peak(side: dict[str, Any]) -> str:
    """The peak memory of a side's own process, where it was measured."""
    return f"{side['memory']['peak_rss_bytes'] / 1e9:.2f} GB" if "memory" in side else ""


def same(agree: dict[str, Any]) -> str:
    """How far the sides' answers are apart, in a few words."""
    if "places" in agree:
        return f"{agree['same_places']:,} of {agree['places']:,} tokens the same"
    if "worst_loss_difference" in agree:
        return f"{agree['worst_loss_difference']:.0e} in the losses of {agree['steps']} steps"
    return f"{agree['worst_difference']:.0e}" if "worst_difference" in agree else ""


# Scaling and roofline


def scaling(results: Results) -> str:
    """Fitted exponents a method."""

    def body(result: dict[str, Any]) -> str:
        found = {(f["method"], f["axis"]): f for f in result["fits"]}
        lines = []
        for method in dict.fromkeys(f["method"] for f in result["fits"]):
            cells = [
                f"{f['exponent']:.2f} ± {f['standard_error']:.2f} ({f['tail_exponent']:.2f})" if f else ""
                for f in (found.get((method, axis)) for axis in ("n", "d", "budget"))
            ]
            lines.append([method, *cells])
        base = result["base"]
        held = f"Held where not swept: {base['n']:,} rows, {base['d']} features, {base['budget']} picks."
        skipped = [f"- {r['job']}: {r['skipped']}" for r in result["rows"] if "skipped" in r]
        left = "Not measured:\n\n" + "\n".join(skipped) if skipped else ""
        return "\n\n".join(p for p in (table(["time of", "rows", "features", "picks"], lines, "lrrr"), held, left) if p)

    return sections("scaling", results, body)


def roofline(results: Results) -> str:
    """Achieved rates beside what the device gives."""

    def body(result: dict[str, Any]) -> str:
        peak = result["ceilings"]
        flops = ", ".join(f"{t} {v['best'] / 1e9:,.0f} GFLOP/s" for t, v in peak["matmul_flops_s"].items())
        copies = ", ".join(f"{t} {v / 1e9:,.1f} GB/s" for t, v in peak["copy_bytes_s"].items())
        lines = [
            [
                f"{row['method']} {shape(row)}",
                seconds(row["median_s"]),
                str(row["refreshes"]),
                f"{row['flops_s'] / 1e9:,.0f} ({row['share_of_matmul']:.0%})",
                f"{row['bytes_s'] / 1e9:,.1f} ({row['share_of_copy']:.0%})",
                f"{row['useful_flops'] / row['median_s'] / 1e9:,.0f}",
            ]
            for row in result["rows"]
            if "skipped" not in row
        ]
        head = ["selector", "median", "rounds", "GFLOP/s (of matmul)", "GB/s (of copy)", "useful GFLOP/s"]
        left = "\n".join(f"- {r['job']}: not measured, {r['skipped']}" for r in result["rows"] if "skipped" in r)
        given = f"Matmul: {flops}. Copy: {copies}."
        return "\n\n".join(p for p in (given, table(head, lines, "lrrrrr"), left, updates(result)) if p)

    return sections("roofline", results, body)


def updates(result: dict[str, Any]) -> str:
    """GFLOP/s of the update alone by its width."""
    found = {(u["method"], u["width"]): u["flops_s"] for u in result["updates"]}
    widths = sorted({width for _, width in found})
    rows = [
        [method, *(f"{found[method, w] / 1e9:,.0f}" if (method, w) in found else "" for w in widths)]
        for method in dict.fromkeys(m for m, _ in found)
    ]
    head = ["update alone, GFLOP/s", *(f"{w} picks wide" for w in widths)]
    return table(head, rows, "l" + "r" * len(widths)) if rows else ""


def figures(results: Results, kinds: dict[str, str] = FIGURES) -> str:
    """The figures there are results for."""
    shown = [
        f"{kinds[kind]}{evidence.of_grid(r)}: {where(r)}\n\n![{kinds[kind]}](figures/{name}.svg)"
        for name, kind, r in drawings(results)
        if kind in kinds
    ]
    return "\n\n".join(shown) or EMPTY


def evidence_figures(results: Results) -> str:
    return figures(results, EVIDENCE)


SECTIONS: dict[str, Callable[[Results], str]] = {
    "selection": selection,
    "selection-all": selection_all,
    "agreement": agreement,
    "lm": lm,
    "scaling": scaling,
    "roofline": roofline,
    "figures": figures,
    "evidence-figures": evidence_figures,
    **evidence.SECTIONS,
    **tables.SECTIONS,
    **control_table.SECTIONS,
    **learned_table.SECTIONS,
    **systems_table.SECTIONS,
    **targets_table.SECTIONS,
    **trials_table.SECTIONS,
    **twin_table.SECTIONS,
    **where_table.SECTIONS,
}


def rendered(text: str, results: Results) -> str:
    """A page with every marked section made anew.

    Raises:
        KeyError: a marker that names no section.
    """
    return MARKED.sub(lambda m: f"{m[1]}{SECTIONS[m[2]](results)}\n{m[4]}", text)


def stale(root: Path, results: Results) -> list[str]:
    """The pages whose tables are not what the results give."""
    return [page for page in PAGES if (text := (root / page).read_text()) != rendered(text, results)]


@click.command()
@click.option("--check", is_flag=True, help="Change nothing; exit 1 if a table is not what the results give.")
def main(check: bool) -> None:
    """Rewrite the tables of README.md, docs/benchmarks.md and docs/evidence.md, and docs/figures/."""
    results = read()
    old = stale(ROOT, results)
    if check:
        for page in old:
            click.echo(f"{page}: not what benchmarks/results gives; run python -m benchmarks.pages.render", err=True)
        raise SystemExit(1 if old else 0)
    for page in old:
        path = ROOT / page
        path.write_text(rendered(path.read_text(), results))
        click.echo(page)
    from benchmarks.pages.figures import draw  # matplotlib, which --check does not need

    for path in draw(results, ROOT / "docs" / "figures"):
        click.echo(str(path.relative_to(ROOT)))


if __name__ == "__main__":
    main()
