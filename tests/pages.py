"""Blocks of README and of docs/: found, taken apart into commands, and made quick. Nothing but the standard library,
since .ci/walk_pages.py reads it where only the wheel is installed."""

import re
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

FENCE = re.compile(
    r"^(?:<!-- (?P<mark>[^\n]*?) -->\n)?(?P<indent> *)```(?P<info>[^\n]*)\n(?P<code>.*?)^(?P=indent)```$", re.M | re.S
)
SMALLER = {
    "edjax.select(features, budget=100)": "edjax.select(features, budget=20)",
    "n=600, n_eval=100": "n=60, n_eval=8",
    "--budget 30,60": "--budget 6,12",
    "--budget 60": "--budget 12",
    "budgets: [30, 60, 120]": "budgets: [6, 12]",
    "seeds: [0, 1, 2] ": "seeds: [0] ",
    "_smollm2.yaml": "_smollm2.yaml pool_rows=64 evaluation_rows=8 budgets=[8] max_length=64",
}
QUICKER = {  # added to these verbs: few widths of batches, so few programs to compile
    "demo": ["pool_rows=120", "evaluation_rows=12", "budgets=[8,16]", "max_length=48"],
    "score": ["--max-length", "32", "--max-new-tokens", "2"],
    "finetune": ["--max-length", "32", "--max-steps", "2"],
    "evaluate": ["--max-length", "32", "--metrics", "response_loss"],
}
PREFIX = {"do", "then", "else", "time"}


class Block(NamedTuple):
    """A fenced block: `mark` is the comment above it, `line` where it begins."""

    language: str
    mark: str
    code: str
    line: int


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a page."""
    return [
        Block(
            (m["info"].split() or [""])[0],
            m["mark"] or "",
            textwrap.dedent(m["code"]),
            text[: m.start()].count("\n") + 1,
        )
        for m in FENCE.finditer(text)
    ]


def simple_commands(code: str) -> Iterator[list[str]]:
    """The simple commands of a shell text as lists of words; what is piped, chained or in a loop is taken apart."""
    for line in code.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split, lexer.commenters = True, "#"
        words: list[str] = []
        for token in [*lexer, ";"]:
            if not set(token) <= set("();<>|&"):
                words.append(token)
                continue
            while words and (words[0] in PREFIX or re.fullmatch(r"\w+=\S*", words[0])):
                words.pop(0)
            if words:
                yield words
            words = ["#"] if set(token) & set("<>") else []  # what follows a redirection is a file


def edjax_lines(code: str) -> list[list[str]]:
    """What follows `edjax` on every command line that calls it."""
    return [words[1:] for words in simple_commands(code) if Path(words[0]).name == "edjax"]
