"""The walk over the batches of an evaluation, the same for one model and for several adapters of one base."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from edjax.data.pool import Pool
from edjax.evaluation.answers import Answers
from edjax.evaluation.metrics import exact_match, normalise, rouge_l
from edjax.evaluation.programs import Programs
from edjax.evaluation.references import can_choose
from edjax.evaluation.result import Evaluation
from edjax.keep.progress import Advance, progress
from edjax.lm.batch import Example, batches_by_length
from edjax.lm.batching import batches, bucket, by_length, chunks, pad
from edjax.lm.bounds import Row, facts_of, notes_on
from edjax.lm.encode import Encoder
from edjax.lm.mesh import row_shards

if TYPE_CHECKING:
    from edjax.lm.decoder import CausalLM
    from edjax.lm.load import LoadedModel

CONTINUATIONS = (4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Asked(NamedTuple):
    """The rows of an evaluation as tokens, what their answers are compared with, and the seconds that encoding took."""

    pool: Pool
    answers: list[Answers]
    encoder: Encoder
    encoded: list[Row]
    eos_ids: tuple[int, ...]
    seconds: float

    @classmethod
    def of(
        cls,
        pool: Pool,
        answers: list[Answers],
        loaded: LoadedModel,
        settings: dict[str, Any],
        log: Callable[[str], None],
    ) -> Asked:
        """With the template, date and bounds of `settings`; `log` is told which rows are cut."""
        start = time.monotonic()
        encoder = Encoder.by(loaded, settings, settings.get("date"))
        responses = [r or a.references[0] for r, a in zip(pool.responses, answers, strict=True)]
        encoded = encoder.rows(pool.ids, pool.messages, responses, tools=pool.tools, source=pool.source)
        for note in notes_on(encoded, pool.ids, encoder.bounds):
            log(note)
        return cls(pool, answers, encoder, encoded, loaded.eos_ids, time.monotonic() - start)


def measure(
    asked: Asked, models: Sequence[CausalLM], settings: dict[str, Any], *, show: bool, sharing: int = 1
) -> list[Evaluation]:
    """Every model's own evaluation, by one pass over the rows.

    Args:
      models: as `edjax.evaluation.programs.Programs` takes them.
      settings: of which metrics, batch_size and max_new_tokens say what is done.
      sharing: how many evaluations the rows were encoded for.

    Returns:
      in the order of the models; `seconds` is each one's share.
    """
    start, metrics, pool = time.monotonic(), settings["metrics"], asked.pool
    run = Programs(models)
    found: list[list[dict[str, Any]]] = [[{"id": i} for i in pool.ids] for _ in models]
    with progress("evaluate", len(models) * len(pool), "rows", show=show) as advance:
        if metrics == ["response_loss"]:
            _losses(run, asked, settings, found, advance)
        else:
            prompts = [row.prompt for row in asked.encoded]
            order = by_length([len(p) for p in prompts])
            for batch in batches(prompts, order, settings["batch_size"], row_shards()):
                _evaluate_batch(run, asked, batch, settings, found)
                advance(len(models) * len(batch[0]))
    noted = facts_of(asked.encoded, pool.ids)
    means = [_means(rows, metrics) for rows in found]
    seconds = round(asked.seconds / sharing + (time.monotonic() - start) / len(models), 3)
    return [Evaluation(*mean, rows, seconds, noted) for mean, rows in zip(means, found, strict=True)]


def _means(rows: Sequence[dict[str, Any]], metrics: Sequence[str]) -> tuple[dict[str, float], dict[str, int]]:
    """By metric the mean over the rows that have it, and how many these are."""
    scores, counts = {}, {}
    for name in metrics:
        values = [row[name] for row in rows if row.get(name) is not None]
        if values:
            scores[name], counts[name] = float(np.mean(values)), len(values)
    return scores, counts


def _losses(
    run: Programs, asked: Asked, settings: dict[str, Any], found: list[list[dict[str, Any]]], advance: Advance
) -> None:
    """The loss alone: one pass over prompt and response together, no cache."""
    size, shards = settings["batch_size"], row_shards()
    examples = [Example.of(row.prompt, row.response) for row in asked.encoded]
    for part, batch in batches_by_length(examples, size, shards):
        nlls = run.response(batch)
        for rows, nll in zip(found, nlls, strict=True):
            for i, value in zip(part, nll, strict=False):
                rows[i]["response_loss"] = float(value) / len(examples[i].trained)
        advance(len(found) * len(part))


class _Wanted(NamedTuple):
    """A continuation whose likelihood is wanted: the prompt's place in the batch, which choice (-1: the response)."""

    place: int
    choice: int
    tokens: list[int]


