"""Student's t over seeds."""

from __future__ import annotations

import numpy as np

FEWEST = 3  # seeds below which nothing is said of how far they scatter
FEW = 5  # seeds below which an interval is said to stand on few
NULL_FROM = 4  # seeds of the baseline that can be split into two halves of two
INTERVAL = f"95 %, Student's t over seeds on the same evaluation rows, none below {FEWEST} seeds"

Interval = dict[str, float | None]


def quantile(freedom: np.ndarray | float) -> np.ndarray:
    """The 97.5 % point of Student's t."""
    from scipy.special import stdtrit

    return stdtrit(freedom, 0.975)


def welch(mine: np.ndarray, other: np.ndarray, n: int, m: int) -> np.ndarray:
    """Degrees of freedom of a difference whose parts have the variances `mine` and `other`, from n and m seeds (Welch
    1947, by Satterthwaite's approximation)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        freedom = (mine + other) ** 2 / (mine**2 / (n - 1) + other**2 / (m - 1))
    return np.where(np.isfinite(freedom), freedom, n + m - 2)


def interval_of_mean(values: np.ndarray) -> Interval:
    """The 95 % interval of the mean of values (n,); none below FEWEST."""
    n = len(values)
    if n < FEWEST:
        return {"low": None, "high": None}
    return _around(float(values.mean()), float(quantile(n - 1)) * float(values.std(ddof=1)) / n**0.5)


def interval_of_difference(values: np.ndarray, others: np.ndarray) -> Interval:
    """The 95 % interval of mean(values) - mean(others) by Welch's t; none where either has fewer than FEWEST."""
    n, m = len(values), len(others)
    if min(n, m) < FEWEST:
        return {"low": None, "high": None}
    mine, other = np.asarray(values.var(ddof=1) / n), np.asarray(others.var(ddof=1) / m)
    half = float(quantile(welch(mine, other, n, m))) * float(mine + other) ** 0.5
    return _around(float(values.mean() - others.mean()), half)


def _around(middle: float, half: float) -> Interval:
    return {"low": middle - half, "high": middle + half}
