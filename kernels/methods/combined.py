"""Methods of methods: quality, quotas, prefilters, prices and sums around any method; see `edjax.kernels.combine`."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import checks, combine
from ..geometry import Precision
from ..ground import Ground, Method, method, option
from ..objective import Objective


class _Around(Method):
    """What a method around another takes over from it."""

    of: Method

    @property
    def summary(self) -> str:
        return self.of.summary

    @property
    def paper(self) -> str:
        return self.of.paper

    @property
    def needs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.of.needs, *self.reads)))

    @property
    def takes(self) -> tuple[str, ...]:
        return self.of.takes

    @property
    def block(self) -> int:
        return self.of.block

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns that it needs beside those of the method inside."""
        raise NotImplementedError


def _ready(around: Any, ground: Ground, key: jax.Array | None) -> tuple[Any, Ground]:
    of, ground = around.of.ready(ground, key)
    return replace(around, of=of), ground


@method
class AtMost(_Around):
    """At most `each` picks of the rows that share a value of the column `by`, whole numbers from 0 up to n - 1."""

    of: Method = option("the method inside", default=None, traced=True)
    by: str = option("column of groups", default="group")
    each: Any = option("picks a group, or (groups,) of them", default=1, traced=True)

    @property
    def name(self) -> str:
        return f"{self.of.name} at most {self.each} a {self.by}"

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.by,)

    def ready(self, ground: Ground, key: jax.Array | None) -> "tuple[AtMost, Ground]":
        groups = checks.check_groups(ground.columns[self.by], ground.n, self.by)
        return _ready(self, ground._replace(columns={**ground.columns, self.by: groups}), key)

    def objective(self, ground: Ground, *, block: int, precision: Precision, shards: int | None) -> Objective:
        inside = self.of.objective(ground, block=block, precision=precision, shards=shards)
        quota = jnp.asarray(self.each, jnp.int32)
        return combine.at_most(
            inside, ground.columns[self.by], jnp.broadcast_to(quota, (ground.n,)) if quota.ndim == 0 else quota
        )

    def gains(self, ground: Ground, rows: list[int]) -> np.ndarray:
        group, each = np.asarray(ground.columns[self.by]), np.asarray(self.each)
        taken = np.bincount(group[[j for j in rows if j not in _given(ground)]], minlength=ground.n)
        left = np.broadcast_to(each, taken.shape) - taken if each.ndim == 0 else each - taken[: len(each)]
        return np.where(left[group] > 0, self.of.gains(ground, rows), -np.inf)


@method
class Cost(_Around):
    """Rows are picked while their prices, the column `by`, fit into `total`."""

    of: Method = option("the method inside", default=None, traced=True)
    by: str = option("column of prices", default="price")
    total: Any = option("what there is to spend", default=0.0, traced=True, least=0)

    @property
    def name(self) -> str:
        return f"{self.of.name} for {self.by}"

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.by,)

    def ready(self, ground: Ground, key: jax.Array | None) -> "tuple[Cost, Ground]":
        return _ready(self, checks.check_column(ground, self.by, self.by), key)

    def objective(self, ground: Ground, *, block: int, precision: Precision, shards: int | None) -> Objective:
        inside = self.of.objective(ground, block=block, precision=precision, shards=shards)
        return combine.affordable(inside, ground.columns[self.by], self.total)

    def gains(self, ground: Ground, rows: list[int]) -> np.ndarray:
        price = np.asarray(ground.columns[self.by], np.float64)
        left = float(self.total) - price[[j for j in rows if j not in _given(ground)]].sum()
        return np.where(price <= left, self.of.gains(ground, rows), -np.inf)


@method
class Scaled(_Around):
    """Gains count in proportion to a column of quality, 0 or more."""

    of: Method = option("the method inside", default=None, traced=True)
    by: str = option("column of quality", default="quality")

    @property
    def name(self) -> str:
        return f"{self.of.name} x {self.by}"

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.by,)

    def ready(self, ground: Ground, key: jax.Array | None) -> "tuple[Scaled, Ground]":
        return _ready(self, checks.check_column(ground, self.by, self.by), key)

    def objective(self, ground: Ground, *, block: int, precision: Precision, shards: int | None) -> Objective:
        inside = self.of.objective(ground, block=block, precision=precision, shards=shards)
        return combine.scaled(inside, ground.columns[self.by])

    def gains(self, ground: Ground, rows: list[int]) -> np.ndarray:
        more = self.of.gains(ground, rows) - self.of.nothing(ground)
        return np.asarray(ground.columns[self.by], np.float64) * more


@method
class Plus(Method):
    """A weighted sum of methods' gains, each in the units it reports."""

    parts: tuple[Method, ...] = option("the methods", default=(), traced=True)
    weights: Any = option("one a method; default ones", default=None, traced=True)

    @property
    def name(self) -> str:
        return " + ".join(part.name for part in self.parts)

    @property
    def summary(self) -> str:
        return "; ".join(part.summary for part in self.parts)

    @property
    def paper(self) -> str:
        return "; ".join(dict.fromkeys(part.paper for part in self.parts))

    @property
    def needs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for part in self.parts for name in part.needs))

    @property
    def takes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for part in self.parts for name in part.takes))

    def ready(self, ground: Ground, key: jax.Array | None) -> "tuple[Plus, Ground]":
        parts = []
        for part in self.parts:
            made, ground = part.ready(ground, key)
            parts.append(made)
        return replace(self, parts=tuple(parts)), ground

    def objective(self, ground: Ground, *, block: int, precision: Precision, shards: int | None) -> Objective:
        made = [part.objective(ground, block=block, precision=precision, shards=shards) for part in self.parts]
        return combine.plus(made, self.weights)

    def gains(self, ground: Ground, rows: list[int]) -> np.ndarray:
        weights = np.ones(len(self.parts)) if self.weights is None else self.weights
        more = (part.gains(ground, rows) - part.nothing(ground) for part in self.parts)
        return sum(w * gains for w, gains in zip(weights, more, strict=True))


def _given(ground: Ground) -> set[int]:
    return set() if ground.given is None else {int(j) for j in ground.given}
