"""Methods of methods: quality, quotas, prefilters, prices and sums around any method; see `edjax.kernels.combine`."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import checks, combine
from ..geometry import Precision
from ..ground import Ground, Method, method, option
from ..objective import Objective, Selection
from ..shapes import Plan, Shape


class _Around(Method):
    """What a method around another, `of`, takes over from it; `by` is the column that it needs beside."""

    of: Any
    by: str

    @property
    def inside(self) -> Method:
        if not isinstance(self.of, Method):
            kind = type(self).__name__
            raise ValueError(f"{kind} goes around a method: {kind}(KCenter(), ...); got {self.of!r}")
        return self.of

    @property
    def summary(self) -> str:
        return self.inside.summary

    @property
    def paper(self) -> str:
        return self.inside.paper

    @property
    def needs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.inside.needs, self.by)))

    @property
    def takes(self) -> tuple[str, ...]:
        return self.inside.takes

    @property
    def groups(self) -> tuple[str, ...]:
        return self.inside.groups

    @property
    def valued(self) -> bool:
        return self.inside.valued

    @property
    def dims(self) -> Mapping[str, int]:
        return self.inside.dims

    @property
    def targets(self) -> bool:
        return self.inside.targets

    @property
    def beyond(self) -> bool:
        return self.inside.beyond

    @property
    def needs_target(self) -> bool:
        return self.inside.needs_target

    @property
    def fewer(self) -> bool:
        return self.inside.fewer

    @property
    def drawn(self) -> bool:
        return self.inside.drawn

    @property
    def nested(self) -> bool:
        return self.inside.nested

    @property
    def shrinks(self) -> bool:
        return self.inside.shrinks

    def block_for(self, n: int, m: int) -> int:
        return self.inside.block_for(n, m)

    def around(self, inside: Objective, column: jax.Array) -> Objective:
        """The objective of the method inside as this one changes it by its column."""
        raise NotImplementedError(
            f"{type(self).__name__} does not say what it does to an objective: write its around()"
        )

    def objective(self, ground: Ground, *, block: int, precision: Precision, shards: int | None) -> Objective:
        inside = self.inside.objective(ground, block=block, precision=precision, shards=shards)
        return self.around(inside, ground.columns[self.by])

    def maximize(self, objective: Objective, budget: int, *, n: int, block: int, key: jax.Array | None) -> Selection:
        return self.inside.maximize(objective, budget, n=n, block=block, key=key)

    def plan(self, shape: Shape, **how: Any) -> Plan:
        return self.inside.plan(shape, **how)

    def advise(self, gains: np.ndarray, *, targets: int = 0) -> str | None:
        return self.inside.advise(gains, targets=targets)


class _Limit(_Around):
    """One that takes rows out of the running, and leaves gains as they are."""

    def nothing(self, ground: Ground) -> float:
        return self.inside.nothing(ground)

    def ties(self, gains: np.ndarray) -> np.ndarray:
        return self.inside.ties(gains)


def _ready(around: Any, ground: Ground, key: jax.Array | None) -> tuple[Any, Ground]:
    of, ground = around.inside.ready(ground, key)
    return replace(around, of=of), ground


@method
class AtMost(_Limit):
    """At most `each` picks of the rows that share a value of the column `by`, whole numbers from 0 up to n - 1."""

    of: Method = option("the method inside", default=None, traced=True)
    by: str = option("column of groups", default="group")
    each: Any = option("picks a group, or (groups,) of them", default=1, traced=True)

    @property
    def name(self) -> str:
        return f"{self.of.name} at most {self.each} a {self.by}"

    @property
    def groups(self) -> tuple[str, ...]:
        return (*self.inside.groups, self.by)

    def ready(self, ground: Ground, key: jax.Array | None) -> "tuple[AtMost, Ground]":
        groups = checks.check_groups(ground.columns[self.by], ground.n, self.by)
        _check_quota(self.each, groups)
        return _ready(self, ground._replace(columns={**ground.columns, self.by: groups}), key)

    def around(self, inside: Objective, column: jax.Array) -> Objective:
        quota = jnp.asarray(self.each, jnp.int32)
        return combine.at_most(inside, column, jnp.broadcast_to(quota, column.shape) if quota.ndim == 0 else quota)

    def gains(self, ground: Ground, rows: list[int]) -> np.ndarray:
        group, each = np.asarray(ground.columns[self.by]), np.asarray(self.each)
        taken = np.bincount(group[[j for j in rows if j not in _given(ground)]], minlength=ground.n)
        left = np.broadcast_to(each, taken.shape) - taken if each.ndim == 0 else each - taken[: len(each)]
        return np.where(left[group] > 0, self.of.gains(ground, rows), -np.inf)


@method
class Cost(_Limit):
    """Rows are picked while their prices, the column `by`, fit into `total`."""

    of: Method = option("the method inside", default=None, traced=True)
    by: str = option("column of prices", default="price")
    total: Any = option("what there is to spend", default=0.0, traced=True, least=0)

    @property
    def name(self) -> str:
        return f"{self.of.name} for {self.by}"

    def ready(self, ground: Ground, key: jax.Array | None) -> "tuple[Cost, Ground]":
        return _ready(self, checks.check_column(ground, self.by, self.by), key)

    def around(self, inside: Objective, column: jax.Array) -> Objective:
        return combine.affordable(inside, column, self.total)

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

    def ready(self, ground: Ground, key: jax.Array | None) -> "tuple[Scaled, Ground]":
        return _ready(self, checks.check_column(ground, self.by, self.by), key)

    def around(self, inside: Objective, column: jax.Array) -> Objective:
        return combine.scaled(inside, column, shrinks=self.shrinks)

    def gains(self, ground: Ground, rows: list[int]) -> np.ndarray:
        more = self.of.gains(ground, rows) - self.of.nothing(ground)
        return np.asarray(ground.columns[self.by], np.float64) * more


@method
class Plus(Method):
    """A weighted sum of methods' gains, each in the units it reports."""

    parts: tuple[Method, ...] = option("the methods", default=(), traced=True)
    weights: Any = option("one a method; default ones", default=None, traced=True)

    @property
    def targets(self) -> bool:
        return any(part.targets for part in self.parts)

    @property
    def needs_target(self) -> bool:
        return any(part.needs_target for part in self.parts)

    @property
    def drawn(self) -> bool:
        return any(part.drawn for part in self.parts)

    @property
    def nested(self) -> bool:
        return all(part.nested for part in self.parts)

    @property
    def shrinks(self) -> bool:
        return all(part.shrinks for part in self.parts)

    @property
    def groups(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for part in self.parts for name in part.groups))

    @property
    def valued(self) -> bool:
        return all(part.valued for part in self.parts)

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

    @property
    def dims(self) -> Mapping[str, int]:
        return {name: dims for part in self.parts for name, dims in part.dims.items()}

    def ready(self, ground: Ground, key: jax.Array | None) -> "tuple[Plus, Ground]":
        if not self.parts:
            raise ValueError("Plus is a sum of methods: Plus((KCenter(), DOptimal()))")
        given = None if self.weights is None else tuple(self.weights)
        if given is not None and len(given) != len(self.parts):
            raise ValueError(f"{len(given)} weights for {len(self.parts)} methods")
        for weight in given or ():
            if not isinstance(weight, jax.core.Tracer) and not 0 <= float(weight) < np.inf:
                raise ValueError(f"a weight of Plus must be 0 or more, or gains would grow, got {weight!r}")
        parts = []
        for part in self.parts:
            made, ground = part.ready(ground, key)
            parts.append(made)
        return replace(self, parts=tuple(parts)), ground

    def objective(self, ground: Ground, *, block: int, precision: Precision, shards: int | None) -> Objective:
        made = [part.objective(ground, block=block, precision=precision, shards=shards) for part in self.parts]
        return combine.plus(made, self.weights, shrinks=self.shrinks)

    def maximize(self, objective: Objective, budget: int, *, n: int, block: int, key: jax.Array | None) -> Selection:
        """That of the first part which has one of its own."""
        own = [part for part in self.parts if type(part).maximize is not Method.maximize]
        engine = own[0].maximize if own else super().maximize
        return engine(objective, budget, n=n, block=block, key=key)

    def gains(self, ground: Ground, rows: list[int]) -> np.ndarray:
        weights = np.ones(len(self.parts)) if self.weights is None else self.weights
        more = (part.gains(ground, rows) - part.nothing(ground) for part in self.parts)
        return sum(w * gains for w, gains in zip(weights, more, strict=True))


def _check_quota(each: Any, groups: jax.Array) -> None:
    """A ValueError that names a quota which is no whole number of 0 or more, or groups that have none."""
    if isinstance(each, jax.core.Tracer):
        return
    quota = np.asarray(each)
    if quota.ndim > 1 or quota.dtype.kind not in "iu" or (quota < 0).any():
        raise ValueError(f"each must be a whole number of 0 or more, or one a group, got {each!r}")
    most = 0 if isinstance(groups, jax.core.Tracer) or not groups.size else int(np.asarray(groups).max())
    if quota.ndim and len(quota) <= most:
        raise ValueError(f"each has {len(quota)} quotas, and there is a group {most}")


def _given(ground: Ground) -> set[int]:
    return set() if ground.given is None else {int(j) for j in ground.given}
