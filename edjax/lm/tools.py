"""Calls and functions in a chat template: shown whole, or refused; a template that has no place for them is silent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from edjax.keep.errors import DataError

Message = dict[str, Any]
Render = Callable[[Sequence[Message]], str]


def refuse_plain(messages: Sequence[Message], tools: Sequence[Any] | None) -> None:
    """Raises a `DataError` where functions or calls would be left out of a plain prompt."""
    if tools or any("tool_calls" in m for m in messages):
        what = "offers tools" if tools else "calls tools"
        raise DataError(f"it {what}, which only a chat template lays out; use --template chat and a model that has one")


def check_shown(text: str, messages: Sequence[Message], bare: Render | None, render: Render) -> None:
    """Raises a `DataError` where the template leaves out functions, a call, or what a call returned.

    Args:
      text: `render(messages)`.
      bare: renders without the functions on offer; None where there are none.
      render: renders with them.
    """
    remedy = "use a model whose template shows them, or leave the row out"
    if bare is not None and _same(bare, messages, text):
        raise DataError(f"the model's chat template leaves out the tools on offer; {remedy}")
    for n, message in enumerate(messages):
        calls = message.get("tool_calls", [])
        for k in range(len(calls)):
            rest = [*calls[:k], *calls[k + 1 :]]
            without = {k: v for k, v in message.items() if k != "tool_calls"} | ({"tool_calls": rest} if rest else {})
            if _same(render, [*messages[:n], without, *messages[n + 1 :]], text):
                raise DataError(f"the model's chat template leaves out a tool call of turn {n + 1}; {remedy}")
        if message["role"] == "tool" and _same(render, [*messages[:n], *messages[n + 1 :]], text):
            raise DataError(f"the model's chat template leaves out turn {n + 1}, of role tool; {remedy}")


def _same(render: Render, messages: Sequence[Message], text: str) -> bool:
    try:
        return render(messages) == text
    except DataError:  # a template may refuse what is left: then it did look at what is gone
        return False
