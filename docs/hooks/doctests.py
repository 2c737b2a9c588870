"""A griffe extension: what means something else in Markdown than in our docstrings.

Doctests at the end of a docstring become its Examples, instead of nested quotations; `ridge: > 0` keeps its sign.
"""

import re

import griffe

QUOTE = re.compile(r"(: +)>(?=[ =]\d)")
FIRST = re.compile(r"^([ \t]*)>>> ", re.M)


class Doctests(griffe.Extension):
    """Puts "Examples:" before the first `>>>` of each docstring that has no such section."""

    def on_instance(self, *, obj, **_):
        """Of modules, classes and functions."""
        if obj.docstring and not re.search(r"^\s*Examples?:\s*$", obj.docstring.value, re.M):
            obj.docstring.value = QUOTE.sub(r"\1\>", with_section(obj.docstring.value))


def with_section(text: str) -> str:
    """The docstring with its doctests in an Examples section; they run to its end."""
    first = FIRST.search(text)
    if not first:
        return text
    code = "".join(f"    {line}" if line.strip() else line for line in text[first.start() :].splitlines(True))
    return f"{text[: first.start()]}{first[1]}Examples:\n{code}"
