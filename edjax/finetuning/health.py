"""Whether an update went well: what a training run stops at."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edjax.keep.errors import DataError


def check_update(step: int, loss: float, grad_norm: float, ids: Sequence[str]) -> None:
    """Stop at an update after which nothing can be learned.

    Args:
      step: of the update, from 1.
      loss: of its batch, before the update.
      grad_norm: of the loss, before clipping.
      ids: of the batch's rows.

    Raises:
      DataError: loss or gradient are NaN or infinite; or the gradient is exactly 0 and the loss is not, as when
        activations have grown beyond float32 and the norms turn them into zeros (learning_rate 1e3 does that).
    """
    rows = ", ".join(ids)
    if not (math.isfinite(loss) and math.isfinite(grad_norm)):
        raise DataError(
            f"loss {loss} and gradient norm {grad_norm} at step {step} are not finite; rows {rows}. "
            "Look at these rows or lower learning_rate"
        )
    if grad_norm == 0 < loss:
        raise DataError(
            f"the gradient at step {step} is 0 at a loss of {loss:.4g}: the adapter has grown until the model's "
            f"activations overflow, and learns no more; rows {rows}. Lower learning_rate"
        )
