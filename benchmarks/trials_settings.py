"""The settings of `benchmarks.trials`: what is drawn from the pool, and the recipe that is walked on it."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edjax.pool import Pool, read_pool

TASKS, SHORT, TOTAL, MOST_HELD = 60, 250, 3_276, 6
WARM_START, MEDIUM, CLUSTERS = 128, 400, 276
WHITENED = {"normalise": "whiten"}
DESIGNS = ("facility_location", "k_center", "d_optimal")


def variants(clusters: int) -> dict[str, dict[str, Any]]:
    """Every arm that is not a strategy by itself."""
    balanced = {"quotas": "balanced"}
    in_clusters = {"group_by": f"cluster:{clusters}", **balanced, **WHITENED}
    return {
        "task_quotas": {"strategy": "random", "group_by": "task", **balanced},
        "cluster_quotas": {"strategy": "random", **in_clusters},
        "facility_location_in_clusters": {"strategy": "facility_location", **in_clusters},
        "min_margin_in_tasks": {"strategy": "min_margin", "group_by": "task", **balanced},
        **{f"{design}_whitened": {"strategy": design, **WHITENED} for design in DESIGNS},
    }


LORA: dict[str, Any] = {
    "model": "smollm2",
    "template": "plain",
    "layer": -1,
    "pooling": "mean",
    "normalise": "l2",
    "max_new_tokens": 0,
    "per_device_train_batch_size": 8,
    "num_train_epochs": 2,
    "learning_rate": 1.0e-3,
    "max_length": 256,
    "gradient_checkpointing": False,
    "save_steps": 0,
    "metrics": ["response_loss"],
    "evaluation_group_by": "task",
}


class Setting(NamedTuple):
    """One experiment; `build` leaves its pool and evaluation in a directory and names them as a recipe does."""

    name: str
    said: str
    build: Callable[[Path, Path], dict[str, str]]
    recipe: dict[str, Any]


@cache
def whole(path: Path) -> Pool:
    return read_pool(str(path))


def rows_by_task(pool: Pool, longest: int, seed: int) -> dict[str, list[int]]:
    """Each task's rows of short prompts in a seeded order, tasks by name."""
    found: dict[str, list[int]] = {}
    for i, task in enumerate(pool.column("task")):
        if len(pool.prompt_text(i)) <= longest:
            found.setdefault(task, []).append(i)
    rng = np.random.Generator(np.random.PCG64(seed))
    return {task: [found[task][i] for i in rng.permutation(len(found[task]))] for task in sorted(found)}


def sizes(power: float, tasks: int = TASKS, total: int = TOTAL) -> list[int]:
    """Rows of each task by rank: total * rank^-power / sum of rank^-power, rounded down."""
    weight = np.arange(1, tasks + 1, dtype=float) ** -power
    return [int(n) for n in total * weight / weight.sum()]


def long_tail(power: float) -> Callable[[Path, Path], dict[str, str]]:
    """60 tasks with short prompts whose sizes fall with rank^-power; the evaluation holds at most 6 rows of each.

    The tasks are those of at least sizes(0)[0] short prompts with the most short rows held out, at most 6 counting;
    the larger a task is in the whole pool, the lower its rank.
    """

    def build(data: Path, out: Path) -> dict[str, str]:
        pool, held = whole(data / "pool.parquet"), whole(data / "pool_val.parquet")
        there, tried = rows_by_task(pool, SHORT, 0), rows_by_task(held, SHORT, 1)
        enough = [t for t in there if len(there[t]) >= sizes(0)[0] and t in tried]
        most = sorted(enough, key=lambda t: (-min(len(tried[t]), MOST_HELD), -len(there[t]), t))[:TASKS]
        ranked = sorted(most, key=lambda t: (-len(there[t]), t))
        rows = [i for t, n in zip(ranked, sizes(power), strict=True) for i in there[t][:n]]
        kept = [i for t in ranked for i in tried[t][:MOST_HELD]]
        return leave(out, pool.take(sorted(rows)), held.take(sorted(kept)))

    return build


