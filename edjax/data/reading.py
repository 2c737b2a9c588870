"""How a pool is read: the options of every verb that takes one, remembered in what is made of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edjax.data.names import STDIN as STDIN
from edjax.data.names import Named, is_here, may_have_splits, names_of
from edjax.data.turns import Columns
from edjax.keep.errors import UsageError
from edjax.settings import setting

READING = "What is read"


@dataclass(frozen=True)
class Reading:
    """The options of `read_pool` that say what a pool is: whoever reads it again needs the same ones."""

    text_column: str | None = setting(
        None,
        "Column with the prompt, where the name is none edjax knows.",
        section=READING,
        kind=str,
        flag="--text-column --prompt-column",
    )
    response_column: str | None = setting(None, "Column with the response.", section=READING, kind=str)
    system_column: str | None = setting(None, "Column with the system turn.", section=READING, kind=str)
    context_column: str | None = setting(
        None, "Column that follows the prompt after a blank line.", section=READING, kind=str
    )
    choices_column: str | None = setting(None, "Column with the choices, for evaluating.", section=READING, kind=str)
    answer_column: str | None = setting(None, "Column with the answer, or which choice.", section=READING, kind=str)
    id_column: str | None = setting("id", "Column that names the rows.", section=READING)
    split: str | None = setting(
        None, "Split of a `datasets` directory or hub data set that has several.", section=READING, kind=str
    )
    revision: str | None = setting(None, "Branch, tag or commit of a hub data set.", section=READING, kind=str)
    skip_bad_lines: bool = setting(False, "Leave malformed lines out and count them.", section=READING)

    def __post_init__(self) -> None:
        whats = ("prompt", "response", "system", "context")
        columns = (self.text_column, self.response_column, self.system_column, self.context_column)
        named: dict[str, str] = {}
        for what, column in zip(whats, columns, strict=True):
            if column is not None and (other := named.setdefault(column, what)) != what:
                raise UsageError(f"the column {column!r} is named for the {other} and for the {what}; name two")

    @classmethod
    def of(cls, given: Mapping[str, Any], remembered: Mapping[str, Any] | None = None, source: Named = "") -> Reading:
        """What is given; where that is None, what a manifest remembers, else the default. A `source` without
        splits has none to remember, one on this machine no revision."""
        asked = names_of(source)
        apart = set() if any(map(may_have_splits, asked)) else {"split"}
        apart |= {"revision"} if all(map(is_here, asked)) else set()
        names = {f.name for f in dataclasses.fields(cls)} - apart
        found = {k: v for k, v in (remembered or {}).items() if k in names}
        return cls(**found | {k: v for k, v in given.items() if v is not None})

    def columns(self) -> Columns:
        """The columns that are named, beside that of the prompt."""
        return Columns(
            self.response_column, self.system_column, self.context_column, self.choices_column, self.answer_column
        )

    def known(self, record: Mapping[str, Any]) -> Mapping[str, Any]:
        """A row for evaluating: what `choices_column` and `answer_column` hold under the names that are known."""
        named = {"choices": self.choices_column, "answer": self.answer_column}
        return {**record, **{name: record.get(column) for name, column in named.items() if column}}

    def of_rows(self) -> Reading:
        """How rows are read that edjax copied out of the pool: they are good, and their ids are known."""
        return dataclasses.replace(self, id_column=None, split=None, revision=None, skip_bad_lines=False)

    def record(self) -> dict[str, Any]:
        """What a manifest remembers: the options that are not the defaults."""
        return {k: v for k, v in dataclasses.asdict(self).items() if v != getattr(Reading, k)}
