"""Means over groups of rows that count alike (macro)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edjax.evaluation.metrics import macro_weights


def macro_scores(rows: Sequence[dict[str, Any]], groups: Sequence[str], metrics: Sequence[str]) -> dict[str, float]:
    """By metric, the mean over groups of each group's mean, over the rows that have the metric."""
    out = {}
    for name in metrics:
        there = [(row[name], group) for row, group in zip(rows, groups, strict=True) if row.get(name) is not None]
        if there:
            values, named = zip(*there, strict=True)
            out[name] = float(np.asarray(values, float) @ macro_weights(named))
    return out
