"""TRL: conversational prompt-completion rows, of which SFTTrainer trains the completion alone, as edjax does.

huggingface.co/docs/trl/dataset_formats: {"prompt": [turns], "completion": [{"role": "assistant", "content": ...}]}.
SFTTrainer tells by the names of the columns what a row is (trl 1.10, trainer/sft_trainer.py): rows with `input_ids` are
trained as they are, `labels` and masks decide what the loss is of, `image` makes it a vision data set,
`chat_template_kwargs` go to the template, and the names of other types of data set may be taken for theirs.
`tools` is JSON text, which SFTTrainer parses: as objects the schemas of all rows would have to be of one type.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edjax.handoff.chosen import Chosen
from edjax.handoff.text import json_bytes, json_lines, with_extra

ACTS_ON = frozenset(
    (
        *("input_ids", "attention_mask", "labels", "completion_mask", "assistant_masks"),
        *("token_type_ids", "position_ids", "seq_lengths"),
        *("image", "images", "pixel_values", "chat_template_kwargs"),
        *("text", "messages", "conversations", "chosen", "rejected"),
    )
)


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
