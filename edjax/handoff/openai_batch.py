"""OpenAI's batch API, and what serves the same: the lines of an output file, joined by `custom_id`.

A line holds `response`, whose `body` is a chat completion (or a completion, with `text`), or an `error`. The model is
who answered. Several choices of a line are several answers. What is no whole answer is none: a request that failed, a
text that was cut at its limit or filtered, a refusal, a call of tools.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edjax.data.ids import id_of
from edjax.handoff.record import EMPTY, Answer, BadAnswer, Entry

_WHOLE = (None, "stop")


def is_output(record: dict[str, Any]) -> bool:
    """Whether a record is a line of an output file."""
    response = record.get("response", "")
    served = isinstance(response, dict) and bool({"body", "status_code"} & response.keys())
    return "custom_id" in record and (served or (response is None and bool(record.get("error"))))


def answers(entries: list[Entry]) -> Iterator[Answer]:
    """The answers of each line; one without a text where it holds none."""
    for where, record in entries:
        name = id_of(record.get("custom_id"))
        if name is None:
            raise BadAnswer(f"{where}: no custom_id; an answer is joined by the id of its row")
        response = record.get("response") or {}
        body = response.get("body") or {}
        choices = body.get("choices") or []
        names = (str(body["model"]),) if body.get("model") else ()
        failed = record.get("error") or body.get("error")
        if failed or not choices or response.get("status_code", 200) != 200:
            yield Answer(name, None, where, why=_failure(failed, response), names=names)
            continue
        for choice in choices:
            text, why = _text(choice)
            yield Answer(name, text, where, why=why, names=names)


def _failure(error: Any, response: dict[str, Any]) -> str:
    said = error.get("message") or error.get("code") if isinstance(error, dict) else error
    return f"the request failed ({said or 'status ' + str(response.get('status_code', 'unknown'))})"


def _text(choice: dict[str, Any]) -> tuple[str | None, str]:
    """The text of a choice, or why there is none."""
    message, end = choice.get("message") or {}, choice.get("finish_reason")
    if message.get("refusal"):
        return None, "the model refused"
    if message.get("tool_calls") or message.get("function_call"):
        return None, "it calls tools"
    if end not in _WHOLE:
        return None, f"not a whole answer (finish_reason {end})"
    text = message.get("content", choice.get("text"))
    return (text, "") if isinstance(text, str) and text.strip() else (None, EMPTY)
