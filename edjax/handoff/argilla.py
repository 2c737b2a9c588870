"""Argilla 2: a directory that `rg.Dataset.from_disk` loads; the records it exports back.

The layout is that of `Dataset.to_disk` (argilla 2.8): .argilla/dataset.json, .argilla/settings.json and records.json, a
list of {"id", "fields", "metadata", "suggestions", "responses", ...}. In an export `responses` maps the question to a
list of {"value", "user_id"}, one a person; the flattened form (`to_list(flatten=True)`, `to_datasets`) has
"response.responses" and "response.responses.status" in their place. A suggestion is a model's and no answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edjax.handoff.answers import Answer, BadAnswer, Entry
from edjax.handoff.chosen import Chosen
from edjax.handoff.text import apart, json_bytes

QUESTION = "response"
_TEXT = {"type": "text", "use_markdown": False}
GUIDELINES = "Write the answer that the model should give to the prompt."
SETTINGS = {
    "guidelines": GUIDELINES,
    "fields": [{"name": "prompt", "title": "Prompt", "required": True, "settings": _TEXT}],
    "questions": [{"name": QUESTION, "title": "Response", "required": True, "settings": _TEXT}],
    "vectors": [],
    "metadata": [],
    "allow_extra_metadata": True,
    "distribution": {"strategy": "overlap", "min_submitted": 1},
}


def files(chosen: Chosen, out: Path) -> dict[str, bytes]:
    """records.json, and the settings and name of the data set."""
    records = []
    for i, name in enumerate(chosen.pool.ids):
        fact = chosen.facts[i]
        known = {k: fact[k] for k in ("order", "gain") if k in fact} | fact.get("scores", {})
        metadata = {k: _value(v) for k, v in apart(chosen.extra(i), known).items() if v is not None} | known
        records.append({"id": name, "fields": {"prompt": chosen.prompt(i)}, "metadata": metadata})
    about = {"name": _name(out), "guidelines": GUIDELINES, "allow_extra_metadata": True}
    return {
        "records.json": json_bytes(records, indent=1) + b"\n",
        ".argilla/settings.json": json_bytes(SETTINGS, indent=1) + b"\n",
        ".argilla/dataset.json": json_bytes(about, indent=1) + b"\n",
    }


def _value(value: Any) -> Any:
    """Metadata are text, numbers and lists of text; anything else goes as JSON."""
    plain = isinstance(value, (str, int, float)) and not isinstance(value, bool)
    texts = isinstance(value, list) and all(isinstance(v, str) for v in value)
    return value if plain or texts else json_bytes(value).decode()


def _name(out: Path) -> str:
    """A data set's name: letters, digits, - and _."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in out.resolve().name) or "edjax"


def is_record(record: dict[str, Any]) -> bool:
    """Whether a record is Argilla's."""
    return f"{QUESTION}.responses" in record or (isinstance(record.get("fields"), dict) and "responses" in record)


def answers(entries: list[Entry]) -> Iterator[Answer]:
    """The submitted responses; drafts and discarded ones count as none."""
    for where, record in entries:
        name, fields = record.get("id"), record.get("fields", record)
        if name is None:
            raise BadAnswer(f"{where}: a record without an id; export the records that edjax made")
        given = _given(record)
        kept = [value for value, status in given if status in (None, "submitted") and value is not None]
        prompt = fields.get("prompt")
        for value in kept:
            yield Answer(str(name), str(value), where, prompt)
        if not kept:
            yield Answer(str(name), None, where, prompt, skipped=bool(given))


def _given(record: dict[str, Any]) -> list[tuple[Any, str | None]]:
    """(text, status or None) of every person's response."""
    if f"{QUESTION}.responses" in record:
        values = record[f"{QUESTION}.responses"] or []
        status = record.get(f"{QUESTION}.responses.status") or [None] * len(values)
        return list(zip(values, status, strict=False))
    given = (record.get("responses") or {}).get(QUESTION) or []
    return [(r.get("value"), r.get("status")) for r in given]
