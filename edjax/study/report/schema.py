"""The shape of `results.json`: what `edjax run` writes and the page reads.

Every key may be missing and every number may be None; the page then leaves the part out, or says what is missing.
"""

from __future__ import annotations

from typing import Any, TypedDict

Scores = dict[str, float | None]


class Metric(TypedDict, total=False):
    """The primary metric, and in words how the intervals of it were made."""

    name: str
    higher_is_better: bool
    interval: str  # for example "95 %, Student's t over seeds"
    statistic: str  # how savings were computed; without it they are of an earlier version, and are not shown
    group_by: str  # the column whose values' means were averaged; absent where every row counts alike
    groups: int  # how many values it has


class Source(TypedDict, total=False):
    """Rows read from a file, the sha256 of it, and the rows that the model does not see as they were written: how
    many, and the first ids."""

    source: str
    rows: int
    digest: str
    cut: dict[str, Any]  # "rows", "first": to max_length or the model's window
    spelt: dict[str, Any]  # the same of rows with control tokens in their text


class Base(TypedDict, total=False):
    """The model before any finetuning, on the same evaluation rows."""

    scores: Scores
    macro: Scores  # the means over the values of Metric.group_by of each value's mean
    seconds: float


class Cell(TypedDict, total=False):
    """One finetuning run: a strategy at a budget from a seed."""

    strategy: str
    budget: int
    seed: int
    scores: Scores  # means over rows
    macro: Scores
    response_tokens: int
    seconds: dict[str, float]  # "finetune", "evaluate"


class CurvePoint(TypedDict, total=False):
    """The primary metric of a strategy at a budget: mean over n seeds, and its interval."""

    budget: int
    mean: float | None
    low: float | None
    high: float | None
    n: int


class Null(TypedDict, total=False):
    """What random saves against itself: the central 95 % over the splits of its seeds in two."""

    low: float
    high: float
    splits: int
    seeds: int


class Saving(TypedDict, total=False):
    """How far a strategy's curve lies to the left of random's, see `edjax.study.analysis.savings`."""

    strategy: str
    budget_needed: float | None  # labels for what random reaches with its largest budget
    share_saved: float | None  # one less their share of that budget; None where none can be said
    low: float | None  # interval of share_saved; one end is None where no budget bounds it, both where there is none
    high: float | None
    seeds: int
    baseline_seeds: int
    null: Null | None
    reason: str | None  # why there is none: base, flat, budgets, beyond, reach, noise
    note: str


class Difference(TypedDict, total=False):
    """Strategy minus random at one budget in the primary metric, on the same rows, with its interval over seeds."""

    strategy: str
    budget: int
    mean: float | None
    low: float | None
    high: float | None
    seeds: int
    baseline_seeds: int


class ByRows(TypedDict, total=False):
    """The same by the mean over rows, beside a primary metric that is a mean over a column's values."""

    curves: dict[str, list[CurvePoint]]
    differences: list[Difference]
    savings: list[Saving]
    token_savings: list[Saving]


class Pick(TypedDict, total=False):
    """One chosen prompt."""

    id: str
    text: str
    task: str


class Picked(TypedDict, total=False):
    """One selection at the largest budget."""

    strategy: str
    seed: int
    seconds: float
    gains: list[float | None] | None  # None for random and for scores that are no gains
    ids: list[str]
    first: list[Pick]
    last: list[Pick]
    tasks_covered: int | None
    tasks_total: int | None
    mean_prompt_tokens: float | None
    warning: str | None


class Overlap(TypedDict, total=False):
    """Jaccard similarity of the selections at the largest budget; row i, column j is strategy i against j."""

    strategies: list[str]
    matrix: list[list[float | None]]


class PoolMap(TypedDict, total=False):
    """Two coordinates a prompt, the group of each, and which points each strategy picked."""

    points: list[list[float]]
    groups: list[int]
    group_names: list[str]
    picks: dict[str, list[int]]
    total: int  # prompts in the pool, where `points` is a sample of them


class Stage(TypedDict, total=False):
    """Wall time of one stage, all cells together."""

    name: str
    seconds: float


class Overhead(TypedDict, total=False):
    """What choosing costs, as a share of the time spent finetuning."""

    select_share_of_finetune: float | None
    score_and_select_share: float | None


class Results(TypedDict, total=False):
    """The whole file."""

    title: str
    verdict: str
    created: str
    command: str
    metric: Metric
    model: str
    pool: Source
    evaluation: Source
    versions: dict[str, str]
    hashes: dict[str, str]
    recipe: dict[str, Any]
    base: Base
    cells: list[Cell]
    curves: dict[str, list[CurvePoint]]
    savings: list[Saving]
    token_savings: list[Saving]  # the same with budgets counted in response tokens; budget_needed is in tokens
    differences: list[Difference]
    by_rows: ByRows
    restated: bool  # of an earlier version, its savings worked out anew
    selections: list[Picked]
    overlap: Overlap | None
    map: PoolMap | None
    stages: list[Stage]
    overhead: Overhead
