"""Which evaluations share a pass over the rows."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from edjax.data.pool import Pool
from edjax.evaluation.answers import Answers
from edjax.evaluation.programs import bytes_of_adapter, kind
from edjax.evaluation.result import Evaluation
from edjax.evaluation.room import adapters_at_once
from edjax.evaluation.walk import Asked, measure
from edjax.keep.memory import enough_memory
from edjax.keep.store import Artifact
from edjax.lm.mesh import Mesh, using

if TYPE_CHECKING:
    from edjax.lm.decoder import CausalLM
    from edjax.lm.load import LoadedModel

LESS = "lower batch_size (evaluation_batch_size of a recipe) or max_length, or take dtype bfloat16 or a mesh"


class Job(NamedTuple):
    """One of several evaluations: its place among them, the adapter and the model that has it, the settings, and where
    it is written."""

    place: int
    adapter: str | Path | None
    model: CausalLM
    settings: dict[str, Any]
    artifact: Artifact | None


def passes(
    pool: Pool,
    answers: list[Answers],
    jobs: Sequence[Job],
    loaded: LoadedModel,
    mesh: Mesh | None,
    at_once: int,
    show: bool,
    log: Callable[[str], None],
) -> Iterator[tuple[list[Job], list[Evaluation]]]:
    """The jobs of each pass over the rows, and what it found of them.

    Args:
      jobs: their settings differ in template and date at most.
      at_once: jobs a pass at the most; 0: as many as the device has memory for.
    """
    for prompted in _alike(jobs, lambda job: (job.settings["template"], job.settings.get("date"))):
        with enough_memory("evaluating", LESS):
            asked = Asked.of(pool, answers, loaded, prompted[0].settings, log)
        for formed in [prompted] if at_once == 1 or len(prompted) == 1 else _alike(prompted, _form):
            n = at_once or _how_many(formed, asked)
            for some in (formed[i : i + n] for i in range(0, len(formed), n)):
                less = LESS if len(some) == 1 else f"evaluate fewer at once (cells_at_once of a recipe), {LESS}"
                with using(mesh), enough_memory("evaluating", less):
                    models = [job.model for job in some]
                    found = measure(asked, models, some[0].settings, show=show, sharing=len(prompted))
                yield some, found


def _alike(jobs: Sequence[Job], key: Callable[[Job], Hashable]) -> list[list[Job]]:
    groups: dict[Hashable, list[Job]] = {}
    for job in jobs:
        groups.setdefault(key(job), []).append(job)
    return list(groups.values())


def _form(job: Job) -> Hashable:
    """The same for jobs that can share a pass; the base has nothing that could be stacked."""
    return job.place if job.adapter is None else kind(job.model)


def _how_many(jobs: Sequence[Job], asked: Asked) -> int:
    """How many of jobs of one form the device has memory for at once."""
    if len(jobs) == 1:
        return 1
    settings, model = jobs[0].settings, jobs[0].model
    return adapters_at_once(
        model.config,
        asked.encoded,
        adapter=bytes_of_adapter(model),
        batch_size=settings["batch_size"],
        max_new_tokens=settings["max_new_tokens"],
        dtype=settings["dtype"],
    )
