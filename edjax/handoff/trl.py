"""TRL: conversational prompt-completion rows, of which SFTTrainer trains the completion alone, as edjax does.

huggingface.co/docs/trl/dataset_formats: {"prompt": [turns], "completion": [{"role": "assistant", "content": ...}]}.
`tools` is JSON text, which SFTTrainer parses: as objects the schemas of all rows would have to be of one type.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edjax.handoff.chosen import Chosen
from edjax.handoff.text import json_bytes, json_lines, with_extra


def files(chosen: Chosen, out: Path) -> dict[str, bytes]:
    """train.jsonl."""
    rows = []
    for i, name in enumerate(chosen.pool.ids):
        *prompt, answer = chosen.turns(i)
        row: dict[str, Any] = {"id": name, "prompt": prompt, "completion": [answer]}
        if any(chosen.pool.tools):
            row["tools"] = json_bytes(chosen.pool.tools[i]).decode() if chosen.pool.tools[i] else None
        rows.append(with_extra(row, chosen.extra(i)))
    return {"train.jsonl": json_lines(rows)}
