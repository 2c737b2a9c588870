"""The tables of the control: what each design saves a fixed learner, features beside features."""

from __future__ import annotations

from typing import Any

from benchmarks.pages.evidence import halves, saved
from benchmarks.pages.words import Results, sections, table

WHAT = {
    "clinc150": "which of {labels} intents",
    "banking77": "which of {labels} intents",
    "blimp": "which of {labels} paradigms a pair of sentences is of",
    "choice": "which choice is right, in ARC and OpenBookQA",
    "winogrande": "a sentence written about a word, among the sentences held out",
}


def control(results: Results) -> str:
    """Of each set, scores and savings by arm, and random against itself."""

    def body(result: dict[str, Any]) -> str:
        parts = []
        for row in result["rows"]:
            what = WHAT.get(row["job"], "{labels} labels").format(**row)
            said = f"**{row['job']}**: {what}; {row['rows']:,} rows, {row['metric']}, chance {row['chance']:.3f}"
            parts.append(f"{said}, {result['splits']} splits.\n\n{one(row) if row['signal'] else silent(row)}")
        return "\n\n".join(parts)

    return sections("control", results, body)


def one(row: dict[str, Any]) -> str:
    """The table of one comparison: a line an arm, the null the last."""
    at = list(row["null"])
    budgets = row["budgets"]
    shown = [budgets.index(int(b)) for b in at]
    word = "accuracy" if "accuracy" in row["metric"] else "score"
    lines = [["`random`", *(f"{row['curves']['random'][i]:.3f}" for i in shown), *("" for _ in at)]]
    for name, found in row["savings"].items():
        strategy, _, how = name.partition(", ")
        scores = [f"{row['curves'][name][i]:.3f}" for i in shown]
        lines.append([f"`{strategy}`, {how}", *scores, *(saved(found[b]) for b in at)])
    nulls = [halves(row["null"][b]) for b in at]
    lines.append(["`random` against itself", *("" for _ in at), *nulls])
    head = ["choice, features", *(f"{word} at {b}" for b in at), *(f"saved at {b} labels" for b in at)]
    return table(head, lines, "l" + "r" * 2 * len(at))


def silent(row: dict[str, Any]) -> str:
    """Why there is no table."""
    most, reached = row["budgets"][-1], row["curves"]["random"][-1]
    return (
        f"No signal: with {most} random labels {reached:.3f}, which is not above chance by its interval over splits. "
        "Nothing can be saved where nothing is learnt, and no saving is given."
    )


SECTIONS = {"control": control}
