"""What a pass can measure of a row; `PROBES` is the table. Each probe is columns of the features."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from edjax.batching import by_length, chunks, height
from edjax.errors import DataError, UsageError
from edjax.features import SCORES
from edjax.lm.session import Session
from edjax.pool import Pool

Measure = Callable[[np.ndarray], dict[str, np.ndarray]]  # the pool's rows (r,) -> columns (r,)


class Probe(NamedTuple):
    """summary: a clause. columns: what it adds. of: (pool, session, batch_size, date) -> what measures some rows; None
    where it is part of the pass over the prompts."""

    summary: str
    columns: tuple[str, ...]
    of: Callable[[Pool, Session, int, str | None], Measure] | None = None


def responses(pool: Pool, session: Session, batch_size: int, date: str | None) -> Measure:
    """-ln P(response | prompt) in nats of the responses that rows have, as finetuning on them would train it.

    The tokens are those of `finetune`: cut to the same bounds, with the one that ends the response. `response_nll` is
    their sum, `mean_response_nll` that a token, NaN where a row has no response; `n_response_tokens` counts them.

    Raises:
      DataError: no row has a response; or a row that cannot be encoded.
    """
    from edjax.lm.batch import Example, make_batch
    from edjax.lm.encode import Encoder
    from edjax.lm.mesh import place, row_shards, using

    if not any(r is not None for r in pool.responses):
        raise DataError(f"{pool.source}: no row has a response, and the probe response measures these")
    encoder = Encoder.of(session.loaded, session.template, session.max_length, date)
    encoded = encoder.rows(pool.ids, pool.messages, pool.responses, tools=pool.tools, source=pool.source)
    model = place(session.loaded.model, session.devices)
    shards = 1 if session.devices is None else row_shards(session.devices)

    def measure(rows: np.ndarray) -> dict[str, np.ndarray]:
        total, count = np.full(len(rows), np.nan, np.float32), np.zeros(len(rows), np.int32)
        there = np.flatnonzero([pool.responses[i] is not None for i in rows])
        examples = [Example.of(encoded[rows[at]].prompt, encoded[rows[at]].response) for at in there]
        for part in chunks(by_length([len(e.tokens) for e in examples]), batch_size):
            batch = make_batch([[examples[k]] for k in part], height(len(part), batch_size, shards))
            with using(session.devices):
                total[there[part]] = np.asarray(_program()(model, batch))[: len(part)]
            count[there[part]] = [len(examples[k].trained) for k in part]
        mean = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
        return {"response_nll": total, "mean_response_nll": mean, "n_response_tokens": count}

    return measure


@functools.cache
def _program() -> Any:
    import jax

    from edjax.lm.train import response_nll

    return jax.jit(lambda model, batch: response_nll(model, batch, remat=False).sum(1))


PROBES: dict[str, Probe] = {
    "embedding": Probe("pooled hidden states of the prompt", ("embedding",)),
    "uncertainty": Probe("how unsure the model is of its own greedy answer", SCORES),
    "response": Probe(
        "how unlikely the model finds the response that a row has",
        ("response_nll", "mean_response_nll", "n_response_tokens"),
        responses,
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
