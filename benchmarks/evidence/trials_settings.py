"""The settings of `benchmarks.evidence.trials`: what is drawn from the pool, and the recipe that is walked on it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edjax.data.pool import Pool, read_pool

TASKS, SHORT, TOTAL, MOST_HELD = 60, 250, 3_276, 6
WARM_START, MEDIUM, CLUSTERS = 128, 400, 276
DOSE = 6_000
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
        "inverse_confidence_quotas": {"strategy": "random", "group_by": "task", "quotas": "inverse_confidence"},
        "min_margin_in_tasks": {"strategy": "min_margin", "group_by": "task", **balanced},
        **{f"{design}_whitened": {"strategy": design, **WHITENED} for design in DESIGNS},
    }


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


Drawn = tuple[Pool, Pool]  # what is chosen from, what evaluates


class Setting(NamedTuple):
    """One experiment: `draw` takes its pool and evaluation from all prompts and those held out."""

    name: str
    said: str
    draw: Callable[[Pool, Pool], Drawn]
    recipe: dict[str, Any]

    def build(self, data: Path, out: Path) -> dict[str, str]:
        """Leave what is drawn in a directory, and name it as a recipe does."""
        return leave(out, *self.draw(whole(data / "pool.parquet"), whole(data / "pool_val.parquet")))


@cache
def whole(path: Path) -> Pool:
    return read_pool(str(path))


def rows_by_task(pool: Pool, longest: float, seed: int) -> dict[str, list[int]]:
    """Each task's rows of prompts of at most `longest` characters in a seeded order, tasks by name."""
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


def long_tail(power: float) -> Callable[[Pool, Pool], Drawn]:
    """60 tasks with short prompts whose sizes fall with rank^-power; the evaluation holds at most 6 rows of each.

    The tasks are those of at least sizes(0)[0] short prompts with the most short rows held out, at most 6 counting;
    the larger a task is in the whole pool, the lower its rank.
    """

    def draw(pool: Pool, held: Pool) -> Drawn:
        there, tried = rows_by_task(pool, SHORT, 0), rows_by_task(held, SHORT, 1)
        enough = [t for t in there if len(there[t]) >= sizes(0)[0] and t in tried]
        most = sorted(enough, key=lambda t: (-min(len(tried[t]), MOST_HELD), -len(there[t]), t))[:TASKS]
        ranked = sorted(most, key=lambda t: (-len(there[t]), t))
        rows = [i for t, n in zip(ranked, sizes(power), strict=True) for i in there[t][:n]]
        kept = [i for t in ranked for i in tried[t][:MOST_HELD]]
        return pool.take(sorted(rows)), held.take(sorted(kept))

    return draw


def dose(power: float) -> Callable[[Pool, Pool], Drawn]:
    """About `DOSE` rows of all tasks that are evaluated, sizes falling with rank^-power, none below 1; every row held
    out evaluates. The larger a task is in the whole pool, the lower its rank; one that has too few rows gives all."""

    def draw(pool: Pool, held: Pool) -> Drawn:
        there, tried = rows_by_task(pool, math.inf, 0), rows_by_task(held, math.inf, 1)
        ranked = sorted(there.keys() & tried.keys(), key=lambda t: (-len(there[t]), t))
        rows = [i for t, n in zip(ranked, sizes(power, len(ranked), DOSE), strict=True) for i in there[t][: max(n, 1)]]
        return pool.take(sorted(rows)), held.take(sorted(i for t in ranked for i in tried[t]))

    return draw


def leave(out: Path, pool: Pool, held: Pool) -> dict[str, str]:
    """Write both as JSON lines, whatever is there."""
    out.mkdir(parents=True, exist_ok=True)
    for name, of in (("pool", pool), ("evaluation", held)):
        text = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in of.records)
        (out / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return {"pool": "pool.jsonl", "evaluation": "evaluation.jsonl"}


def intents(pool: Pool, held: Pool) -> Drawn:
    """CLINC150 as text to generate: 2 rows of each of the 150 intents evaluate, the pool holds the others."""
    rows: dict[str, list[int]] = {}
    for i, of in enumerate(pool.column("dataset")):
        if of == "clinc150":
            rows.setdefault(str(pool.responses[i]), []).append(i)
    rng = np.random.Generator(np.random.PCG64(0))
    kept = [int(i) for intent in sorted(rows) for i in rng.permutation(rows[intent])[:2]]
    left = sorted({i for some in rows.values() for i in some} - set(kept))
    return pool.take(left), pool.take(sorted(kept))


def flan(longest: float = math.inf) -> Callable[[Pool, Pool], Drawn]:
    """All prompts of at most so many characters, of the tasks that have some in the pool and among those held out."""

    def draw(pool: Pool, held: Pool) -> Drawn:
        there, tried = rows_by_task(pool, longest, 0), rows_by_task(held, longest, 0)
        both = there.keys() & tried.keys()
        pool = pool.take(sorted(i for t in both for i in there[t]))
        return pool, held.take(sorted(i for t in both for i in tried[t]))

    return draw


def setting(
    name: str,
    said: str,
    draw: Callable[[Pool, Pool], Drawn],
    strategies: tuple[str, ...],
    clusters: int,
    **recipe: Any,
) -> Setting:
    """A setting whose arms are strategies or `variants`; three seeds, random's five."""
    own = {k: v for k, v in variants(clusters).items() if k in strategies}
    seeds = {"seeds": [0, 1, 2], "random_seeds": [0, 1, 2, 3, 4]}
    return Setting(name, said, draw, LORA | seeds | {"strategies": list(strategies), "variants": own} | recipe)


# For a GPU: prompts of any length, few shapes to compile.
LARGE: dict[str, Any] = {
    "dtype": "bfloat16",
    "max_length": 1024,
    "max_new_tokens": 16,
    "score_batch_size": 256,
    "evaluation_batch_size": 256,
    "group_by_length": False,
}


def dosed(power: float) -> Setting:
    """Dose and response: the same tasks and budgets at another imbalance."""
    name = f"dose_s{round(10 * power):02d}"
    size = f"a task's rows in proportion to 1 / rank^{power:g}" if power else "the same number of rows of each"
    said = f"the 268 tasks that are evaluated; the pool holds {size}"
    arms = ("random", "task_quotas", "cluster_quotas", "k_center_whitened", "facility_location_whitened")
    six = list(range(6))
    own: dict[str, Any] = {"budgets": [268, 536, 1072], "seeds": six, "random_seeds": six}
    return setting(name, f"{said}; every task counts alike", dose(power), arms, 268, **LARGE | own)


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
        flan(MEDIUM),
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

# In the order in which a lent machine walks them: the imbalance that most pools have, then none, which is to show that
# nothing is saved there, then the steps between and beyond, then the pool as it is.
ON_A_GPU = (
    *map(dosed, (1.0, 0.0, 1.5, 0.5)),
    setting(
        "flan_whole",
        f"the whole pool but for the tasks that nothing evaluates, {WARM_START} random labels before the first choice; "
        "every task counts alike",
        flan(),
        (
            "random",
            "task_quotas",
            "inverse_confidence_quotas",
            "cluster_quotas",
            "k_center_whitened",
            "facility_location_whitened",
            "d_optimal_whitened",
            "facility_location_in_clusters",
            "min_margin_in_tasks",
        ),
        CLUSTERS,
        **LARGE,
        budgets=[276, 552, 1104, 2208],
        warm_start=WARM_START,
        seeds=list(range(10)),
        random_seeds=list(range(20)),
    ),
)
SETTINGS = {s.name: s for s in (*_SETTINGS, *ON_A_GPU)}
