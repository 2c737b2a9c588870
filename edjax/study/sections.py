"""The sections of a recipe, score, select, finetune and evaluate: what stands below each, and its name in `Recipe`."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

from edjax.evaluation.config import EvaluateConfig
from edjax.finetuning import FinetuneConfig
from edjax.keep.errors import UsageError
from edjax.scoring.config import ScoreConfig

_ELSEWHERE = ("seed", "template", "dtype", "quantize")  # seeds are a list, two are of the whole run, one not offered
FINETUNE = tuple(f.name for f in dataclasses.fields(FinetuneConfig) if f.name not in _ELSEWHERE)  # as a recipe has them


def _keys(settings: Any) -> dict[str, str]:
    """Of a verb's settings those that are keys of a recipe, and their names in `Recipe`."""
    return {f.name: f.metadata["recipe"] for f in dataclasses.fields(settings) if f.metadata["recipe"]}


# Keys of each section, and their names in `Recipe`.
SECTIONS: dict[str, dict[str, str]] = {
    "score": _keys(ScoreConfig),
    "select": {name: name for name in ("strategies", "budgets", "target", "normalise", "whiten_dims", "variants")},
    "finetune": {
        "strategies": "finetune_strategies",
        **{name: name for name in ("seeds", "random_seeds", "warm_start", "cells_at_once", *FINETUNE)},
    },
    "evaluate": {
        "metric": "metric",
        **_keys(EvaluateConfig),
    },
}
_PLACE = {flat: f"{section}.{key}" for section, keys in SECTIONS.items() for key, flat in keys.items()}


def flat(raw: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The keys of a recipe under the names of `Recipe`: those below a section, `section.key`, and flat ones.

    Raises:
      UsageError: a key that is of no section, or of another one; one that is given twice.
    """
    found: dict[str, Any] = {}

    def give(key: str, value: Any) -> None:
        if key in found:
            raise UsageError(f"{where}: {_PLACE.get(key, key)} is given twice, below its section and beside it")
        found[key] = value

    for key, value in raw.items():
        section, dot, rest = str(key).partition(".")
        if section not in SECTIONS:
            give(key, value)
        elif dot:
            give(_within(section, rest, where), value)
        elif value is not None:
            if not isinstance(value, Mapping):
                raise UsageError(f"{where}: {section} is a section, with `key: value` lines below it")
            for inner, of in value.items():
                give(_within(section, str(inner), where), of)
    return found


def _within(section: str, key: str, where: str) -> str:
    keys = SECTIONS[section]
    if key in keys:
        return keys[key]
    if key in _PLACE:
        raise UsageError(f"{where}: {key} is no key of {section}; it is {_PLACE[key]}")
    near = difflib.get_close_matches(key, keys, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise UsageError(f"{where}: unknown key {key!r} in {section}{hint}")


def written_flat(raw: Mapping[str, Any]) -> str | None:
    """What a recipe that is written flat reads like now, in a sentence; None for one in sections."""
    old = [key for key in raw if key in _PLACE]
    if not old:
        return None
    places = ", ".join(f"{key} as {_PLACE[key]}" for key in old)
    return f"keys stand in sections now (score, select, finetune, evaluate); flat they are still read: {places}"
