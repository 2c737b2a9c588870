"""Where to stop: how much of a budget still gained something."""

from typing import Any

import numpy as np

from .objective import Selection


def until(selection: Selection, *, stop_gain: float, relative: bool = False) -> int:
    """How many picks to keep: those before the first whose gain is below `stop_gain`.

    As the first picks of a run are those of a smaller budget, `selection.indices[: until(...)]` is what greedy that
    stops there would have picked. On the host: the answer is a length.

    Args:
        stop_gain: in the units of the gains; or with `relative` a share of the first gain, of the first finite one
            where a method begins with an infinite one.

    Raises:
        ValueError: a `stop_gain` that is not a finite number, or a share outside 0 to 1.

    >>> from .methods import facility_location
    >>> x = np.array([[0.0], [0.1], [0.2], [5.0], [5.1]])
    >>> until(facility_location(x, 5), stop_gain=0.1, relative=True)
    2
    """
    limit: Any = np.asarray(stop_gain)
    if limit.shape != () or limit.dtype.kind not in "iuf" or not np.isfinite(limit):
        raise ValueError(f"stop_gain must be a finite number, got {stop_gain!r}")
    if relative and not 0 <= limit <= 1:
        raise ValueError(f"stop_gain must be a share from 0 to 1 with relative=True, got {stop_gain!r}")
    gains = np.asarray(selection.gains, np.float64)
    finite = gains[np.isfinite(gains)]
    least = float(limit) * (finite[0] if relative and len(finite) else 1.0)
    below = ~(gains >= least)  # -inf, of rows that held NaN, is below any
    return int(np.argmax(below)) if below.any() else len(gains)
