"""Ctrl-C and SIGTERM while there is something to save first."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Held:
    """The signal that came, if one did."""

    def __init__(self) -> None:
        self.number: int | None = None

    @property
    def stop(self) -> bool:
        """Whether to save, and leave the context."""
        return self.number is not None


@contextlib.contextmanager
def held_signals() -> Iterator[Held]:
    """Hold the first Ctrl-C or SIGTERM back until the context is left; then it does what it would have done.

    The body looks at `stop` wherever its state is whole. A second signal is not held back. An error in the body goes
    before the signal. Outside the main thread, where Python handles no signals, nothing is held; nor is a signal that
    is ignored, or handled by something other than Python.
    """
    held = Held()
    if threading.current_thread() is not threading.main_thread():
        yield held
        return
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    before = {n: h for n, h in before.items() if h is not None and h is not signal.SIG_IGN}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def hold(number: int, frame: FrameType | None) -> None:
        if held.stop:
            restore()
            signal.raise_signal(number)
        held.number = number

    for number in before:
        signal.signal(number, hold)
    try:
        yield held
    finally:
        restore()
    if held.number is not None:
        signal.raise_signal(held.number)
        raise KeyboardInterrupt  # whoever handles it let it pass; the body is not done all the same
