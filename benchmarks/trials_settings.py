"""The settings of `benchmarks.trials`: what is drawn from the pool, and the recipe that is walked on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edjax.pool import Pool, read_pool

TASKS, SHORT, TOTAL, MOST_HELD = 60, 250, 3_276, 6
WHITENED = {"normalise": "whiten"}
QUOTAS = {"task_quotas": {"strategy": "random", "group_by": "task", "quotas": "balanced"}}

LORA: dict[str, Any] = {
    "model": "smollm2",
    "template": "plain",
    "layer": -1,
    "pooling": "mean",
    "normalise": "l2",  # where no variant says otherwise
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
        pool, held = read_pool(str(data / "pool.parquet")), read_pool(str(data / "pool_val.parquet"))
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
    import json

    out.mkdir(parents=True, exist_ok=True)
    for name, of in (("pool", pool), ("evaluation", held)):
        text = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in of.records)
        (out / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return {"pool": "pool.jsonl", "evaluation": "evaluation.jsonl"}


def _long_tail(name: str, power: float, said: str, strategies: tuple[str, ...]) -> Setting:
    variants = QUOTAS | {
        "cluster_quotas": {"strategy": "random", "group_by": f"cluster:{TASKS}", "quotas": "balanced", **WHITENED},
        "facility_location_whitened": {"strategy": "facility_location", **WHITENED},
        "facility_location_in_clusters": {
            "strategy": "facility_location",
            "group_by": f"cluster:{TASKS}",
            "quotas": "balanced",
            **WHITENED,
        },
        "k_center_whitened": {"strategy": "k_center", **WHITENED},
        "d_optimal_whitened": {"strategy": "d_optimal", **WHITENED},
    }
    grid = {
        "title": name,
        "strategies": list(strategies),
        "variants": {k: v for k, v in variants.items() if k in strategies},
        "budgets": [120, 240, 480],
        "seeds": [0, 1, 2],
        "random_seeds": [0, 1, 2, 3, 4],
    }
    return Setting(name, said, long_tail(power), LORA | grid)


_SHORT = f"the {TASKS} tasks with the most short prompts held out, prompts of at most {SHORT} characters"

SETTINGS = {
    s.name: s
    for s in (
        _long_tail(
            "long_tail",
            1.0,
            f"{_SHORT}; the pool holds a task's rows in proportion to 1 / rank; every task counts alike",
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
        ),
        _long_tail(
            "all_alike",
            0.0,
            f"{_SHORT}; the pool holds the same number of rows of each; every task counts alike",
            ("random", "task_quotas", "facility_location_whitened"),
        ),
    )
}
