"""How good a model is on held-out rows, with or without an adapter."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edjax.data.groups import groups_of
from edjax.data.pool import Pool
from edjax.evaluation.config import EvaluateConfig
from edjax.evaluation.grouping import macro_scores
from edjax.evaluation.references import answers_of as answers_of
from edjax.evaluation.result import HIGHER_IS_BETTER as HIGHER_IS_BETTER
from edjax.evaluation.result import METRICS as METRICS
from edjax.evaluation.result import Evaluation as Evaluation
from edjax.keep.errors import UsageError
from edjax.keep.store import Artifact, atomic_write, write_json, writing
from edjax.lm.session import Session

if TYPE_CHECKING:
    from edjax.lm.load import LoadedModel


def _silent(text: str) -> None:
    pass


def evaluate(
    pool: Pool,
    model: str | Session = "smollm2",
    *,
    adapter: str | Path | None = None,
    out: str | Path | None = None,
    metrics: Sequence[str] = METRICS,
    max_new_tokens: int = 32,
    template: str | None = None,
    max_length: int = 1024,
    max_prompt: int | None = None,
    max_response: int | None = None,
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
      `edjax.evaluation.answers` and `edjax.evaluation.metrics`.
    * choice_accuracy: over rows with `choices`, how often the right one has the largest log-likelihood. The
      likelihood is that of the whole answer with its end-of-text token, so no length correction is needed. Among
      choices of the same text it makes no difference which is meant.

    Args:
      pool: rows with responses, or with `refs` or `answer`.
      model: a name as in `edjax.lm.load.locate`, or a `Session`, which then says dtype, quantize, mesh, bounds and,
        unless it is auto, template.
      adapter: a PEFT adapter directory to put on the model.
      out: directory for scores.json and rows.jsonl; None writes nothing.
      template: as in `edjax.lm.encode.Encoder`; None: the one that edjax trained the adapter with, or the adapter that
        was merged into the model, else "auto".
      max_length, max_prompt, max_response: as there; prompts and responses are cut as in finetuning.
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
    return evaluate_together(
        pool,
        [adapter],
        model,
        out=[out],
        metrics=metrics,
        max_new_tokens=max_new_tokens,
        template=template,
        max_length=max_length,
        max_prompt=max_prompt,
        max_response=max_response,
        batch_size=batch_size,
        dtype=dtype,
        quantize=quantize,
        mesh=mesh,
        group_by=group_by,
        date=date,
        overwrite=overwrite,
        show_progress=show_progress,
        loaded=loaded,
        log=log,
    )[0]


def evaluate_together(
    pool: Pool,
    adapters: Sequence[str | Path | None],
    model: str | Session = "smollm2",
    *,
    out: Sequence[str | Path | None] | None = None,
    at_once: int = 0,
    template: str | None = None,
    date: str | None = None,
    overwrite: bool = False,
    show_progress: bool = True,
    loaded: LoadedModel | None = None,
    log: Callable[[str], None] = _silent,
    **settings: Any,
) -> list[Evaluation]:
    """`evaluate` of each adapter on the same rows, several in one pass: one adapter of a small model leaves most of an
    accelerator idle. Each gets the scores it gets alone, up to rounding; `seconds` is its share of the time.

    Adapters share a pass if they have one form (rank, scale, places, dropout) and one template and date; the base, and
    what is alike to no other, is evaluated by itself. Directories that are complete are read.

    Args:
      adapters: PEFT adapter directories; None is the base model as it is.
      out: a directory for each, as `evaluate` writes it; None writes nothing.
      at_once: adapters a pass at the most; 0: as many as the device has memory for, 32 at the most, and 1 on a CPU,
        with a mesh or where that memory is not known.
      batch_size: rows of each adapter a batch.
      settings: dtype, quantize, mesh and bounds of a `Session` and what `EvaluateConfig` holds, as in `evaluate`.
      pool, model, the others: as in `evaluate`, for all of them.

    Raises:
      UsageError: not one directory of its own for each; several at once with a mesh; else as `evaluate`, which ends
        all of them. Those of earlier passes are written.
    """
    of_session = {f.name for f in dataclasses.fields(Session)} & settings.keys()
    session = Session.of(model, loaded, **{name: settings.pop(name) for name in of_session})
    asked = EvaluateConfig(**settings)
    if template is None and isinstance(model, Session) and session.template != "auto":
        template = session.template
    places = _places(adapters, out)
    if at_once < 0:
        raise UsageError(f"at_once is {at_once}; it must be 0 or more")
    if session.mesh and at_once > 1 and len(adapters) > 1:
        raise UsageError("several adapters at once take no mesh")
    answers = answers_of(pool, asked.metrics)
    groups = None if asked.group_by is None else groups_of(pool, asked.group_by)
    from edjax.evaluation.passes import Job, passes
    from edjax.lm.adapter import adapter_digest, adapter_notes, homes, trained_template
    from edjax.lm.dates import day_of
    from edjax.lm.mesh import check_rows, place

    devices = session.devices
    check_rows(asked.batch_size, devices)
    loaded = session.loaded
    lm = place(loaded.model, devices)
    jobs: list[Job] = []
    found: dict[int, Evaluation] = {}
    with contextlib.ExitStack() as stack:
        for i, (adapter, to) in enumerate(zip(adapters, places, strict=True)):
            own = template or trained_template(adapter or loaded.directory) or "auto"
            config = {
                **asked.record(),
                "template": own,
                "max_length": session.max_length,
                **session.own_bounds,
                "dtype": session.dtype,
                "quantize": session.quantize,
            }
            begun = [] if overwrite or to is None else [to]
            day = day_of(loaded.directory, own, *begun, *(homes(adapter) if adapter is not None else []))
            config |= day and {"date": date or day["date"]}
            adapted, artifact = lm, None
            if adapter is not None:
                from edjax.lm.peft import import_adapter

                adapted, _ = import_adapter(lm, adapter)
                for said in adapter_notes(adapter, loaded, template):
                    log(said)
            if to is not None:
                inputs = {
                    "pool": pool.digest,
                    "model": session.digest,
                    "adapter": adapter and adapter_digest(adapter),
                }
                artifact = stack.enter_context(
                    writing(to, kind="evaluation", config=config, inputs=inputs, overwrite=overwrite)
                )
            if artifact is None or not artifact.complete:
                jobs.append(Job(i, adapter, adapted, config, artifact))
        for some, results in passes(
            pool, answers, jobs, loaded, devices, 1 if session.mesh else at_once, show_progress, log
        ):
            for job, result in zip(some, results, strict=True):
                found[job.place] = _grouped(result, groups)
                if job.artifact is not None:
                    _write(job.artifact, found[job.place], pool, macro=groups is not None)
    return [found[i] if to is None else read_evaluation(to) for i, to in enumerate(places)]


def read_evaluation(path: str | Path) -> Evaluation:
    """What an earlier `evaluate(..., out=path)` found."""
    from edjax.keep.store import read_json, read_manifest

    path = Path(path)
    manifest = read_manifest(path, "evaluation")
    head = read_json(path / "scores.json")
    with open(path / "rows.jsonl", encoding="utf-8") as f:
        rows = [json.loads(line) for line in f]
    noted: dict[str, Any] = {name: manifest[name] for name in ("cut", "spelt") if name in manifest}
    macro = {"macro": head.get("macro", {}), "groups": head.get("groups", 0)}
    return Evaluation(head["scores"], head["counts"], rows, head["seconds"], noted, **macro)


def _places(adapters: Sequence[str | Path | None], out: Sequence[str | Path | None] | None) -> list[Path | None]:
    """The directory of each evaluation."""
    places = [to if to is None else Path(to) for to in (out or [None] * len(adapters))]
    if len(places) != len(adapters):
        raise UsageError(f"{len(adapters)} adapters have {len(places)} directories to be written; each needs one")
    given = [to for to in places if to is not None]
    if len(set(given)) < len(given):
        raise UsageError("two evaluations would go into one directory")
    return places


def _write(artifact: Artifact, done: Evaluation, pool: Pool, *, macro: bool) -> None:
    with atomic_write(artifact.path / "rows.jsonl", "w") as f:
        f.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in done.rows)
    head: dict[str, Any] = {"scores": done.scores, "counts": done.counts, "seconds": done.seconds}
    head |= {"macro": done.macro, "groups": done.groups} if macro else {}
    write_json(artifact.path / "scores.json", head)
    artifact.finish(rows=len(pool), pool=pool.named, **done.noted)


def _grouped(done: Evaluation, groups: Sequence[str] | None) -> Evaluation:
    if groups is None:
        return done
    rows = [{**row, "group": group} for row, group in zip(done.rows, groups, strict=True)]
    macro = macro_scores(done.rows, groups, list(done.scores))
    return dataclasses.replace(done, rows=rows, macro=macro, groups=len(set(groups)))
