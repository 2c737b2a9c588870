"""How much a device has memory for; and memory that runs out, said in one line."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from edjax.keep.errors import EdjaxError, EnvError

SHARE = 0.7  # of the memory that is free


def as_many_as_fit(each: int, most: int) -> int:
    """How many times `each` bytes fit beside what the first device holds already: at least 1, `most` at the most.

    1 on a CPU, which one keeps busy, and where the memory of a device is not to be known.
    """
    import jax

    device = jax.local_devices()[0]
    stats = device.memory_stats() if device.platform != "cpu" else None
    if not stats or "bytes_limit" not in stats:
        return 1
    free = SHARE * (stats["bytes_limit"] - stats["bytes_in_use"])
    return int(min(max(free // each, 1), most))


@contextlib.contextmanager
def enough_memory(stage: str, remedy: str) -> Iterator[None]:
    """Turn what jax and NumPy raise when memory runs out inside into an `EnvError`.

    Args:
      stage: what needs the memory, as "scoring".
      remedy: which settings to lower.
    """
    try:
        yield
    except EdjaxError:
        raise
    except Exception as e:
        asked = exhausted(e)
        if asked is None:
            raise
        raise EnvError(f"{stage} runs out of memory{asked}; {remedy}") from e


def exhausted(error: BaseException) -> str | None:
    """None where an error is about something else; else what was asked for, " (3.2 GiB more were asked for)" or ""."""
    text = str(error)
    if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in text:
        return None
    found = re.search(r"(?:allocat\w*|allocate array of size)\D{0,20}?(\d+(?:\.\d+)?) ?([KMGT]?i?)B?(?:ytes)?\b", text)
    if not found:
        return ""
    size = float(found[1]) * (1024 if "i" in found[2] else 1000) ** " KMGT".index(found[2][:1] or " ")
    return f" ({size / 2**30:.2f} GiB more were asked for)"
