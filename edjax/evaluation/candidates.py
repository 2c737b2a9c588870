"""Candidate responses as rows of a pool: the model's own answers to its prompts, one or several each, or those that a
column lists."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edjax.data.pool import Pool
from edjax.data.rows import absent, clean
from edjax.keep.errors import DataError, UsageError
from edjax.keep.memory import enough_memory
from edjax.lm.session import Session

if TYPE_CHECKING:
    from edjax.lm.load import LoadedModel


@enough_memory("generating", "lower --batch-size or --max-new-tokens, or take dtype bfloat16")
def generate(
    pool: Pool,
    model: str | Session = "smollm2",
    *,
    adapter: str | Path | None = None,
    samples: int = 1,
    max_new_tokens: int = 64,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    seed: int = 0,
    batch_size: int = 16,
    template: str | None = None,
    max_length: int = 1024,
    max_prompt: int | None = None,
    max_response: int | None = None,
    dtype: str = "float32",
    quantize: str = "none",
    loaded: LoadedModel | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """Answer every prompt of a pool: rows that are a pool of candidates, for `score --probe response`, for people to
    correct, or to look at.

    A row has `id` (the prompt's; of several answers "ID/1", "ID/2", ...), `prompt_id`, `prompt` and `response` (of a
    conversation `messages`, which end with the answer, and `tools`), `model`, and of the answer `n_tokens` and
    `mean_nll`, in nats a token, as the model saw it before any filter. Answer j of prompt i draws with a key of
    (seed, i samples + j): batch size and the other prompts do not change it.

    Args:
      adapter: a PEFT directory to put on the model.
      samples: answers a prompt; above 1 they are drawn, so a temperature is needed.
      temperature, top_k, top_p, min_p: as in `edjax.lm.sampling.Sampling`; 0 takes the likeliest token.
      template: auto, chat or plain; None: what the adapter was trained with, else auto.
      pool, model, the others: as in `edjax.evaluate`.

    Raises:
      UsageError: numbers that make no sense; several samples without a temperature.
      DataError: a prompt that cannot be encoded.
      EnvError: memory runs out.
    """
    if samples < 1:
        raise UsageError(f"samples is {samples}; give 1 or more")
    if samples > 1 and temperature == 0:
        raise UsageError(f"{samples} samples of the likeliest answer are all alike; give a temperature above 0")
    from edjax.lm.adapter import adapter_notes, trained_template
    from edjax.lm.generate import generate as answered
    from edjax.lm.peft import import_adapter

    bounds = {"max_prompt": max_prompt, "max_response": max_response}
    session = Session.of(model, loaded, dtype=dtype, quantize=quantize, max_length=max_length, **bounds)
    loaded = session.loaded
    own = template or trained_template(adapter or loaded.directory) or session.template
    if adapter is not None:
        loaded = replace(loaded, model=import_adapter(loaded.model, adapter)[0])
        for said in adapter_notes(adapter, loaded, template):
            log(said)
    made = answered(
        loaded,
        [messages for messages in pool.messages for _ in range(samples)],
        tools=[tools for tools in pool.tools for _ in range(samples)],
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        seed=seed,
        batch_size=batch_size,
        template=own,
        max_length=session.max_length,
        **session.own_bounds,
    )
    texts, rows = all(_is_text(pool, i) for i in range(len(pool))), []  # rows of one file have one shape
    for at, (text, statistics) in enumerate(zip(made.texts, made.statistics, strict=True)):
        i, j = divmod(at, samples)
        name = pool.ids[i] if samples == 1 else f"{pool.ids[i]}/{j + 1}"
        rows.append(
            {"id": name, "prompt_id": pool.ids[i]}
            | _turns(pool, i, text, texts=texts)
            | {"model": session.name, "n_tokens": len(statistics.nll)}
            | ({"mean_nll": float(statistics.nll.mean())} if len(statistics.nll) else {})
        )
    return rows


TEXT = ("response", "text", "content")  # keys of an answer that is an object


def listed(pool: Pool, column: str = "responses") -> list[dict[str, Any]]:
    """The answers that a column lists for each prompt, a row each, as `generate` lays them out; no model is asked.

    An answer is a text, or an object with one under the first key of `TEXT` that it has; its other keys (`source`,
    `model`, a score) become columns of its row, unless they are those of a row anyway. Ids are "ID/1", "ID/2", ... by
    place in the list. A prompt whose list is empty, null or missing has no rows; an empty text is a row without
    a response.

    Raises:
      DataError: no such column, one that is not a list in some row, or an answer that is no text; names row and place.
    """
    texts, rows = all(_is_text(pool, i) for i in range(len(pool))), []
    for i, answers in enumerate(pool.column(column)):
        where = f"{pool.source}: row {pool.ids[i]!r}: {column}"
        if absent(answers):
            continue
        if not isinstance(answers, list):
            raise DataError(f"{where} is {type(answers).__name__}, not a list of answers")
        for j, answer in enumerate(answers, 1):
            own = dict(answer) if isinstance(answer, dict) else {"text": answer}
            key = next((k for k in TEXT if not absent(own.get(k))), None)
            text = own.pop(key) if key is not None else None
            if not isinstance(text, str):
                raise DataError(f"{where}: answer {j} is no text, nor an object with one under {', '.join(TEXT)}")
            row = {"id": f"{pool.ids[i]}/{j}", "prompt_id": pool.ids[i]} | _turns(pool, i, clean(text), texts=texts)
            rows.append(row | {k: v for k, v in own.items() if k not in row and k != "role"})
    if not rows:
        raise DataError(f"{pool.source}: {column} lists no answer in any row")
    return rows


def _is_text(pool: Pool, i: int) -> bool:
    """Whether a prompt is a text and nothing else."""
    messages = pool.messages[i]
    return len(messages) == 1 and messages[0].keys() == {"role", "content"} and not pool.tools[i]


def _turns(pool: Pool, i: int, answer: str, *, texts: bool) -> dict[str, Any]:
    """A prompt and its answer as a row of a pool has them."""
    if texts:
        return {"prompt": pool.messages[i][0]["content"], "response": answer}
    answered = {"messages": [*map(dict, pool.messages[i]), {"role": "assistant", "content": answer}]}
    tools = pool.tools[i]
    return answered | ({"tools": list(tools)} if tools else {})
