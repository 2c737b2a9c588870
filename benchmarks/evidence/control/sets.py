"""What the control is run on: rows of the pool, what each is of, and their embeddings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from edjax.data.features import Features
from edjax.data.pool import Pool

MODEL, LAYER, POOLING, TEMPLATE = "smollm2", -1, "mean", "plain"
MOST = 2_200  # rows of a set, a seeded draw of them; intents are taken whole
MOST_TEMPLATED = 1_000
INTENTS = ("clinc150", "banking77")
CHOICE = ("arc_easy_text", "arc_challenge_text", "openbookqa_text")
GENERATED = (
    "ni_subtask031_winogrande_question_generation_object",
    "ni_subtask032_winogrande_question_generation_person",
)
SHORT = 200  # characters of a prompt: templates of T0 whose median prompt is no longer


class Rows(NamedTuple):
    """pool: the prompts. labels: what a split holds a third out of, and what a probe on labels guesses."""

    pool: Pool
    labels: list[str]


def intents(pool: Pool, name: str) -> Rows:
    """The rows of a data set, whose responses are its labels."""
    some = pool.take([i for i, d in enumerate(pool.column("dataset")) if d == name])
    return Rows(some, [r or "" for r in some.responses])


def of_tasks(pool: Pool, wanted: Callable[[str], bool], most: int = MOST) -> Rows:
    """At most `most` rows of the tasks that are wanted, by a seeded draw; their labels are the tasks."""
    found = np.flatnonzero([wanted(task) for task in pool.column("task")])
    some = pool.take(np.sort(np.random.Generator(np.random.PCG64(0)).permutation(found)[:most]))
    return Rows(some, [str(task) for task in some.column("task")])


def templates(pool: Pool) -> Rows:
    """Rows of T0: which question template made a prompt."""
    lengths: dict[str, list[int]] = {}
    for i, task in enumerate(pool.column("task")):
        if task.startswith("t0_"):
            lengths.setdefault(task, []).append(len(pool.prompt_text(i)))
    return of_tasks(pool, lambda task: task in lengths and float(np.median(lengths[task])) <= SHORT, MOST_TEMPLATED)


def rows_of(pool: Pool, name: str) -> Rows:
    """A set by its name: the intents; "blimp", "t0", "choice" and "winogrande", whose labels are their tasks."""
    if name in INTENTS:
        return intents(pool, name)
    if name == "t0":
        return templates(pool)
    wanted = {"choice": CHOICE.__contains__, "winogrande": GENERATED.__contains__}
    return of_tasks(pool, wanted.get(name, lambda task: task.startswith("blimp_")))


def texts(lines: Iterable[str]) -> Pool:
    """Answers as rows of their own, each once, by their own text."""
    unique = tuple(dict.fromkeys(lines))
    turns = tuple(({"role": "user", "content": text},) for text in unique)
    records = tuple({"id": text, "prompt": text} for text in unique)
    return Pool(unique, turns, (None,) * len(unique), records, None, "answers")


def scored(pool: Pool, out: Path) -> Features:
    from edjax.scoring import score

    return score(pool, MODEL, out=out, layer=LAYER, pooling=POOLING, max_new_tokens=0, template=TEMPLATE)
