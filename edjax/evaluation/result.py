"""What an evaluation found, and the metrics there are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from edjax.keep import notebook

METRICS = ("response_loss", "exact_match", "rouge_l", "choice_accuracy")
HIGHER_IS_BETTER = {"response_loss": False, "exact_match": True, "rouge_l": True, "choice_accuracy": True}


@dataclass(frozen=True)
class Evaluation:
    """Means over rows by metric, how many rows each mean is over, and the rows themselves.

    Where a column was named to group by, `macro` holds by metric the mean over its values of each value's mean,
    `groups` how many values there are, and every row its own under "group". `noted`: how many rows were cut or hold
    control tokens, and the first of them.
    """

    scores: dict[str, float]
    counts: dict[str, int]
    rows: list[dict[str, Any]]
    seconds: float
    noted: dict[str, Any] = field(default_factory=dict)
    macro: dict[str, float] = field(default_factory=dict)
    groups: int = 0

    def _repr_html_(self) -> str:
        rows = [(name, v, self.counts.get(name), self.macro.get(name)) for name, v in self.scores.items()]
        head = ("metric", "mean", "rows", f"mean over {self.groups} groups" if self.macro else "")
        width = 4 if self.macro else 3
        said = f"Evaluation of {len(self.rows):,} rows, {self.seconds:.1f} s"
        return notebook.table(said, head[:width], [row[:width] for row in rows], len(rows))
