"""The keys of a recipe, made from the settings of the verbs at every build so that they cannot fall behind them.

`<!-- keys -->` in a page becomes a table: the key with its section, its default, what it is.
"""

import dataclasses

MARK = "<!-- keys -->"


def on_page_markdown(markdown, **_):
    """The page with its mark filled in."""
    return markdown.replace(MARK, table()) if MARK in markdown else markdown


def table() -> str:
    """Every key that is a setting, those of no section first, as Markdown."""
    from edjax.finetuning.config import FinetuneConfig
    from edjax.study.recipe import Recipe
    from edjax.study.sections import SECTIONS

    fields = {f.name: f for cls in (FinetuneConfig, Recipe) for f in dataclasses.fields(cls) if f.metadata}
    placed = {flat: f"{section}.{key}" for section, keys in SECTIONS.items() for key, flat in keys.items()}
    free = [f.name for f in dataclasses.fields(Recipe) if f.metadata and f.name not in placed]
    rows = [row(placed.get(name, name), fields[name]) for name in [*free, *placed] if name in fields]
    return "\n".join(["| key | default | |", "| --- | --- | --- |", *rows])


def row(key: str, field: dataclasses.Field) -> str:
    """One key."""
    default = field.default
    if default is dataclasses.MISSING:
        shown = "needed"
    elif isinstance(default, tuple):
        shown = f"`[{', '.join(default)}]`"
    else:
        shown = "" if default in (None, "") else f"`{str(default).lower() if isinstance(default, bool) else default}`"
    return f"| `{key}` | {shown} | {field.metadata['help'].replace('|', '&#124;')} |"
