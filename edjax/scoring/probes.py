"""What a pass can measure of a row; `PROBES` is the table. Each probe is columns of the features, of any shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from edjax.data.features import SCORES
from edjax.keep.errors import UsageError
from edjax.scoring.icl_utility import dear, unmeasured, utilities
from edjax.scoring.job import Asked, Measure
from edjax.scoring.responses import responses, trajectory
from edjax.scoring.tokens import DIMS, SEGMENTS, tokens


class Probe(NamedTuple):
    """summary: a clause. columns: what it leaves in the features, by name, and how many dimensions that has, rows
    included: 1 for a number a row, 2 for (n, t); a column of `r` rows has the same shape whatever the rows. of: what
    gives, of what is asked, what measures some rows; None where it is part of the pass over the prompts. bytes: at
    most, of a row in the features of n rows; 0 for next to none. dear: what it takes, in a clause, where somebody
    should agree to that first; None where it takes little. told: a note on what of the pool is not measured, or None;
    a DataError where nothing of it is."""

    summary: str
    columns: Mapping[str, int]
    of: Callable[[Asked], Measure] | None = None
    bytes: Callable[[int], int] = lambda n: 0
    dear: Callable[[Asked], str | None] = lambda asked: None
    told: Callable[[Asked], str | None] = lambda asked: None


PROBES: dict[str, Probe] = {
    "embedding": Probe("pooled hidden states of the prompt", {"embedding": 2, "n_prompt_tokens": 1}),
    "uncertainty": Probe(
        "how unsure the model is of its own greedy answer", dict.fromkeys(("n_new_tokens", *SCORES, "generated"), 1)
    ),
    "response": Probe(
        "how unlikely the model finds the response that a row has",
        {"response_nll": 1, "mean_response_nll": 1, "n_response_tokens": 1},
        responses,
    ),
    "trajectory": Probe(
        "how unlikely each of a training's adapters finds the response that a row has", {"trajectory": 2}, trajectory
    ),
    "tokens": Probe(
        "last hidden states of the prompt, in few segments", {"tokens": 3}, tokens, lambda n: 4 * SEGMENTS * DIMS
    ),
    "icl_utility": Probe(
        "how much each row helps with each other one, as an example before it",
        {"icl_utility": 2},
        utilities,
        lambda n: 4 * n,
        dear=dear,
        told=unmeasured,
    ),
}


def further(names: Sequence[str]) -> tuple[str, ...]:
    """The probes that are asked for beside those of the pass over the prompts, each once.

    Raises:
      UsageError: a name that there is not.
    """
    for name in names:
        if name not in PROBES:
            raise UsageError(f"unknown probe {name!r}; there are {', '.join(PROBES)}")
    return tuple(name for name in dict.fromkeys(names) if PROBES[name].of is not None)


def measured(name: str, measure: Measure, rows: np.ndarray) -> dict[str, np.ndarray]:
    """What a probe says of some rows of the pool, held to what its `columns` promise of it.

    Raises:
      ValueError: other columns, or one of other dimensions; the probe is at fault.
    """
    got = {column: np.asarray(values) for column, values in measure(rows).items()}
    found = {column: values.ndim for column, values in got.items()}
    if found != dict(PROBES[name].columns):
        raise ValueError(f"the probe {name} promises columns of dimensions {dict(PROBES[name].columns)}: got {found}")
    if short := [column for column, values in got.items() if len(values) != len(rows)]:
        raise ValueError(f"the probe {name} has {len(got[short[0]])} rows in {short[0]!r} of {len(rows)}")
    return got
