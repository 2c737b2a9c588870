"""axolotl: rows of `messages` for `type: chat_template`, and the part of a config that names them.

docs.axolotl.ai/docs/dataset-formats/conversation.html: every turn says under `train`, the `message_field_training` of
the config, whether it is trained, which is the last answer alone, as in edjax. An empty `roles_to_train` would say the
same, but axolotl's loader drops it and then trains every answer of a conversation. Rows that hold `input_ids`,
`attention_mask` and `labels` it takes for tokenised ones, `images` for pictures, and `system` for a turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edjax.handoff.chosen import Chosen
from edjax.handoff.text import json_bytes, json_lines, with_extra

ACTS_ON = frozenset(("input_ids", "attention_mask", "labels", "images", "messages", "system"))


def files(chosen: Chosen, out: Path) -> dict[str, bytes]:
    """train.jsonl and datasets.yaml."""
    offers = any(chosen.pool.tools)
    rows = []
    for i, name in enumerate(chosen.pool.ids):
        turns = chosen.turns(i)
        said = [_turn(turn) | {"train": at == len(turns) - 1} for at, turn in enumerate(turns)]
        row: dict[str, Any] = {"id": name, "messages": said}
        row |= {"tools": _tools(chosen.pool.tools[i])} if offers else {}
        rows.append(with_extra(row, chosen.extra(i)))
    path = json_bytes(str(out / "train.jsonl")).decode()
    config = f"""datasets:
  - path: {path}
    ds_type: json
    type: chat_template
    field_messages: messages
    message_property_mappings:
      role: role
      content: content
    message_field_training: train
    roles_to_train: []
    train_on_eos: turn
"""
    return {"train.jsonl": json_lines(rows), "datasets.yaml": config.encode()}


def _turn(turn: dict[str, Any]) -> dict[str, Any]:
    """A turn with its calls' arguments as JSON text, which axolotl parses: as objects all must be of one type."""
    calls = [
        call | {"function": call["function"] | {"arguments": json_bytes(call["function"]["arguments"]).decode()}}
        for call in turn.get("tool_calls", [])
    ]
    return turn | ({"tool_calls": calls} if calls else {})


def _tools(tools: Sequence[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
    """Functions with their parameters as JSON text, likewise."""
    if tools is None:
        return None
    functions = [tool.get("function", {}) for tool in tools]
    return [
        tool | {"function": f | {"parameters": json_bytes(f.get("parameters") or {}).decode()}}
        for tool, f in zip(tools, functions, strict=True)
    ]
