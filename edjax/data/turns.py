"""What a row means: the turns of its prompt, the functions it offers, and the response where it has one.

Shapes, the first whose column is filled:
  messages        a list of {role, content} turns
  conversations   ShareGPT: a list of {from, value} turns; LIMA: of texts, the user's first
  prompt          text, or a list of turns
  instruction     Alpaca and Dolly: `instruction`, and after a blank line each of `input` and `context` that is filled
  text            the whole text is the prompt, and no other column is a part of it
  question        as prompt; `context`, where there is one, follows after a blank line
  chosen          of preference pairs without a prompt: a list of turns
  body            a line of OpenAI's batch API: its `messages` and `tools`
  --text-column   any other column, as prompt
Null (in Parquet and `datasets` also a key that only other rows fill) and NaN are the same as nothing there.

Columns beside them (not with `text`):
  system, system_prompt   the system turn; a bad row where there is another one already
  history                 [question, answer] pairs or turns, before a prompt that is text
  tools                   the functions that may be called (`edjax.data.tools`); with turns `functions` too
Response:
  an assistant turn at the end   that turn; all before it is the prompt
  else                           `response` or `completion`; of instruction first `output`. A row without such a column:
                                 `chosen`, the better of a pair; `answer`, if it is text, or a number and there are no
                                 `choices`; `answers`, SQuAD's {"text": [...]} or a list, where they are all one text
  a list of turns                TRL's: goes on with the prompt's turns, which may be repeated in it, and its last one
                                 is the response
  a number                       whole 2.0, as a column of floats stores 2, is "2"; others as they are written
  a list, an object, true        a bad row; `answer` is then for `edjax.evaluate` alone
  none, or empty                 the row is unlabelled (None): what a pool is made of
Columns that a person names (`Columns`) stand for those known by name, and are read beside any shape.
Turns:
  no user turn (system only), last user turn empty    a bad row: there is nothing to answer
  unknown role                   a bad row; human, gpt, model, bot, chatgpt, developer, function, observation are known
  tool calls                     kept with the turn; LLaMA-Factory's function_call turns are such. A last turn that
                                 calls is no text to learn: the row is unlabelled whatever stands in other columns,
                                 and the turn is `withheld`
  weight 0                       of an assistant turn: it is not trained. A last turn is then no response: that is in
                                 a column, or the turn is `withheld`
  other empty turns              kept as they are (an empty system turn is not the same as none)
  content as a list of parts     the text parts joined; an image or any other part makes a bad row
  too long for a model           kept; scoring and finetuning truncate and say so
Lone surrogates (`\\ud800`) become U+FFFD, since no tokenizer can encode them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from edjax.data.rows import BadRow, absent, clean
from edjax.data.tools import Tool, calls_of, read_calls, read_tools

Message = dict[
    str, Any
]  # role and content, text both; and where there are any tool_calls, tool_call_id, name, weight: 0

ACCEPTED = (
    "messages; conversations; prompt (+ response or completion); instruction (+ input, context, output); text; "
    "question (+ context, answer); chosen; body"
)
SHAPES = ("messages", "conversations", "prompt", "instruction", "text", "question", "chosen", "body")
WHOLE = ("messages", "conversations", "chosen", "body")  # a list of turns, the last of which may be the response
_FURTHER = {"instruction": ("input", "context"), "question": ("context",)}
_SYSTEM = ("system", "system_prompt")
_OFFERED = ("tools", "functions")
_CALLING = ("function_call", "tool_call")
_ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "bot", "chatgpt", *_CALLING), "assistant"),
    **dict.fromkeys(("tool", "function", "observation", "tool_response"), "tool"),
}
ASSISTANT = tuple(name for name, role in _ROLES.items() if role == "assistant")
_EXACT = 2**53  # whole numbers up to here have a float of their own


class Columns(NamedTuple):
    """Columns that a person named; None: those known by their names."""

    response: str | None = None
    system: str | None = None
    context: str | None = None
    choices: str | None = None
    answer: str | None = None


_KNOWN = Columns()


class Meaning(NamedTuple):
    """A row as it is read.

    `withheld`: a last assistant turn that is no response: one that calls tools, or has weight 0. `source`: the column
    that the last turn or the response came from.
    """

    messages: tuple[Message, ...]
    response: str | None
    tools: tuple[Tool, ...] | None = None
    withheld: Message | None = None
    source: str = ""


def shape_of(record: Mapping[str, Any], text_column: str | None = None) -> str | None:
    """The column that holds the prompt of a row: the first filled one, else the first that is there, else None."""
    if text_column is not None:
        return text_column if text_column in record else None
    there = [name for name in SHAPES if name in record and (name not in WHOLE[2:] or turns_in(record, name))]
    return next((name for name in there if not absent(record[name])), there[0] if there else None)


def turns_in(record: Mapping[str, Any], shape: str) -> list[Any] | None:
    """The turns of a column that is a list of them, where they stand in the row itself; None for any other value."""
    value = record.get(shape)
    if shape == "body":
        value = value.get("messages") if isinstance(value, Mapping) else None
    return value if isinstance(value, list) else None


def label_columns(record: Mapping[str, Any], shape: str, named: Columns = _KNOWN) -> tuple[str, ...]:
    """The columns where a row has its response, if that is no turn; the first filled one counts."""
    if named.response:
        return (named.response,)
    own = ("output",) * (shape == "instruction") + ("response", "completion")
    if any(name in record for name in own):
        return own
    better = ("chosen",) * ({"chosen", "rejected"} <= record.keys() and shape != "chosen")
    return (*better, named.answer) if named.answer else (*better, "answer", "answers")


def columns_read(record: Mapping[str, Any], shape: str, named: Columns = _KNOWN) -> set[str]:
    """The columns that became turns or the response; functions that are offered stay columns of their own."""
    empty = {n for n in label_columns(record, shape, named) if _empty(record.get(n))}
    return _prompt_columns(record, shape, named) | empty | {read_row(record, shape, named).source}


def _prompt_columns(record: Mapping[str, Any], shape: str, named: Columns) -> set[str]:
    beside = () if turns_in(record, shape) is not None else (*_further(shape, named), "history" * (shape != "text"))
    return {shape, *beside, *_system(shape, named)} - {""}


def _further(shape: str, named: Columns) -> tuple[str, ...]:
    known = _FURTHER.get(shape, ())
    return known if named.context is None else (*(n for n in known if n != "context"), named.context)


def _system(shape: str, named: Columns) -> tuple[str, ...]:
    return (named.system,) if named.system else () if shape == "text" else _SYSTEM


def lean(record: Mapping[str, Any], shape: str, named: Columns = _KNOWN) -> dict[str, Any]:
    """A row of a columnar container without the null keys in its turns and functions: other rows may be all that has
    them."""
    read = (*_prompt_columns(record, shape, named), *label_columns(record, shape, named), *_OFFERED)
    return {**record, **{k: _lean(record[k]) for k in read if isinstance(record.get(k), list | dict)}}


def read_row(record: Mapping[str, Any], shape: str, named: Columns = _KNOWN) -> Meaning:
    """A row's prompt and response.

    Args:
      record: the row's columns; of a columnar container as `lean` has them.
      shape: the one with the prompt, from `shape_of`. named: others that were named.

    Raises:
      BadRow: a row that cannot be used.
    """
    labels = label_columns(record, shape, named)
    turns, is_list = _asked(record, shape, named)
    whole = shape in WHOLE
    source, filled = next(((name, value) for name in labels if not _empty(value := record.get(name))), (shape, None))
    if not (whole and _ends_answered(turns)) and (more := turns_of(filled)):
        turns, is_list = _continued(turns, more), True
    else:
        source = shape
    last = turns.pop() if is_list and _ends_answered(turns) else None
    withheld = last if last and (last.get("weight") == 0 or "tool_calls" in last) else None
    response = "" if last is None or withheld else last["content"]
    for name in () if last and "tool_calls" in last else labels:
        if not response.strip() and (text := _label(record, name, named)).strip():
            response, source = text, name
    said = _label(record, named.response, named).strip() if named.response and source == shape else ""
    if said and response.strip() not in ("", said):
        raise BadRow(f"the column {named.response!r} and the last turn differ; keep one of them")
    asked = [m["content"] for m in turns if m["role"] == "user"]
    if not asked:
        raise BadRow("no user turn: there is nothing to answer")
    if not asked[-1].strip():
        raise BadRow("the prompt is empty")
    tools, labelled = _offered(record, shape, whole), bool(response.strip())
    return Meaning(tuple(turns), response if labelled else None, tools, None if labelled else withheld, source)


def _lean(value: Any) -> Any:
    """Without the keys that are null."""
    if isinstance(value, dict):
        return {k: _lean(v) for k, v in value.items() if v is not None}
    return [_lean(v) for v in value] if isinstance(value, list) else value


def _empty(value: Any) -> bool:
    return absent(value) or (isinstance(value, str | list | dict) and not value)


def _ends_answered(turns: list[Message]) -> bool:
    return bool(turns) and turns[-1]["role"] == "assistant"


def _continued(turns: list[Message], more: list[Message]) -> list[Message]:
    """A prompt's turns and those that follow, which may begin with the prompt again."""
    asked, again = ([t for t in part if t["role"] != "system"] for part in (turns, more))
    if again[: len(asked)] != asked:
        return turns + more
    return more if len(asked) == len(turns) else turns + again[len(asked) :]