def _evaluate_batch(
    run: Programs,
    asked: Asked,
    padded: tuple[np.ndarray, np.ndarray, np.ndarray],
    settings: dict[str, Any],
    found: list[list[dict[str, Any]]],
) -> None:
    batch, tokens, lengths = padded
    metrics = settings["metrics"]
    state = run.prefill(tokens)
    if "exact_match" in metrics or "rouge_l" in metrics:
        n = settings["max_new_tokens"]
        out = run.generate(state, lengths, max_new_tokens=n, eos_ids=asked.eos_ids)
        for rows, answers, masks in zip(found, *out, strict=True):
            for i, answer, mask in zip(batch, answers, masks, strict=False):
                _compare(rows[i], asked.encoder.decode(answer[mask]), asked.answers[i].references, metrics)
    wanted = list(_wanted(asked, batch, metrics))
    for rows, nlls in zip(found, _continuations(run, state, lengths, wanted), strict=True):
        _judge(rows, asked, batch, wanted, nlls)


def _compare(row: dict[str, Any], text: str, references: Sequence[str], metrics: Sequence[str]) -> None:
    row["generated"] = text.strip()
    if "exact_match" in metrics:
        row["exact_match"] = exact_match(text, references)
    if "rouge_l" in metrics:
        row["rouge_l"] = rouge_l(text, references)


def _wanted(asked: Asked, batch: np.ndarray, metrics: Sequence[str]) -> Iterator[_Wanted]:
    for place, i in enumerate(batch):
        row, choices = asked.encoded[i], asked.answers[i].choices
        if "response_loss" in metrics:
            yield _Wanted(place, -1, row.response)
        if "choice_accuracy" in metrics and choices is not None and can_choose(asked.answers[i]):
            room = asked.encoder.bounds.response(row.prompt)
            for c, text in enumerate(choices.texts):
                yield _Wanted(place, c, asked.encoder.response(text)[:room])


def _judge(
    rows: list[dict[str, Any]], asked: Asked, batch: np.ndarray, wanted: Sequence[_Wanted], nlls: Sequence[float]
) -> None:
    """Put the response's loss and the likeliest choice into the rows of a batch."""
    choices: dict[int, dict[int, float]] = {}
    for (place, choice, ids), nll in zip(wanted, nlls, strict=True):
        if choice < 0:
            rows[batch[place]]["response_loss"] = nll / len(ids)
        else:
            choices.setdefault(place, {})[choice] = nll
    for place, of_choice in choices.items():
        i = batch[place]
        rows[i]["choice"] = best = min(of_choice, key=of_choice.__getitem__)
        texts, _, right = asked.answers[i].choices
        rows[i]["choice_accuracy"] = float(normalise(texts[best]) == normalise(texts[right]))


def _continuations(run: Programs, state: Any, lengths: np.ndarray, wanted: Sequence[_Wanted]) -> list[list[float]]:
    """Of every model the total -ln P of each wanted continuation, batched by length; a batch is never larger than the
    prompts' own."""
    size = len(lengths)
    nlls = np.zeros((run.n, len(wanted)))
    groups: dict[int, list[int]] = {}
    for at, (_, _, ids) in enumerate(wanted):
        groups.setdefault(bucket(len(ids), CONTINUATIONS), []).append(at)
    for width, members in sorted(groups.items()):
        for part in chunks(np.asarray(members), size):
            n = -(-size // 4) if 4 * len(part) <= size else size
            tokens, counts = pad([wanted[at].tokens for at in part], n, width)
            places = np.zeros(n, np.int32)
            places[: len(part)] = [wanted[at].place for at in part]
            nlls[:, part] = run.continuation(state, lengths, places, tokens, counts)[:, : len(part)]
    return nlls.tolist()
