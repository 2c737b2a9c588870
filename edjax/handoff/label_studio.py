"""Label Studio: tasks to import with their labelling interface; its JSON, JSON-MIN and CSV exports back.

A task is {"data": {...}, "meta": {...}} (labelstud.io/guide/tasks). An export in full JSON is the same tasks with
`annotations`, each a list `result` of {"from_name", "to_name", "type": "textarea", "value": {"text": [...]}}; an
annotation that was skipped has `was_cancelled`, one that somebody marked as right has `ground_truth`. Predictions and
drafts are no answers. JSON-MIN (label_studio_sdk.converter) is `data` flattened with the control's text under its name,
or {"text": [...]} where it holds several, and with the key `id` overwritten by Label Studio's own number of the task:
this is why `data` holds the row's id under `edjax_id` too, which is what answers are joined by. CSV is the same, with
what is no text as JSON.

The answer is what stands in the control `response`; where no annotation of the file has one, in the text area that is
the only control. A comment beside a choice is no answer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edjax.handoff.chosen import Chosen
from edjax.handoff.record import EMPTY, SKIPPED, Answer, BadAnswer, Entry
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
_MINIMAL = {  # the keys that JSON-MIN has of its own and of the data that edjax exports
    *("id", "edjax_id", "prompt", "messages", "annotator", "annotation_id", "created_at", "updated_at", "lead_time"),
    *("agreement", "history"),
}


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
    """Whether a record is one of JSON-MIN, or a row of CSV."""
    return "annotation_id" in record or ("annotator" in record and "lead_time" in record)


def answers(entries: list[Entry]) -> Iterator[Answer]:
    """The answers of a full JSON or JSON-MIN export; a task without annotations, or only skipped ones, has None."""
    controls = _controls([record for _, record in entries if is_task(record)])
    for where, record in entries:
        yield from _task(where, record, controls) if is_task(record) else _minimal(where, record)


# Full JSON


def _annotations(record: dict[str, Any]) -> list[dict[str, Any]]:
    return record.get("annotations", record.get("completions")) or []


def _controls(tasks: list[dict[str, Any]]) -> dict[str | None, str]:
    """The types by name of the controls that any result is of: one annotation shows only those that were filled in."""
    made = [a for t in tasks for a in (*_annotations(t), *(t.get("predictions") or ())) if isinstance(a, dict)]
    results = [r for a in made for r in a.get("result") or [] if r.get("type") != "relation"]
    return {r.get("from_name"): str(r.get("type")) for r in results}


def _task(where: str, record: dict[str, Any], controls: dict[str | None, str]) -> Iterator[Answer]:
    data = record["data"]
    name = data.get("edjax_id", data.get("id"))
    if name is None:
        raise BadAnswer(f"{where}: the task's data holds neither edjax_id nor id; export the tasks that edjax made")
    done = _annotations(record)
    kept = [a for a in done if not (a.get("was_cancelled") or a.get("skipped"))]
    for annotation in kept:
        here = f"{where}, annotation {annotation['id']}" if annotation.get("id") is not None else where
        text, why = _answer(annotation.get("result") or [], controls, here, str(name))
        by, at = _names(annotation.get("completed_by")), str(annotation.get("created_at") or "")
        truth = bool(annotation.get("ground_truth"))
        yield Answer(str(name), text, here, data.get("prompt"), why=why, names=by, truth=truth, at=at)
    if not kept:
        waiting = "a draft, not submitted" if record.get("drafts") else ""
        waiting = waiting or ("a prediction, not an annotation" if record.get("predictions") else "")
        yield Answer(str(name), None, where, data.get("prompt"), why=SKIPPED if done else waiting)


def _answer(
    result: list[dict[str, Any]], controls: dict[str | None, str], where: str, name: str
) -> tuple[str | None, str]:
    """The one text of a submitted annotation; or None, and what it holds."""
    only = next(iter(controls)) if list(controls.values()) == ["textarea"] else None
    control = CONTROL if CONTROL in controls else only
    parts = [r.get("value") or {} for r in result if r.get("from_name") == control]
    texts = [t for part in parts for t in _texts(part)]
    if texts or not result or any("text" in part for part in parts):
        return one(texts, where, name), ""
    found = sorted({f"{r.get('type')} {r.get('from_name')}" for r in result})
    return None, f"no text area {CONTROL}, found: {', '.join(found)}"


def _texts(value: dict[str, Any]) -> list[Any]:
    """What was written, or chosen, in one region."""
    text = value.get("text", value.get("choices", []))
    return [text] if isinstance(text, str) else text


def one(texts: list[Any], where: str, name: str) -> str:
    """The only text of a list; several are a person's to choose from."""
    if len(texts) > 1:
        raise BadAnswer(f"{where}: row {name!r} holds {len(texts)} texts; keep one answer a row")
    return str(texts[0]) if texts else ""


def _names(by: Any) -> tuple[str, ...]:
    """What a person is called: a number, or an object with the number, the address and the name."""
    known = [by.get(k) for k in ("id", "email", "username")] if isinstance(by, dict) else [by]
    return tuple(str(k) for k in known if k not in (None, ""))


# JSON-MIN, and CSV


def _minimal(where: str, record: dict[str, Any]) -> Iterator[Answer]:
    name = record.get("edjax_id", record.get("id"))
    if name is None:
        raise BadAnswer(f"{where}: holds neither edjax_id nor id; export the tasks that edjax made")
    text, why = unwrapped(record.get(CONTROL), where, str(name)), ""
    if text is None and record.get("annotation_id") is not None:
        others = sorted(record.keys() - _MINIMAL - {CONTROL})
        why = f"no text area {CONTROL}, found: {', '.join(others)}" if others else EMPTY
    yield Answer(str(name), text, where, record.get("prompt"), why=why, **about(record))


def about(record: dict[str, Any]) -> dict[str, Any]:
    """Who made an annotation of JSON-MIN or CSV, and when."""
    return {"names": _names(record.get("annotator")), "at": str(record.get("created_at") or "")}


def unwrapped(value: Any, where: str, name: str) -> str | None:
    """The one text of a control as JSON-MIN gives it: the text itself, a list, or {"text": [...]}."""
    if not isinstance(value, (dict, list)):
        return None if value is None else str(value)
    parts = value if isinstance(value, list) else [value]
    if odd := [p for p in parts if isinstance(p, dict) and not {"text", "choices"} & p.keys()]:
        raise BadAnswer(f"{where}: the answer of row {name!r} is {odd[0]}, not text")
    return one([t for p in parts for t in (_texts(p) if isinstance(p, dict) else [p])], where, name)


def unwrapped_cell(cell: str, where: str, name: str) -> str | None:
    """The one text of a cell of Label Studio's CSV, where several texts stand as JSON.

    One text stands there as it is, so `{"text": ["a"]}` and `["a", "b"]` are texts that somebody wrote.
    """
    if not cell.startswith(("{", "[")):
        return cell
    try:
        value = json.loads(cell)
    except (ValueError, RecursionError):
        return cell
    parts = value if isinstance(value, list) else [value]
    wrapped = [p for p in parts if isinstance(p, dict) and list(p) == ["text"] and isinstance(p["text"], list)]
    return unwrapped(value, where, name) if any(len(p["text"]) != 1 for p in wrapped) else cell
