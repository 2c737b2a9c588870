"""How much of a prompt and of its response a model sees: the one rule of scoring, finetuning and evaluating."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from edjax.keep.errors import UsageError

LEAST = 2  # a token of the prompt, and one of the response


OWN = ("max_prompt", "max_response")  # settings that bound one of the two


@dataclass(frozen=True)
class Bounds:
    """`length` tokens for prompt and response together, a quarter of which prompts leave to the response.

    A prompt keeps its last `prompt` tokens, and a response its first ones, as many as the prompt has left of `length`.
    What a prompt keeps depends on nothing but itself: not on its response, which is not there yet when a pool is
    scored, nor on which of several answers it is asked about.

    Where `max_prompt` is given it is that bound of prompts in place of three quarters; where `max_response` is given
    responses keep no more than that, and prompts leave so much to them.

    >>> Bounds.of(100).prompt, Bounds.of(100, max_response=10).prompt, Bounds.of(100, max_prompt=60).prompt
    (75, 90, 60)
    """

    length: int
    max_prompt: int | None = None
    max_response: int | None = None

    @classmethod
    def of(
        cls,
        max_length: int,
        window: int | None = None,
        *,
        max_prompt: int | None = None,
        max_response: int | None = None,
    ) -> Bounds:
        """`max_length` as a user gives it, never more than the model's window (`max_position_embeddings`).

        Raises:
          UsageError: a max_length that leaves no room for a prompt and a response; a max_prompt and a max_response that
            together go beyond it or the window.
        """
        if max_length < LEAST:
            raise UsageError(f"max_length is {max_length}; a prompt and a response need {LEAST} tokens at the least")
        for name, value in zip(OWN, (max_prompt, max_response), strict=True):
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}; it must be 1 or more")
        length = max_length if window is None else max(min(max_length, window), LEAST)
        if max_prompt is not None or max_response is not None:
            _refuse_more_than(length, max_length, max_prompt, max_response)
        return cls(length, max_prompt, max_response)

    @property
    def prompt(self) -> int:
        """The most tokens that a prompt keeps."""
        if self.max_prompt is not None:
            return self.max_prompt
        return self.length - (max(self.length // 4, 1) if self.max_response is None else self.max_response)

    def response(self, prompt: Sequence[int]) -> int:
        """The most tokens that the response to a prompt, cut already, keeps."""
        left = self.length - len(prompt)
        return left if self.max_response is None else min(left, self.max_response)


def own_bounds(settings: Mapping[str, Any]) -> dict[str, int]:
    """Those of max_prompt and max_response that are given: what is not given is no setting of an artefact."""
    return {name: settings[name] for name in OWN if settings.get(name) is not None}


def _refuse_more_than(length: int, max_length: int, prompt: int | None, response: int | None) -> None:
    """Of max_prompt and max_response, one of which may be missing: it then needs a token."""
    need = (prompt or 1) + (response or 1)
    if need <= length:
        return
    if prompt is not None and response is not None:
        said = f"max_prompt {prompt} and max_response {response} are {need} tokens"
    else:
        name, other, value = (OWN[1], "prompt", response) if prompt is None else (OWN[0], "response", prompt)
        said = f"{name} {value} and a token for the {other} are {need} tokens"
    lower = "lower one of them" if prompt is not None and response is not None else "lower it"
    if length < max_length:
        raise UsageError(f"{said}, and the model's window is {length}: {lower}, or take a model with a longer one")
    raise UsageError(f"{said}, and max_length is {max_length}: {lower}, or raise max_length to {need}")


class Row(NamedTuple):
    """The tokens of a row within the bounds; `cut` where some were left out, `spelt` where a control token in its text
    was taken as the letters it is written in."""

    prompt: list[int]
    response: list[int]
    cut: bool = False
    spelt: bool = False


FIRST = 5  # ids that are named


def notes_on(rows: Sequence[Row], ids: Sequence[str], bounds: Bounds) -> list[str]:
    """What a person should know of rows that a model does not see as they were written: a sentence each."""
    cut, spelt = _those(rows, ids, "cut"), _those(rows, ids, "spelt")
    notes = []
    if cut:
        notes.append(
            f"{_count(cut, 'is', 'are')} cut to {bounds.length} tokens (max_length, or the model's window), prompts to "
            f"their last {bounds.prompt}, responses to the first {_of_responses(bounds)}: {_named(cut)}"
        )
    if spelt:
        notes.append(f"{_count(spelt, 'holds', 'hold')} control tokens of the model, read as text: {_named(spelt)}")
    return notes


def _of_responses(bounds: Bounds) -> str:
    return "that these leave" if bounds.max_response is None else str(bounds.max_response)


def facts_of(rows: Sequence[Row], ids: Sequence[str]) -> dict[str, dict[str, object]]:
    """The same for a manifest: how many rows, and the first of them."""
    found = {name: _those(rows, ids, name) for name in ("cut", "spelt")}
    return {name: {"rows": len(those), "first": those[:FIRST]} for name, those in found.items()}


def _those(rows: Sequence[Row], ids: Sequence[str], what: str) -> list[str]:
    return [i for i, row in zip(ids, rows, strict=True) if getattr(row, what)]


def _count(ids: Sequence[str], one: str, more: str) -> str:
    return f"1 row {one}" if len(ids) == 1 else f"{len(ids)} rows {more}"


def _named(ids: Sequence[str]) -> str:
    return ", ".join(ids[:FIRST]) + (", ..." if len(ids) > FIRST else "")
