"""Spend a budget: order the pool by a strategy and keep the first rows.

strategies.py   what a strategy is called, and which method of `edjax.kernels` that is
defaults.py     what is chosen by where nothing is said
prepared.py     embeddings as the diversity strategies see them
options.py      everything that can be asked beside the strategy and the budget
candidates.py   who may be chosen, and the same rows for all that are compared
choose.py       select(), and several strategies and budgets at once
order.py        how a method orders the rows
beside.py       a target to choose for, and rows one has that are not of the pool
labelled.py     rows that have labels already: a second round goes on where the first ended
quality.py      quality times diversity: weights, prefilter
clusters.py     groups that nobody named
groups.py       quotas, and an order whose beginnings are balanced
partitions.py   in random parts, then among what those chose
tokens.py       budgets of tokens
duplicates.py   near-duplicates
gains.py        what the gains say of the budget: warnings and the curve
cost.py         what a selection will take, before it is made
selection.py    Selection, and its directory
"""
