"""The day that a chat template prints (`strftime_now`, as in those of Llama 3.2, SmolLM3 and gpt-oss): one a result.

A template that asks for today's date would give other prompts tomorrow, so that half of what was stopped and gone on
with would be of another day. The day is part of the settings: fixed when a directory is begun, and read from its plan
when the same command goes on.
"""

from __future__ import annotations

import contextlib
import datetime
import re
from pathlib import Path
from typing import Any

from edjax.keep.store import read_json

NAME = "strftime_now"
FORMATS = re.compile(r"""(?=(["'])((?:(?!\1).)*%(?:(?!\1).)*)\1)""")  # at every quote: which of them opens is jinja's
MACRO = (  # ends its line, so that the template still begins one: jinja strips by lines
    "{% macro strftime_now(format) %}{{ edjax_dates[format] if format in edjax_dates else "
    "raise_exception('a date in the format ' ~ format) }}{% endmacro %}\n"
)


def today() -> str:
    """As 2026-01-31."""
    return datetime.date.today().isoformat()


def dated(template: str, day: str) -> tuple[str, dict[str, Any]]:
    """A chat template that prints `day` wherever it asks for now, and what it has to be rendered with; one that does
    not ask is as it was."""
    if NAME not in template:
        return template, {}
    when = datetime.datetime.fromisoformat(day)
    return MACRO + template, {"edjax_dates": {f: when.strftime(f) for _, f in FORMATS.findall(template)}}


def day_of(directory: Path, template: str, *begun: Path | None) -> dict[str, str]:
    """{"date": ...} to be among the settings of what is written with the model of a directory: the day that the first
    of `begun`, directories that edjax wrote or began to, was made with, else today; {} where its prompts hold none."""
    files = [p for name in ("*.jinja", "tokenizer_config.json", "chat_template.json") for p in directory.glob(name)]
    if template == "plain" or not any(NAME in p.read_text(encoding="utf-8", errors="replace") for p in files):
        return {}
    for path in begun:
        if path is not None and (path / "plan.json").is_file():
            with contextlib.suppress(TypeError, ValueError, AttributeError):
                day = read_json(path / "plan.json")["config"].get("date")
                return {"date": datetime.date.fromisoformat(day).isoformat()}
    return {"date": today()}
