"""Groups that nobody named: clusters of the prepared embeddings."""

from __future__ import annotations

import re

import numpy as np

from edjax.data.stream import Spill
from edjax.keep.errors import UsageError

_FORM = re.compile(r"cluster:(.*)")


def wanted(group_by: str | None) -> int | None:
    """N of "cluster:N"; None for the name of a column, or no grouping.

    Raises:
      UsageError: N is no whole number of 1 or more.
    """
    if group_by is None or not (found := _FORM.fullmatch(group_by)):
        return None
    if not found[1].isdecimal() or int(found[1]) < 1:
        raise UsageError(f"group_by {group_by!r}: how many clusters? cluster:276 makes 276")
    return int(found[1])


def labels(x: np.ndarray | Spill, clusters: int) -> np.ndarray:
    """(n,) int64 the cluster of each row, by `edjax.kernels.kmeans` from its default key: the same in every call.

    Raises:
      UsageError: more clusters than rows; rows that are left on disk.
    """
    import jax.numpy as jnp

    from edjax.kernels import kmeans

    if isinstance(x, Spill):
        raise UsageError("clusters need the embeddings in memory; raise --memory, or group by a column")
    if clusters > len(x):
        raise UsageError(f"{clusters} clusters of {len(x)} rows: ask for fewer")
    return np.asarray(kmeans(jnp.asarray(x), clusters).labels, np.int64)
