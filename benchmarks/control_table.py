"""The table of the control: what each design saves a fixed learner, features beside features."""

from __future__ import annotations

from typing import Any

from benchmarks.words import Results, sections, table
from edjax.analysis import shares


def control(results: Results) -> str:
    """Of each data set, accuracies and savings by arm, and random against itself."""

    def body(result: dict[str, Any]) -> str:
        parts = []
        for row in result["rows"]:
            at = list(row["null"])
            budgets = row["budgets"]
            shown = [budgets.index(int(b)) for b in at]
            lines = [["`random`", *(f"{row['curves']['random'][i]:.3f}" for i in shown), *(["", ""] if at else [])]]
            for name, found in row["savings"].items():
                strategy, _, how = name.partition(", ")
                scores = [f"{row['curves'][name][i]:.3f}" for i in shown]
                lines.append([f"`{strategy}`, {how}", *scores, *(saved(found[b]) for b in at)])
            nulls = [f"{shares.ends(row['null'][b])} in {row['null'][b]['splits']} splits" for b in at]
            lines.append(["`random` against itself", *("" for _ in at), *nulls])
            head = ["choice, features", *(f"accuracy at {b}" for b in at), *(f"saved at {b} labels" for b in at)]
            said = f"**{row['job']}**: {row['rows']:,} rows, {row['labels']} labels, {result['splits']} splits."
            parts.append(f"{said}\n\n{table(head, lines, 'l' + 'r' * 2 * len(at))}")
        return "\n\n".join(parts)

    return sections("control", results, body)


def saved(s: dict[str, Any]) -> str:
    """The share with its interval, in bold where that leaves zero out."""
    if s["share_saved"] is None:
        return "beyond what was measured"
    text = f"{shares.percent(s['share_saved'])} ({shares.ends(s)})"
    clear = (s["low"] is not None and s["low"] > 0) or (s["high"] is not None and s["high"] < 0)
    return f"**{text}**" if clear else text


SECTIONS = {"control": control}
