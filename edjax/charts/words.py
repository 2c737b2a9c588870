"""Numbers and names as a reader sees them: no NaN, no long tails of digits, metric names in words."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

NONE = "–"  # what stands where no number is


def finite(value: Any) -> float | None:
    """The value as a float, or None where it is no finite number (None, NaN, infinity, text, a truth value)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        out = float(value)
    except OverflowError:
        return None
    return out if math.isfinite(out) else None


def number(value: Any, digits: int = 3, *, whole: bool = True) -> str:
    """A number to so many significant digits: 2.31, 0.0417, 1,234; NONE where there is no number.

    A whole number is written without decimals, unless `whole` is false (2.000 in a column of 1.985).

    >>> number(2.3149), number(1234.5), number(64), number(float("nan"))
    ('2.31', '1,234', '64', '–')
    """
    x = finite(value)
    if x is None:
        return NONE
    if x == 0 or (whole and x == int(x)) or abs(x) >= 10**digits:
        return minus(f"{x:,.0f}") if abs(x) < 1e12 else minus(f"{x:.{digits - 1}e}")
    if abs(x) < 1e-4:
        return minus(f"{x:.{digits - 1}e}")
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(x))))
    return minus(f"{x:,.{decimals}f}")


def percent(value: Any) -> str:
    """A share in percent: 47 %, 3.2 %, under 0.1 %.

    >>> percent(0.47), percent(0.0321), percent(0.0004), percent(None)
    ('47 %', '3.2 %', 'under 0.1 %', '–')
    """
    x = finite(value)
    if x is None:
        return NONE
    x *= 100
    if 0 < x < 0.1:
        return "under 0.1 %"
    return minus(f"{x:.0f} %" if abs(x) >= 9.95 or x == int(x) else f"{x:.1f} %")


def duration(seconds: Any) -> str:
    """A time: 8 ms, 0.41 s, 41 s, 12 min 34 s, 2 h 05 min.

    >>> duration(0.41), duration(61.2), duration(7500)
    ('0.41 s', '1 min 01 s', '2 h 05 min')
    """
    x = finite(seconds)
    if x is None or x < 0:
        return NONE
    if 0 < x < 0.1:
        return f"{max(1, round(x * 1000))} ms"
    if x < 10:
        return f"{x:.2g} s"
    s = round(x)
    if s < 60:
        return f"{s} s"
    if s < 3600:
        return f"{s // 60} min {s % 60:02d} s"
    m = round(x / 60)
    return f"{m // 60:,} h {m % 60:02d} min"


def minus(text: str) -> str:
    """The same text with a true minus sign."""
    return text.replace("-", "−", 1) if text.startswith("-") else text


def count(n: Any, one: str, many: str | None = None) -> str:
    """A count with its noun: 1 seed, 3 seeds.

    >>> count(1, "seed"), count(3000, "prompt")
    ('1 seed', '3,000 prompts')
    """
    return f"{number(n)} {one if n == 1 else many or one + 's'}"


class MetricWords(NamedTuple):
    """How a metric is called, whether it is a share of rows, and which way is up."""

    label: str
    share: bool
    higher_is_better: bool

    def format(self, value: Any) -> str:
        """The value as this metric is read: 41.5 %, or four significant digits."""
        x = finite(value)
        return minus(f"{100 * x:.1f} %") if self.share and x is not None else number(value, 4, whole=False)

    def by(self, column: str) -> MetricWords:
        """The same as a mean over a column's values."""
        return self._replace(label=f"{self.label}, mean over {column}")

    def difference(self, value: Any) -> str:
        """A difference of two values, with its sign: +1.5 points, or −0.040."""
        x = finite(value)
        if x is None:
            return NONE
        text = f"{100 * x:+.1f}" if self.share else f"{x:+.3f}" if abs(x) < 10 else f"{x:+.3g}"
        text = text if text.strip("+-0.") else text[1:]  # what rounds to nothing has no sign
        return minus(text) + (" points" if self.share else "")


METRICS = {
    "response_loss": MetricWords("response loss", False, False),
    "exact_match": MetricWords("exact match", True, True),
    "rouge_l": MetricWords("ROUGE\N{NON-BREAKING HYPHEN}L", True, True),
    "choice_accuracy": MetricWords("choice accuracy", True, True),
}


def metric_words(name: str, higher_is_better: bool | None = None) -> MetricWords:
    """Words for a metric; an unknown one keeps its own name. `higher_is_better` overrides what is known."""
    known = METRICS.get(name, MetricWords(name.replace("_", " "), False, True))
    return known if higher_is_better is None else known._replace(higher_is_better=bool(higher_is_better))
