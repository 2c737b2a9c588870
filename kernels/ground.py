"""What is chosen from, what chooses, and the one call in which every shared check stands."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np

from . import checks, geometry, greedy, sequential, stacked
from .combine import within
from .geometry import Precision
from .objective import Objective, Selection, nothing
from .shapes import Plan, Shape, blocked

LITTLE = 0.01  # of the whole gain


class Ground(NamedTuple):
    """Rows to choose from, as arrays: a pool, the candidate responses to one prompt, or a training batch. A pytree.

    >>> Ground({"embedding": jnp.zeros((5, 2)), "mean_entropy": jnp.arange(5.0)}, given=jnp.array([3])).n
    5

    columns: by name, each with n rows: "embedding" (n, d), "weight" (n,), scores (n,), "trajectory" (n, t), ... What a
        method reads is in its `needs`; what it also reads where it is there, in its `takes`.
    valid: (n,) bool, the rows that may be picked; None: all. The others still count where a method covers rows.
    given: (p,) int rows that are chosen already: they start the state and are never picked; one that holds NaN counts
        for nothing.
    target: by name, columns of other rows, which a method covers, is to be like, or is to go beyond; None: none.
    """

    columns: Mapping[str, Any]
    valid: Any = None
    given: Any = None
    target: Mapping[str, Any] | None = None

    @property
    def n(self) -> int:
        """How many rows."""
        return next(iter(self.columns.values())).shape[0]


def option(
    help: str,
    *,
    default: Any,
    traced: bool = False,
    engine: bool = False,
    above: float | None = None,
    least: float | None = None,
    below: float | None = None,
    choices: tuple[Any, ...] = (),
) -> Any:
    """A knob of a method: what it is, its default, and what values make sense.

    traced: a number that may differ from call to call without compiling anew, and under `vmap`. engine: it is about
    arrays or the machine (a row, memory), and is no part of what a person who names the method can ask for. above,
    least, below: what a number must exceed, reach, or stay under. choices: the values there are.

    >>> @method
    ... class Nearest(Method):
    ...     name = "nearest"
    ...     width: float = option("how far a row is seen", default=0.5, above=0)
    >>> Nearest().width, Nearest(width=2.0).width
    (0.5, 2.0)
    """
    bounds = {"above": above, "least": least, "below": below, "choices": choices}
    return dataclasses.field(default=default, metadata={"help": help, "traced": traced, "engine": engine, **bounds})


M = TypeVar("M", bound="Method")


@dataclass_transform(frozen_default=True, field_specifiers=(option,))
def method(cls: type[M]) -> type[M]:
    """Make a class of knobs a method: a frozen dataclass, and a pytree of its traced knobs.

    >>> @method
    ... class Nearest(Method):
    ...     name = "nearest"
    ...     width: float = option("how far a row is seen", default=0.5, traced=True)
    >>> jax.tree.leaves(Nearest())
    [0.5]
    """
    made = dataclasses.dataclass(frozen=True)(cls)
    traced = [f.name for f in dataclasses.fields(made) if f.metadata.get("traced")]
    rest = [f.name for f in dataclasses.fields(made) if f.name not in traced]
    jax.tree_util.register_dataclass(made, traced, rest)
    return made


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to spend a budget: a frozen dataclass of its own knobs (`option`), made by `@method`.

    What it must say of itself: name, summary (a clause), paper (where from), needs (columns it reads); beside these,
    where they are not as below: takes (columns it reads where they are there), dims (of columns that are not a number a
    row), targets and needs_target (whether it reads a target, and cannot do without one), groups, valued, drawn,
    nested, fewer, shrinks. What it must do: `objective` (JAX) and `gains` (its definition in NumPy, which the tests
    hold the other to). A whole example: docs/how-to/add-a-method.md.
    """

    @property
    def name(self) -> str:
        raise NotImplementedError(f"{type(self).__name__} has no name")

    @property
    def summary(self) -> str:
        raise NotImplementedError(f"{self.name} has no summary: a clause that says what it picks")

    @property
    def paper(self) -> str:
        raise NotImplementedError(f"{self.name} has no paper: where it is from")

    @property
    def needs(self) -> tuple[str, ...]:
        return ("embedding",)

    @property
    def takes(self) -> tuple[str, ...]:
        return ()

    @property
    def groups(self) -> tuple[str, ...]:
        """Those of the columns it needs that number groups, from 0 on; of a pool they may hold any names."""
        return ()

    @property
    def valued(self) -> bool:
        """Whether gains are values of the rows themselves, of any sign, which do not run out as picks are made."""
        return False

    @property
    def dims(self) -> Mapping[str, int]:
        """How many dimensions columns must have, rows included: {"trajectory": 2} is (n, t), and 1 a number a row.
        Those that are not named are the method's own to check."""
        return {}

    @property
    def drawn(self) -> bool:
        """Whether chance decides the picks: a key, or a column "draw"."""
        return "draw" in self.takes

    @property
    def nested(self) -> bool:
        """Whether a smaller budget's picks are the first of a larger one's."""
        return True

    @property
    def shrinks(self) -> bool:
        """Whether a gain can only fall as other rows are picked; where not, each pick looks at all rows anew."""
        return True

    @property
    def beyond(self) -> bool:
        """Whether the target it reads are rows that there are already, to go beyond, and not rows to be like."""
        return False

    @property
    def targets(self) -> bool:
        """Whether it reads the ground's target."""
        return False

    @property
    def needs_target(self) -> bool:
        """Whether there must be one."""
        return False

    @property
    def fewer(self) -> bool:
        """Whether it may be done before the budget is spent: then -1 fills the rest of its indices."""
        return False

    def block_for(self, n: int, m: int) -> int:
        """Rows refreshed at a time, of n to pick from and m to cover."""
        return 256

    def ready(self, ground: Ground, key: jax.Array | None) -> "tuple[Method, Ground]":
        """The knobs and columns checked, outside `jit`: a ValueError names what is wrong."""
        return self, ground

    def objective(self, ground: Ground, *, block: int, precision: Precision, shards: int | None) -> Objective:
        """What is maximised, traceable; gains that are reported are in documented units."""
        raise NotImplementedError(f"{self.name} does not say what it maximises: write its objective()")

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
        """The picks: `maximize` on `objective`, among the valid rows."""
        made = self.objective(ground, block=block, precision=precision, shards=shards)
        made = made if ground.valid is None else within(made, ground.valid)
        return self.maximize(made, budget, n=ground.n, block=block, key=key)

    def maximize(self, objective: Objective, budget: int, *, n: int, block: int, key: jax.Array | None) -> Selection:
        """The engine, which methods around this one use too."""
        engine = greedy.maximize if self.shrinks else sequential.maximize_sequential
        return engine(objective, budget, block=block)

    def gains(self, ground: Ground, rows: list[int]) -> np.ndarray:
        """(n,) float64 in NumPy, by definition: the gain of every row once `rows` are chosen. The oracle."""
        raise NotImplementedError(f"{self.name} has no definition to be tested by: write its gains()")

    def picks(self, ground: Ground, budget: int) -> list[int] | None:
        """The picks in NumPy, where they are not those of greedy by `gains`; None: they are. The oracle then."""
        return None

    def nothing(self, ground: Ground) -> float:
        """What `gains` says of a row that brings nothing: what sums and products of gains count from."""
        return 0.0

    def ties(self, gains: np.ndarray) -> np.ndarray:
        """(n,) bool, the rows whose gains, of the oracle, count as the largest."""
        return gains == gains.max()

    def plan(self, shape: Shape, **how: Any) -> Plan:
        """Memory and FLOPs of a call, see `edjax.kernels.plan`; here those of one product of all rows a pick."""
        form, block = how.get("form", "auto"), self.block_for(shape.n, shape.n)
        return blocked(self.name, shape, form, 2 * shape.n * shape.d * shape.budget, 4 * block * shape.d)

    def advise(self, gains: np.ndarray, *, targets: int = 0) -> str | None:
        """What a person should hear about the gains (k,) of a selection, which did not run out: a sentence, or None.

        targets: rows of the target; 0 where there is none, or nobody says.

        Here: whether the last half of the budget brought next to nothing.
        """
        if self.valued:  # no pick changes what another row is worth, so a budget outlives nothing
            return None
        half = len(gains) // 2
        late = float(gains[half:].sum()) / float(gains.sum())
        if not late < LITTLE:
            return None
        return (
            f"the last half of the budget ({len(gains) - half} picks) brought {late:.2%} of the gain: half of it would "
            "do about as well"
        )


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
        ValueError: naming the value, for a missing column, a bad shape, dtype, budget, block, knob or row index; a
            target that the method does not read; or a finite number that float32 cannot hold.

    >>> from .methods import KCenter
    >>> select(KCenter(), Ground({"embedding": jnp.array([[0.0], [1.0], [9.0]])}), 2).indices.tolist()
    [1, 2]
    """
    ground, given = _checked(method, ground)
    budget = checks.check_budget(budget, ground.n - given)
    covered = ground.n if ground.target is None else np.shape(next(iter(ground.target.values()), ()))[0]
    block = checks.check_block(method.block_for(ground.n, covered) if block is None else block)
    precision = checks.check_precision(precision)
    method, ground = method.ready(ground, key)
    for name, column in ground.columns.items():  # those that the method checks have been refused in its own words
        if column.shape[0] != ground.n:
            raise ValueError(f"the column {name!r} has {column.shape[0]} rows, and others have {ground.n}")
    if budget == 0:
        return nothing()
    if shards is None:
        shards = geometry.row_shards(next(iter(ground.columns.values())))
    return _select(method, ground, key, budget=budget, block=block, precision=precision, shards=shards)


@stacked.jitted("budget", "block", "precision", "shards")
def _select(method, ground, key, *, budget, block, precision, shards):
    return method.choose(ground, budget, key=key, block=block, precision=precision, shards=shards)


def _checked(method: Method, ground: Ground) -> tuple[Ground, int]:
    """The columns that the method reads, the embedding as a JAX array and the others as they came, for the method to
    check (that all are of one length is checked after `Method.ready`), or a column "row" where it reads none, so that n
    is known; the given rows, and how many of these there are."""
    if not isinstance(method, Method) or jax.tree_util.all_leaves([method]):
        raise ValueError(f"{method!r} is no method: an instance of a class made by @method is")
    if not ground.columns:
        raise ValueError("the ground has no columns")
    if ground.target is not None and not method.targets:
        raise ValueError(f"{method.name} reads no target")
    if ground.target is None and method.needs_target:
        raise ValueError(
            f"{method.name} needs a target, rows to be like: give Ground(..., target={{'embedding': (m, d) rows}})"
        )
    target = ground.target or {}
    # Similarities of one's own stand in for embeddings; which of them there must be is the method's to say.
    matrix = "similarity" in method.takes and ("similarity" in ground.columns or "similarity" in target)
    needs = [name for name in method.needs if not (matrix and name == "embedding")]
    if missing := [name for name in needs if name not in ground.columns]:
        raise ValueError(f"{method.name} needs the column {missing[0]!r}; there are {', '.join(ground.columns)}")
    if ground.target is not None and "embedding" in needs and "embedding" not in target:
        raise ValueError(f"{method.name} needs the column 'embedding' of the target")
    read = (*method.needs, *method.takes)
    columns = {name: c if hasattr(c, "shape") else np.asarray(c) for name, c in ground.columns.items()}
    if "embedding" in read and "embedding" in columns:
        columns["embedding"] = checks.check_pool(columns["embedding"])
    if scalar := [name for name, c in columns.items() if not c.ndim]:
        raise ValueError(f"the column {scalar[0]!r} is a single value, not one a row")
    for name, column in columns.items():
        if name in read and name in method.dims:
            checks.check_dims(column.shape, method.dims[name], name)
    names = sorted((name for name in columns if name in read), key=lambda name: name != "embedding")  # n is the first's
    n = columns[names[0] if names else next(iter(columns))].shape[0]
    kept = {name: columns[name] for name in names} or {"row": jnp.arange(n)}
    given, count = checks.check_rows(ground.given, n)
    valid = ground.valid
    if valid is not None:
        valid = valid if isinstance(valid, jax.Array) else np.asarray(valid)
        if valid.shape != (n,) or valid.dtype != bool:
            raise ValueError(f"valid must be ({n},) true or false, got {valid.dtype} {tuple(valid.shape)}")
        valid = jnp.asarray(valid)
    return ground._replace(columns=kept, valid=valid, given=given), count
