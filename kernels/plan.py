"""What a call will cost, before it is made: memory and FLOPs from the shapes alone."""

from typing import NamedTuple

from . import ahead, front, geometry, greedy, partition
from .checks import check_precision

_ROW = 21  # bytes of norms, bounds, validity and what sorting them takes, a row
_STREAMED_TILES = 4  # copies of a tile: as it was read, on the device, centred, and while it is centred


class Plan(NamedTuple):
    """method, form: what runs. bytes: peak memory of the device, the caller's pool included. flops: of the matrix
    products. says: the same in a sentence."""

    method: str
    form: str
    bytes: int
    flops: int
    says: str


def plan(
    method: str,
    n: int,
    d: int,
    budget: int,
    *,
    represented: int | None = None,
    form: str = "auto",
    similarity_dtype: str = "float32",
    memory: int = 4 << 30,
    block: int | None = None,
    itemsize: int = 4,
    precision: str = "highest",
) -> Plan:
    """Memory and FLOPs of `k_center`, `d_optimal` or `facility_location` on an (n, d) pool.

    Args:
        method: the selector's name. n, d: the pool's shape. budget: rows to pick. represented: m, for facility
            location with rows to cover of their own. form, memory, block: as the selector takes them; "streamed" is
            `k_center_streamed` or `d_optimal_streamed`, whose pool is not counted.
        itemsize: bytes of an element of the pool as given (2 for bfloat16). precision: as the selector takes it.

    Returns:
        `Plan`. Bytes are those of the arrays on one device, within 15 % of what XLA allots on a CPU, except where it
        fuses the largest temporary away (d-optimal of narrow pools: up to half too many); a process adds the runtime
        and about 15 MB of its threads'. FLOPs count the first pass and one pass per pick;
        for facility location in tiles, one refresh of every row, which a kernel that is too wide exceeds.

    Raises:
        ValueError: for an unknown method or form, or sizes that cannot be.

    >>> plan("k_center", 20_000, 384, 1_000).says
    'k_center (blocked) of 1,000 rows from 20,000 x 384: 71 MB of memory, 15 GFLOP'
    >>> plan("facility_location", 100_000, 768, 1_000).form
    'tiled'
    """
    for name, size in (("n", n), ("d", d)):
        if size < 0:
            raise ValueError(f"{name} must not be negative, got {size}")
    greedy.check_budget(budget, n)
    check_precision(precision)
    kept = 2 if itemsize == 2 and precision == "fast" else 4
    if method == "k_center":
        block = min(block or 512, n)
        work, temporary = 2 * n * d * budget, 4 * block * (block + d)
    elif method == "d_optimal":
        block = min(block or 256, n)
        work = 2 * n * d * budget + 2 * d * d * budget
        temporary = 4 * (2 * d * d + (block + 64) * (block + d)) + 4 * block * d
    elif method == "facility_location":
        return _facility_location(n, d, budget, represented, form, similarity_dtype, memory, block, itemsize, kept)
    else:
        raise ValueError(f"method must be 'k_center', 'd_optimal' or 'facility_location', got {method!r}")
    if form == "auto":
        form = "blocked"
    if form == "streamed":
        tile = min(partition.tile_rows(d), n)
        total = _STREAMED_TILES * 4 * tile * d + 4 * 64 * tile + 4 * 5 * n + temporary
    elif form == "blocked":
        if method == "k_center" and front.pays(n, block, 1):
            temporary += 4 * front.ROWS * block * d + 8 * n
        total = n * d * (itemsize + kept) + _ROW * n + temporary + _over_rows(n, d)
    else:
        raise ValueError(f"form must be 'auto', 'blocked' or 'streamed', got {form!r}")
    return _plan(method, form, n, d, budget, total, work)


def _facility_location(n, d, budget, represented, form, similarity_dtype, memory, block, itemsize, kept) -> Plan:
    m = n if represented is None else represented
    if similarity_dtype not in ("float32", "bfloat16"):
        raise ValueError(f"similarity_dtype must be 'float32' or 'bfloat16', got {similarity_dtype!r}")
    size = 4 if similarity_dtype == "float32" else 2
    if form not in ("auto", "resident", "tiled"):
        raise ValueError(f"form must be 'auto', 'resident' or 'tiled', got {form!r}")
    if form == "auto":
        form = "resident" if size * n * m <= memory else "tiled"
    block = min(block or (256 if form == "resident" else 128), n)
    work = n * m * d * (1 if represented is None else 2)
    if form == "tiled":
        work += 2 * m * d * n  # every row is refreshed about once or twice in the first picks
    total = n * d * (itemsize + kept) + _ROW * n + size * m * (n if form == "resident" else 0) + 4 * 2 * block * m
    if form == "tiled" and represented is None and ahead.pays(n, block):
        total += 12 * n * len(ahead.AHEAD)
    if represented is not None:
        total += m * d * (itemsize + kept) + 4 * 5 * m
    return _plan("facility_location", form, n, d, budget, total, work)


def _over_rows(n: int, d: int) -> int:
    """The largest temporary of a commit, 32 columns a row: whole, or in tiles with a copy of their rows."""
    if 32 * n <= geometry._WHOLE_ELEMENTS:
        return 4 * 32 * n
    tile = geometry._TILE_ELEMENTS // max(32, d)
    return 4 * tile * (32 + d)


def _plan(method: str, form: str, n: int, d: int, budget: int, total: int, work: int) -> Plan:
    says = f"{method} ({form}) of {budget:,} rows from {n:,} x {d:,}: {_bytes(total)} of memory, {_flops(work)}"
    return Plan(method, form, total, work, says)


def _bytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _flops(count: int) -> str:
    return f"{count / 1e12:.1f} TFLOP" if count >= 1e12 else f"{count / 1e9:.0f} GFLOP"
