"""How much of a prompt and of its response a model sees: the one rule of scoring, finetuning and evaluating."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from edjax.keep.errors import UsageError

LEAST = 2  # a token of the prompt, and one of the response


@dataclass(frozen=True)
class Bounds:
    """`length` tokens for prompt and response together, a quarter of which prompts leave to the response.

    A prompt keeps its last `prompt` tokens, and a response its first ones, as many as the prompt has left of `length`.
    What a prompt keeps depends on nothing but itself: not on its response, which is not there yet when a pool is
    scored, nor on which of several answers it is asked about.
    """

    length: int

    @classmethod
    def of(cls, max_length: int, window: int | None = None) -> Bounds:
        """`max_length` as a user gives it, never more than the model's window (`max_position_embeddings`).

        Raises:
          UsageError: a max_length that leaves no room for a prompt and a response.
        """
        if max_length < LEAST:
            raise UsageError(f"max_length is {max_length}; a prompt and a response need {LEAST} tokens at the least")
        return cls(max_length if window is None else max(min(max_length, window), LEAST))

    @property
    def prompt(self) -> int:
        """The most tokens that a prompt keeps."""
        return self.length - max(self.length // 4, 1)

    def response(self, prompt: Sequence[int]) -> int:
        """The most tokens that the response to a prompt, cut already, keeps."""
        return self.length - len(prompt)


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
            f"their last {bounds.prompt}, responses to the first that these leave: {_named(cut)}"
        )
    if spelt:
        notes.append(f"{_count(spelt, 'holds', 'hold')} control tokens of the model, read as text: {_named(spelt)}")
    return notes


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
