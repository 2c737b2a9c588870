"""Label Studio: tasks to import with their labelling interface; its JSON and JSON-MIN exports back.

A task is {"data": {...}, "meta": {...}} (labelstud.io/guide/tasks). An export in full JSON is the same tasks with
`annotations`, each a list `result` of {"from_name", "to_name", "type": "textarea", "value": {"text": [...]}}; an
annotation that was skipped has `was_cancelled`. JSON-MIN (label_studio_sdk.converter) is `data` flattened with the
control's text under its name, and with the key `id` overwritten by Label Studio's own number of the task: this is why
`data` holds the row's id under `edjax_id` too, which is what answers are joined by.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edjax.handoff.answers import Answer, BadAnswer, Entry
from edjax.handoff.chosen import Chosen
from edjax.handoff.text import json_bytes

CONTROL = "response"
INTERFACE = """<View>
  <Style>.htx-text { white-space: pre-wrap; }</Style>
  <Header value="Prompt"/>
  <Text name="prompt" value="$prompt"/>
  <Header value="Response"/>
  <TextArea name="response" toName="prompt" rows="8" maxSubmissions="1" editable="true" required="true"
            placeholder="The answer that the model should give"/>
</View>
"""


def files(chosen: Chosen, out: Path) -> dict[str, bytes]:
    """tasks.json, and label_config.xml for the project's labelling interface."""
    tasks = []
    for i, name in enumerate(chosen.pool.ids):
        shown = {"id": name, "edjax_id": name, "prompt": chosen.prompt(i), "messages": list(chosen.pool.messages[i])}
        extra = chosen.extra(i)
        tasks.append({"data": shown, "meta": chosen.facts[i] | ({"columns": extra} if extra else {})})
    return {"tasks.json": json_bytes(tasks, indent=1) + b"\n", "label_config.xml": INTERFACE.encode()}


def is_task(record: dict[str, Any]) -> bool:
    """Whether a record is a task of a full JSON export."""
    return isinstance(record.get("data"), dict) and any(k in record for k in ("annotations", "completions", "meta"))


def is_minimal(record: dict[str, Any]) -> bool:
    """Whether a record is one of JSON-MIN."""
    return "annotation_id" in record or ("annotator" in record and "lead_time" in record)


def answers(entries: list[Entry]) -> Iterator[Answer]:
    """The answers of a full JSON or JSON-MIN export; a task without annotations, or only skipped ones, has None."""
    for where, record in entries:
        yield from _task(where, record) if is_task(record) else _minimal(where, record)


def _task(where: str, record: dict[str, Any]) -> Iterator[Answer]:
    data = record["data"]
    name = data.get("edjax_id", data.get("id"))
    if name is None:
        raise BadAnswer(f"{where}: the task's data holds neither edjax_id nor id; export the tasks that edjax made")
    prompt = data.get("prompt")
    done = record.get("annotations", record.get("completions")) or []
    kept = [a for a in done if not (a.get("was_cancelled") or a.get("skipped"))]
    for annotation in kept:
        yield Answer(str(name), _text(annotation.get("result") or [], where, str(name)), where, prompt)
    if not kept:
        yield Answer(str(name), None, where, prompt, skipped=bool(done))


def _text(result: list[dict[str, Any]], where: str, name: str) -> str:
    """The one text of a submitted annotation."""
    areas = [r for r in result if r.get("type") == "textarea"]
    areas = [r for r in areas if r.get("from_name") == CONTROL] or areas
    texts: list[str] = []
    for area in areas:
        text = (area.get("value") or {}).get("text", [])
        texts += [text] if isinstance(text, str) else text
    return one(texts, where, name)


def one(texts: list[Any], where: str, name: str) -> str:
    """The only text of a list; several are a person's to choose from."""
    if len(texts) > 1:
        raise BadAnswer(f"{where}: row {name!r} holds {len(texts)} texts; keep one answer a row")
    return str(texts[0]) if texts else ""


def _minimal(where: str, record: dict[str, Any]) -> Iterator[Answer]:
    name = record.get("edjax_id", record.get("id"))
    if name is None:
        raise BadAnswer(f"{where}: holds neither edjax_id nor id; export the tasks that edjax made")
    text = record.get(CONTROL)
    if isinstance(text, list):
        flat = [t for part in text for t in (part.get("text", []) if isinstance(part, dict) else [part])]
        text = one(flat, where, str(name))
    yield Answer(str(name), None if text is None else str(text), where, record.get("prompt"))
