"""README's table: where choosing paid, setting beside setting, each saving beside its null."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.pages.evidence import LOSS, SET, halves, saved
from benchmarks.pages.words import EMPTY, Results, table

SHOWN = {  # a column: its name in trials, in the control, and in the first grid
    "`facility_location`": ("facility_location_whitened", "facility_location, whiten", None),
    "the same, l2": ("facility_location", "facility_location, l2", "facility_location"),
    "`k_center`": ("k_center_whitened", "k_center, whiten", None),
    "cluster quotas": ("cluster_quotas", None, None),
    "task quotas": ("task_quotas", None, None),
}
AT = "200"
PROBED = {
    "clinc150": "150 intents (CLINC150)",
    "banking77": "77 intents (BANKING77)",
    "blimp": "67 paradigms of grammar (BLiMP)",
}
TRIALS = {
    "long_tail": "60 tasks, 700 to 11 rows each; every task counts alike",
    "all_alike": "60 tasks of 54 rows; every task counts alike",
    "intents": "150 intents as text (CLINC150); every intent counts alike",
    "flan": "158 tasks as the pool has them, after 128 random labels; every task counts alike",
}


def where(results: Results) -> str:
    """A line a setting, first the fixed learner, then finetuning."""
    lines = [*_probed(results), *_trials(results), *_grid(results)]
    if not lines:
        return EMPTY
    head = ["pool and evaluation", "learner", "labels", *SHOWN, "`random` against itself", "seeds"]
    return table(head, lines, "lll" + "r" * (len(SHOWN) + 2))


def _probed(results: Results) -> Iterator[list[str]]:
    for row in results.get("control", {}).get("rows", []):
        if row["job"] not in PROBED or AT not in row["null"]:
            continue
        found = [row["savings"][name][AT] if name else None for _, name, _ in SHOWN.values()]
        seeds = str(len(row["cells"]["random"]))
        yield [PROBED[row["job"]], "ridge probe", AT, *map(saved, found), halves(row["null"][AT]), seeds]


def _trials(results: Results) -> Iterator[list[str]]:
    for name, said in TRIALS.items():
        if not (result := results.get(f"trials-{name}")):
            continue
        found = {s["strategy"]: s for s in result["results"]["macro"][LOSS]["savings"]}
        yield _line(said, result, found, 0)


def _grid(results: Results) -> Iterator[list[str]]:
    if result := results.get("label_efficiency-cpu-mean"):
        found = {s["strategy"]: s for s in result["sets"][SET][LOSS]["savings"]}
        yield _line("2,000 prompts of 276 tasks; evaluation as the pool", result, found, 2)


def _line(said: str, result: dict[str, Any], found: dict[str, dict[str, Any]], kind: int) -> list[str]:
    names = [names[kind] for names in SHOWN.values()]
    counted = result.get("results", {}).get("macro", {}).get(LOSS, {}).get("whole")
    budgets = counted or sorted({c["budget"] for c in result["rows"]})
    labels = f"{budgets[0]} to {budgets[-1]}"
    shown = [found[name] for name in names if name in found]
    first = next(iter(shown), None)
    seeds = sorted({s["seeds"] for s in shown})
    counted = ""
    if first:
        counted = f"{' to '.join(dict.fromkeys(map(str, (seeds[0], seeds[-1]))))} against {first['baseline_seeds']}"
    null = halves(first["null"]) if first else ""
    return [said, "LoRA", labels, *(saved(found.get(name)) if name else "" for name in names), null, counted]


SECTIONS = {"where": where}
