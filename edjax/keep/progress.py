"""How far a long stage is: a bar on a terminal or in a notebook's cell, a line now and then elsewhere, on stderr."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from html import escape
from importlib import import_module
from typing import Any

PLAIN_EVERY = 20.0  # seconds between lines where stderr is not a terminal
CELL_EVERY = 0.2  # seconds between drawings in a notebook: each is a message to the browser

Advance = Callable[..., None]


@contextlib.contextmanager
def progress(label: str, total: int, unit: str, *, show: bool = True) -> Iterator[Advance]:
    """Yield `advance(n, note="")`, which moves the bar on by `n` of `total` units; rate and time left are shown."""
    if not show:
        yield lambda n=1, note="": None
    elif display := _display():
        yield _cell(display, label, total, unit)
    elif sys.stderr.isatty():
        with _bar(label, total, unit) as advance:
            yield advance
    else:
        yield _lines(label, total, unit)


@contextlib.contextmanager
def _bar(label: str, total: int, unit: str) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
        transient=True,
    )
    start, done = time.monotonic(), 0
    with bar:
        task = bar.add_task(label, total=total, rate="", note="")

        def advance(n: int = 1, note: str = "") -> None:
            nonlocal done
            done += n
            rate = done / max(time.monotonic() - start, 1e-9)
            bar.update(task, advance=n, rate=f"{rate:,.1f} {unit}/s", note=note)

        yield advance


def _display() -> Callable[..., Any] | None:
    """IPython's display where this process is a notebook's kernel; it is not imported to find that out."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if getattr(shell, "kernel", None) is None:
        return None
    found: Callable[..., Any] = import_module("IPython.display").display
    return found


class _Drawn:
    """A bar as HTML, and as the text that a saved notebook shows where HTML is not drawn."""

    def __init__(self, text: str, done: int, total: int):
        self.text, self.done, self.total = text, done, total

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        bar = f'<progress value="{self.done}" max="{max(self.total, 1)}"></progress>'
        return f"<div>{bar} {escape(self.text)}</div>"


def _cell(display: Callable[..., Any], label: str, total: int, unit: str) -> Advance:
    """One line of a cell's output, drawn anew in place."""
    start = last = time.monotonic()
    done = 0
    handle = display(_Drawn(f"{label}: 0/{total} {unit}", 0, total), display_id=True)

    def advance(n: int = 1, note: str = "") -> None:
        nonlocal done, last
        done += n
        now = time.monotonic()
        if now - last >= CELL_EVERY or done >= total:
            last = now
            rate = done / max(now - start, 1e-9)
            left = f", {(total - done) / max(rate, 1e-9):.0f} s left" if done < total else ""
            text = f"{label}: {done}/{total} {unit}, {rate:,.1f}/s{left} {note}".rstrip()
            handle.update(_Drawn(text, done, total))

    return advance


def _lines(label: str, total: int, unit: str) -> Advance:
    start = last = time.monotonic()
    done = 0

    def advance(n: int = 1, note: str = "") -> None:
        nonlocal done, last
        done += n
        now = time.monotonic()
        if now - last >= PLAIN_EVERY and done < total:
            last = now
            rate = done / (now - start)
            left = (total - done) / max(rate, 1e-9)
            text = f"{label}: {done}/{total} {unit}, {rate:,.1f}/s, {left:.0f} s left {note}".rstrip()
            print(text, file=sys.stderr, flush=True)

    return advance
