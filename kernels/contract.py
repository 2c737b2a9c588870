"""The laws that every method keeps, for the tests of a method of your own."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .ground import Ground, Method, select
from .reference import greedy

RTOL = 2e-5  # of the largest gain on offer: float32 against float64


def check_method(method: Method, ground: Ground, budget: int, *, rtol: float = RTOL) -> None:
    """Hold a method to its own definition on a problem.

    It says what it is (name, summary, paper). Each pick has, by `Method.gains` in float64, the largest gain on offer up
    to rounding, and reports that gain. Given rows are not picked, nor rows that are not valid. The same picks come out
    under `jit`, for two pools under `vmap`, whatever the block, and where rows that hold NaN are added, which come
    last. A smaller budget's picks are the first ones, where the method says so (`nested`). One
    that may be done before the budget is spent says that too (`fewer`), and one that is not greedy is held to its
    `Method.picks`.

    Not for methods that draw: chance has no definition to be held to.

    Args:
        ground: columns of NumPy arrays, and those of a target where the method reads one; at least `budget` rows may
            be picked, 3 or more.

    Raises:
        AssertionError: naming the law, and the pick.

    >>> from .methods import KCenter
    >>> check_method(KCenter(), Ground({"embedding": np.random.default_rng(0).normal(size=(40, 3))}), 10)
    """
    for what in ("name", "summary", "paper"):
        _hold(isinstance(said := getattr(method, what), str) and said.strip() != "", f"it has no {what}")
    got = select(method, ground, budget)
    picks, gains = np.asarray(got.indices), np.asarray(got.gains)
    _hold(picks.shape == (budget,) and gains.shape == (budget,), f"{picks.shape} picks of a budget of {budget}")
    all_of_them, count = picks, int((picks >= 0).sum())
    _hold(count == budget or (method.fewer and count > 0), f"only {count} of {budget} rows are picked")
    picks, gains = picks[:count], gains[:count]
    _hold(bool((picks >= 0).all()), "-1 stands before a pick")
    _hold(len(set(picks.tolist())) == count, "a row is picked twice")
    given = set() if ground.given is None else {int(j) for j in ground.given}
    _hold(not given & set(picks.tolist()), "a given row is picked")
    if ground.valid is not None:
        _hold(bool(np.asarray(ground.valid)[picks].all()), "a row is picked that is not valid")
    defined = method.picks(ground, budget)
    _hold(defined is None or picks.tolist() == defined, f"rows {picks.tolist()} are picked, by definition {defined}")
    by_definition = greedy(method, ground, count, follow=picks.tolist())
    for t, (at, own, best, said) in enumerate(zip(picks, by_definition.gains, by_definition.best, gains, strict=True)):
        near = rtol * max(abs(best), 1e-9) if np.isfinite(best) else 0.0
        greedily = defined is not None or own >= best - near or own == best
        _hold(greedily, f"pick {t} (row {at}) gains {own} by definition, another row {best}")
        _hold(np.isclose(said, own, rtol=10 * rtol, atol=10 * near) or said == own, f"pick {t}: {said} is not {own}")
    picks = all_of_them
    _same(picks, select(method, ground, budget, block=3), "in blocks of 3 rows")
    if method.nested:
        _same(picks[: budget // 2], select(method, ground, budget // 2), "of half the budget")
    if "embedding" in method.needs:
        _same(picks, select(method, _with_nan(ground), budget), "beside rows that hold NaN")
    on_device = _arrays(ground)
    _same(picks, jax.jit(lambda g: select(method, g, budget))(on_device), "under jit")
    twice = jax.tree.map(lambda a: jnp.stack([a, a]), on_device)
    both = jax.vmap(lambda g: select(method, g, budget))(twice)
    _same(picks, jax.tree.map(lambda a: a[1], both), "under vmap")


def _with_nan(ground: Ground) -> Ground:
    """The ground with three more rows, whose embedding is NaN; their other columns are those of the first row."""
    columns = {}
    for name, column in ground.columns.items():
        more = np.repeat(np.asarray(column)[:1], 3, axis=0)
        columns[name] = np.concatenate([np.asarray(column), more * np.nan if name == "embedding" else more])
    valid = None if ground.valid is None else np.concatenate([np.asarray(ground.valid), np.ones(3, bool)])
    return ground._replace(columns=columns, valid=valid)


def _arrays(ground: Ground) -> Ground:
    rows: Any = ground.given

    def floats(columns: Any) -> Any:
        return {name: jnp.asarray(np.asarray(c, np.float32)) for name, c in columns.items()}

    return ground._replace(
        columns=floats(ground.columns),
        target=None if ground.target is None else floats(ground.target),
        valid=None if ground.valid is None else jnp.asarray(ground.valid),
        given=None if rows is None else jnp.asarray(rows, jnp.int32),
    )


def _same(picks: np.ndarray, other: Any, how: str) -> None:
    _hold(picks.tolist() == np.asarray(other.indices).tolist(), f"other rows are picked {how}")


def _hold(law: bool, otherwise: str) -> None:
    if not law:
        raise AssertionError(otherwise)
