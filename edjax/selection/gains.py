"""What the gains say of the budget: warnings at either end, and the curve as a picture."""

from __future__ import annotations

import numpy as np

from edjax.kernels import Method

FEW = 10  # picks: below, a curve says nothing


def warn(method: Method, gains: np.ndarray | None, *, grouped: bool = False, targets: int = 0) -> str | None:
    """A sentence where the budget outlives the gains, or where the method finds something else to say of them.

    In groups the gains start anew in each, so only picks without any gain are counted.
    """
    if gains is None or not len(gains):
        return None
    largest = float(np.max(gains, where=np.isfinite(gains), initial=0.0))
    alive = int(np.count_nonzero(gains > 1e-6 * largest))
    if alive < len(gains):
        if grouped:
            return f"{len(gains) - alive} of {len(gains)} picks add nothing that {method.name} can see in their groups"
        return f"the gains ran out after {alive} of {len(gains)} picks: later picks add nothing this strategy can see"
    if grouped or len(gains) < FEW:
        return None
    return method.advise(gains, targets=targets)


_STYLE = """
text { font: 12px system-ui, sans-serif; fill: #444 }
.mid { text-anchor: middle } .end { text-anchor: end }
path { fill: none } .grid { stroke: #ddd } .rule { stroke: #888 }
.line { stroke: #2a62a8; stroke-width: 2 } .mark { fill: #2a62a8 }
@media (prefers-color-scheme: dark) {
  svg { background: #16181c } text { fill: #ccc } .grid { stroke: #333 }
  .line { stroke: #7db2f0 } .mark { fill: #7db2f0 }
}
"""


def picture(strategy: str, gains: np.ndarray | None) -> str | None:
    """The gains from the second pick on, as shares of the largest: an SVG file, or None where there are none."""
    from edjax.charts.charts import gain_curves
    from edjax.charts.svg import styles

    series = np.asarray([] if gains is None else gains[1:], np.float64)
    largest = float(np.max(series, initial=0.0))
    if not np.isfinite(series).all() or largest <= 0:
        return None
    drawn = gain_curves({strategy: (series / largest).tolist()}, styles([strategy]))
    if drawn is None:
        return None
    head, _, rest = str(drawn).partition(">")
    return f'{head} xmlns="http://www.w3.org/2000/svg"><style>{_STYLE}</style>{rest}\n'
