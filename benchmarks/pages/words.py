"""Words, numbers and tables as the pages of results show them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

EMPTY = "Not measured yet."

Results = dict[str, dict[str, Any]]


def digits(value: float) -> str:
    """Three of them."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def seconds(value: float) -> str:
    """In ms below a second."""
    return f"{digits(value)} s" if value >= 1 else f"{digits(value * 1e3)} ms"


def times(ratio: float) -> str:
    return f"{digits(ratio)}x"


def table(head: list[str], rows: Iterable[list[str]], right: str = "") -> str:
    """A Markdown table; `right` marks the columns to align right with an r, as in "lrr"."""
    lines = [head, ["---:" if right[i : i + 1] == "r" else "---" for i in range(len(head))], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def where(result: dict[str, Any]) -> str:
    """The machine, versions, commit and date of a file, in a sentence."""
    on = result["machine"]
    device = "" if on["backend"] == "cpu" else f"{on['device']}, "
    commits = list(dict.fromkeys(row.get("commit", result["commit"]) for row in result["rows"]))
    commit = f"commit {', '.join(commits)}" if len(commits) < 4 else f"{len(commits)} commits up to {result['commit']}"
    versions = ", ".join(f"{p} {result['versions'][p]}" for p in ("jax", "numpy") if p in result["versions"])
    size = " (`--quick`)" if result.get("quick") else ""
    others = sorted({f"jax {row['versions'].get('jax')}" for row in result["rows"] if "versions" in row})
    older = f" Some rows with other versions ({', '.join(others)})." if others else ""
    return f"{device}{on['cpu']}, {on['cores']} cores; {versions}; {commit}, {result['date']}{size}.{older}"


def shape(row: dict[str, Any]) -> str:
    pools = f"{row['pools']} pools of " if "pools" in row else ""
    return f"{pools}{row['n']:,} x {row['d']}, {row['budget']:,}"


def sections(kind: str, results: Results, body: Callable[[dict[str, Any]], str]) -> str:
    """`body` of each results file of a kind that has something to show, each under its machine."""
    shown = [(body(r), r) for name, r in results.items() if name.split("-")[0] == kind]
    return "\n\n".join(f"{where(r)}\n\n{text}" for text, r in shown if text) or EMPTY
