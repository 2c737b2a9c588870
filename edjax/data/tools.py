"""Functions that a model may call: what a row offers, and the calls in its turns, in one form whatever wrote them.

A function is `{"type": "function", "function": {"name", "description", "parameters"}}` and a call `{"type": "function",
"id", "function": {"name", "arguments"}}` with arguments as an object: what chat templates read (huggingface.co/docs/
transformers/chat_extras). Read are OpenAI's `tools` and `tool_calls`, its older `functions` and `function_call`,
functions and calls without the wrapping, arguments as JSON text, and each of these lists as JSON text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from edjax.data.rows import BadRow, absent, clean

Tool = dict[str, Any]


def read_tools(value: Any, column: str) -> tuple[Tool, ...] | None:
    """The functions that a row offers; None where there are none.

    Raises:
      BadRow: a value that is no list of functions with a name.
    """
    found = []
    for number, tool in enumerate(_listed(value, f"the column {column!r}"), 1):
        function = (tool.get("function") or tool) if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise BadRow(
                f"entry {number} of the column {column!r} is no function with a name (if it is none, rename the column)"
            )
        if isinstance(parameters := function.get("parameters"), str):
            function = function | {"parameters": _json(parameters, f"the parameters of {function['name']!r}")}
        found.append({"type": "function"} | (tool if "function" in tool else {}) | {"function": function})
    return tuple(map(_clean, found)) or None


def read_calls(turn: Mapping[str, Any], number: int) -> list[Tool]:
    """The calls of turn `number`, empty where it makes none."""
    value = next((turn[k] for k in ("tool_calls", "function_call") if not absent(turn.get(k))), None)
    return calls_of(value, f"turn {number}")


def calls_of(value: Any, where: str) -> list[Tool]:
    """Calls in any of the forms that are read.

    Raises:
      BadRow: a value that is no list of calls, a call without a name, arguments that are no object.
    """
    calls = []
    for call in _listed(value, f"the tool calls of {where}"):
        function = (call.get("function") or call) if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise BadRow(f"{where} has a tool call without a function's name")
        name, arguments = function["name"], function.get("arguments")
        if isinstance(arguments, str) and arguments.strip():
            arguments = _json(arguments, f"the arguments of {name!r} in {where}")
        arguments = {} if absent(arguments) or arguments == "" else arguments
        if not isinstance(arguments, dict):
            raise BadRow(f"the arguments of {name!r} in {where} are {type(arguments).__name__}, not an object")
        named = {} if function is call or absent(call.get("id")) else {"id": call["id"]}
        calls.append(named | {"type": "function", "function": {"name": name, "arguments": arguments}})
    return list(map(_clean, calls))


def calls_text(calls: Iterable[Tool]) -> str:
    """Calls for people: a line each, `look_up({"item": "pears"})`."""
    functions = (call["function"] for call in calls)
    return "\n".join(f"{f['name']}({json.dumps(f['arguments'], ensure_ascii=False)})" for f in functions)


def _clean(value: Any) -> Any:
    """The same with texts that a tokenizer can encode."""
    if isinstance(value, dict):
        return {_clean(k): _clean(v) for k, v in value.items()}
    return [_clean(v) for v in value] if isinstance(value, list) else clean(value) if isinstance(value, str) else value


def _listed(value: Any, what: str) -> list[Any]:
    """A list, one object, or JSON text of either, as a list."""
    if isinstance(value, str):
        value = _json(value, what) if value.strip() else None
    if absent(value):
        return []
    if not isinstance(value, list | tuple | dict):
        raise BadRow(f"{what} is {type(value).__name__}, not a list of functions (if it is none, rename the column)")
    return [value] * bool(value) if isinstance(value, dict) else list(value)


def _json(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise BadRow(f"{what} is text that is not JSON") from None
