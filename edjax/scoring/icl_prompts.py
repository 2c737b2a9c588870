"""The words around a query and around an example before it, for the probe icl_utility; a YAML file may say others."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from edjax.keep.errors import UsageError

EXAMPLE = ("example_prompt", "example_response")
QUERY, END = "query", "end"
_PLACES = re.compile(r"\{([a-z_]+)\}")


class Wording(NamedTuple):
    """What the model reads: `alone` before a query without an example, `shown` around an example and a query.

    Text with places in braces: {query} is the row's prompt and stands last, once, in both; {example_prompt} and
    {example_response} are the example's, in `shown` alone, once each; {end} is the token that ends a response. What
    stands at a place are the row's tokens as it is scored and trained on, with its chat template and the token that
    ends the response; the text between is tokenised a piece at a time.
    """

    alone: str = "Below is a request. Give the response to it.\n{query}"
    shown: str = (
        "Below is a request and the response to it. Keep to the form and the manner of that response when you respond "
        "to the request that follows.\n{example_prompt}{example_response}\n{query}"
    )


def pieces(text: str) -> list[tuple[str, str]]:
    """(text, the place after it) of a wording, in order; the last place is the query.

    >>> pieces("Hear: {example_prompt}{end}. {query}")
    [('Hear: ', 'example_prompt'), ('', 'end'), ('. ', 'query')]
    """
    parts = _PLACES.split(text)
    return list(zip(parts[:-1:2], parts[1::2], strict=True))


def read_wording(path: str | Path | None) -> Wording:
    """The wording of a YAML file with the keys alone and shown, of which one may be left out; None or "": ours.

    Raises:
      UsageError: a file that cannot be read or is no such mapping; a place that there is not, is missing, stands twice
        or out of order.
    """
    if path is None or not str(path):
        return Wording()
    import yaml

    try:
        raw: Any = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as e:
        why = e.strerror if isinstance(e, OSError) else " ".join(str(e).split())[:200]
        raise UsageError(f"{path} cannot be read as YAML: {why}") from e
    names = Wording._fields
    if not isinstance(raw, Mapping) or not raw or not set(raw) <= set(names):
        raise UsageError(f"{path} must hold the keys {' and '.join(names)}, or one of them, each with a text")
    for name, text in raw.items():
        if not isinstance(text, str):
            raise UsageError(f"{path}: {name} holds {text!r}, which is not text")
    made = Wording(**raw)
    for name, wanted in (("alone", (QUERY,)), ("shown", (*EXAMPLE, QUERY))):
        _check(getattr(made, name), wanted, f"{path}: {name}")
    return made


def _check(text: str, wanted: tuple[str, ...], where: str) -> None:
    places = _PLACES.findall(text)
    if unknown := [p for p in places if p not in (*wanted, END)]:
        raise UsageError(
            f"{where} has the place {{{unknown[0]}}}; there are {', '.join(f'{{{p}}}' for p in wanted)}, {{end}}"
        )
    for place in wanted:
        if places.count(place) != 1:
            raise UsageError(f"{where} must have {{{place}}} once, and has it {places.count(place)} times")
    if not text.endswith(f"{{{QUERY}}}"):
        raise UsageError(f"{where} must end in {{{QUERY}}}: the response follows it")
