"""DELIFT: pick rows so that every row has, among the picks, an example that helps the model to answer it."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import checks
from ..geometry import Precision
from ..ground import Ground, Method, method, option
from ..objective import Objective
from ..shapes import ROW, Plan, Shape, made
from .facility_location import FacilityLocation

_COVER = FacilityLocation()  # of a matrix: its kernel is not looked at


@method
class Delift(Method):
    """Pick rows greedily to maximise F(A) = sum_i w_i max_{j in A} s_ij, s the utilities scaled to [0, 1].

    The column "icl_utility" (n, n) float: U_ij says how much nearer to its response the model comes on row i with row j
    as an example before it (`edjax score --probe icl_utility`), and s is `scaled_utility` of it. A pair that is not
    known, NaN, helps nothing. Facility location on it is the first stage of Agarwal, Killamsetty, Popa & Danilevsky
    2024, arXiv 2411.04425; with `given` rows it is the third, for existing data that stands in the pool. Of rows of
    another pool, and for the second stage, `flmi` and `flcg` take scaled utilities as `similarities=`.

    Scaling changes no pick where all pairs are known, `exponential` is off and there is no quality: gains after the
    first are then differences of utilities, and all first ones are shifted by as much. Where quality is there, it
    multiplies what was shifted.

    Cost: n^2 additions for the first gains, n a row refreshed. Memory: 12 n^2 bytes.

    >>> from ..ground import select
    >>> utility = jnp.array([[0.5, 0.3, -0.1], [0.2, 0.6, 0.0], [0.0, 0.1, 0.4]])
    >>> picks = select(Delift(), Ground({"icl_utility": utility}), 2)
    >>> picks.indices.tolist(), [round(float(g), 4) for g in picks.gains]
    ([1, 2], [1.8571, 0.4286])
    """

    exponential: bool = option("whether exp(utility) is scaled in place of the utility", default=False)

    name = "delift"
    summary = "every prompt has a chosen one that helps with it as an example"
    paper = "Agarwal, Killamsetty, Popa & Danilevsky 2024, arXiv 2411.04425"
    needs = ("icl_utility",)
    takes = ("weight", "quality")

    @property
    def dims(self) -> Mapping[str, int]:
        return {"icl_utility": 2}

    def block_for(self, n: int, m: int) -> int:
        return _COVER.block_for(n, n)

    def ready(self, ground: Ground, key: jax.Array | None) -> "tuple[Delift, Ground]":
        utility = checks.check_pool(ground.columns["icl_utility"], "icl_utility")
        if utility.shape != (ground.n, ground.n):
            raise ValueError(
                f"the column 'icl_utility' must be ({ground.n}, {ground.n}), a number for each pair of rows, got "
                f"{utility.shape}"
            )
        ground = checks.check_column(checks.check_column(ground, "weight", "weights"), "quality", "quality")
        return self, ground._replace(columns={**ground.columns, "icl_utility": utility})

    # Scaled here and not in `ready`: of a sum of two, each would scale what the one before it has scaled.
    def objective(self, ground: Ground, *, block: int, precision: Precision, shards: int | None) -> Objective:
        u = _scaled(ground.columns["icl_utility"].astype(jnp.float32), self.exponential, jnp)
        return _COVER.objective(_covering(ground, u), block=block, precision=precision, shards=shards)

    def gains(self, ground: Ground, rows: list[int]) -> np.ndarray:
        u = _scaled(np.asarray(ground.columns["icl_utility"], np.float64), self.exponential, np)
        return _COVER.gains(_covering(ground, u), rows)

    def plan(self, shape: Shape, *, form: str | None = None, **how: Any) -> Plan:
        if form not in (None, "auto", "resident"):
            raise ValueError(f"form must be 'auto' or 'resident', got {form!r}")
        return made(self.name, "resident", shape, 12 * shape.n**2 + ROW * shape.n, 0)


def scaled_utility(utility: Any, *, exponential: bool = False) -> jax.Array:
    """(U - min U) / (max U - min U) over the whole matrix, float32, or the same of exp(U); 0 for what is not finite.

    Args:
        utility: (m, n) of any real dtype, of rows to help (m) and examples (n), as `flmi`, `flcg` and
            `facility_location` then take it: `similarities=scaled_utility(u)`. All 0 where all values are alike.

    Raises:
        ValueError: another shape or dtype.

    >>> scaled_utility([[0.5, 0.0], [jnp.nan, -0.5]]).tolist()
    [[1.0, 0.5], [0.0, 0.0]]
    """
    return _scaled(checks.check_pool(utility, "utility").astype(jnp.float32), exponential, jnp)


def _scaled(utility: Any, exponential: bool, xp: Any) -> Any:
    there = xp.isfinite(utility)
    u = xp.where(there, utility, 0)
    u = xp.exp(u) if exponential else u
    low, high = xp.min(xp.where(there, u, xp.inf)), xp.max(xp.where(there, u, -xp.inf))
    some = high > low
    return xp.where(there & some, (u - low) / xp.where(some, high - low, 1), 0)


def _covering(ground: Ground, scaled: Any) -> Ground:
    """The ground as facility location takes it, with what is scaled by its name there."""
    rest = {name: column for name, column in ground.columns.items() if name != "icl_utility"}
    return ground._replace(columns={"similarity": scaled, **rest})
