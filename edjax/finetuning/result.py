"""What a finetuning run leaves."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Finetuned:
    """An adapter on disk and how its training went.

    `steps` is how many updates there were; `train_loss` their mean loss over the last epoch. With validation rows,
    `validation_loss` is the lowest that was seen, after update `best_step`. `noted` counts the rows that were
    cut or hold control tokens ("cut", "spelt") and names the first; where rows of a batch are chosen, "sources" says of
    each its rows and whether all of them are taken. `model` carries the adapter.
    """

    directory: Path
    steps: int
    train_loss: float
    seconds: float
    response_tokens: int
    validation_loss: float | None = None
    best_step: int | None = None
    noted: dict[str, Any] = field(default_factory=dict)
    model: Any = None
