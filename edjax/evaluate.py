"""How good a model is on held-out rows, with or without an adapter."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edjax.answers import Answers, read_answers
from edjax.batching import batches, bucket, by_length, chunks, height, pad
from edjax.errors import DataError, UsageError
from edjax.grouping import groups_of, macro_scores
from edjax.lm.bounds import Bounds, facts_of, notes_on
from edjax.memory import enough_memory
from edjax.metrics import exact_match, normalise, rouge_l
from edjax.pool import Pool
from edjax.progress import progress
from edjax.store import atomic_write, write_json, writing

if TYPE_CHECKING:
    from edjax.lm.load import LoadedModel

METRICS = ("response_loss", "exact_match", "rouge_l", "choice_accuracy")
HIGHER_IS_BETTER = {"response_loss": False, "exact_match": True, "rouge_l": True, "choice_accuracy": True}
CONTINUATIONS = (4, 8, 16, 32, 64, 128, 256, 512, 1024)
LESS = "lower batch_size (evaluation_batch_size of a recipe) or max_length, or take dtype bfloat16 or a mesh"


@dataclass(frozen=True)
class Evaluation:
    """Means over rows by metric, how many rows each mean is over, and the rows themselves.

    Where a column was named to group by, `macro` holds by metric the mean over its values of each value's mean,
    `groups` how many values there are, and every row its own under "group". `noted`: how many rows were cut or hold
    control tokens, and the first of them.
    """

    scores: dict[str, float]
    counts: dict[str, int]
    rows: list[dict[str, Any]]
    seconds: float
    noted: dict[str, Any] = field(default_factory=dict)
    macro: dict[str, float] = field(default_factory=dict)
    groups: int = 0


def _silent(text: str) -> None:
    pass


def evaluate(
    pool: Pool,
    model: str = "smollm2",
    *,
    adapter: str | Path | None = None,
    out: str | Path | None = None,
    metrics: Sequence[str] = METRICS,
    max_new_tokens: int = 32,
    template: str | None = None,
    max_length: int = 1024,
    batch_size: int = 16,
    dtype: str = "float32",
    quantize: str = "none",
    mesh: str = "",
    group_by: str | None = None,
    date: str | None = None,
    overwrite: bool = False,
    show_progress: bool = True,
    loaded: LoadedModel | None = None,
    log: Callable[[str], None] = _silent,
) -> Evaluation:
    """Score a model's answers on labelled rows.

    One prefill of each prompt serves all metrics:

    * response_loss: mean over rows of the mean negative log-likelihood (nats a token, end-of-text included) of the
      response, else of the first of `refs` or `answer`. Its tokens are those that finetuning on the row would train.
    * exact_match, rouge_l: of the greedy answer against `refs` (else `answer`, else the response), see
      `edjax.answers` and `edjax.metrics`.
    * choice_accuracy: over rows with `choices`, how often the right one has the largest log-likelihood. The
      likelihood is that of the whole answer with its end-of-text token, so no length correction is needed. Among
      choices of the same text it makes no difference which is meant.

    Args:
      pool: rows with responses, or with `refs` or `answer`.
      adapter: a PEFT adapter directory to put on the model.
      out: directory for scores.json and rows.jsonl; None writes nothing.
      template: as in `edjax.lm.encode.Encoder`; None: the one that edjax trained the adapter with, or the adapter that
        was merged into the model, else "auto".
      max_length: as there; prompts and responses are cut as in finetuning.
      dtype: float32 or bfloat16 weights and activations.
      quantize: none, or int8 or nf4 for the projections of the base model.
      mesh: devices to share the rows and the model among, as in `edjax.lm.mesh.parse_mesh`; of one process.
      group_by: a column of the rows whose values are to count alike: `macro` beside the means over rows.
      date: the day that a chat template prints where it asks for today's; None: that of `out`, else the adapter's,
        else today.
      loaded: the model, if the caller has it already (with its adapter in place, if `adapter` is None), in `dtype`.
      log: is told how many rows are cut or hold control tokens, and where the adapter does not fit what it is put on:
        another base model, tokenizer or template.

    Raises:
      DataError: a row without a response and an answer, or whose answer is unclear, or without a value to group by; a
        damaged adapter.
      UsageError: no metric, an unknown one, or one that none of these rows can have (unless all are asked for); a mesh
        that does not fit the devices, the model or `batch_size`.
      EnvError: memory runs out.
    """
    if not metrics:
        raise UsageError(f"no metrics are asked for; edjax computes: {', '.join(METRICS)}")
    if unknown := [m for m in metrics if m not in METRICS]:
        raise UsageError(f"metrics {unknown} are unknown; edjax computes: {', '.join(METRICS)}")
    Bounds.of(max_length)
    answers = answers_of(pool, metrics)
    groups = None if group_by is None else groups_of(pool, group_by)
    from edjax.lm.dates import day_of
    from edjax.lm.load import digest, load
    from edjax.lm.mesh import check_rows, parse_mesh, place, using

    devices = parse_mesh(mesh)
    check_rows(batch_size, devices)
    loaded = loaded or load(model, dtype, quantize, devices)
    from edjax.lm.adapter import adapter_digest, adapter_notes, homes, trained_template

    template, asked = template or trained_template(adapter or loaded.directory) or "auto", template
    settings = {
        "metrics": list(metrics),
        "max_new_tokens": max_new_tokens,
        "template": template,
        "max_length": max_length,
        "batch_size": batch_size,
        "dtype": dtype,
        "quantize": quantize,
        **({} if group_by is None else {"group_by": group_by}),
    }
    begun = [] if overwrite or out is None else [Path(out)]
    day = day_of(loaded.directory, template, *begun, *(homes(adapter) if adapter is not None else []))
    settings |= day and {"date": date or day["date"]}
    lm = place(loaded.model, devices)
    if adapter is not None:
        from edjax.lm.peft import import_adapter

        lm, _ = import_adapter(lm, adapter)
        for said in adapter_notes(adapter, loaded, asked):
            log(said)

    def measured() -> Evaluation:
        with using(devices), enough_memory("evaluating", LESS):
            return _grouped(_evaluate(pool, answers, lm, loaded, settings, show_progress, log), groups)

    if out is None:
        return measured()
    out = Path(out)
    inputs = {"pool": pool.digest, "model": digest(loaded.directory), "adapter": adapter and adapter_digest(adapter)}
    with writing(out, kind="evaluation", config=settings, inputs=inputs, overwrite=overwrite) as artifact:
        if not artifact.complete:
            done = measured()
            with atomic_write(out / "rows.jsonl", "w") as f:
                f.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in done.rows)
            head = {"scores": done.scores, "counts": done.counts, "seconds": done.seconds}
            head |= {"macro": done.macro, "groups": done.groups} if groups is not None else {}
            write_json(out / "scores.json", head)
            artifact.finish(rows=len(pool), pool=pool.source, **done.noted)
    return read_evaluation(out)


def read_evaluation(path: str | Path) -> Evaluation:
    """What an earlier `evaluate(..., out=path)` found."""
    from edjax.store import read_json, read_manifest

    path = Path(path)
    manifest = read_manifest(path, "evaluation")
    head = read_json(path / "scores.json")
    with open(path / "rows.jsonl", encoding="utf-8") as f:
        rows = [json.loads(line) for line in f]
    noted: dict[str, Any] = {name: manifest[name] for name in ("cut", "spelt") if name in manifest}
    macro = {"macro": head.get("macro", {}), "groups": head.get("groups", 0)}
    return Evaluation(head["scores"], head["counts"], rows, head["seconds"], noted, **macro)


def _grouped(done: Evaluation, groups: Sequence[str] | None) -> Evaluation:
    if groups is None:
        return done
    rows = [{**row, "group": group} for row, group in zip(done.rows, groups, strict=True)]
    macro = macro_scores(done.rows, groups, list(done.scores))
    return replace(done, rows=rows, macro=macro, groups=len(set(groups)))


def answers_of(pool: Pool, metrics: Sequence[str]) -> list[Answers]:
    """What each row is compared with, where these metrics need it.

    Raises:
      DataError: a row has nothing to be compared with, or it is unclear what is right.
      UsageError: a metric that no row can have, unless all metrics are asked for, which is to say: those there are.
    """
    loss_alone = set(metrics) == {"response_loss"}
    answers = []
    found = read_answers(pool.records, pool.responses)
    for i, (response, one) in enumerate(zip(pool.responses, found, strict=True)):
        if loss_alone and response is not None:
            one = Answers([response], None)
        if not isinstance(one, Answers):
            raise DataError(f"{pool.source}: row {pool.ids[i]!r} {one}{pool.unanswered(i)}")
        answers.append(one)
    if "choice_accuracy" in metrics and set(metrics) != set(METRICS) and not any(_can_choose(a) for a in answers):
        raise UsageError(
            f"{pool.source}: no row can have choice_accuracy: it needs a column choices, and a response or an answer "
            "that is one of them; leave the metric out"
        )
    return answers


def _can_choose(answers: Answers) -> bool:
    return answers.choices is not None and answers.choices.right is not None


def _evaluate(
    pool: Pool,
    answers: list[Answers],
    lm: Any,
    loaded: LoadedModel,
    settings: dict,
    show: bool,
    log: Callable[[str], None],
) -> Evaluation:
    from edjax.lm.encode import Encoder
    from edjax.lm.mesh import row_shards

    start = time.monotonic()
    encoder = Encoder.of(loaded, settings["template"], settings["max_length"], settings.get("date"))
    responses = [r or a.references[0] for r, a in zip(pool.responses, answers, strict=True)]
    encoded = encoder.rows(pool.ids, pool.messages, responses, tools=pool.tools, source=pool.source)
    for note in notes_on(encoded, pool.ids, encoder.bounds):
        log(note)
    prompts = [row.prompt for row in encoded]
    rows: list[dict[str, Any]] = [{"id": i} for i in pool.ids]
    with progress("evaluate", len(pool), "rows", show=show) as advance:
        if settings["metrics"] == ["response_loss"]:
            _losses(lm, encoded, settings, rows, advance)
        else:
            order = by_length([len(p) for p in prompts])
            for batch in batches(prompts, order, settings["batch_size"], row_shards()):
                _evaluate_batch(encoded, answers, lm, loaded.eos_ids, encoder, batch, settings, rows)
                advance(len(batch[0]))
    scores, counts = {}, {}
    for name in settings["metrics"]:
        values = [row[name] for row in rows if row.get(name) is not None]
        if values:
            scores[name], counts[name] = float(np.mean(values)), len(values)
    noted = facts_of(encoded, pool.ids)
    return Evaluation(scores, counts, rows, round(time.monotonic() - start, 3), noted)


def _losses(lm, encoded, settings, rows, advance) -> None:
    """The loss alone: one pass over prompt and response together, no cache."""
    from edjax.lm.batch import Example, make_batch
    from edjax.lm.mesh import row_shards

    size, shards = settings["batch_size"], row_shards()
    examples = [Example.of(row.prompt, row.response) for row in encoded]
    for part in chunks(by_length([len(e.tokens) for e in examples]), size):
        nll = _compiled().response(lm, make_batch([[examples[i]] for i in part], height(len(part), size, shards)))
        for i, value in zip(part, np.asarray(nll), strict=False):
            rows[i]["response_loss"] = float(value) / len(examples[i].trained)
        advance(len(part))


def _evaluate_batch(encoded, answers, lm, eos_ids, encoder, padded, settings, rows) -> None:
    run, metrics = _compiled(), settings["metrics"]
    batch, tokens, lengths = padded
    state = run.prefill(lm, tokens)
    if "exact_match" in metrics or "rouge_l" in metrics:
        n = settings["max_new_tokens"]
        out = run.generate(lm, state, lengths, max_new_tokens=n, eos_ids=eos_ids)
        texts = [encoder.decode(t[m]) for t, m in zip(np.asarray(out.tokens), np.asarray(out.mask), strict=True)]
        for i, text in zip(batch, texts, strict=False):
            refs = answers[i].references
            rows[i]["generated"] = text.strip()
            if "exact_match" in metrics:
                rows[i]["exact_match"] = exact_match(text, refs)
            if "rouge_l" in metrics:
                rows[i]["rouge_l"] = rouge_l(text, refs)
    wanted: list[tuple[int, int, list[int]]] = []  # (place in the batch, choice or -1 for the response, tokens)
    for place, i in enumerate(batch):
        if "response_loss" in metrics:
            wanted.append((place, -1, encoded[i].response))
        if "choice_accuracy" in metrics and _can_choose(answers[i]):
            room = encoder.bounds.response(encoded[i].prompt)
            wanted += [(place, c, encoder.response(t)[:room]) for c, t in enumerate(answers[i].choices.texts)]
    choices: dict[int, dict[int, float]] = {}
    for (place, choice, ids), nll in zip(wanted, _continuations(run, lm, state, lengths, wanted), strict=True):
        if choice < 0:
            rows[batch[place]]["response_loss"] = nll / len(ids)
        else:
            choices.setdefault(place, {})[choice] = nll
    for place, nlls in choices.items():
        i = batch[place]
        rows[i]["choice"] = best = min(nlls, key=nlls.__getitem__)
        texts, _, right = answers[i].choices
        rows[i]["choice_accuracy"] = float(normalise(texts[best]) == normalise(texts[right]))


def _continuations(run, lm, state, lengths, wanted) -> list[float]:
    """Total -ln P of every wanted continuation, batched by length; a batch is never larger than the prompts' own."""
    size = len(lengths)
    nlls = [0.0] * len(wanted)
    groups: dict[int, list[int]] = {}
    for at, (_, _, ids) in enumerate(wanted):
        groups.setdefault(bucket(len(ids), CONTINUATIONS), []).append(at)
    for width, members in sorted(groups.items()):
        for part in chunks(np.asarray(members), size):
            n = -(-size // 4) if 4 * len(part) <= size else size
            tokens, counts = pad([wanted[at][2] for at in part], n, width)
            places = np.zeros(n, np.int32)
            places[: len(part)] = [wanted[at][0] for at in part]
            values = np.asarray(run.continuation(lm, state, lengths, places, tokens, counts))
            for at, value in zip(part, values, strict=False):
                nlls[at] = float(value)
    return nlls


@dataclass(frozen=True)
class _Run:
    prefill: Any
    generate: Any
    continuation: Any
    response: Any


@functools.cache
def _compiled() -> _Run:
    import jax

    from edjax.lm.decode import continuation_nll, decode
    from edjax.lm.decoder import Cache
    from edjax.lm.train import response_nll

    @jax.jit
    def prefill(lm, tokens):
        hidden, _, cache = lm.prefill(tokens)
        return hidden, cache

    @functools.partial(jax.jit, static_argnames=("max_new_tokens", "eos_ids"))
    def generate(lm, state, lengths, *, max_new_tokens, eos_ids):
        hidden, cache = state
        return decode(lm, hidden, cache, lengths, max_new_tokens=max_new_tokens, eos_ids=eos_ids, statistics=False)

    @jax.jit
    def continuation(lm, state, lengths, places, tokens, counts):
        hidden, cache = state
        rows = Cache(cache.k[:, places], cache.v[:, places])
        return continuation_nll(lm, hidden[places], rows, lengths[places], tokens, counts).sum(1)

    @jax.jit
    def response(lm, batch):
        return response_nll(lm, batch, remat=False).sum(1)

    return _Run(prefill, generate, continuation, response)
