"""What callers hand in, checked: pools, vectors and options, or a ValueError that names what is wrong."""

import operator
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


def check_dims(shape: tuple[int, ...], dims: int, name: str) -> None:
    """A ValueError unless it has so many dimensions, rows included."""
    if len(shape) != dims:
        wanted = ", ".join([str(shape[0]), *["*"] * (dims - 1)]) if dims > 1 else f"{shape[0]},"
        raise ValueError(f"{name} must have shape ({wanted}), got {tuple(shape)}")


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


def check_budget(budget: Any, available: int, name: str = "budget") -> int:
    """`budget` as an int in [0, available], or a ValueError that names it."""
    try:
        if isinstance(budget, bool):
            raise TypeError
        value = operator.index(budget)
    except TypeError:
        raise ValueError(f"{name} must be a whole number of rows, got {budget!r}") from None
    if value < 0:
        raise ValueError(f"{name} must not be negative, got {value}")
    if value > available:
        raise ValueError(f"{name} {value} is larger than the {available} rows that can be picked")
    return value


def check_block(block: Any, name: str = "block") -> int:
    """`block` as an int >= 1, or a ValueError that names it."""
    if isinstance(block, bool) or not isinstance(block, int | np.integer) or block < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {block!r}")
    return int(block)


def check_rows(rows: Any, n: int, name: str = "labelled") -> tuple[jax.Array, int]:
    """The distinct row indices as a (p,) int32 array and their number; None is no rows.

    Concrete indices are checked; of traced ones only the count is known, and all are taken to be distinct.
    """
    if rows is None:
        return jnp.zeros(0, jnp.int32), 0
    if isinstance(rows, jax.core.Tracer):
        return rows.astype(jnp.int32), rows.shape[0]
    host = np.asarray(rows)
    if host.size == 0:
        return jnp.zeros(0, jnp.int32), 0
    if host.ndim != 1 or not np.issubdtype(host.dtype, np.integer):
        raise ValueError(f"{name} must be a 1-dimensional list of row indices, got {host.dtype} {host.shape}")
    if host.min() < 0 or host.max() >= n:
        bad = host[(host < 0) | (host >= n)][0]
        raise ValueError(f"{name} holds row {bad}, but the pool has rows 0 to {n - 1}")
    host = np.array(list(dict.fromkeys(host.tolist())))
    return jnp.asarray(host, jnp.int32), len(host)


def check_column(ground: Any, column: str, name: str) -> Any:
    """The ground with an optional column of numbers of 0 or more checked, see `check_vector`; as it is without one."""
    values = ground.columns.get(column)
    if values is None:
        return ground
    return ground._replace(columns={**ground.columns, column: check_vector(values, ground.n, name)})


def check_scores(values: Any, n: int, name: str) -> jax.Array:
    """`values` as a float32 (n,) array of numbers of either sign; NaN and infinity may be among them."""
    made = values if isinstance(values, jax.Array) else np.asarray(values)
    check_dtype(made.dtype, name)
    if made.shape != (n,):
        raise ValueError(f"{name} must have shape ({n},), got {tuple(made.shape)}")
    return jnp.asarray(made if isinstance(made, jax.Array) else as_float32(made[:, None], name)[:, 0], jnp.float32)


def check_groups(values: Any, n: int, name: str) -> jax.Array:
    """`values` as an int32 (n,) array of group numbers, 0 to n - 1."""
    if not isinstance(values, jax.core.Tracer):
        host = np.asarray(values)
        if host.shape != (n,) or host.dtype.kind not in "iu":
            raise ValueError(f"{name} must be ({n},) whole numbers, got {host.dtype} {host.shape}")
        if n and (host.min() < 0 or host.max() >= n):
            raise ValueError(f"{name} must be from 0 to {n - 1}, got {host.min()} to {host.max()}")
    return jnp.asarray(values, jnp.int32)
