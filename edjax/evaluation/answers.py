"""What the columns of a labelled row say is right: the acceptable answers, and which of its choices.

Answers: `refs`, else `answer`, each a text, a number or a list of these; else the response. A text that ends in a line
"#### 18", as GSM8K's do, also accepts what stands there. Choices: `choices`, a list of texts or numbers, of objects
with text and label, {"text": [...], "label": [...]} as in ARC, or {"A": ..., "B": ...}. Which is right: the one that
the response names, else the answer (`answer`, `answerKey`, `answer_idx`), by its text or its label; where there are no
labels a letter counts from A and a whole number from 0, as in MMLU, also if it is text. What can be read in two ways is
refused, and so are a response and an answer that name two choices and a key that names none.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from edjax.data.rows import absent
from edjax.data.turns import accepted, number_text
from edjax.evaluation.metrics import final_answers, normalise

KEYS = ("answerKey", "answer_key", "answer_idx", "answer_index")  # columns that name one of the choices


class Unclear(ValueError):
    """A row that does not say what is right; the text goes on after its name: has no response, ..."""


class Choices(NamedTuple):
    """The choices of a row, their labels (None where they have none), and which is right (None: it does not say)."""

    texts: list[str]
    labels: list[str] | None
    right: int | None


class Answers(NamedTuple):
    """What a row is compared with: acceptable answers, the first of which is the response where the row has none."""

    references: list[str]
    choices: Choices | None


def read_answers(records: Sequence[Mapping[str, Any]], responses: Sequence[str | None]) -> list[Answers | Unclear]:
    """The answers of rows, or why they are unclear; integers as answers to choices mean the same in all rows."""
    as_index = _integers_are_places(records, responses)
    found: list[Answers | Unclear] = []
    for record, response in zip(records, responses, strict=True):
        try:
            found.append(_answers(record, response, as_index))
        except Unclear as e:
            found.append(e)
    return found


def references(record: Mapping[str, Any], response: str | None) -> list[str]:
    """The acceptable answers of one row; see the module's text."""
    return _answers(record, response, _integers_are_places([record], [response])).references


def right_choice(record: Mapping[str, Any], response: str | None) -> int | None:
    """The place of the right one of `choices`; None where a row has no choices or none is the answer."""
    choices = _choices(record, response, _integers_are_places([record], [response]))
    return None if choices is None else choices.right


def _answers(record: Mapping[str, Any], response: str | None, as_index: bool | None) -> Answers:
    choices = _choices(record, response, as_index)
    texts = _listed(record.get("refs"), "refs") or _own(record, choices) or ([response] if response else [])
    if not texts and choices is not None and choices.right is not None:
        texts = [choices.texts[choices.right]]
    if not texts:
        raise Unclear("has no response to compare with, and neither refs nor an answer")
    finals = [final for text in texts for final in final_answers(text)]
    return Answers(list(dict.fromkeys([*texts, *finals])), choices)


def _own(record: Mapping[str, Any], choices: Choices | None) -> list[str]:
    """What `answer` accepts. Where it names a choice by label or place: the choice's text, and its label unless that
    is what another choice says."""
    value, is_key = _answer(record, choices is not None)
    texts = _listed(value, "answer")
    if choices is not None:
        value = _as_number(value, is_key, choices.texts, choices.labels)
    if choices is None or choices.right is None or isinstance(value, (list, tuple)) or not texts:
        return texts
    text, names = choices.texts[choices.right], [normalise(t) for t in choices.texts]
    label = choices.labels[choices.right] if choices.labels else chr(ord("A") + choices.right)
    said = normalise(texts[0])
    if said != normalise(label) and (isinstance(value, str) or (said == normalise(text) and value != choices.right)):
        return texts
    return [text] if normalise(label) in names else [text, label]


def _answer(record: Mapping[str, Any], of_choices: bool) -> tuple[Any, bool]:
    """(the answer, whether its column names a choice rather than a text); (None, False) where the row has none. Beside
    no choices, `answers` of SQuAD are such."""
    for name in ("answer", *KEYS) if of_choices else ("answer",):
        value = record.get(name)
        if not (absent(value) or value == "" or value == []):
            return value, name in KEYS
    texts = [] if of_choices else accepted(record.get("answers"))
    return texts or None, False


def _listed(value: Any, name: str) -> list[str]:
    """The texts of a text, a number, or a list of these; [] for nothing."""
    if absent(value) or value == "":
        return []
    if isinstance(value, (list, tuple)):
        return [text for v in value if (text := _text(v, f"an entry of {name}")).strip()]
    return [_text(value, name)]


def _text(value: Any, name: str) -> str:
    """Text as it is, numbers as people write them: 3.0 is 3."""
    text = value if isinstance(value, str) else number_text(value)
    if text is None:
        raise Unclear(f"has {value!r} as {name}, which is neither text, nor a number, nor a list of these")
    return text


# Choices


def _choices(record: Mapping[str, Any], response: str | None, as_index: bool | None) -> Choices | None:
    laid_out = _laid_out(record.get("choices"))
    if laid_out is None:
        return None
    texts, labels = laid_out
    by_response = _named(response, texts, labels) if response else set()
    value, is_key = _answer(record, True)
    if isinstance(value, (list, tuple)):
        value = value[0] if len(value) == 1 else None
    value = _as_number(value, is_key, texts, labels)
    by_answer: set[int] = set()
    if isinstance(value, str):
        by_answer = _named(value, texts, labels, label_first=is_key)
        if is_key and not by_answer:
            raise Unclear(f"has the key {value!r}, which is none of its {len(texts)} choices")
    elif value is not None:
        by_answer = _numbered(value, texts, labels, by_response, as_index)
    _agree(value, by_answer, by_response, texts)
    right = (by_response & by_answer) or by_response or by_answer
    if len(right) > 1:
        first, second = (f"{texts[i]!r}" for i in sorted(right)[:2])
        raise Unclear(
            f"has an answer that may mean the choice {first} or, by its label, {second}; give it in other words"
        )
    return Choices(texts, labels, next(iter(right), None))


