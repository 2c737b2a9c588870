"""Help in groups: a verb with many options shows them under headings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from typing import Any

import click

RUNNING = "Running"


class Option(click.Option):
    """An option that says under which heading its verb's help shows it."""

    def __init__(self, *names: Any, section: str = RUNNING, **settings: Any):
        super().__init__(*names, **settings)
        self.section = section


def option(*names: str, section: str = RUNNING, **settings: Any) -> Callable[[Any], Any]:
    """`click.option` under a heading."""
    return click.option(*names, cls=Option, section=section, **settings)


class Grouped(click.Command):
    """A command whose help has a heading for each section, in the order in which they first come up; Running last."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section, records in sections(self, ctx).items():
            with formatter.section(section):
                formatter.write_dl(records)


def sections(command: click.Command, ctx: click.Context) -> dict[str, list[tuple[str, str]]]:
    """Flags and help of each section's options."""
    found: dict[str, list[tuple[str, str]]] = {}
    for param in command.get_params(ctx):
        if isinstance(param, click.Option) and (record := param.get_help_record(ctx)):
            found.setdefault(getattr(param, "section", RUNNING), []).append(record)
    last = found.pop(RUNNING, [])
    return found | ({RUNNING: last} if last else {})


def from_settings(cls: Any, *, skip: Collection[str] = (), switches: bool = True) -> Callable[[Any], Any]:
    """An option for every field of a dataclass of `edjax.settings.setting`s.

    switches: a field that is true or false has a flag for each; else one that turns it on.
    """

    def decorate(f: Any) -> Any:
        for field in reversed(dataclasses.fields(cls)):
            if field.name in skip:
                continue
            flag, said = "--" + field.name.replace("_", "-"), field.metadata
            shared: dict[str, Any] = {"help": said["help"], "section": said["section"]}
            default = ",".join(field.default) if isinstance(field.default, tuple) else field.default
            if isinstance(default, bool) and not switches:
                f = option(flag, is_flag=True, **shared)(f)
            elif isinstance(default, bool):
                f = option(f"{flag}/--no-{flag[2:]}", field.name, default=default, show_default=True, **shared)(f)
            elif default is None:
                f = option(flag, type=said["kind"], **shared)(f)
            else:
                f = option(flag, default=default, show_default=True, **shared)(f)
        return f

    return decorate
