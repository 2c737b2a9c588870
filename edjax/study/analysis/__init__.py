"""From the scores of all cells to curves, differences from random, savings, and a verdict in words.

The unit of every interval is the seed: what another training run, and for random another draw, would have given on the
same evaluation rows. Rows are shared by all cells, so their difficulty cancels in a difference; how a result would
change on other rows is not in the intervals. A saving is a horizontal distance between two learning curves: see
`edjax.study.analysis.savings`.
"""

from edjax.study.analysis.cells import Cell, Score, analyse, compare, values_of
from edjax.study.analysis.earlier import restated
from edjax.study.analysis.savings import STATISTIC
from edjax.study.analysis.seeds import INTERVAL, interval_of_mean
from edjax.study.analysis.verdict import against_baseline, verdict

__all__ = [
    "INTERVAL",
    "STATISTIC",
    "Cell",
    "Score",
    "against_baseline",
    "analyse",
    "compare",
    "interval_of_mean",
    "restated",
    "values_of",
    "verdict",
]
