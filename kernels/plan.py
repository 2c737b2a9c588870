"""What a call will cost, before it is made: memory and FLOPs from the shapes alone."""

from typing import TYPE_CHECKING, NamedTuple

from . import checks, geometry

if TYPE_CHECKING:
    from .ground import Method

ROW = 21  # bytes of norms, bounds, validity and what sorting them takes, a row
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
    method: "str | Method",
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
    """Memory and FLOPs of a method on an (n, d) pool.

    Args:
        method: its name, or with knobs of its own. n, d: the pool's shape. budget: rows to pick. represented: m, for
            facility location with rows to cover of their own. form, memory, block: as the selector takes them;
            "streamed" is `k_center_streamed` or `d_optimal_streamed`, whose pool is not counted.
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
    from .methods import METHODS

    for name, size in (("n", n), ("d", d)):
        if size < 0:
            raise ValueError(f"{name} must not be negative, got {size}")
    checks.check_budget(budget, n)
    checks.check_precision(precision)
    if isinstance(method, str):
        if method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
        method = METHODS[method]
    shape = Shape(n, d, budget, represented, block, itemsize, 2 if itemsize == 2 and precision == "fast" else 4)
    return method.plan(shape, form=form, similarity_dtype=similarity_dtype, memory=memory)


class Shape(NamedTuple):
    """What a method plans for. itemsize, kept: bytes of an element of the pool as given, and as it is kept."""

    n: int
    d: int
    budget: int
    represented: int | None
    block: int | None
    itemsize: int
    kept: int


def blocked(name: str, shape: Shape, form: str, work: int, temporary: int, resident: int = 0) -> Plan:
    """A method whose rows are passed over once a round, on the device or streamed from the host.

    temporary: bytes of a round beside the rows. resident: more of these where the rows are on the device.
    """
    n, d = shape.n, shape.d
    form = "blocked" if form == "auto" else form
    if form == "streamed":
        tile = min(geometry.tile_rows(d), n)
        total = _STREAMED_TILES * 4 * tile * d + 4 * 64 * tile + 4 * 5 * n + temporary
    elif form == "blocked":
        total = n * d * (shape.itemsize + shape.kept) + ROW * n + temporary + resident + _over_rows(n, d)
    else:
        raise ValueError(f"form must be 'auto', 'blocked' or 'streamed', got {form!r}")
    return made(name, form, shape, total, work)


def _over_rows(n: int, d: int) -> int:
    """The largest temporary of a commit, 32 columns a row: whole, or in tiles with a copy of their rows."""
    if 32 * n <= geometry._WHOLE_ELEMENTS:
        return 4 * 32 * n
    tile = geometry._TILE_ELEMENTS // max(32, d)
    return 4 * tile * (32 + d)


def made(name: str, form: str, shape: Shape, total: int, work: int) -> Plan:
    """The plan, with its sentence."""
    of = f"{shape.budget:,} rows from {shape.n:,} x {shape.d:,}"
    return Plan(name, form, total, work, f"{name} ({form}) of {of}: {_bytes(total)} of memory, {_flops(work)}")


def _bytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _flops(count: int) -> str:
    return f"{count / 1e12:.1f} TFLOP" if count >= 1e12 else f"{count / 1e9:.0f} GFLOP"
