"""The tables of the trials: what each choice saved a finetuning, setting by setting."""

from __future__ import annotations

from typing import Any

from benchmarks.pages.evidence import difference, halves, saved
from benchmarks.pages.words import Results, sections, table

LOSS = "response_loss"


def trials(results: Results) -> str:
    """Of every setting: the loss at each budget by strategy, and what is saved by tasks alike and by rows alike."""
    return sections("trials", results, one)


def one(result: dict[str, Any]) -> str:
    macro, rows = (result["results"][weighing][LOSS] for weighing in ("macro", "scores"))
    budgets = sorted({p["budget"] for points in macro["curves"].values() for p in points})
    against = {(d["strategy"], d["budget"]): d for d in macro["differences"]}
    saving = [{s["strategy"]: s for s in found["savings"]} for found in (macro, rows)]
    lines = []
    for strategy in ordered(macro["curves"]):
        at = {p["budget"]: p for p in macro["curves"][strategy]}
        losses = [of_budget(at.get(b), against.get((strategy, b))) for b in budgets]
        lines.append([f"`{strategy}`", *losses, *(saved(s.get(strategy)) for s in saving)])
    nulls = [halves(next(iter(s.values()))["null"]) if s else "" for s in saving]
    lines.append(["`random` against itself", *("" for _ in budgets), *nulls])
    head = ["choice", *(f"loss at {b}" for b in budgets), "labels saved, groups alike", "labels saved, rows alike"]
    column = result["recipe"]["evaluation_group_by"]
    said = (
        f"**{result['setting']}**: {result['said']}. Pool: {result['pool']['rows']:,} prompts; evaluation: "
        f"{result['evaluation']['rows']:,} rows of {result['evaluation']['groups']} groups (`{column}`), "
        f"{result['base']['macro'][LOSS]:.3f} nats a token before finetuning. {len(result['rows'])} cells; after a "
        f"loss the number of seeds, in brackets the difference from random. {result['interval']}."
    )
    if part := [b for b in budgets if b not in macro["whole"]]:
        said += f" Savings do not count the budget of {' and '.join(map(str, part))}, where random lacks seeds."
    return f"{said}\n\n{table(head, lines, 'l' + 'r' * (len(budgets) + 2))}"


def ordered(curves: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Random first, then by the loss at the budget that most strategies have, the lowest first."""
    counts: dict[int, int] = {}
    for points in curves.values():
        for p in points:
            counts[p["budget"]] = counts.get(p["budget"], 0) + 1
    common = max(counts, key=lambda b: (counts[b], b))
    at = {s: next((p["mean"] for p in points if p["budget"] == common), float("inf")) for s, points in curves.items()}
    return sorted(curves, key=lambda s: (s != "random", at[s]))


def of_budget(point: dict[str, Any] | None, against: dict[str, Any] | None) -> str:
    return "" if point is None else f"{point['mean']:.3f}, {point['n']}{difference(against)}"


SECTIONS = {"trials": trials}
