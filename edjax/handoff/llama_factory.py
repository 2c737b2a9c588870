"""LLaMA-Factory: ShareGPT rows and the dataset_info.json that describes them.

github.com/hiyouga/LLaMA-Factory, data/README.md: human and observation turns stand at odd places, gpt turns at even
ones, the system prompt in a column of its own. A turn that calls functions is a function_call turn in the place of a
gpt turn, and the functions on offer are JSON text in a column `tools`. Rows that do not alternate so are dropped there
with a warning; here they are refused. `mask_history: true` trains the last answer alone, as edjax does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edjax.handoff.chosen import Chosen
from edjax.handoff.text import json_bytes, with_extra
from edjax.keep.errors import DataError

ROLES = {"user": "human", "tool": "observation", "assistant": "gpt"}
ANSWERS = ("gpt", "function_call")
COLUMNS = {"messages": "conversations", "system": "system"}


def files(chosen: Chosen, out: Path) -> dict[str, bytes]:
    """edjax.json and dataset_info.json: the data set `edjax` of `dataset_dir: OUT`."""
    rows: list[dict[str, Any]] = []
    odd: list[str] = []
    both: list[str] = []
    offers = any(chosen.pool.tools)
    for i, name in enumerate(chosen.pool.ids):
        turns = chosen.turns(i)
        system = turns.pop(0)["content"] if turns[0]["role"] == "system" else ""
        if any("tool_calls" in t and t["content"].strip() for t in turns):
            both.append(name)
        said = list(map(_turn, turns))
        if any((t["from"] in ANSWERS) != (at % 2 == 1) or t["from"] == "system" for at, t in enumerate(said)):
            odd.append(name)
        tools = chosen.pool.tools[i]
        row = {"id": name, "conversations": said, "system": system}
        if offers:
            row["tools"] = json_bytes([t.get("function", t) for t in tools]).decode() if tools else ""
        rows.append(with_extra(row, chosen.extra(i)))
    for names, what in (
        (odd, "do not alternate between user and assistant"),
        (both, "hold text and tool calls in one"),
    ):
        if names:
            more = f" ({len(names)} such rows)" if len(names) > 1 else ""
            raise DataError(
                f"{chosen.pool.source}: the turns of row {names[0]!r} {what}{more}, which LLaMA-Factory would drop; "
                "mend the turns, or use --to trl"
            )
    columns = COLUMNS | ({"tools": "tools"} if offers else {})
    about = {"edjax": {"file_name": "edjax.json", "formatting": "sharegpt", "columns": columns}}
    return {"edjax.json": json_bytes(rows, indent=1) + b"\n", "dataset_info.json": json_bytes(about, indent=1) + b"\n"}


def _turn(turn: dict[str, Any]) -> dict[str, Any]:
    """A ShareGPT turn; one that calls functions is a turn `function_call` with the calls as JSON text."""
    weight = {"weight": 0} if turn.get("weight") == 0 else {}
    if calls := [call["function"] for call in turn.get("tool_calls", [])]:
        text = json_bytes(calls[0] if len(calls) == 1 else calls).decode()
        return {"from": "function_call", "value": text} | weight
    return {"from": ROLES.get(turn["role"], turn["role"]), "value": turn["content"]} | weight