def _asked(record: Mapping[str, Any], shape: str, named: Columns) -> tuple[list[Message], bool]:
    """The turns of the prompt's column with those of the columns beside it, and whether that column is a list."""
    value, listed = record.get(shape), turns_in(record, shape)
    is_list = listed is not None
    if listed is not None:
        if named.context and not _empty(record.get(named.context)):
            raise BadRow(f"the column {named.context!r} is context of a prompt that is text, and {shape!r} holds turns")
        if shape == "conversations" and all(isinstance(t, str) for t in listed):
            listed = [{"role": "assistant" if n % 2 else "user", "content": t} for n, t in enumerate(listed)]
        turns = [_turn(t, n) for n, t in enumerate(listed, 1)]
    elif shape in ("messages", "conversations"):
        raise BadRow(f"{shape!r} is not a list of turns" if not absent(value) else f"{shape!r} is null")
    else:
        further = [text for name in _further(shape, named) if (text := _joined(record.get(name), name))]
        turns = [{"role": "user", "content": "\n\n".join([_text(value, shape), *further])}]
        if shape != "text":
            turns = [*_history(record.get("history")), *turns]
    for name in _system(shape, named):
        if (text := _text(record.get(name), name)).strip():
            there = next((t["content"] for t in turns if t["role"] == "system"), None)
            if there not in (None, "", text):
                raise BadRow(f"the column {name!r} and a system turn differ; keep one of them")
            rest = turns if there is None else [t for t in turns if t["content"] or t["role"] != "system"]
            turns = rest if there else [{"role": "system", "content": text}, *rest]
    return turns, is_list


