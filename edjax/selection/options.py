"""Everything that can be asked of a selection beside its strategy and its budget."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edjax.keep.errors import UsageError
from edjax.selection import clusters, defaults
from edjax.selection.budgets import whole
from edjax.settings import setting

if TYPE_CHECKING:
    from edjax.data.features import Features

BESIDE = ("target", "existing")  # features of other rows, which are no rows of the pool
MONEY = ("budget_cost", "cost_per_row", "cost_per_token", "price_by")
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
    budget_cost: float | None = setting(
        None,
        "Money to spend, in place of tokens; then what a row costs: 250:per_row=0.5:per_token=0.001, or 250:COLUMN.",
        section=BUDGET,
        kind=float,
    )
    cost_per_row: float = setting(
        0.0, "What every row costs.", section=BUDGET, within="--budget-cost AMOUNT:per_row=0.5"
    )
    cost_per_token: float = setting(
        0.0, "What a token costs, beside.", section=BUDGET, within="--budget-cost AMOUNT:per_token=0.001"
    )
    price_by: str | None = setting(
        None, "Column with the price of a row.", section=BUDGET, kind=str, within="--budget-cost AMOUNT:COLUMN"
    )
    allow_fewer: bool = setting(
        False, "Take all rows where the budget is larger than the pool.", section=BUDGET, within="--allow fewer"
    )
    partitions: int = setting(
        1, "Choose in so many random parts, then among what those chose: for large pools.", section=BUDGET
    )
    seed: int = setting(0, "Of strategies that draw: random, s2l.", section=BUDGET)
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
        "Score that scales the gains of diverse choices, by its rank; to the power of 2: SCORE:2.",
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
        whole("partitions", self.partitions, "parts", least=1)
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
        self._check_money()

    def _check_money(self) -> None:
        for name in MONEY[:3]:
            if (value := getattr(self, name)) is not None and not _within(value, 0, math.inf):
                raise UsageError(f"{name} {value!r} is not a number of 0 or more")
        said = [name for name in MONEY[1:] if getattr(self, name)]
        if self.budget_cost is None:
            if said:
                raise UsageError(f"{said[0]} says what a row costs; budget_cost says how much is spent: --budget-cost")
            return
        if self.budget_tokens is not None:
            raise UsageError("budget_tokens and budget_cost are two budgets of one walk; give one")
        if self.price_by is not None and len(said) > 1:
            raise UsageError(f"price_by {self.price_by!r} is the price of a row, and {said[0]} says it too; give one")
        if not said:
            raise UsageError(
                "budget_cost does not say what a row costs: --budget-cost 250:per_row=0.5:per_token=0.001, or "
                "250:COLUMN with the price of each row"
            )

    def columns(self) -> tuple[str, ...]:
        """The scores that are read whatever the strategy; a row is a candidate only where they are finite."""
        mean_nll = "mean_nll" if self.group_by is not None and self.quotas == "inverse_confidence" else None
        return tuple(dict.fromkeys(c for c in (self.weight_by, self.prefilter, mean_nll) if c is not None))

    def record(self) -> dict[str, Any]:
        """What decides the choice, by name; rows beside the pool have their digests elsewhere."""
        left_out = BESIDE if self.normalise == "whiten" else (*BESIDE, "whiten_dims")
        left_out = left_out if self.partitions > 1 else (*left_out, "partitions")
        left_out = left_out if self.budget_cost is not None else (*left_out, *MONEY)
        return {k: v for k, v in vars(self).items() if k not in left_out}

    @property
    def group_column(self) -> str | None:
        """The column to group by, if it is one."""
        return None if clusters.wanted(self.group_by) else self.group_by

    @property
    def spends(self) -> float | None:
        """How much is spent, tokens or money; None where rows alone are counted."""
        return self.budget_cost if self.budget_tokens is None else self.budget_tokens

    @property
    def cost_columns(self) -> tuple[str, ...]:
        """The columns that say what a row costs."""
        if self.spends is None or (self.budget_cost is not None and not (self.price_by or self.cost_per_token)):
            return ()
        return (self.price_by or self.cost_by,)

    @property
    def nested(self) -> bool:
        """Whether a smaller budget's rows are the first of a larger one's."""
        plain = self.prefilter is None and self.group_by is None and self.spends is None
        return plain and self.partitions == 1


def _within(value: Any, low: float, high: float) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and low <= value <= high
