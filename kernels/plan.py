"""What a call will cost, before it is made: memory and FLOPs from the shapes alone."""

from . import checks
from .ground import Method
from .methods import METHODS
from .shapes import Plan, Shape


def plan(
    method: str | Method,
    n: int,
    d: int,
    budget: int,
    *,
    represented: int | None = None,
    form: str | None = None,
    similarity_dtype: str | None = None,
    memory: int | None = None,
    block: int | None = None,
    itemsize: int = 4,
    precision: str = "highest",
) -> Plan:
    """Memory and FLOPs of a method on an (n, d) pool.

    Args:
        method: its name, or with knobs of its own. n, d: the pool's shape. budget: rows to pick. represented: m, for
            facility location with rows to cover of their own. form, similarity_dtype, memory, block: as the selector
            takes them, by default those of the method; "streamed" is `k_center_streamed` or `d_optimal_streamed`, whose
            pool is not counted.
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
    checks.check_budget(budget, n)
    checks.check_precision(precision)
    if isinstance(method, str):
        if method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
        method = METHODS[method]
    shape = Shape(n, d, budget, represented, block, itemsize, 2 if itemsize == 2 and precision == "fast" else 4)
    how = {"form": form, "similarity_dtype": similarity_dtype, "memory": memory}
    return method.plan(shape, **{name: value for name, value in how.items() if value is not None})
