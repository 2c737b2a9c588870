"""A group whose verbs are imported when they are asked for: help of all costs none of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from importlib import import_module
from typing import Any

import click


class Verbs(MutableMapping[str, click.Command]):
    """Commands by name, each imported from its module on its first use."""

    def __init__(self, places: Mapping[str, tuple[str, str]]):
        self.places, self.loaded = places, dict[str, click.Command]()

    def __getitem__(self, name: str) -> click.Command:
        if name not in self.loaded:
            module, _ = self.places[name]
            self.loaded[name] = getattr(import_module(module), name.replace("-", "_"))
        return self.loaded[name]

    def __setitem__(self, name: str, command: click.Command) -> None:
        self.loaded[name] = command

    def __delitem__(self, name: str) -> None:
        del self.loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self.places, *self.loaded]))

    def __len__(self) -> int:
        return len(list(iter(self)))


class LazyGroup(click.Group):
    """A group of verbs known by name, module and a summary.

    Args:
      verbs: name -> (module that holds the command under that name, `-` as `_`; its summary in the group's help).
    """

    def __init__(self, *args: Any, verbs: Mapping[str, tuple[str, str]], **settings: Any):
        super().__init__(*args, **settings)
        self.places = verbs
        self.commands = Verbs(verbs)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.places)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in self.places.items()])
