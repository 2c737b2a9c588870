"""What a model finds of the responses that rows have: as it is, and with the adapters of a training's way."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from edjax.keep.errors import DataError
from edjax.scoring.job import Asked, Measure


def responses(asked: Asked) -> Measure:
    """-ln P(response | prompt) in nats of the responses that rows have, as finetuning on them would train it.

    The tokens are those of `finetune`: cut to the same bounds, with the one that ends the response. `response_nll` is
    their sum, `mean_response_nll` that a token, NaN where a row has no response; `n_response_tokens` counts them.

    Raises:
      DataError: no row has a response; or a row that cannot be encoded.
    """
    passes = _Passes(asked, asked.job.encoder, "response")

    def measure(rows: np.ndarray) -> dict[str, np.ndarray]:
        total, count = passes.nll(asked.job.forward.model, rows), passes.count(rows)
        return {"response_nll": total, "mean_response_nll": _mean(total, count), "n_response_tokens": count}

    return measure


def trajectory(asked: Asked) -> Measure:
    """`trajectory` (r, T) float32: the mean loss of a row's response, in nats a token, with each of T adapters.

    The adapters are those of `Asked.adapters`, in the order in which a training left them; all are read before any is
    used. Column t is the response loss of `edjax.evaluate` with adapter t: tokens are cut and laid out as there, by the
    template and the day of the training where the template is auto. NaN in a row without a response, or with none of
    its tokens. The base model is there once; the adapters are kept on the host and put on it in turn.

    Cost: T passes over prompts and responses. Memory: an adapter more on the device, T on the host.

    Raises:
      DataError: an adapter that cannot be read or does not fit the model; or as `responses`.
    """
    import jax
    from flax import nnx

    from edjax.lm.adapter import adapter_notes
    from edjax.lm.encode import Encoder
    from edjax.lm.peft import import_adapter

    loaded, (template, day) = asked.session.loaded, _laid_out(asked)
    passes = _Passes(asked, Encoder.by(loaded, {**asked.config, "template": template}, day), "trajectory")
    parts = []
    for adapter in asked.adapters:
        graph, lora, frozen = nnx.split(import_adapter(asked.job.forward.model, adapter)[0], nnx.LoRAParam, ...)
        parts.append((graph, jax.device_get(lora), frozen))
    for note in adapter_notes(asked.adapters[0], loaded, template):
        asked.log(note)

    def measure(rows: np.ndarray) -> dict[str, np.ndarray]:
        count, columns = passes.count(rows), []
        for graph, lora, frozen in parts:
            model = nnx.merge(graph, jax.device_put(lora), frozen)
            columns.append(_mean(passes.nll(model, rows), count))
        return {"trajectory": np.stack(columns, axis=1)}

    return measure


class _Passes:
    """The responses of a pool as examples, passed through one model or another, some rows at a time."""

    def __init__(self, asked: Asked, encoder: Any, name: str):
        from edjax.lm.batch import Example
        from edjax.lm.mesh import row_shards

        pool, self.mesh, self.batch_size = asked.pool, asked.session.devices, asked.config["batch_size"]
        if not any(r is not None for r in pool.responses):
            raise DataError(f"{pool.source}: no row has a response, and the probe {name} measures these")
        encoded = encoder.rows(pool.ids, pool.messages, pool.responses, tools=pool.tools, source=pool.source)
        self.examples = [Example.of(row.prompt, row.response) for row in encoded]
        self.shards = 1 if self.mesh is None else row_shards(self.mesh)

    def count(self, rows: np.ndarray) -> np.ndarray:
        """(r,) int32: tokens of each response, 0 where there is none."""
        return np.array([len(self.examples[i].trained) for i in rows], np.int32)

    def nll(self, model: Any, rows: np.ndarray) -> np.ndarray:
        """(r,) float32: -ln P of each response, NaN where there is none."""
        from edjax.lm.batch import batches_by_length
        from edjax.lm.mesh import using

        total = np.full(len(rows), np.nan, np.float32)
        there = np.flatnonzero(self.count(rows))
        for part, batch in batches_by_length([self.examples[rows[at]] for at in there], self.batch_size, self.shards):
            with using(self.mesh):
                total[there[part]] = np.asarray(_program()(model, batch))[: len(part)]
        return total


def _mean(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def _laid_out(asked: Asked) -> tuple[str, str | None]:
    """The template, and the day that it prints: as they were in training, unless a template was asked for by name."""
    from edjax.lm.adapter import homes, trained_template
    from edjax.lm.dates import day_of

    first, template = asked.adapters[0], asked.config["template"]
    template = (trained_template(first) or template) if template == "auto" else template
    begun = [home for home in homes(first) if (home / "plan.json").is_file()]
    dated = day_of(asked.session.directory, template, *begun) if begun else asked.config
    return template, dated.get("date")


@functools.cache
def _program() -> Any:
    import jax

    from edjax.lm.train import total_nll

    return jax.jit(total_nll)
