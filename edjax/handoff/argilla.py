"""Argilla 2: a directory that `rg.Dataset.from_disk` loads; the records it exports back.

The layout is that of `Dataset.to_disk` (argilla 2.8): .argilla/dataset.json, .argilla/settings.json and records.json, a
list of {"id", "fields", "metadata", "suggestions", "responses", "status", ...}. In an export `responses` maps the
question to a list of {"value", "user_id"}, one a person; the flattened form (`to_list(flatten=True)`, `to_datasets`)
has "response.responses", "response.responses.users" and "response.responses.status" in their place. A suggestion is a
model's and no answer.

Only what was submitted is an answer, and only the flattened form says of each response whether it is a draft or was
discarded. Of the other one, a record counts whose own status is "completed" and that holds one response: a record is
completed when as many people have submitted as the data set's distribution asks for, one in what edjax exports. Argilla
1 has `responses` as a list with a status each, and the row's id in `external_id`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from edjax.handoff.chosen import Chosen
from edjax.handoff.record import SKIPPED, Answer, BadAnswer, Entry
from edjax.handoff.text import apart, json_bytes

QUESTION = "response"
FLAT = ".responses"
REMEDY = "export it as json.dump(dataset.records.to_list(flatten=True), file)"
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
    flat = any(k.endswith(FLAT) for k in record)
    return flat or (isinstance(record.get("fields"), dict) and "responses" in record)


class _Given(NamedTuple):
    """One person's response; status None: the file does not say."""

    value: Any
    status: str | None
    names: tuple[str, ...]


def answers(entries: list[Entry]) -> Iterator[Answer]:
    """The submitted responses; drafts and discarded ones count as none."""
    for where, record in entries:
        name, fields = record.get("external_id") or record.get("id"), record.get("fields", record)
        if name is None:
            raise BadAnswer(f"{where}: a record without an id; export the records that edjax made")
        given = _given(record)
        kept, why = _submitted(given, record)
        for one in kept:
            if not isinstance(one.value, (str, int, float)):
                kind = type(one.value).__name__
                raise BadAnswer(f"{where}: the answer of row {str(name)!r} is {kind}, not text")
            yield Answer(str(name), str(one.value), where, fields.get("prompt"), names=one.names)
        if not kept:
            yield Answer(str(name), None, where, fields.get("prompt"), why=why)


def _submitted(given: list[_Given], record: dict[str, Any]) -> tuple[list[_Given], str]:
    """The responses that are answers; where there are none, why."""
    if not given:
        others = sorted({*_questions(record)} - {QUESTION})
        return [], f"no question {QUESTION}, found: {', '.join(others)}" if others else ""
    if any(g.status is not None for g in given):
        drafts = any(g.status == "draft" for g in given)
        return [g for g in given if g.status == "submitted"], "a draft, not submitted" if drafts else SKIPPED
    if record.get("status") == "completed" and len({str(g.value) for g in given}) == 1:
        return given, ""
    state = "several responses" if record.get("status") == "completed" else f"status {record.get('status')}"
    return [], f"{state}, and the file does not say which responses are drafts; {REMEDY}"


def _questions(record: dict[str, Any]) -> list[str]:
    """The questions that somebody has answered."""
    nested = record.get("responses")
    if isinstance(nested, list):
        return [q for r in nested for q in r.get("values") or ()]
    return [q for q, v in (nested or {}).items() if v] + [
        k.removesuffix(FLAT) for k, v in record.items() if k.endswith(FLAT) and v
    ]


def _given(record: dict[str, Any]) -> list[_Given]:
    """Every person's response."""
    if f"{QUESTION}{FLAT}" in record:
        values = record[f"{QUESTION}{FLAT}"] or []
        status = record.get(f"{QUESTION}{FLAT}.status") or [None] * len(values)
        users = record.get(f"{QUESTION}{FLAT}.users") or [None] * len(values)
        found = list(zip(values, status, users, strict=False))
    elif isinstance(record.get("responses"), list):
        asked = [((r.get("values") or {}).get(QUESTION) or {}, r) for r in record["responses"]]
        found = [(a.get("value"), r.get("status"), r.get("user_id")) for a, r in asked]
    else:
        nested = (record.get("responses") or {}).get(QUESTION) or []
        found = [(r.get("value"), r.get("status"), r.get("user_id")) for r in nested]
    return [_Given(v, s, () if u is None else (str(u),)) for v, s, u in found if v is not None]
