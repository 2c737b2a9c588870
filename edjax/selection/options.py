"""Everything that can be asked of a selection beside its strategy and its budget."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edjax.keep.errors import UsageError
from edjax.selection import clusters, defaults
from edjax.settings import setting

if TYPE_CHECKING:
    from edjax.data.features import Features

BESIDE = ("target", "existing")  # features of other rows, which are no rows of the pool
BUDGET, ROUND, SEEN, LEFT_OUT = "What to choose", "A second round", "How rows are seen", "What is left out"
QUALITY, GROUPS = "Quality times diversity", "Groups"
QUOTAS = ("proportional", "balanced", "inverse_confidence")


@dataclass(frozen=True)
class Options:
    """The settings of `edjax.selection.choose.select`, which says what each is; checked when made.

    Raises:
      UsageError: naming the value that makes no sense.
    """

    labelled: tuple[str, ...] = setting((), "Rows that have labels.", section=ROUND)
    target: Features | None = setting(None, "Rows to choose for.", section=BUDGET)  # noqa: RUF009
    existing: Features | None = setting(None, "Rows one has, not of the pool.", section=ROUND)  # noqa: RUF009
    allow_unknown: bool = setting(
        False, "Pass over labelled ids that are of no row.", section=ROUND, within="--allow unknown"
    )
    budget_tokens: int | None = setting(
        None,
        "Tokens to spend; beside --budget both limits hold. What a row costs: 3600:COLUMN.",
        section=BUDGET,
        kind=int,
    )
    cost_by: str = setting(
        "n_prompt_tokens", "Column with what a row costs.", section=BUDGET, within="--budget-tokens TOKENS:COLUMN"
    )
    allow_fewer: bool = setting(
        False, "Take all rows where the budget is larger than the pool.", section=BUDGET, within="--allow fewer"
    )
    partitions: int = setting(
        1, "Choose in so many random parts, then among what those chose: for large pools.", section=BUDGET
    )
    seed: int = setting(0, "For the strategy random.", section=BUDGET)
    normalise: str = setting(
        defaults.NORMALISE,
        "What strategies see: whiten (principal components, alike; whiten:50 keeps 50), l2 (centred, length 1), "
        "centre, none.",
        section=SEEN,
        choices=defaults.WAYS,
    )
    whiten_dims: int = setting(
        defaults.WHITEN_DIMS,
        "Principal components that whiten keeps.",
        section=SEEN,
        least=1,
        within="--normalise whiten:DIMS",
    )
    bandwidth: float | None = setting(
        None,
        "Kernel width of facility_location; default 0.25.",
        section=SEEN,
        kind=float,
        within="--strategy facility_location:bandwidth=0.5",
    )
    weight_by: str | None = setting(
        None,
        "Score that scales the diversity strategies, by its rank; to the power of 2: SCORE:2.",
        section=QUALITY,
        kind=str,
    )
    strength: float = setting(
        1.0, "Power of that score's rank; 0 for no weighting.", section=QUALITY, within="--weight-by SCORE:POWER"
    )
    prefilter: str | None = setting(
        None,
        "Score whose largest rows alone are looked at: 3 times the budget; 10 times: SCORE:10.",
        section=QUALITY,
        kind=str,
    )
    prefilter_ratio: float = setting(
        3.0, "How many: so many times the budget.", section=QUALITY, within="--prefilter SCORE:RATIO"
    )
    group_by: str | None = setting(
        None,
        "Column to choose inside each group of, or cluster:N, so many groups of the embeddings. Then :quotas=balanced "
        "or inverse_confidence in place of proportional, :keep_small=5 to take groups of at most 5 rows whole.",
        section=GROUPS,
        kind=str,
    )
    quotas: str = setting(
        "proportional",
        "proportional, balanced or inverse_confidence.",
        section=GROUPS,
        choices=QUOTAS,
        within="--group-by COLUMN:quotas=balanced",
    )
    keep_small: int = setting(
        0, "Groups of at most so many rows are taken whole.", section=GROUPS, within="--group-by COLUMN:keep_small=5"
    )
    near_duplicates: float | None = setting(
        None, "Cosine similarity from which rows are one, such as 0.98.", section=LEFT_OUT, kind=float
    )
    drop_invalid: bool = setting(
        False, "Leave rows with NaN or infinite features out.", section=LEFT_OUT, within="--allow invalid"
    )

    def __post_init__(self) -> None:
        if isinstance(self.labelled, str):
            raise UsageError(f"labelled {self.labelled!r} is one text; a list of ids is needed")
        object.__setattr__(self, "labelled", tuple(self.labelled))
        for name in BESIDE:
            if (given := getattr(self, name)) is not None and not hasattr(given, "embeddings"):
                raise UsageError(f"{name} {given!r} is no features; edjax.read_features(PATH) reads them")
        if self.seed < 0:
            raise UsageError(f"seed {self.seed} is negative; it is 0 or more")
        if self.normalise not in defaults.WAYS:
            raise UsageError(f"normalise {self.normalise!r} is not one of {', '.join(defaults.WAYS)}")
        if whole("whiten_dims", self.whiten_dims, "dimensions") < 1:
            raise UsageError("whiten_dims is 0; whitening keeps at least 1 dimension")
        clusters.wanted(self.group_by)
        if self.quotas not in QUOTAS:
            raise UsageError(f"quotas {self.quotas!r} is not one of {', '.join(QUOTAS)}")
        if self.budget_tokens is not None:
            object.__setattr__(self, "budget_tokens", whole("budget_tokens", self.budget_tokens, "tokens"))
        if whole("partitions", self.partitions, "parts") < 1:
            raise UsageError("partitions is 0; a choice has at least 1 part, all rows")
        object.__setattr__(self, "keep_small", whole("keep_small", self.keep_small, "rows"))
        if self.keep_small and self.group_by is None:
            raise UsageError("keep_small needs group_by: the column that says which group a row is of")
        if not _within(self.strength, 0, math.inf):
            raise UsageError(f"strength {self.strength!r} is not a number of 0 or more")
        if not _within(self.prefilter_ratio, 1, math.inf):
            raise UsageError(f"prefilter_ratio {self.prefilter_ratio!r} is not a number of 1 or more")
        if self.near_duplicates is not None and not (_within(self.near_duplicates, 0, 1) and self.near_duplicates > 0):
            raise UsageError(f"near_duplicates {self.near_duplicates!r} is not a cosine similarity above 0, at most 1")
        if self.bandwidth is not None and not (_within(self.bandwidth, 0, math.inf) and self.bandwidth > 0):
            raise UsageError(f"bandwidth {self.bandwidth!r} is not a number above 0")
        if self.budget_tokens is not None and self.budget_tokens < 0:
            raise UsageError(f"budget_tokens {self.budget_tokens} is negative; it is a number of tokens, 0 or more")

    def columns(self) -> tuple[str, ...]:
        """The scores that are read whatever the strategy; a row is a candidate only where they are finite."""
        mean_nll = "mean_nll" if self.group_by is not None and self.quotas == "inverse_confidence" else None
        return tuple(dict.fromkeys(c for c in (self.weight_by, self.prefilter, mean_nll) if c is not None))

    def record(self) -> dict[str, Any]:
        """What decides the choice, by name; rows beside the pool have their digests elsewhere."""
        left_out = BESIDE if self.normalise == "whiten" else (*BESIDE, "whiten_dims")
        left_out = left_out if self.partitions > 1 else (*left_out, "partitions")
        return {k: v for k, v in vars(self).items() if k not in left_out}

    @property
    def group_column(self) -> str | None:
        """The column to group by, if it is one."""
        return None if clusters.wanted(self.group_by) else self.group_by

    @property
    def nested(self) -> bool:
        """Whether a smaller budget's rows are the first of a larger one's."""
        plain = self.prefilter is None and self.group_by is None and self.budget_tokens is None
        return plain and self.partitions == 1


def whole(name: str, value: Any, of: str) -> int:
    """`value` as an int of 0 or more, or a `UsageError` that names it."""
    try:
        number = operator.index(value)
    except TypeError:
        raise UsageError(f"{name} {value!r} is not a whole number of {of}") from None
    if number < 0:
        raise UsageError(f"{name} {number} is negative; it is a number of {of}, 0 or more")
    return number


def _within(value: Any, low: float, high: float) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and low <= value <= high
