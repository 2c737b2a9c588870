"""Groups: how many rows each gets, and one order of all whose beginnings are balanced."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edjax.data.columns import unfit
from edjax.data.features import Features
from edjax.keep.errors import DataError, UsageError

Order = tuple[np.ndarray, np.ndarray | None]


def labels(features: Features, column: str) -> tuple[np.ndarray, list[str]]:
    """(n,) the number of each row's group, and the groups' names in the order in which they first appear.

    Raises:
      DataError: no such column.
    """
    values = features.facts.get(column, features.scores.get(column))
    if wrong := unfit(features, column) if column in features.arrays else None:
        raise wrong
    if values is None:
        found = ", ".join((*features.facts, *features.scores)) or "none"
        raise DataError(f"neither the features nor the pool have a column {column!r} to group by (features: {found})")
    number: dict[str, int] = {}
    group = np.asarray([number.setdefault(str(v), len(number)) for v in values], np.int64)
    return group, list(number)


def shares(features: Features, group: np.ndarray, candidates: np.ndarray, quotas: str) -> np.ndarray:
    """(g,) float64, what the groups' quotas are in proportion to; 0 for a group without candidates.

    proportional: the number of candidates. balanced: 1. inverse_confidence: 1 / c, with c the mean of exp(-mean_nll)
    over the group's candidates: how probable a token of the model's own answer is. Task budgets in proportion to the
    inverse of the model's confidence are those of Arabelly et al. 2025, arXiv 2507.21482; the confidence of an answer
    (the geometric mean of its tokens' probabilities) is our choice.
    """
    count = np.bincount(group[candidates], minlength=group.max(initial=-1) + 1).astype(np.float64)
    if quotas == "proportional":
        return count
    if quotas == "balanced":
        return np.minimum(count, 1)
    confidence = np.exp(-features.scores["mean_nll"][candidates].astype(np.float64))
    total = np.bincount(group[candidates], confidence, minlength=len(count))
    return np.where(count > 0, count / np.maximum(total, 1e-300), 0)


def apportion(sizes: np.ndarray, share: np.ndarray, budget: int, keep_small: int = 0) -> np.ndarray:
    """How many rows each group gives, (g,) int64 with the sum min(budget, sizes.sum()).

    Groups of at most `keep_small` rows are taken whole. The rest of the budget is in proportion to `share` by largest
    remainders (Hamilton), ties to the earlier group; a group that has not so many rows gives all, and what it cannot
    give goes to the others in proportion.

    Raises:
      UsageError: the small groups alone are more than the budget.

    >>> apportion(np.array([50, 30, 2]), np.array([1.0, 1.0, 1.0]), 20).tolist()
    [9, 9, 2]
    """
    quota = np.where(sizes <= keep_small, sizes, 0).astype(np.int64)
    if quota.sum() > budget:
        raise UsageError(
            f"the {np.count_nonzero(quota)} groups of at most {keep_small} rows hold {quota.sum()} rows, more than the "
            f"budget {budget}; lower keep_small or raise the budget"
        )
    open_, left = (sizes > keep_small) & (share > 0), min(budget, int(sizes.sum())) - int(quota.sum())
    while left > 0:
        ideal = np.where(open_, left * share / share[open_].sum(), 0)
        full = open_ & (ideal >= sizes)
        if not full.any():
            quota += np.floor(ideal).astype(np.int64)
            rest = left - int(np.floor(ideal).sum())
            first = np.argsort(-(ideal - np.floor(ideal)), kind="stable")[:rest]
            quota[first] += 1
            break
        quota[full] = sizes[full]
        left -= int(sizes[full].sum())
        open_ &= ~full
    return quota


def interleave(quota: np.ndarray) -> np.ndarray:
    """(sum of quota,) the group of each pick, so that every beginning holds the groups in proportion to their quotas.

    Pick j (from 1) of a group with quota q comes at the time (j - 1/2) / q, ties to the earlier group: the rule of
    Webster and Sainte-Lague. Of the first m of k picks, a group's share is off m q / k by at most 1 + g q / 2k.

    >>> interleave(np.array([4, 2, 1])).tolist()
    [0, 1, 0, 2, 0, 1, 0]
    """
    group = np.repeat(np.arange(len(quota)), quota)
    turn = np.concatenate([np.arange(q) for q in quota]) if len(group) else np.zeros(0)
    return group[np.lexsort((group, (2 * turn + 1) / (2 * np.maximum(quota, 1)[group])))]


def order(
    group: np.ndarray,
    quota: np.ndarray,
    candidates: np.ndarray,
    labelled: np.ndarray,
    choose: Callable[[np.ndarray, np.ndarray, int], Order],
) -> Order:
    """The picks of all groups, interleaved; `choose(candidates, labelled, budget)` orders one group's rows."""
    rows: list[np.ndarray] = []
    gains: list[np.ndarray | None] = []
    found = np.zeros_like(quota)  # a method may pick fewer rows of a group than its quota
    for g, q in enumerate(quota):
        if q:
            mine = choose(candidates[group[candidates] == g], labelled[group[labelled] == g], int(q))
            rows.append(mine[0])
            gains.append(mine[1])
            found[g] = len(mine[0])
    turns = interleave(found)
    place = np.argsort(np.argsort(turns, kind="stable"), kind="stable")  # of each turn, among the groups laid in a row
    picks = np.concatenate(rows)[place]
    known = [g for g in gains if g is not None]
    return picks, np.concatenate(known)[place] if len(known) == len(gains) else None
