"""What can be drawn of the committed results, and what each figure is called."""

from __future__ import annotations

from typing import Any

from benchmarks.pages.words import Results

OURS = "edjax"

FIGURES = {
    "selection": "Median seconds of one selection, a panel a job",
    "scaling": "Time by rows, features and picks; the plain jitted loop is dashed",
    "roofline": "FLOP/s against FLOPs a byte moved, under what the device gives",
}
EVIDENCE = {
    "label_efficiency": "Loss by labels bought, a panel a strategy, random in grey",
    "against_random": "Loss less random's at the same budget; left of zero is better",
    "overhead": "Where the time goes, by model and size of the pool",
}
SECOND = {"against_random": "label_efficiency"}  # drawn from the results of another kind


def compared(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows in the shape that names peers and their ratios."""
    return [row for row in result["rows"] if "ratios" in row and OURS in row.get("timed", {})]


def drawable(kind: str, result: dict[str, Any]) -> bool:
    """Whether there is anything to draw."""
    if kind == "selection":
        return any(row["ratios"] for row in compared(result))
    return any("skipped" not in row for row in result["rows"])


def drawings(results: Results) -> list[tuple[str, str, dict[str, Any]]]:
    """(name of the figure, its kind, its results) of all that can be drawn."""
    made = []
    for kind in (*FIGURES, *EVIDENCE):
        source = SECOND.get(kind, kind)
        for name, result in results.items():
            if name.split("-")[0] == source and drawable(kind, result):
                made.append((name.replace(source, kind, 1), kind, result))
    return made