def _agree(value: Any, by_answer: set[int], by_response: set[int], texts: Sequence[str]) -> None:
    answers, responses = ({normalise(texts[i]) for i in which} for which in (by_answer, by_response))
    if answers and responses and answers.isdisjoint(responses):
        meant, named = (", ".join(repr(texts[i]) for i in sorted(which)) for which in (by_answer, by_response))
        said = repr(value) if isinstance(value, str) else _text(value, "answer")
        counted = " (places count from 0)" if by_answer == {value} else ""
        raise Unclear(f"has the answer {said}, the choice {meant}{counted}, and a response that is {named}")


def _as_number(value: Any, is_key: bool, texts: Sequence[str], labels: Sequence[str] | None) -> Any:
    """A whole number that is text, as a number: where no choice has that text or label, and where a key can be nothing
    but a place. Anything else as it is."""
    if not isinstance(value, str) or not re.fullmatch(r"\s*-?[0-9]{1,18}\s*", value):
        return value
    place = is_key and labels is None
    return int(value) if place or not _named(value, texts, labels) else value


def _laid_out(value: Any) -> tuple[list[str], list[str] | None] | None:
    """The texts and labels of `choices`; None where there is nothing to choose from."""
    if isinstance(value, Mapping):
        value = {k: v for k, v in value.items() if not absent(v)}
        texts, labels = value.get("text"), value.get("label")
        if isinstance(texts, (list, tuple)):
            if labels is not None and (not isinstance(labels, (list, tuple)) or len(labels) != len(texts)):
                raise Unclear(f"has {len(texts)} texts among its choices, and not as many labels")
            value = texts
        else:
            value, labels = list(value.values()), list(value)
    elif isinstance(value, (list, tuple)) and value and all(isinstance(v, Mapping) for v in value):
        missing = next((v for v in value if "text" not in v), None)
        if missing is not None:
            raise Unclear(f"has an entry of choices without text: {dict(missing)!r}")
        labelled = [v.get("label") for v in value]
        value, labels = [v["text"] for v in value], None if None in labelled else labelled
    else:
        labels = None
    if not isinstance(value, (list, tuple)) or len(value) < 2:
        return None
    texts = [_text(v, "an entry of choices") for v in value]
    return texts, None if labels is None else [_text(v, "a label of choices") for v in labels]


def _named(text: str, texts: Sequence[str], labels: Sequence[str] | None, *, label_first: bool = False) -> set[int]:
    """The choices that a text may mean: the first whose text it is, and the one whose label.

    Letters that nobody wrote beside the choices give way to their texts; a column of labels means labels.
    """
    wanted = normalise(text)
    names = [normalise(t) for t in texts]
    marks = [normalise(m) for m in labels or [chr(ord("A") + i) for i in range(min(len(texts), 26))]]
    found = [where.index(wanted) for where in ((marks, names) if label_first else (names, marks)) if wanted in where]
    return set(found[:1] if label_first or labels is None else found)


def _places(
    value: float | Decimal, texts: Sequence[str], labels: Sequence[str] | None
) -> tuple[int | None, int | None]:
    """(the choice whose text or label a number is, the choice whose place it is, from 0)."""
    named = _named(_text(value, "answer"), texts, labels, label_first=labels is not None)
    place = int(value) if value == int(value) and 0 <= value < len(texts) else None
    return next(iter(named), None), place


def _numbered(
    value: Any,
    texts: Sequence[str],
    labels: Sequence[str] | None,
    by_response: set[int],
    as_index: bool | None,
) -> set[int]:
    """The choice that a number as answer means."""
    said = _text(value, "answer")
    by_text, by_place = _places(value, texts, labels)
    if labels is not None and by_text is not None:
        return {by_text}
    if by_text is None and by_place is None:
        raise Unclear(f"has the answer {said}, which is none of its {len(texts)} choices (places count from 0)")
    if by_text == by_place or by_text is None or by_place is None:
        meant = by_place if by_place is not None else by_text
    else:
        fits = {by_text, by_place} & by_response
        if len(fits) == 1:
            meant = fits.pop()
        elif as_index is None:
            raise Unclear(
                f"has the answer {said}, which may mean the choice {texts[by_text]!r} or, counted from 0, "
                f"{texts[by_place]!r}; give it as the text or the letter of the choice"
            )
        else:
            meant = by_place if as_index else by_text
    assert meant is not None
    return {meant}


def _integers_are_places(records: Sequence[Mapping[str, Any]], responses: Sequence[str | None]) -> bool | None:
    """Whether numbers as answers are places, as rows show where they can be nothing else; None: nothing shows it."""
    shown: set[bool] = set()
    for record, response in zip(records, responses, strict=True):
        try:
            laid_out = _laid_out(record.get("choices"))
        except Unclear:
            continue
        if laid_out is None:
            continue
        value = _as_number(*_answer(record, True), *laid_out)
        if isinstance(value, bool) or not isinstance(value, int | float | Decimal) or not math.isfinite(value):
            continue
        by_text, by_place = _places(value, *laid_out)
        if by_text != by_place and None in (by_text, by_place):
            shown.add(by_text is None)
        elif by_text != by_place and response:
            fits = {by_text, by_place} & _named(response, *laid_out)
            if len(fits) == 1:
                shown.add(by_place in fits)
    return shown.pop() if len(shown) == 1 else None
