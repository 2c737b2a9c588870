"""Spend a budget: order the pool by a strategy and keep the first rows.

prepared.py     embeddings as the diversity strategies see them
options.py      everything that can be asked beside the strategy and the budget
candidates.py   who may be chosen, and the same rows for all that are compared
choose.py       select(), and several strategies and budgets at once
labelled.py     rows that have labels already: a second round goes on where the first ended
quality.py      quality times diversity: weights, prefilter
whitening.py    principal components of unit variance
clusters.py     groups that nobody named
groups.py       quotas, and an order whose beginnings are balanced
tokens.py       budgets of tokens
duplicates.py   near-duplicates
gains.py        what the gains say of the budget: warnings and the curve
cost.py         what a selection will take, before it is made
selection.py    Selection, and its directory
"""

from edjax.select.choose import Chooser, select, strategy_of, usable
from edjax.select.cost import IN_MEMORY, Forecast, forecast, stream_above, streams
from edjax.select.labelled import chosen_otherwise, read_labelled
from edjax.select.options import QUOTAS, Options
from edjax.select.prepared import NORMALISE, prepare
from edjax.select.selection import (
    Removed,
    Selection,
    pool_rows,
    read_selection,
    selection_of,
    with_pool_column,
    write_selection,
)

__all__ = [
    "IN_MEMORY",
    "NORMALISE",
    "QUOTAS",
    "Chooser",
    "Forecast",
    "Options",
    "Removed",
    "Selection",
    "chosen_otherwise",
    "forecast",
    "pool_rows",
    "prepare",
    "read_labelled",
    "read_selection",
    "select",
    "selection_of",
    "strategy_of",
    "stream_above",
    "streams",
    "usable",
    "with_pool_column",
    "write_selection",
]
