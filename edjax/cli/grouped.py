"""Help in groups: a verb with many options shows them under headings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
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


def from_settings(
    cls: Any,
    *,
    skip: Collection[str] = (),
    headings: Collection[str] | None = None,
    hidden: Collection[str] = (),
    unset: bool = False,
    switches: bool = True,
    types: Mapping[str, click.ParamType] | None = None,
) -> Callable[[Any], Any]:
    """An option for every field of a dataclass of `edjax.settings.setting`s; fields of another kind have none.

    A setting that another flag says too (`within`) is taken and not shown.

    Args:
      skip: fields without one. headings: those under which options are made; None: all.
      hidden: fields whose option is taken and not shown, beside those that are within another.
      unset: what is not given is None, whatever the setting's default.
      switches: a field that is true or false has a flag for each; else one that turns it on.
      types: of options whose text is more than their setting's value.
    """

    def decorate(f: Any) -> Any:
        for field in reversed(dataclasses.fields(cls)):
            said = field.metadata
            if not said or field.name in skip or (headings is not None and said["section"] not in headings):
                continue
            flag = said["flag"] or "--" + field.name.replace("_", "-")
            shared: dict[str, Any] = {"help": said["help"], "section": said["section"], "hidden": bool(said["within"])}
            shared["hidden"] |= field.name in hidden
            default = field.default
            if types and field.name in types:
                shared["type"] = types[field.name]
            if unset:
                shown = False if default is None or isinstance(default, bool) else str(default)
                f = option(
                    *flag.split(),
                    field.name,
                    is_flag=isinstance(default, bool),
                    default=None,
                    show_default=shown,
                    **shared,
                )(f)
            elif isinstance(default, tuple) and said["flag"]:  # said once a value
                f = option(flag, field.name, multiple=True, **shared)(f)
            elif isinstance(default, tuple):
                f = option(flag, default=",".join(default), show_default=True, **shared)(f)
            elif isinstance(default, bool) and not switches:
                f = option(flag, is_flag=True, **shared)(f)
            elif isinstance(default, bool):
                f = option(f"{flag}/--no-{flag[2:]}", field.name, default=default, show_default=True, **shared)(f)
            elif default is None:
                f = option(flag, **{"type": said["kind"], **shared})(f)
            else:
                f = option(flag, default=default, show_default=default != "", **shared)(f)
        return f

    return decorate
