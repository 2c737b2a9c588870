"""RDS+: target prompts take turns, and each takes the row most like it."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from .. import checks, distances, float64, geometry
from ..geometry import Precision
from ..ground import Ground, Method, method, option
from ..modular import modular
from ..objective import EXCLUDED, INVALID, Block, Objective
from ..shapes import Plan, Shape, resident


@method
class RdsPlus(Method):
    """Targets take turns, in their order; each takes the row of largest cosine to it.

    Representation-based data selection, round robin (Ivison et al. 2025, arXiv 2503.01807). With `taken="skip"` a
    target whose best row is taken takes its next best, so that every turn is a pick. With "forfeit", as in the original
    code, a target's turn goes to the best row on its own list that it has not named before, and where that row is taken
    already the turn is lost. The paper's embedding is a mean of last hidden states weighted by position: `edjax score`
    has it as a pooling.

    columns: "embedding" (n, d), and target "embedding" (m, d). A target that holds NaN has no turn. given: rows that
    are labelled are taken, and with "skip" each has had its turn, so that a second round goes on where the first ended.

    The gain of a pick is its cosine to the target that took it; with "forfeit" the share of the pool that comes after
    it, which is what orders the rows there.

    Cost: 2 n m d FLOPs, and a pass over n numbers a pick ("skip") or m sorts of n ("forfeit"). Memory: 4 n m bytes
    ("skip") or 12 n m.

    >>> from ..ground import select
    >>> x, z = jnp.array([[1.0, 0.0], [0.9, 0.3], [0.0, 1.0]]), jnp.array([[1.0, 0.0], [1.0, 0.1]])
    >>> there = Ground({"embedding": x}, target={"embedding": z})
    >>> select(RdsPlus(), there, 3).indices.tolist(), select(RdsPlus(taken="forfeit"), there, 3).indices.tolist()
    ([0, 1, 2], [0, 1, 2])
    """

    taken: Literal["skip", "forfeit"] = option(
        "what a target does whose best row is taken: take the next, or lose its turn",
        default="skip",
        choices=("skip", "forfeit"),
    )

    name = "rds_plus"
    summary = "target prompts take turns, each the prompt most like it"
    paper = "Ivison et al. 2025, arXiv 2503.01807"
    targets = True
    needs_target = True
    valued = True

    @property
    def shrinks(self) -> bool:
        return self.taken == "forfeit"  # then an order that no pick changes

    def block_for(self, n: int, m: int) -> int:
        return 8192 if self.taken == "skip" else 256

    def ready(self, ground: Ground, key: jax.Array | None) -> "tuple[RdsPlus, Ground]":
        if self.taken not in ("skip", "forfeit"):
            raise ValueError(f"taken must be 'skip' or 'forfeit', got {self.taken!r}")
        return self, checks.check_target(ground)

    def objective(self, ground: Ground, *, block: int, precision: Precision, shards: int | None) -> Objective:
        assert ground.target is not None
        x, valid = _unit(ground.columns["embedding"])
        z, asked = _unit(ground.target["embedding"])
        like = geometry.matmul(z, x, precision)
        if self.taken == "skip":
            return _in_turn(like, valid, asked, ground.given)
        free = valid if ground.valid is None else valid & ground.valid
        place = _forfeit_places(jnp.where(free, like, -jnp.inf), asked).astype(jnp.float32)
        n = place.shape[0]
        made = modular(jnp.where(valid, n - place, jnp.nan), ground.given)
        return made._replace(report=lambda gains: made.report(gains) / n)

    def gains(self, ground: Ground, rows: list[int]) -> np.ndarray:
        assert ground.target is not None
        x, valid = float64.clean(ground.columns["embedding"])
        z, asked = float64.clean(ground.target["embedding"])
        like = float64.cosines(z[asked], x)
        if self.taken == "skip":
            return like[int(np.sum(valid[rows])) % len(like)] if len(like) else np.zeros(len(x))
        free = valid if ground.valid is None else valid & np.asarray(ground.valid)
        lists = np.argsort(np.where(free, -like, np.inf), axis=1, kind="stable")
        order = list(dict.fromkeys(lists.T.reshape(-1).tolist()))  # who is named first: list after list, rank by rank
        place = np.empty(len(x))
        place[order] = np.arange(len(x))
        return 1 - place / len(x)

    def nothing(self, ground: Ground) -> float:
        return -1.0 if self.taken == "skip" else float(np.min(self.gains(ground, [])))

    def plan(self, shape: Shape, *, form: str | None = None, **how: Any) -> Plan:
        n, d, m = shape.n, shape.d, shape.represented or 1
        held = 4 if self.taken == "skip" else 12
        return resident(self.name, shape, form, 2 * n * m * d, held * n * m + 4 * m * d)


def _unit(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Rows of length 1, 0 where they hold NaN; and (n,) which do not."""
    unit, _ = distances.unit_rows(x)
    valid = geometry.finite_rows(unit)
    return jnp.where(valid[:, None], unit, 0), valid


def _in_turn(like: jax.Array, valid: jax.Array, asked: jax.Array, given: jax.Array | None) -> Objective:
    """like (m, n): the targets that are `asked` (m,) in turn; internal gains are 1 + cosine."""
    m, n = like.shape
    chosen = jnp.zeros(0, jnp.int32) if given is None else given
    places = jnp.nonzero(asked, size=m, fill_value=0)[0]
    count = jnp.maximum(jnp.sum(asked), 1).astype(jnp.int32)

    def now(turn, ids):
        of_turn = like[places[turn % count]]
        return jnp.where(valid[ids], jnp.maximum(1 + of_turn[ids], 0), INVALID)

    def init():
        return jnp.sum(valid[chosen], dtype=jnp.int32), now(0, jnp.arange(n)).at[chosen].set(EXCLUDED)

    def refresh(turn, ids):
        return Block(now(turn, ids), (), ())

    def take(fixed, live, gains, j):
        return live, gains  # a round takes one pick

    def commit(turn, bounds, block, order, count):
        return turn + count, bounds

    return Objective(init, refresh, take, commit, report=lambda gains: gains - 1, limit=1)


def _forfeit_places(like: jax.Array, asked: jax.Array) -> jax.Array:
    """(n,) int32, each row's place in the order in which it is first named.

    A target's turn is spent on its list whatever others have taken. So row i is named in round min over q of its rank
    on the list of q, by the first q that ranks it so: no turn needs to be played.
    """
    rank = jnp.argsort(jnp.argsort(-like, axis=1, stable=True), axis=1).astype(jnp.int32)
    rank = jnp.where(asked[:, None], rank, like.shape[1])
    order = jnp.lexsort((jnp.argmin(rank, axis=0), jnp.min(rank, axis=0)))
    return jnp.argsort(order).astype(jnp.int32)