def _joined(value: Any, name: str) -> str:
    """Text, or a list of texts with blank lines between."""
    if isinstance(value, list):
        return "\n\n".join(_text(part, f"an entry of {name}") for part in value)
    return _text(value, name)


def _history(value: Any) -> list[Message]:
    if isinstance(value, str) and value.strip().startswith("["):  # a cell of a table
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise BadRow("history is text that is not JSON") from None
    if absent(value) or value == "":
        return []
    if not isinstance(value, list):
        kind = type(value).__name__
        raise BadRow(
            f"history is {kind}, not a list of turns or of [question, answer] (if it is none, rename the column)"
        )
    turns: list[Message] = []
    for number, entry in enumerate(value, 1):
        if isinstance(entry, dict):
            turns.append(_turn(entry, number))
        elif isinstance(entry, list) and len(entry) == 2 and all(isinstance(text, str) for text in entry):
            turns += [{"role": r, "content": _text(t, r)} for r, t in zip(("user", "assistant"), entry, strict=True)]
        else:
            raise BadRow(f"entry {number} of history is neither a turn nor [question, answer]")
    return turns


def _offered(record: Mapping[str, Any], shape: str, whole: bool) -> tuple[Tool, ...] | None:
    names = () if shape == "text" else _OFFERED if whole else _OFFERED[:1]
    record = record["body"] if shape == "body" else record
    return next(filter(None, (read_tools(record.get(name), name) for name in names)), None)


