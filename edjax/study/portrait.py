"""What was chosen, in pictures and figures: first and last picks, task coverage, overlap, a map of the pool."""

from __future__ import annotations

from typing import Any

import numpy as np

from edjax.data.features import Features
from edjax.data.pool import Pool
from edjax.selection.prepared import prepare
from edjax.selection.selection import Selection
from edjax.selection.strategies import recorded

MAP_POINTS = 3000
GROUP_COLUMNS = ("task", "group", "category", "dataset", "source")
MAX_GROUPS = 8


def portrait(
    pool: Pool, features: Features, selections: dict[tuple[str, int], Selection], normalise: str
) -> dict[str, Any]:
    """The keys `selections`, `overlap` and `map` of results.json (see `edjax.study.report.schema`)."""
    tasks = _tasks(pool)
    shown = {s: sel for (s, seed), sel in reversed(selections.items())}
    shown = {s: shown[s] for s, _ in selections}  # one selection a strategy, that of its first seed
    return {
        "selections": [_picked(s, seed, sel, pool, features, tasks) for (s, seed), sel in selections.items()],
        "overlap": _overlap(shown),
        "map": _map(pool, features, shown, tasks, normalise),
    }


def _tasks(pool: Pool) -> list[str] | None:
    """The first column that names groups, if the rows have one."""
    for name in GROUP_COLUMNS:
        if any(name in record for record in pool.records):
            values = [str(v) for v in pool.column(name)]
            if 1 < len(set(values)) < len(pool):
                return values
    return None


def _picked(strategy, seed, sel: Selection, pool: Pool, features: Features, tasks) -> dict[str, Any]:
    rows = [pool.index_of[i] for i in sel.ids]
    lengths = features.facts.get("n_prompt_tokens")

    def pick(i: int) -> dict[str, str]:
        text = pool.prompt_text(i)
        text = text if len(text) <= 600 else text[:600] + " ..."
        return {"id": pool.ids[i], "text": text, "task": tasks[i] if tasks else ""}

    return {
        "strategy": strategy,
        "seed": seed,
        "seconds": round(sel.seconds, 4),
        "gains": _gains(sel),
        "ids": list(sel.ids),
        "first": [pick(i) for i in rows[:8]],
        "last": [pick(i) for i in rows[8:][-4:]],
        "tasks_covered": len({tasks[i] for i in rows}) if tasks else None,
        "tasks_total": len(set(tasks)) if tasks else None,
        "mean_prompt_tokens": float(np.mean(lengths[sel.indices])) if lengths is not None and len(sel) else None,
        "warning": sel.warning,
    }


def _gains(sel: Selection) -> list[float | None] | None:
    """The gain of every pick, None for the infinite first of k-center; a score that ranks rows is no gain."""
    method = recorded(sel.strategy)
    if sel.gains is None or method is None or method.valued:
        return None
    return [float(g) if np.isfinite(g) else None for g in sel.gains]


def _overlap(shown: dict[str, Selection]) -> dict[str, Any]:
    sets = {s: set(sel.ids) for s, sel in shown.items()}
    matrix = [[len(a & b) / max(len(a | b), 1) for b in sets.values()] for a in sets.values()]
    return {"strategies": list(sets), "matrix": matrix}


def _map(pool: Pool, features: Features, shown: dict[str, Selection], tasks, normalise: str) -> dict[str, Any] | None:
    """The two leading principal components of the prepared embeddings; all picks and a sample of the rest."""
    x = features.embeddings
    if len(pool) < 3 or not isinstance(x, np.ndarray) or not np.isfinite(x).all():
        return None
    x = prepare(x, "l2" if normalise == "whiten" else normalise).astype(np.float64)  # whitened, no axis leads
    x = x - x.mean(0)
    values, vectors = np.linalg.eigh(x.T @ x)
    axes = vectors[:, np.argsort(values)[::-1][:2]]
    axes = axes * np.where(axes[np.abs(axes).argmax(0), range(axes.shape[1])] < 0, -1.0, 1.0)  # a fixed sign
    points = x @ axes
    picked = {int(i) for sel in shown.values() for i in sel.indices}
    rest = [i for i in np.random.Generator(np.random.PCG64(0)).permutation(len(pool)) if int(i) not in picked]
    keep = sorted([*picked, *(int(i) for i in rest[: max(MAP_POINTS - len(picked), 0)])])
    place = {row: at for at, row in enumerate(keep)}
    names = _largest([tasks[i] for i in range(len(pool))]) if tasks else []
    number = {name: i for i, name in enumerate(names)}
    return {
        "points": [[round(float(v), 4) for v in points[i]] for i in keep],
        "groups": [number.get(tasks[i], len(names)) if tasks else 0 for i in keep],
        "group_names": [*names, "other"] if tasks else ["prompts"],
        "picks": {s: [place[int(i)] for i in sel.indices] for s, sel in shown.items()},
        "total": len(pool),
    }


def _largest(tasks: list[str]) -> list[str]:
    names, counts = np.unique(tasks, return_counts=True)
    return [str(names[i]) for i in np.argsort(-counts, kind="stable")[: MAX_GROUPS - 1]]
