"""What a pass can measure of a row; `PROBES` is the table. Each probe is columns of the features, of any shape."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from edjax.data.features import SCORES
from edjax.data.pool import Pool
from edjax.keep.errors import DataError, UsageError
from edjax.scoring.icl_utility import dear, unmeasured, utilities
from edjax.scoring.job import Job

Measure = Callable[[np.ndarray], dict[str, np.ndarray]]  # the pool's rows (r,) -> columns (r, ...)


class Probe(NamedTuple):
    """summary: a clause. columns: what it leaves in the features, by name, and how many dimensions that has, rows
    included: 1 for a number a row, 2 for (n, t); a column of `r` rows has the same shape whatever the rows. of: (pool,
    job, batch_size, mesh) -> what measures some rows; None where it is part of the pass over the prompts. dear: (pool,
    job) -> what it takes, in a clause, where somebody should agree to that first; None where it takes little.
    told: (pool, job) -> a note on what of the pool is not measured, or None."""

    summary: str
    columns: Mapping[str, int]
    of: Callable[[Pool, Job, int, Any], Measure] | None = None
    dear: Callable[[Pool, Job], str | None] = lambda pool, job: None
    told: Callable[[Pool, Job], str | None] = lambda pool, job: None


def responses(pool: Pool, job: Job, batch_size: int, mesh: Any) -> Measure:
    """-ln P(response | prompt) in nats of the responses that rows have, as finetuning on them would train it.

    The tokens are those of `finetune`: cut to the same bounds, with the one that ends the response. `response_nll` is
    their sum, `mean_response_nll` that a token, NaN where a row has no response; `n_response_tokens` counts them.

    Raises:
      DataError: no row has a response; or a row that cannot be encoded.
    """
    from edjax.lm.batch import Example, batches_by_length
    from edjax.lm.mesh import row_shards, using

    if not any(r is not None for r in pool.responses):
        raise DataError(f"{pool.source}: no row has a response, and the probe response measures these")
    encoded = job.encoder.rows(pool.ids, pool.messages, pool.responses, tools=pool.tools, source=pool.source)
    shards = 1 if mesh is None else row_shards(mesh)

    def measure(rows: np.ndarray) -> dict[str, np.ndarray]:
        total, count = np.full(len(rows), np.nan, np.float32), np.zeros(len(rows), np.int32)
        there = np.flatnonzero([pool.responses[i] is not None for i in rows])
        examples = [Example.of(encoded[rows[at]].prompt, encoded[rows[at]].response) for at in there]
        for part, batch in batches_by_length(examples, batch_size, shards):
            with using(mesh):
                total[there[part]] = np.asarray(_program()(job.forward.model, batch))[: len(part)]
            count[there[part]] = [len(examples[k].trained) for k in part]
        mean = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
        return {"response_nll": total, "mean_response_nll": mean, "n_response_tokens": count}

    return measure


@functools.cache
def _program() -> Any:
    import jax

    from edjax.lm.train import total_nll

    return jax.jit(total_nll)


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
    "icl_utility": Probe(
        "how much each row helps with each other one, as an example before it",
        {"icl_utility": 2},
        utilities,
        dear,
        unmeasured,
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
