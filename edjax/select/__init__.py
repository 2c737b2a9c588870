"""Spend a budget: order the pool by a strategy and keep the first rows.

prepared.py     embeddings as the diversity strategies see them
options.py      everything that can be asked beside the strategy and the budget
candidates.py   who may be chosen, and the same rows for all that are compared
choose.py       select(), and several strategies and budgets at once
order.py        how a method orders the rows
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

Names are imported when they are first used: the options cost no JAX.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edjax.select.choose import Chooser as Chooser
    from edjax.select.choose import select as select
    from edjax.select.choose import strategy_of as strategy_of
    from edjax.select.choose import usable as usable
    from edjax.select.cost import IN_MEMORY as IN_MEMORY
    from edjax.select.cost import Forecast as Forecast
    from edjax.select.cost import forecast as forecast
    from edjax.select.cost import stream_above as stream_above
    from edjax.select.cost import streams as streams
    from edjax.select.labelled import chosen_otherwise as chosen_otherwise
    from edjax.select.labelled import read_labelled as read_labelled
    from edjax.select.options import QUOTAS as QUOTAS
    from edjax.select.options import Options as Options
    from edjax.select.prepared import NORMALISE as NORMALISE
    from edjax.select.prepared import prepare as prepare
    from edjax.select.selection import Removed as Removed
    from edjax.select.selection import Selection as Selection
    from edjax.select.selection import pool_rows as pool_rows
    from edjax.select.selection import read_selection as read_selection
    from edjax.select.selection import selection_of as selection_of
    from edjax.select.selection import with_pool_column as with_pool_column
    from edjax.select.selection import write_selection as write_selection

_HOME = {
    "Chooser": "choose",
    "Forecast": "cost",
    "IN_MEMORY": "cost",
    "NORMALISE": "prepared",
    "Options": "options",
    "QUOTAS": "options",
    "Removed": "selection",
    "Selection": "selection",
    "chosen_otherwise": "labelled",
    "forecast": "cost",
    "pool_rows": "selection",
    "prepare": "prepared",
    "read_labelled": "labelled",
    "read_selection": "selection",
    "select": "choose",
    "selection_of": "selection",
    "strategy_of": "choose",
    "stream_above": "cost",
    "streams": "cost",
    "usable": "choose",
    "with_pool_column": "selection",
    "write_selection": "selection",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'edjax.select' has no attribute {name!r}")
    value = getattr(import_module(f"edjax.select.{_HOME[name]}"), name)
    globals()[name] = value
    return value
