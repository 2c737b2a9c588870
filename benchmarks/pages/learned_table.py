"""What a learned function's picks reach of facility location's value, from benchmarks/results/learned-*.json."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.pages.words import EMPTY, Results, seconds, table, where


def learned(results: Results) -> str:
    """A line a strategy, a column a budget."""
    parts = []
    for result in (r for name, r in results.items() if name.startswith("learned-")):
        rows = result["rows"]
        budgets = list(dict.fromkeys(row["budget"] for row in rows))
        lines = []
        for name in dict.fromkeys(row["strategy"] for row in rows):
            own = {row["budget"]: row for row in rows if row["strategy"] == name}
            shares = [own[b]["share"] for b in budgets]
            first = own[budgets[0]]
            lines.append([f"`{name}`", *(f"{s:.3f}" for s in shares), str(first["seeds"]), seconds(first["select_s"])])
        head = ["strategy", *(f"{b} picks" for b in budgets), "seeds", "select"]
        parts.append(f"{where(result)}\n\n{table(head, lines, 'l' + 'r' * (len(budgets) + 2))}")
    return "\n\n".join(parts) or EMPTY


SECTIONS: dict[str, Callable[[Results], str]] = {"learned": learned}
