"""The settings of an evaluation beside those of the model's `edjax.lm.session.Session`."""

from __future__ import annotations

from dataclasses import dataclass

from edjax.evaluation.result import METRICS
from edjax.keep.errors import UsageError
from edjax.settings import check, setting

MEASURED, BATCH = "What is measured", "Batches"


@dataclass(frozen=True)
class EvaluateConfig:
    """The settings of `edjax.evaluation.evaluate`, which says what each is; checked when made.

    Raises:
      UsageError: naming the value that makes no sense.
    """

    metrics: tuple[str, ...] = setting(METRICS, "What to compute, with commas.", section=MEASURED, recipe="metrics")
    max_new_tokens: int = setting(
        32, "Longest greedy answer.", section=MEASURED, least=1, recipe="evaluation_max_new_tokens"
    )
    group_by: str | None = setting(
        None,
        "Column whose values are to count alike, beside the rows.",
        section=MEASURED,
        kind=str,
        recipe="evaluation_group_by",
    )
    batch_size: int = setting(16, "Rows a batch.", section=BATCH, least=1, recipe="evaluation_batch_size")

    def __post_init__(self) -> None:
        check(self)
        object.__setattr__(self, "metrics", tuple(self.metrics))
        if not self.metrics:
            raise UsageError(f"no metrics are asked for; edjax computes: {', '.join(METRICS)}")
        if unknown := [m for m in self.metrics if m not in METRICS]:
            raise UsageError(f"metrics {unknown} are unknown; edjax computes: {', '.join(METRICS)}")

    def record(self) -> dict[str, object]:
        """What decides the scores, by name, for their manifest; `group_by` only where it is given."""
        own = {k: v for k, v in vars(self).items() if k != "group_by" or v is not None}
        return own | {"metrics": list(self.metrics)}
