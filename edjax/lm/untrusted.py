"""A bound on work that a model directory's own template asks for."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

SECONDS = 5.0  # of the processor, for one prompt; a real template takes milliseconds


class TooLong(Exception):
    """The bound was reached."""


@contextlib.contextmanager
def bounded(seconds: float = SECONDS) -> Iterator[None]:
    """End the body by `TooLong` once it has used this much processor time.

    The clock is the process's virtual timer, so a busy machine does not count, and it is looked at between Python
    instructions, which ends any loop. Without such a timer (Windows), outside the main thread, and where somebody uses
    it already, nothing is bounded. Memory is not: whoever doubts a model directory runs it where memory is limited.
    """
    timer = getattr(signal, "ITIMER_VIRTUAL", -1)
    here = timer != -1 and threading.current_thread() is threading.main_thread()
    if not here or signal.getitimer(timer)[0] or signal.getsignal(signal.SIGVTALRM) is not signal.SIG_DFL:
        yield
        return

    def stop(*_: object) -> None:
        raise TooLong(f"it takes more than {seconds:g} s")

    signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        signal.setitimer(timer, 0)
        signal.signal(signal.SIGVTALRM, signal.SIG_DFL)
