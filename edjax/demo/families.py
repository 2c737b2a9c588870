"""What a task family is: a function from a random generator to one item, and the phrasings that ask for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import Any, NamedTuple


class Item(NamedTuple):
    """One question: the fields a phrasing shows, the answer, the candidates of a choice, further right answers."""

    fields: Mapping[str, Any]
    answer: str
    choices: tuple[str, ...] | None = None
    also: tuple[str, ...] = ()


class Family(NamedTuple):
    """A task: `make` draws an item, a pure function of the generator; any phrasing fits any item."""

    name: str
    make: Callable[[Random], Item]
    phrasings: tuple[str, ...]


REGISTRY: dict[str, Family] = {}


def family(*phrasings: str) -> Callable[[Callable[[Random], Item]], Callable[[Random], Item]]:
    """Register the decorated function as the family of its name."""

    def register(make: Callable[[Random], Item]) -> Callable[[Random], Item]:
        _add(Family(make.__name__, make, phrasings))
        return make

    return register


def table(
    name: str, pairs: Mapping[str, str], *phrasings: str, also: Mapping[str, tuple[str, ...]] | None = None
) -> None:
    """Register a family that looks {x} up in a table of facts; `also` holds further right answers."""
    keys = tuple(pairs)
    more = also or {}

    def make(rng: Random) -> Item:
        x = rng.choice(keys)
        return Item({"x": x}, pairs[x], also=more.get(x, ()))

    _add(Family(name, make, phrasings))


def _add(new: Family) -> None:
    if new.name in REGISTRY:
        raise ValueError(f"two families are named {new.name}")
    REGISTRY[new.name] = new


def either(rng: Random, yes: bool, fields: Mapping[str, Any]) -> Item:
    """A yes-or-no item."""
    return Item(fields, "yes" if yes else "no", ("yes", "no"))
