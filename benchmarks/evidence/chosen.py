"""What a selection looks like: how much of the pool it covers, how redundant it is, what it would cost to label."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from edjax.data.features import Features, read_features
from edjax.data.pool import Pool, read_pool
from edjax.selection.prepared import prepare
from edjax.selection.selection import pool_rows, read_selection
from edjax.study.recipe import Recipe
from edjax.study.run import slice_of


def properties(recipe: Recipe) -> list[dict[str, Any]]:
    """`describe` of every selection of a run, at each of its budgets."""
    out = Path(recipe.out)
    pool = slice_of(read_pool(recipe.pool), recipe.pool_rows, recipe)
    features = read_features(out / "features")
    x = prepare(np.asarray(features.embeddings), recipe.normalise)
    made = []
    for name in recipe.strategies:
        nested = recipe.nested(name)
        for seed in recipe.seeds_of(name) if name == "random" else (0,):
            for budget in recipe.budgets:
                of = max(recipe.budgets) if nested else budget
                chosen = read_selection(out / "selections" / f"{name}-b{of}-s{seed}")
                facts = describe(np.asarray(pool_rows(chosen, pool)[:budget]), pool, features, x)
                gain = chosen.gains[budget - 1] if chosen.gains is not None else np.nan
                facts |= {"gain": float(gain) if np.isfinite(gain) else None}
                made.append({"strategy": name, "seed": seed, "budget": budget, **facts})
    return made


def describe(rows: np.ndarray, pool: Pool, features: Features, x: np.ndarray) -> dict[str, Any]:
    """Of the picked `rows` of a pool with `task`, `group` and `dataset` columns and prepared embeddings `x` (n, d):

    * tasks, datasets: how many it holds at least one row of; effective_tasks: exp of the entropy of its task shares,
      the number of equally frequent tasks that are as varied.
    * redundancy: the share of picks whose underlying example (`group`) an earlier pick has.
    * radius: the largest distance of a row of the pool to its nearest pick; mean_distance: the mean of these.
    * prompt_tokens, response_characters: means over the picks.
    * top_tasks: the three most frequent tasks and their share of the picks.
    """
    tasks = [pool.column("task")[i] for i in rows]
    groups = [pool.column("group")[i] for i in rows]
    counts = Counter(tasks)
    shares = np.asarray(list(counts.values())) / len(rows)
    nearest = distances(x, rows)
    return {
        "tasks": len(counts),
        "effective_tasks": round(math.exp(-float(np.sum(shares * np.log(shares)))), 2),
        "datasets": len({pool.column("dataset")[i] for i in rows}),
        "redundancy": round(1 - len(set(groups)) / len(rows), 4),
        "radius": round(float(nearest.max()), 4),
        "mean_distance": round(float(nearest.mean()), 4),
        "prompt_tokens": round(float(np.mean(features.facts["n_prompt_tokens"][rows])), 1),
        "response_characters": round(float(np.mean([len(pool.responses[i] or "") for i in rows])), 1),
        "top_tasks": [[str(task), round(n / len(rows), 3)] for task, n in counts.most_common(3)],
    }


def distances(x: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Of every row of x (n, d) the Euclidean distance to the nearest of `rows`, (n,) float64."""
    x = x.astype(np.float64)
    squares = (x * x).sum(1)
    between = squares[:, None] + squares[rows][None] - 2 * x @ x[rows].T
    between[rows, np.arange(len(rows))] = 0
    return np.sqrt(np.maximum(between.min(1), 0))