def leave(out: Path, pool: Pool, held: Pool) -> dict[str, str]:
    """Write both as JSON lines, whatever is there."""
    out.mkdir(parents=True, exist_ok=True)
    for name, of in (("pool", pool), ("evaluation", held)):
        text = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in of.records)
        (out / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return {"pool": "pool.jsonl", "evaluation": "evaluation.jsonl"}


def intents(data: Path, out: Path) -> dict[str, str]:
    """CLINC150 as text to generate: 2 rows of each of the 150 intents evaluate, the pool holds the others."""
    pool = whole(data / "pool.parquet")
    rows: dict[str, list[int]] = {}
    for i, of in enumerate(pool.column("dataset")):
        if of == "clinc150":
            rows.setdefault(str(pool.responses[i]), []).append(i)
    rng = np.random.Generator(np.random.PCG64(0))
    kept = [int(i) for intent in sorted(rows) for i in rng.permutation(rows[intent])[:2]]
    left = sorted({i for some in rows.values() for i in some} - set(kept))
    return leave(out, pool.take(left), pool.take(sorted(kept)))


def flan(data: Path, out: Path) -> dict[str, str]:
    """The pool's prompts of at most 400 characters of tasks that are evaluated, and those of the rows held out."""
    pool, held = whole(data / "pool.parquet"), whole(data / "pool_val.parquet")
    tried = rows_by_task(held, MEDIUM, 0)
    rows = [i for task, some in rows_by_task(pool, MEDIUM, 0).items() if task in tried for i in some]
    return leave(out, pool.take(sorted(rows)), held.take(sorted(i for some in tried.values() for i in some)))


def setting(
    name: str,
    said: str,
    build: Callable[[Path, Path], dict[str, str]],
    strategies: tuple[str, ...],
    clusters: int,
    **recipe: Any,
) -> Setting:
    """A setting whose arms are strategies or `variants`; three seeds, random's five."""
    own = {k: v for k, v in variants(clusters).items() if k in strategies}
    seeds = {"seeds": [0, 1, 2], "random_seeds": [0, 1, 2, 3, 4]}
    return Setting(name, said, build, LORA | seeds | {"strategies": list(strategies), "variants": own} | recipe)


_SHORT = f"the {TASKS} tasks with the most short prompts held out, prompts of at most {SHORT} characters"

_SETTINGS = (
    setting(
        "long_tail",
        f"{_SHORT}; the pool holds a task's rows in proportion to 1 / rank; every task counts alike",
        long_tail(1.0),
        (
            "random",
            "task_quotas",
            "facility_location_whitened",
            "cluster_quotas",
            "facility_location",
            "facility_location_in_clusters",
            "k_center_whitened",
            "d_optimal_whitened",
        ),
        TASKS,
        budgets=[120, 240, 480],
    ),
    setting(
        "all_alike",
        f"{_SHORT}; the pool holds the same number of rows of each; every task counts alike",
        long_tail(0.0),
        ("random", "task_quotas", "facility_location_whitened"),
        TASKS,
        budgets=[120, 240, 480],
    ),
    setting(
        "intents",
        "CLINC150's intents as text to generate, 2 rows of each held out; every intent counts alike",
        intents,
        ("random", *DESIGNS, *(f"{d}_whitened" for d in DESIGNS)),
        150,
        budgets=[100, 200, 400, 800],
        num_train_epochs=3,
        metrics=["response_loss", "exact_match"],
        evaluation_max_new_tokens=8,
        evaluation_group_by="response",
    ),
    setting(
        "flan",
        f"the whole pool's prompts of at most {MEDIUM} characters, {WARM_START} random labels before the first choice; "
        "every task counts alike",
        flan,
        (
            "random",
            "task_quotas",
            "cluster_quotas",
            "facility_location_whitened",
            "facility_location_in_clusters",
            "min_margin_in_tasks",
        ),
        CLUSTERS,
        budgets=[276, 552],
        warm_start=WARM_START,
        max_new_tokens=16,
    ),
)
SETTINGS = {s.name: s for s in _SETTINGS}
