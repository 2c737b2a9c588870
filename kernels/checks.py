"""What callers hand in, checked: pools, vectors and options, or a ValueError that names what is wrong."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .geometry import Precision


def check_pool(x: Any, name: str = "x") -> jax.Array:
    """`x` as a JAX array, or a ValueError that names what is wrong with its shape, dtype or values.

    Arrays on the host of a dtype that JAX would wrap around or does not know (64-bit integers, long double, another
    byte order) come as the float32 they are computed in.
    """
    if isinstance(x, jax.Array):
        check_shape(x.shape, name)
        check_dtype(x.dtype, name)
        return x
    x = np.asarray(x)
    check_shape(x.shape, name)
    check_dtype(x.dtype, name)
    return jnp.asarray(as_float32(x, name) if _wide(x.dtype) or not x.dtype.isnative else x)


def check_shape(shape: tuple[int, ...], name: str = "x") -> None:
    """A ValueError unless it is (n, d) with d >= 1."""
    if len(shape) != 2:
        raise ValueError(f"{name} must be 2-dimensional (rows, features), got shape {tuple(shape)}")
    if shape[1] == 0:
        raise ValueError(f"{name} must have at least one feature, got shape {tuple(shape)}")


def check_dtype(dtype: Any, name: str = "x") -> None:
    """A ValueError unless it is of real numbers; booleans, objects, text and complex numbers are not."""
    if not (jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)):
        raise ValueError(f"{name} must hold real numbers, got dtype {dtype}")


def _wide(dtype: Any) -> bool:
    return (dtype.kind in "iuf" and dtype.itemsize > 4) or dtype == np.uint32


def as_float32(x: np.ndarray, name: str = "x", start: int = 0) -> np.ndarray:
    """`x` (r, d) in float32; a ValueError naming the row (`start` is the first) where a finite number is too large."""
    if not _wide(x.dtype):
        return np.asarray(x, np.float32)
    with np.errstate(over="ignore"):
        out = np.asarray(x, np.float32)
    lost = ~np.isfinite(out)
    if x.dtype.kind == "f" and lost.any() and (lost := lost & np.isfinite(x)).any():
        row, column = (int(i) for i in np.argwhere(lost)[0])
        raise ValueError(f"{name} holds {x[row, column]} in row {start + row}, more than float32 can: scale the pool")
    return out


def check_precision(precision: Any) -> Precision:
    """`precision` if it is one of the two, or a ValueError that names it."""
    if precision not in ("highest", "fast"):
        raise ValueError(f"precision must be 'highest' or 'fast', got {precision!r}")
    return precision


def check_vector(v: Any, n: int, name: str) -> jax.Array:
    """`v` as a float32 (n,) array; concrete values must be finite and >= 0, also where other processes hold some."""
    if not isinstance(v, jax.core.Tracer):
        spread = isinstance(v, jax.Array) and not v.is_fully_addressable
        values, xp = (v, jnp) if spread else (np.asarray(v), np)
        if not (jnp.issubdtype(values.dtype, jnp.number) or values.dtype == bool) or values.dtype.kind == "c":
            raise ValueError(f"{name} must hold real numbers, got dtype {values.dtype}")
        if not spread:
            values = as_float32(values[:, None], name)[:, 0] if values.ndim == 1 else values
        if values.shape == (n,) and not (ok := xp.isfinite(values) & (values >= 0)).all():
            bad = int(xp.argmin(ok))
            raise ValueError(f"{name} must be finite and not negative, got {values[bad]} at row {bad}")
        v = values
    v = jnp.asarray(v, jnp.float32)
    if v.shape != (n,):
        raise ValueError(f"{name} must have shape ({n},), got {tuple(v.shape)}")
    return v


def check_positive(value: Any, name: str) -> None:
    """A ValueError unless it is one positive finite number; a tracer passes."""
    if isinstance(value, jax.core.Tracer):
        return
    host = np.asarray(value)  # of a jax.Array too: inside a user's `jit` its comparisons would be traced
    if host.shape != () or host.dtype.kind not in "iuf" or not (np.isfinite(host) and host > 0):
        raise ValueError(f"{name} must be a positive finite number, got {value!r}")
