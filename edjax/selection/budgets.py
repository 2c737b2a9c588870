"""What a budget of rows says: how many, or which share of those that may be chosen."""

from __future__ import annotations

import math
import operator
import re
from decimal import Decimal
from fractions import Fraction
from typing import Any

from edjax.keep.errors import UsageError

Budget = int | str  # rows, or a share of those that may be chosen: "10%"


def budget_of(value: Any) -> Budget:
    """A budget as it is recorded: an int of 0 or more, or a share in its shortest form.

    >>> budget_of("10.0 %"), budget_of("12.5%"), budget_of(100)
    ('10%', '12.5%', 100)

    Raises:
      UsageError: neither of them; a share that is not above 0 and at most 100%.
    """
    if isinstance(value, str):
        if not (said := re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*%\s*", value)):
            raise UsageError(f"budget {value!r} is neither a whole number of rows nor a share such as 10%")
        if not 0 < (percent := Decimal(said[1])) <= 100:
            raise UsageError(f"budget {value!r} is not a share above 0, at most 100%")
        return f"{percent.normalize():f}%"
    return whole("budget", value, "rows")


def rows_of(budget: Budget, n: int) -> int:
    """How many of n rows: a share is rounded down, and is at least 1.

    >>> rows_of("10%", 119), rows_of("10%", 3), rows_of(7, 3)
    (11, 1, 7)
    """
    if isinstance(budget, int):
        return budget
    return max(1, math.floor(n * Fraction(budget.removesuffix("%")) / 100))


def whole(name: str, value: Any, of: str, least: int = 0) -> int:
    """`value` as an int of `least` or more, or a `UsageError` that names it."""
    try:
        number = operator.index(value)
    except TypeError:
        raise UsageError(f"{name} {value!r} is not a whole number of {of}") from None
    if number < least:
        low = f"{name} is {number}" if least else f"{name} {number} is negative"
        raise UsageError(f"{low}; it is a number of {of}, {least} or more")
    return number
