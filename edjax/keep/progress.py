"""How far a long stage is: a bar on a terminal, a line now and then elsewhere; always on stderr."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

PLAIN_EVERY = 20.0  # seconds between lines where stderr is not a terminal

Advance = Callable[..., None]


@contextlib.contextmanager
def progress(label: str, total: int, unit: str, *, show: bool = True) -> Iterator[Advance]:
    """Yield `advance(n, note="")`, which moves the bar on by `n` of `total` units; rate and time left are shown."""
    if not show:
        yield lambda n=1, note="": None
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
