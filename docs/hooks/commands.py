"""The command line's reference, made from the commands at every build so that it cannot fall behind them.

`<!-- commands -->` in a page becomes a section a verb: what it does, how it is called, its options.
"""

import html
import inspect

import click

MARK = "<!-- commands -->"


def on_page_markdown(markdown, **_):
    """The page with its mark filled in."""
    return markdown.replace(MARK, reference()) if MARK in markdown else markdown


def reference() -> str:
    """Every verb of `edjax`, in alphabetical order, as Markdown."""
    from edjax.cli import cli

    top = click.Context(cli, info_name="edjax", **cli.context_settings)
    return "\n\n".join(section(cli.commands[name], name, top) for name in sorted(cli.commands))


def section(command: click.Command, name: str, parent: click.Context) -> str:
    """One verb."""
    context = click.Context(command, info_name=name, parent=parent)
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    from edjax.cli.grouped import sections

    found = sections(command, context)
    rows = []
    for heading, records in found.items():
        rows += [f"| **{cell(heading)}** | |"] if len(found) > 1 else []
        rows += [f"| <code>{cell(flags)}</code> | {cell(about)} |" for flags, about in records]
    table = "\n".join(["| option | |", "| --- | --- |", *rows])
    return f"## {name}\n\n{described(command.help or '')}\n\n```text\n{usage}\n```\n\n{table}"


def described(text: str) -> str:
    r"""A help text as Markdown; a paragraph under \b keeps its lines."""
    parts = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(f"```text\n{p[2:]}\n```" if p.startswith("\b") else p for p in parts)


def cell(text: str) -> str:
    """Text that may stand in a table's cell, where a pipe would end it."""
    return (
        html.escape(" ".join(text.split()), quote=False)
        .replace("|", "&#124;")
        .replace("_", "&#95;")
        .replace("*", "&#42;")
    )
