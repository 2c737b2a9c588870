"""What a JAX program really did: every product and reduction it executed, loops and branches counted as they ran.

XLA's own cost analysis takes a loop's body once, whatever its number of turns, and the selectors are loops whose turns
depend on the data. Here the traced program is run once more with a counter at each place, carried through its loops.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

CALLED = ("jaxpr", "call_jaxpr", "call")  # what a jit, a checkpoint or a custom rule holds its program under


class Work(NamedTuple):
    """flops: of the matrix products; factorisations do not count. bytes: what products read and write and what
    reductions read, as if nothing stayed in cache between two of them. products: each product's (shape of the result,
    contracted length, times)."""

    flops: int
    bytes: int
    products: list[tuple[tuple[int, ...], int, int]]


def work(f: Callable[..., Any], *args: Any) -> Work:
    """Run `f(*args)` with counters and add them up.

    >>> work(lambda a: lax.fori_loop(0, 3, lambda i, x: x @ x, a), jnp.eye(4)).flops == 3 * 2 * 4**3
    True
    """
    closed = jax.make_jaxpr(f)(*args)
    eqns = list(_counted(closed.jaxpr, set()))
    places = {id(eqn): i for i, eqn in enumerate(eqns)}
    run = jax.jit(lambda *a: _evaluate(closed, list(a), jnp.zeros(len(eqns), jnp.int32), places)[1])
    turns = run(*jax.tree.leaves(args)).tolist()
    products = [
        (e.outvars[0].aval.shape, _contracted(e), t)
        for e, t in zip(eqns, turns, strict=True)
        if e.primitive.name == "dot_general"
    ]
    return Work(
        sum(2 * math.prod(shape) * length * t for shape, length, t in products),
        sum(_bytes(e) * t for e, t in zip(eqns, turns, strict=True)),
        [p for p in products if p[2]],
    )


def _is_counted(eqn: Any) -> bool:
    name = eqn.primitive.name
    return name in ("dot_general", "top_k", "argmax", "argmin", "sort") or name.startswith("reduce_")


def _counted(jaxpr: Jaxpr, seen: set[int]) -> Iterator[Any]:
    """The equations to count, those of inner programs included, each once."""
    for eqn in jaxpr.eqns:
        if _is_counted(eqn) and id(eqn) not in seen:
            seen.add(id(eqn))
            yield eqn
        for inner in _inner(eqn):
            yield from _counted(inner, seen)


def _inner(eqn: Any) -> Iterator[Jaxpr]:
    """The programs inside an equation."""
    for value in eqn.params.values():
        for inner in value if isinstance(value, tuple) else (value,):
            if isinstance(inner, ClosedJaxpr | Jaxpr):
                yield getattr(inner, "jaxpr", inner)


def _contracted(eqn: Any) -> int:
    axes = eqn.params["dimension_numbers"][0][0]
    return math.prod(eqn.invars[0].aval.shape[a] for a in axes)


def _bytes(eqn: Any) -> int:
    held = [*eqn.invars, *(eqn.outvars if eqn.primitive.name == "dot_general" else ())]
    return sum(v.aval.size * v.aval.dtype.itemsize for v in held)


def _evaluate(closed: ClosedJaxpr, args: list[Any], counts: jax.Array, places: dict[int, int]) -> tuple[list[Any], Any]:
    """The program's outputs, and `counts` with every counted equation added where it stands."""
    values: dict[Any, Any] = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
    values.update(zip(closed.jaxpr.invars, args, strict=True))

    def value(v: Any) -> Any:
        return v.val if isinstance(v, Literal) else values[v]

    for eqn in closed.jaxpr.eqns:
        if id(eqn) in places:
            counts = counts.at[places[id(eqn)]].add(1)
        out, counts = _step(eqn, [value(v) for v in eqn.invars], counts, places)
        values.update(zip(eqn.outvars, out, strict=True))
    return [value(v) for v in closed.jaxpr.outvars], counts


def _step(eqn: Any, args: list[Any], counts: jax.Array, places: dict[int, int]) -> tuple[list[Any], Any]:
    """One equation; loops, branches and calls are entered with the counters."""
    name, params = eqn.primitive.name, eqn.params
    if name == "while":
        return _while(params, args, counts, places)
    if name == "scan":
        return _scan(params, args, counts, places)
    if name == "cond":
        index, *operands = args
        branches = [lambda a, c, b=b: _evaluate(b, list(a), c, places) for b in params["branches"]]
        return lax.switch(index, branches, operands, counts)
    if (inner := next((params[key] for key in CALLED if key in params), None)) is not None:
        return _evaluate(inner if isinstance(inner, ClosedJaxpr) else ClosedJaxpr(inner, ()), args, counts, places)
    if any(id(e) in places for i in _inner(eqn) for e in _counted(i, set())):
        raise NotImplementedError(f"products inside {name!r} would go uncounted")
    out = eqn.primitive.bind(*args, **eqn.primitive.get_bind_params(params))
    return (out if eqn.primitive.multiple_results else [out]), counts


def _while(params: dict[str, Any], args: list[Any], counts: jax.Array, places: dict[int, int]) -> tuple[list[Any], Any]:
    a, b = params["cond_nconsts"], params["body_nconsts"]
    of_cond, of_body, start = args[:a], args[a : a + b], args[a + b :]
    return lax.while_loop(
        lambda carry: _evaluate(params["cond_jaxpr"], [*of_cond, *carry[0]], carry[1], places)[0][0],
        lambda carry: _evaluate(params["body_jaxpr"], [*of_body, *carry[0]], carry[1], places),
        (start, counts),
    )


def _scan(params: dict[str, Any], args: list[Any], counts: jax.Array, places: dict[int, int]) -> tuple[list[Any], Any]:
    if "num_consts" in params:
        a, b = params["num_consts"], params["num_carry"]
    else:  # jax 0.12
        a, b = (len(part) for part in list(params["ft_in"].unpack())[:2])
    program = params["jaxpr"] if isinstance(params["jaxpr"], ClosedJaxpr) else ClosedJaxpr(params["jaxpr"], ())
    consts, start, xs = args[:a], args[a : a + b], args[a + b :]

    def body(carry, x):
        out, counted = _evaluate(program, [*consts, *carry[0], *x], carry[1], places)
        return (out[:b], counted), out[b:]

    (last, counts), ys = lax.scan(
        body, (start, counts), xs, length=params["length"], reverse=params["reverse"], unroll=1
    )
    return [*last, *ys], counts