# A turn


def _turn(turn: Any, number: int) -> Message:
    if not isinstance(turn, dict):
        raise BadRow(f"turn {number} is not an object")
    named = _first(turn, "role", "from")
    role = _ROLES.get(named.lower()) if isinstance(named, str) else None
    if role is None:
        raise BadRow(f"turn {number} has the unknown role {named!r} (known: {', '.join(_ROLES)})")
    content = _first(turn, "content", "value")
    calls = read_calls(turn, number)
    if named.lower() in _CALLING:
        calls, content = calls or calls_of(content, f"turn {number}"), None
    if calls and role != "assistant":
        raise BadRow(f"turn {number} calls tools and is of role {named!r}; only an assistant calls")
    if isinstance(content, list):
        content = "".join(_part(p, number) for p in content)
    message: Message = {"role": role, "content": _text(content, f"the content of turn {number}")}
    if calls:
        message["tool_calls"] = calls
    for key in ("tool_call_id", "name"):
        if isinstance(value := turn.get(key), str) and value:
            message[key] = clean(value)
    if role == "assistant" and not _trained(turn.get("weight"), number):
        message["weight"] = 0
    return message


def _first(turn: dict[str, Any], *names: str) -> Any:
    return next((turn[name] for name in names if not absent(turn.get(name))), None)


def _trained(weight: Any, number: int) -> bool:
    """Whether a weight says to train a turn; half of a turn's loss is nothing that can be asked for."""
    try:
        value = 1.0 if absent(weight) else float(weight)
    except (TypeError, ValueError):
        value = -1.0
    if value not in (0, 1):
        raise BadRow(f"turn {number} has the weight {weight!r}; 0, which is not trained, and 1 are known")
    return bool(value)


def _part(part: Any, number: int) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, dict) and part.get("type", "text") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    kind = part.get("type") if isinstance(part, dict) else type(part).__name__
    raise BadRow(f"turn {number} has a part of type {kind!r}; only text is read")


# A response


def turns_of(value: Any) -> list[Message]:
    """The turns of a value that is a list of them, or one; else none."""
    turns = [value] if isinstance(value, dict) else value if isinstance(value, list) else []
    if not all(isinstance(t, dict) and ("role" in t or "from" in t) for t in turns):
        return []
    return [_turn(t, n) for n, t in enumerate(turns, 1)]


def accepted(value: Any) -> list[str]:
    """The texts of a column `answers`: of SQuAD's {"text": [...]}, or of a list; [] for any other value."""
    texts = value.get("text") if isinstance(value, Mapping) else value
    return texts if isinstance(texts, list) and all(isinstance(t, str) for t in texts) else []


def _label(record: Mapping[str, Any], name: str, named: Columns) -> str:
    """The text of a column of responses, "" for none."""
    value = record.get(name)
    if name == "answers" and not named.response:
        return clean(texts[0]) if len(set(texts := accepted(value))) == 1 else ""
    if name == (named.answer or "answer") and name != named.response:
        numeric = isinstance(value, int | float | Decimal) and not isinstance(value, bool)
        if not isinstance(value, str) and (not numeric or not absent(record.get(named.choices or "choices"))):
            return ""
    if isinstance(value, list | dict):
        if not value or turns_of(value):
            return ""
        raise BadRow(f"{name} is {type(value).__name__}, not text; keep one answer a row")
    text = number_text(value)
    return _text(value, name) if text is None else text


def number_text(value: Any) -> str | None:
    """A number as the text of an answer: a whole one without a fraction, others in full; None for what is no finite
    number."""
    if isinstance(value, Decimal):
        return (str(int(value)) if value == int(value) else format(value, "f")) if value.is_finite() else None
    if isinstance(value, bool) or not isinstance(value, int | float) or value - value != 0:
        return None
    return str(int(value)) if value == int(value) and abs(value) <= _EXACT else json.dumps(value)


def _text(value: Any, name: str) -> str:
    if absent(value):
        return ""
    if not isinstance(value, str):
        raise BadRow(f"{name} is {type(value).__name__}, not text")
    return clean(value)
