"""The tables of the twin: what an arm saves by how unlike the classes are in size."""

from __future__ import annotations

from typing import Any

from benchmarks.pages.evidence import saved
from benchmarks.pages.words import Results, sections, table
from edjax.study.analysis import shares

WORDS = {
    "macro": "Macro accuracy: every class counts alike",
    "as the candidates": "Accuracy with the classes weighted as the candidates are",
}


def twin(results: Results) -> str:
    """Of each weighting and number of labels, savings by arm and power, and random against itself."""

    def body(result: dict[str, Any]) -> str:
        rows = sorted(result["rows"], key=lambda row: row["power"])
        first = rows[0]
        said = f"{first['candidates']:,} candidates of {first['classes']} classes, {result['seeds']} seeds."
        parts = [said, shape(rows)]
        for weights, words in WORDS.items():
            for at in first[weights]["null"]:
                parts += [f"**{words}, saved at {at} labels**", by_power(rows, weights, at)]
        return "\n\n".join(parts)

    return sections("twin", results, body)


def shape(rows: list[dict[str, Any]]) -> str:
    """How unlike the classes are, and what random reaches."""
    lines = [
        ["largest class, rows", *(f"{row['largest']:.0f}" for row in rows)],
        ["effective number of classes", *(f"{row['effective']:.0f}" for row in rows)],
    ]
    first = rows[0]
    for weights in WORDS:
        budgets = first[weights]["budgets"]
        for at in first[weights]["null"]:
            i = budgets.index(int(at))
            reached = [f"{row[weights]['curves']['random'][i]:.3f}" for row in rows]
            kind = "macro" if weights == "macro" else "weighted"
            lines.append([f"`random`, {kind} accuracy at {at}", *reached])
    return table(["sizes ~ rank^-s", *(row["job"] for row in rows)], lines, "l" + "r" * len(rows))


def by_power(rows: list[dict[str, Any]], weights: str, at: str) -> str:
    lines = []
    for name in rows[0][weights]["savings"]:
        lines.append([name, *(saved(row[weights]["savings"][name][at]) for row in rows)])
    lines.append(["`random` against itself", *(shares.ends(row[weights]["null"][at]) for row in rows)])
    return table(["choice, features", *(row["job"] for row in rows)], lines, "l" + "r" * len(rows))


SECTIONS = {"twin": twin}
