"""axolotl: rows of `messages` for `type: chat_template`, and the part of a config that names them.

docs.axolotl.ai/docs/dataset-formats/conversation.html: with `roles_to_train` and `train_on_eos` left empty only the
last turn is trained, as in edjax.
"""

from __future__ import annotations

from pathlib import Path

from edjax.handoff.chosen import Chosen
from edjax.handoff.text import json_bytes, json_lines, with_extra


def files(chosen: Chosen, out: Path) -> dict[str, bytes]:
    """train.jsonl and datasets.yaml."""
    ids = enumerate(chosen.pool.ids)
    rows = (with_extra({"id": name, "messages": chosen.turns(i)}, chosen.extra(i)) for i, name in ids)
    path = json_bytes(str(out / "train.jsonl")).decode()
    config = f"""datasets:
  - path: {path}
    ds_type: json
    type: chat_template
    field_messages: messages
    message_property_mappings:
      role: role
      content: content
    roles_to_train:
    train_on_eos:
"""
    return {"train.jsonl": json_lines(rows), "datasets.yaml": config.encode()}
