"""axolotl: rows of `messages` for `type: chat_template`, and the part of a config that names them.

docs.axolotl.ai/docs/dataset-formats/conversation.html: every turn says under `train`, the `message_field_training` of
the config, whether it is trained, which is the last answer alone, as in edjax. An empty `roles_to_train` would say the
same, but axolotl's loader drops it and then trains every answer of a conversation. Rows that hold `input_ids`,
`attention_mask` and `labels` it takes for tokenised ones, `images` for pictures, and `system` for a turn.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edjax.handoff.chosen import Chosen
from edjax.handoff.text import json_bytes, json_lines, with_extra
from edjax.pool import Message

ACTS_ON = frozenset(("input_ids", "attention_mask", "labels", "images", "messages", "system"))


def files(chosen: Chosen, out: Path) -> dict[str, bytes]:
    """train.jsonl and datasets.yaml."""
    rows = [
        with_extra({"id": name, "messages": _marked(chosen.turns(i))}, chosen.extra(i))
        for i, name in enumerate(chosen.pool.ids)
    ]
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


def _marked(turns: list[Message]) -> list[dict[str, Any]]:
    """The turns, each with whether it is trained: the last one."""
    return [{**turn, "train": at == len(turns) - 1} for at, turn in enumerate(turns)]
