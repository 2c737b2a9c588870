"""The validation loss during training: which look was best, and how long ago the last gain was."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class EarlyStopping:
    """What evaluations on the validation rows have shown so far.

    `loss` is the lowest (None before the first look) and `step` the update after which it was seen; `without_gain`
    counts the looks since one that lowered it by more than the threshold.
    """

    loss: float | None = None
    step: int = 0
    without_gain: int = 0

    def after(self, loss: float, step: int, threshold: float) -> EarlyStopping:
        """With one look more."""
        # Patience and the best adapter are two questions: a gain below the threshold is kept, and still counts as none.
        gained = self.loss is None or loss < self.loss - threshold
        counted = replace(self, without_gain=0 if gained else self.without_gain + 1)
        return replace(counted, loss=loss, step=step) if self.loss is None or loss < self.loss else counted
