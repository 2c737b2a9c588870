"""TRL: conversational prompt-completion rows, of which SFTTrainer trains the completion alone, as edjax does.

huggingface.co/docs/trl/dataset_formats: {"prompt": [turns], "completion": [{"role": "assistant", "content": ...}]}.
"""

from __future__ import annotations

from pathlib import Path

from edjax.handoff.chosen import Chosen
from edjax.handoff.text import json_lines, with_extra


def files(chosen: Chosen, out: Path) -> dict[str, bytes]:
    """train.jsonl."""
    rows = []
    for i, name in enumerate(chosen.pool.ids):
        *prompt, answer = chosen.turns(i)
        rows.append(with_extra({"id": name, "prompt": prompt, "completion": [answer]}, chosen.extra(i)))
    return {"train.jsonl": json_lines(rows)}
