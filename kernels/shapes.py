"""What methods say of their cost: shapes in, memory and FLOPs out."""

from typing import NamedTuple

from . import geometry

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


def resident(name: str, shape: Shape, form: str | None, work: int, beside: int) -> Plan:
    """A method that has one form, with the rows on the device. beside: bytes beside the rows and their marks."""
    if form not in (None, "auto", "resident"):
        raise ValueError(f"form must be 'auto' or 'resident', got {form!r}")
    return made(
        name, "resident", shape, shape.n * shape.d * (shape.itemsize + shape.kept) + ROW * shape.n + beside, work
    )


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
