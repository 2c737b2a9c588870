"""What the values of `edjax select` are read as."""

from __future__ import annotations

from typing import Any

import click
from click.shell_completion import CompletionItem


class Several(click.ParamType):
    """One or more values with commas between: facility_location,random or 50,100."""

    def __init__(self, kind: click.ParamType, name: str):
        self.kind, self.name = kind, name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        """The values without repeats, or a usage error that names the one that does not fit."""
        parts = [v.strip() for v in str(value).split(",")]
        return tuple(dict.fromkeys(self.kind.convert(v, param, ctx) for v in parts if v or len(parts) == 1))


class Strategies(Several):
    """Names of strategies, which a shell completes: of a list with commas, the last one."""

    def __init__(self) -> None:
        super().__init__(click.STRING, "names")

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from edjax.selection.strategies import STRATEGIES

        done, comma, begun = incomplete.rpartition(",")
        return [CompletionItem(done + comma + name) for name in STRATEGIES if name.startswith(begun)]


class Money(click.ParamType):
    """An amount of money, and after a colon the column with the price of a row, or what rows and tokens cost."""

    name = "amount"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The text as it was, or a usage error where it begins with no number."""
        try:
            float(str(value).partition(":")[0])
        except ValueError:
            self.fail(f"{value!r} begins with no number.", param, ctx)
        return str(value)


class Rows(click.ParamType):
    """A whole number of rows, or a share of those that may be chosen: 100 or 10%."""

    name = "rows"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """An int, or the share as text, or a usage error."""
        from edjax.keep.errors import UsageError
        from edjax.selection.budgets import budget_of

        text: Any = str(value).strip()
        if not text.endswith("%"):
            return click.INT.convert(text, param, ctx)
        try:
            return budget_of(text)
        except UsageError as e:
            self.fail(f"{e}.", param, ctx)
