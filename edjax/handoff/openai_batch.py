"""OpenAI's batch API, and what serves the same: the lines of an output file, joined by `custom_id`.

A line holds `response`, or an `error`. The `body` of a response is a chat completion (or a completion, with `text`), or
an `output` of items, of /v1/responses. The model is who answered. Several choices of a line are several answers. What
is no whole answer is none: a request that failed, a text that was cut at its limit or filtered, a refusal, a call of
tools.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edjax.data.ids import id_of
from edjax.handoff.record import EMPTY, Answer, BadAnswer, Entry

_WHOLE = (None, "stop")
_CALLS = ("function_call", "custom_tool_call", "computer_call", "local_shell_call")  # that wait for whoever asked


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
        names = (str(body["model"]),) if body.get("model") else ()
        failed = record.get("error") or body.get("error")
        status = response.get("status_code")
        if failed or str(200 if status is None else status) != "200":
            yield Answer(name, None, where, why=_failure(failed, response), names=names)
            continue
        found = [_output(body)] if body.get("object") == "response" else map(_text, body.get("choices") or [])
        found = list(found) or [(None, "the response holds neither choices nor output")]
        for text, why in found:
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
    return _filled(_joined(message.get("content", choice.get("text"))))


def _output(body: dict[str, Any]) -> tuple[str | None, str]:
    """The text of a body of /v1/responses, or why there is none."""
    items = [item for item in body.get("output") or [] if isinstance(item, dict)]
    parts = [item.get("content") for item in items if item.get("type") == "message"]
    lists = [content for content in parts if isinstance(content, list)]
    if any(isinstance(part, dict) and part.get("type") == "refusal" for content in lists for part in content):
        return None, "the model refused"
    if any(item.get("type") in _CALLS for item in items):
        return None, "it calls tools"
    if (status := body.get("status", "completed")) != "completed":
        return None, f"not a whole answer (status {status})"
    return _filled("".join(filter(None, map(_joined, parts))))


def _joined(content: Any) -> Any:
    """A text, or the texts of a list of parts as one."""
    if not isinstance(content, list):
        return content
    return "".join(part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str))


def _filled(text: Any) -> tuple[str | None, str]:
    return (text, "") if isinstance(text, str) and text.strip() else (None, EMPTY)
