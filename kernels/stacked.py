"""What `vmap` over a stack of pools becomes: all at once on an accelerator, one after the other on a CPU."""

from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import jax
from jax import lax
from jax.custom_batching import custom_vmap


def jitted(*static: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`jax.jit` for fn(*arrays, **static), with `in_turn_on_cpu` inside. Constant to `jax.grad`, the gains too."""

    def decorate(fn):
        @partial(jax.jit, static_argnames=static)
        @wraps(fn)
        def call(*arrays, **options):
            # Picks have no derivative, and a custom_vmap cannot be differentiated through.
            return in_turn_on_cpu(partial(fn, **options))(*jax.tree.map(lax.stop_gradient, arrays))

        return call

    return decorate


def in_turn_on_cpu(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn` of arrays (or pytrees of them, None allowed), whose `vmap` runs a stack in turn on a CPU.

    A CPU is busy with one pool already, and batched gathers, sorts and small products cost it more than single ones: 32
    pools of 2,000 x 384 took 1.4 times as long together as in turn. Nests, and traces under `jit`.

    >>> import jax.numpy as jnp
    >>> jax.vmap(in_turn_on_cpu(lambda row: row.sum()))(jnp.ones((3, 2))).tolist()
    [2.0, 2.0, 2.0]
    """
    wrapped = custom_vmap(fn)

    @wrapped.def_vmap
    def rule(_, batched, *args):
        leaves, tree = jax.tree.flatten(args)
        stacked = [bool(b) for b in jax.tree.leaves(batched)]

        def together(*leaves):
            return jax.vmap(lambda *a: fn(*jax.tree.unflatten(tree, a)), [0 if b else None for b in stacked])(*leaves)

        def in_turn(*leaves):
            def one(moving):
                rest = iter(moving)
                whole = [next(rest) if b else a for a, b in zip(leaves, stacked, strict=True)]
                return wrapped(*jax.tree.unflatten(tree, whole))

            return lax.map(one, [a for a, b in zip(leaves, stacked, strict=True) if b])

        if in_turn_pays():
            out = lax.platform_dependent(*leaves, cpu=in_turn, default=together)
        else:
            out = together(*leaves)
        return out, jax.tree.map(lambda _: True, out)

    return wrapped


def in_turn_pays() -> bool:
    """Not where the stack may be split over devices."""
    return jax.device_count() == 1
