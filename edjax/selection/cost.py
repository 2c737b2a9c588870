"""What a selection will take, before it is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from edjax.data.features import Features, Survey
from edjax.data.names import Named
from edjax.data.sources import size_of
from edjax.data.stream import Stream
from edjax.keep.errors import UsageError
from edjax.kernels import Sorted, on_host
from edjax.kernels import streams as may_stream
from edjax.kernels.measure import dimensions
from edjax.selection import partitions
from edjax.selection.beside import refuse_missing, refuse_unread
from edjax.selection.clusters import wanted
from edjax.selection.options import Options
from edjax.selection.prepared import PART
from edjax.selection.strategies import reads_embeddings, recorded, scores_of, strategy_of

IN_MEMORY = 5  # times the embeddings, measured: as read, prepared, on the device, centred there, and what makes them

# Of the whole process, measured on CPU.
_RUNTIME = 340 << 20  # Python, JAX and Arrow, imported and at work
_ID = 150  # bytes a row: its id, and what finds it
_POOL_ROW = 750  # bytes a row of the pool beside its text,
_POOL_TEXT = 3  # which is held so many times: the line, its parts, the prompt
_AS_READ = 5  # times columns with more than a number a row, while Arrow's nested lists become an array
_DECODING = 100 << 20  # Arrow's, while it reads embeddings


class Forecast(NamedTuple):
    """says: what it will take, in a sentence. bytes: peak memory of the process, everything counted. disk: bytes of
    scratch file."""

    says: str
    bytes: int
    disk: int


def stream_above(strategy: str, memory: int, existing: bool = False) -> int | None:
    """Bytes of embeddings up to which this strategy selects within `memory` bytes, for `read_features`; beyond them it
    reads them from disk. None for a strategy that cannot, or not with `existing` rows."""
    method = recorded(strategy)
    if existing and method and reads_embeddings(method):
        return None
    return None if method and reads_embeddings(method) and not may_stream(method) else memory // IN_MEMORY


def streams(features: Features, strategy: str) -> bool:
    """Whether this strategy will read embeddings that were left on disk."""
    method = recorded(strategy)
    return isinstance(features.embeddings, Stream) and method is not None and may_stream(method)


def forecast(
    found: Survey,
    strategy: str,
    budget: int,
    memory: int,
    asked: Options | None = None,
    *,
    pool: Named | None = None,
    widths: Mapping[str, int] | None = None,
) -> Forecast:
    """What a selection will cost, from the shapes alone.

    asked: what else is asked of it; None: nothing. pool: what names it; the size of its files counts. widths: numbers
    a row of columns with more than one, which all are read, and which a method may want on the device.

    Raises:
      UsageError: an unknown strategy, or a budget beyond the pool.
    """
    from edjax import kernels

    asked = asked or Options()
    method, labelled = strategy_of(strategy, found.scores), len(asked.labelled)
    if not 0 <= budget <= found.n - labelled:
        without = f" less {labelled} labelled" if labelled else ""
        raise UsageError(f"budget {budget} is not between 0 and the pool's {found.n} rows{without}")
    refuse_unread([method], asked)
    refuse_missing(method, asked)
    more = 0 if asked.existing is None or method.beyond else len(asked.existing)
    target = asked.existing if method.beyond else asked.target
    represented = None if target is None else len(target)
    limit, size = stream_above(strategy, memory, more > 0), 4 * found.n * found.d
    streamed = limit is not None and size > limit
    around = _RUNTIME + _DECODING + _ID * found.n
    if pool is not None and (text := size_of(pool)):
        around += _POOL_ROW * found.n + _POOL_TEXT * text
    around += _AS_READ * 4 * found.n * sum((widths or {}).values())
    alike = ""
    if asked.near_duplicates is not None:
        alike = f"; near-duplicates: up to {found.n**2 * found.d / 1e12:.1f} TFLOP, less where many are found"
    first = _preparing(found.n, found.d, asked, streamed)
    if not reads_embeddings(method):
        how = "no kernel runs" if isinstance(method, Sorted) else f"reads {', '.join(scores_of(method)) or 'nothing'}"
        wide = sum((widths or {}).get(name, 0) for name in scores_of(method))
        if wide and not isinstance(method, Sorted):
            plan = kernels.plan(method, found.n, wide, budget)
            how += f", {wide:,} numbers a row: {plan.says.rpartition(': ')[2]}"
            around += plan.bytes
        says = f"{strategy} of {budget:,} rows from {found.n:,}: {how}; the embeddings are read once"
        spilled = size if streamed and asked.near_duplicates is not None else 0
        grouped = first.says if wanted(asked.group_by) is not None else ""
        total = around + (0 if streamed else size + (max(size, first.bytes) if grouped else size))
        return Forecast(f"{says}{grouped}; about {total / 1e9:.1f} GB in all{alike}", total, spilled)
    form = "streamed" if streamed else "auto"
    parts = min(asked.partitions, found.n) or 1
    of_part = -(-found.n // parts)
    local = min(budget, of_part)
    plan = kernels.plan(method, of_part + more, first.width, local, represented=represented, form=form)
    says, most = plan.says.replace(method.name, strategy, 1), plan.bytes
    if parts > 1:
        partitions.refuse(method)
        covered = found.n if represented is None and partitions.covers_pool_or_target(method) else represented
        union = min(found.n, parts * local)
        last = kernels.plan(method, union + more, first.width, budget, represented=covered, form=form)
        says, most = f"{parts} times {says}; then {last.says.replace(method.name, strategy, 1)}", max(most, last.bytes)
    around += max(most + first.kept, first.bytes)
    if streamed:
        disk = size + (4 * found.n * first.width if asked.normalise == "whiten" else 0)
        said = f"{first.says}; {disk / 1e9:.1f} GB of disk"
        return Forecast(f"{says}{said}; about {around / 1e9:.1f} GB in all{alike}", around, disk)
    said = f"{first.says}; {(size + first.kept) / 1e9:.1f} GB more for them as read and prepared"
    return Forecast(f"{says}{said}; about {(around + size) / 1e9:.1f} GB in all{alike}", around + size, 0)


class _Preparing(NamedTuple):
    """width: of a prepared row. kept: bytes of the prepared rows in memory; bytes: those, and what makes them, beside
    the rows as read. says: what it takes beside memory."""

    width: int
    kept: int
    bytes: int
    says: str


def _preparing(n: int, d: int, asked: Options, streamed: bool) -> _Preparing:
    """What `prepare` costs."""
    size = 4 * n * d
    if asked.normalise != "whiten":
        kept = 0 if streamed or asked.normalise == "none" else size
        return _Preparing(d, kept, 2 * kept, "")
    q, rows = dimensions(n, d, asked.whiten_dims), min(n, PART)
    kept = 0 if streamed else 4 * n * q
    applied = 8 * rows * d if streamed else size + kept
    flops = on_host.flops(n, d, q)
    said = f"; whitened from {d:,} to {q:,} dimensions first, {flops / 1e9:,.0f} GFLOP"
    return _Preparing(q, kept, max(applied, on_host.fit_bytes(rows, d)), said)
