"""A choice in parts: the strategy inside each random part of the candidates, then among what those chose (GreeDi)."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from edjax.keep.errors import UsageError
from edjax.kernels import Method, Sorted
from edjax.selection.beside import Beside
from edjax.selection.order import Order, Problem
from edjax.selection.strategies import knobs, reads_embeddings


def order(method: Method, p: Problem, parts: int, choose: Callable[[Method, Problem], Order]) -> Order:
    """The picks of the second stage, and their gains there.

    GreeDi (Mirzasoleiman, Karbasi, Sarkar & Krause 2013, "Distributed submodular maximization", Algorithm 2) with the
    random parts of Barbosa, Ene, Nguyen & Ward 2015 (arXiv 1502.02606): `budget` rows of each part, then `budget` of
    their union; labelled rows start the state in both stages. Facility location measures its part alone in the first
    stage and all rows in the second; graph_cut and flcg see the union alone there; each with the kernel width of all
    rows. The second stage's picks are returned always, where the papers compare them with the best part's, so that the
    order is that of one greedy run. Of the better of the two, where both stages measure one monotone submodular value
    of all rows, Barbosa et al. show (1 - 1/e) / 2 of the best in expectation; a value of the part alone has no such
    bound, see benchmarks/results/partitions.json for what it came to.

    Args:
      parts: 1 or more; a row's part is decided by its id alone.
      choose: the order of one problem.

    Raises:
      UsageError: a method whose picks are no greedy run.

    Cost: of facility location n^2 / parts + parts budget n similarities in place of n^2; of the others the same work in
    smaller pieces, and that of parts budget rows more.
    """
    refuse(method)
    if isinstance(method, Sorted):  # the largest of all are the largest of their parts
        return choose(method, p)
    part = part_of((p.features.ids[i] for i in p.candidates), parts)
    sizes = np.bincount(part, minlength=parts)
    width, union = _Width(method, p), []
    for i in np.flatnonzero(sizes):
        mine = p.candidates[part == i]
        some = p._replace(candidates=mine, budget=min(p.budget, len(mine)))
        some = some._replace(alike=(int(np.max(sizes)) + len(p.labelled), p.budget))
        union.append(choose(width.kept(method, some), some)[0])
    second = p._replace(candidates=np.sort(np.concatenate(union)), alike=None)
    wide = width.kept(method, second)
    if covers_pool_or_target(method) and p.target is None:
        x: Any = p.x  # in memory: what covers reads no stream
        second = second._replace(target=Beside(x[np.union1d(p.candidates, p.labelled)], {}))
    return choose(wide, second)


def part_of(ids: Iterable[str], parts: int) -> np.ndarray:
    """The part of each id, (n,) int64: its SHA-256 modulo `parts`, which no order of rows or files changes.

    >>> part_of(["a", "b", "c", "a"], 4).tolist()
    [3, 1, 2, 3]
    """
    digests = (hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[:8] for name in ids)
    return np.fromiter((int.from_bytes(d, "little") % parts for d in digests), np.int64)


def refuse(method: Method) -> None:
    """Refuse what has no greedy run to be cut into parts.

    Raises:
      UsageError: says so.
    """
    if isinstance(method, Sorted):
        return
    if method.fewer or type(method).objective is Method.objective:
        raise UsageError(f"{method.name} does not choose row by row, so it cannot choose in parts; drop --partitions")


def covers_pool_or_target(method: Any) -> bool:
    """Whether it covers the pool's rows, and would cover those of a target in their place."""
    covers = getattr(method, "covers_pool", None)
    return bool(method.targets and covers and covers(False) and not covers(True))


class _Width:
    """The kernel width of all rows. `bandwidth` is a share of the mean squared distance of the rows at hand, so for a
    part it is scaled by what that is of all rows to what it is of the part."""

    def __init__(self, method: Method, p: Problem):
        has_one = reads_embeddings(method) and "bandwidth" in knobs(method)
        self.x = p.x if has_one and isinstance(p.x, np.ndarray) else None
        self.spread = self._spread(p)

    def _spread(self, p: Problem) -> float:
        if self.x is None:
            return 1.0
        rows = self.x[np.union1d(p.candidates, p.labelled)].astype(np.float64)
        return float(np.square(rows - rows.mean(axis=0)).sum(axis=1).mean())  # half of it: only ratios matter

    def kept(self, method: Any, p: Problem) -> Method:
        """The method with the share of these rows' mean squared distance that is the same width."""
        spread = self._spread(p)
        if self.x is None or not spread > 0:
            return method
        return dataclasses.replace(method, bandwidth=method.bandwidth * self.spread / spread)
