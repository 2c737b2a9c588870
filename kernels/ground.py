"""What is chosen from, what chooses, and the one call in which every shared check stands."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from . import checks, geometry, greedy, stacked
from .combine import within
from .geometry import Precision
from .objective import Objective, Selection, nothing
from .plan import Plan, Shape


class Ground(NamedTuple):
    """Rows to choose from, as arrays: a pool, the candidate responses to one prompt, or a training batch. A pytree.

    columns: by name, each with n rows: "embedding" (n, d), "weight" (n,), scores (n,), ... What a method reads is in
        its `needs`; what it also reads where it is there, in its `takes`.
    valid: (n,) bool, the rows that may be picked; None: all. The others still count where a method covers rows.
    given: (p,) int rows that are chosen already: they start the state and are never picked; one that holds NaN counts
        for nothing.
    target: by name, columns of other rows, which a method covers or is to be like; None: none.
    """

    columns: Mapping[str, Any]
    valid: Any = None
    given: Any = None
    target: Mapping[str, Any] | None = None

    @property
    def n(self) -> int:
        """How many rows."""
        return next(iter(self.columns.values())).shape[0]


def option(default: Any, help: str, *, traced: bool = False, **bounds: Any) -> Any:
    """A knob of a method: its default, what it is, and what values make sense (above=, least=, choices=).

    traced: a number that may differ from call to call without compiling anew, and under `vmap`.
    """
    return dataclasses.field(default=default, metadata={"help": help, "traced": traced, **bounds})


M = TypeVar("M", bound="type[Method]")


def method(cls: M) -> M:
    """Make a class of knobs a method: a frozen dataclass, and a pytree of its traced knobs."""
    made = dataclasses.dataclass(frozen=True)(cls)
    traced = [f.name for f in dataclasses.fields(made) if f.metadata.get("traced")]
    rest = [f.name for f in dataclasses.fields(made) if f.name not in traced]
    jax.tree_util.register_dataclass(made, traced, rest)
    return made


class Method:
    """A way to spend a budget: a frozen dataclass of its own knobs (`option`), made by `@method`.

    What it must say of itself: name, summary (a clause), paper (where from), needs (columns it reads), takes (columns
    it reads where they are there), block (rows refreshed at a time), streams (whether rows may stay on the host).
    """

    @property
    def name(self) -> str:
        raise NotImplementedError

    @property
    def summary(self) -> str:
        raise NotImplementedError

    @property
    def paper(self) -> str:
        raise NotImplementedError

    @property
    def needs(self) -> tuple[str, ...]:
        return ("embedding",)

    @property
    def takes(self) -> tuple[str, ...]:
        return ()

    @property
    def block(self) -> int:
        return 256

    @property
    def streams(self) -> bool:
        return False

    def ready(self, ground: Ground, key: jax.Array | None) -> "tuple[Method, Ground]":
        """The knobs and columns checked, outside `jit`: a ValueError names what is wrong."""
        return self, ground

    def objective(self, ground: Ground, *, block: int, precision: Precision, shards: int | None) -> Objective:
        """What is maximised, traceable; gains that are reported are in documented units."""
        raise NotImplementedError

    def choose(
        self,
        ground: Ground,
        budget: int,
        *,
        key: jax.Array | None,
        block: int,
        precision: Precision,
        shards: int | None,
    ) -> Selection:
        """The picks; greedy on `objective` unless a method knows better."""
        made = self.objective(ground, block=block, precision=precision, shards=shards)
        return greedy.maximize(made if ground.valid is None else within(made, ground.valid), budget, block=block)

    def gains(self, ground: Ground, rows: list[int]) -> np.ndarray:
        """(n,) float64 in NumPy, by definition: the gain of every row once `rows` are chosen. The oracle."""
        raise NotImplementedError

    def ties(self, gains: np.ndarray) -> np.ndarray:
        """(n,) bool, the rows whose gains, of the oracle, count as the largest."""
        return gains == gains.max()

    def plan(self, shape: Shape, **how: Any) -> Plan:
        """Memory and FLOPs of a call, see `edjax.kernels.plan`."""
        raise NotImplementedError

    def advise(self, gains: np.ndarray) -> str | None:
        """What a person should hear about the gains of a selection."""
        return None


def select(
    method: Method,
    ground: Ground,
    budget: int,
    *,
    key: jax.Array | None = None,
    block: int | None = None,
    precision: Precision = "highest",
    shards: int | None = None,
) -> Selection:
    """Choose `budget` rows of a ground by a method.

    Args:
        method: `METHODS["facility_location"]`, or one with knobs of its own: `FacilityLocation(bandwidth=0.5)`.
        ground: see `Ground`; columns of any real dtype, computed in float32.
        budget: how many rows, 0 <= budget <= n less the given ones.
        key: a `jax.random.key`, for methods that draw.
        block: candidates refreshed at a time; changes the time, not the picks.
        precision: "highest" or "fast", see `geometry`.
        shards: inside `jit`, the number of devices the rows are split over (1 for none), when you know it: above half
            a million rows a device it cuts a temporary of 128 n bytes to 16 MB. Measured when the call is eager.

    Raises:
        ValueError: naming the value, for a missing column, a bad shape, dtype, budget, block, knob or row index; or a
            finite number that float32 cannot hold.
    """
    ground, given = _checked(method, ground)
    budget = checks.check_budget(budget, ground.n - given)
    block = checks.check_block(method.block if block is None else block)
    precision = checks.check_precision(precision)
    method, ground = method.ready(ground, key)
    if budget == 0:
        return nothing()
    if shards is None:
        shards = geometry.row_shards(next(iter(ground.columns.values())))
    return _select(method, ground, key, budget=budget, block=block, precision=precision, shards=shards)


@stacked.jitted("budget", "block", "precision", "shards")
def _select(method, ground, key, *, budget, block, precision, shards):
    return method.choose(ground, budget, key=key, block=block, precision=precision, shards=shards)


def _checked(method: Method, ground: Ground) -> tuple[Ground, int]:
    """The embedding as a JAX array, the given rows, and how many of these there are; other columns as they came, for
    the method to check."""
    missing = [name for name in method.needs if name not in ground.columns]
    if missing:
        raise ValueError(f"{method.name} needs the column {missing[0]!r}; there are {', '.join(ground.columns)}")
    columns = dict(ground.columns)
    if "embedding" in columns:
        columns["embedding"] = checks.check_pool(columns["embedding"])
    ground = ground._replace(columns=columns)
    given, count = checks.check_rows(ground.given, ground.n)
    valid = None if ground.valid is None else jnp.asarray(ground.valid, bool)
    return ground._replace(valid=valid, given=given), count
