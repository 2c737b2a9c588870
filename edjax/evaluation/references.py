"""What each row's answer is compared with."""

from __future__ import annotations

from collections.abc import Sequence

from edjax.data.pool import Pool
from edjax.evaluation.answers import Answers, read_answers
from edjax.evaluation.result import METRICS
from edjax.keep.errors import DataError, UsageError


def answers_of(pool: Pool, metrics: Sequence[str]) -> list[Answers]:
    """What each row is compared with, where these metrics need it.

    Raises:
      DataError: a row has nothing to be compared with, or it is unclear what is right.
      UsageError: a metric that no row can have, unless all metrics are asked for, which is to say: those there are.
    """
    loss_alone = set(metrics) == {"response_loss"}
    answers = []
    found = read_answers([pool.reading.known(record) for record in pool.records], pool.responses)
    for i, (response, one) in enumerate(zip(pool.responses, found, strict=True)):
        if loss_alone and response is not None:
            one = Answers([response], None)
        if not isinstance(one, Answers):
            raise DataError(f"{pool.source}: row {pool.ids[i]!r} {one}{pool.unanswered(i)}")
        answers.append(one)
    if "choice_accuracy" in metrics and set(metrics) != set(METRICS) and not any(can_choose(a) for a in answers):
        raise UsageError(
            f"{pool.source}: no row can have choice_accuracy: it needs a column choices, and a response or an answer "
            "that is one of them; leave the metric out"
        )
    return answers


def can_choose(answers: Answers) -> bool:
    """Whether the row has choices, one of which is right."""
    return answers.choices is not None and answers.choices.right is not None
