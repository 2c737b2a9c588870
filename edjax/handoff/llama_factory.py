"""LLaMA-Factory: ShareGPT rows and the dataset_info.json that describes them.

github.com/hiyouga/LLaMA-Factory, data/README.md: human and observation turns stand at odd places, gpt turns at even
ones, the system prompt in a column of its own. Rows that do not alternate so are dropped there with a warning; here
they are refused. `mask_history: true` trains the last answer alone, as edjax does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edjax.errors import DataError
from edjax.handoff.chosen import Chosen
from edjax.handoff.text import json_bytes, with_extra

ROLES = {"user": "human", "tool": "observation", "assistant": "gpt"}
ABOUT = {
    "edjax": {
        "file_name": "edjax.json",
        "formatting": "sharegpt",
        "columns": {"messages": "conversations", "system": "system"},
    }
}


def files(chosen: Chosen, out: Path) -> dict[str, bytes]:
    """edjax.json and dataset_info.json: the data set `edjax` of `dataset_dir: OUT`."""
    rows: list[dict[str, Any]] = []
    odd: list[str] = []
    for i, name in enumerate(chosen.pool.ids):
        turns = chosen.turns(i)
        system = turns.pop(0)["content"] if turns[0]["role"] == "system" else ""
        said = [{"from": ROLES.get(t["role"], t["role"]), "value": t["content"]} for t in turns]
        if any((t["from"] == "gpt") != (at % 2 == 1) or t["from"] == "system" for at, t in enumerate(said)):
            odd.append(name)
        rows.append(with_extra({"id": name, "conversations": said, "system": system}, chosen.extra(i)))
    if odd:
        more = f" ({len(odd)} such rows)" if len(odd) > 1 else ""
        raise DataError(
            f"{chosen.pool.source}: the turns of row {odd[0]!r} do not alternate between user and assistant{more}, and "
            "LLaMA-Factory would drop it; mend the turns, or use --to trl"
        )
    return {"edjax.json": json_bytes(rows, indent=1) + b"\n", "dataset_info.json": json_bytes(ABOUT, indent=1) + b"\n"}
