"""What a selection will take, before it is made."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from edjax.errors import UsageError
from edjax.features import Features, Survey
from edjax.select.choose import strategy_of
from edjax.strategies import STRATEGIES
from edjax.stream import Stream

IN_MEMORY = 5  # times the embeddings, measured: as read, prepared, on the device, centred there, and what makes them

# Of the whole process, measured on CPU.
_RUNTIME = 340 << 20  # Python, JAX and Arrow, imported and at work
_ID = 150  # bytes a row: its id, and what finds it
_POOL_ROW = 750  # bytes a row of the pool beside its text,
_POOL_TEXT = 3  # which is held so many times: the line, its parts, the prompt
_DECODING = 100 << 20  # Arrow's, while it reads embeddings


class Forecast(NamedTuple):
    """says: what it will take, in a sentence. bytes: peak memory of the process, everything counted. disk: bytes of
    scratch file."""

    says: str
    bytes: int
    disk: int


def stream_above(strategy: str, memory: int) -> int | None:
    """Bytes of embeddings up to which this strategy selects within `memory` bytes, for `read_features`; beyond them it
    reads them from disk. None for a strategy that cannot."""
    known = STRATEGIES.get(strategy)
    return None if known and known.needs == "embeddings" and not known.streams else memory // IN_MEMORY


def streams(features: Features, strategy: str) -> bool:
    """Whether this strategy will read embeddings that were left on disk."""
    return isinstance(features.embeddings, Stream) and strategy in STRATEGIES and STRATEGIES[strategy].streams


def forecast(
    found: Survey,
    strategy: str,
    budget: int,
    memory: int,
    *,
    labelled: int = 0,
    near_duplicates: bool = False,
    pool: str | Path | None = None,
) -> Forecast:
    """What a selection will cost, from the shapes alone.

    labelled: how many rows have labels already. near_duplicates: whether such are looked for. pool: the file, whose
    size counts.

    Raises:
      UsageError: an unknown strategy, or a budget beyond the pool.
    """
    from edjax import kernels

    needs = strategy_of(strategy, found.scores).needs
    if not 0 <= budget <= found.n - labelled:
        without = f" less {labelled} labelled" if labelled else ""
        raise UsageError(f"budget {budget} is not between 0 and the pool's {found.n} rows{without}")
    limit, size = stream_above(strategy, memory), 4 * found.n * found.d
    streamed = limit is not None and size > limit
    around = _RUNTIME + _DECODING + _ID * found.n
    if pool is not None and Path(pool).is_file():
        around += _POOL_ROW * found.n + _POOL_TEXT * Path(pool).stat().st_size
    alike = ""
    if near_duplicates:
        alike = f"; near-duplicates: up to {found.n**2 * found.d / 1e12:.1f} TFLOP, less where many are found"
    if needs != "embeddings":
        says = f"{strategy} of {budget:,} rows from {found.n:,}: no kernel runs; the embeddings are read once"
        spilled = size if streamed and near_duplicates else 0
        total = around + (0 if streamed else 2 * size)
        return Forecast(f"{says}; about {total / 1e9:.1f} GB in all{alike}", total, spilled)
    plan = kernels.plan(strategy, found.n, found.d, budget, form="streamed" if streamed else "auto")
    total = around + plan.bytes + (0 if streamed else 2 * size)
    disk = size if streamed else 0
    more = f"; {disk / 1e9:.1f} GB of disk" if streamed else f"; {2 * size / 1e9:.1f} GB more to prepare them"
    return Forecast(f"{plan.says}{more}; about {total / 1e9:.1f} GB in all{alike}", total, disk)
