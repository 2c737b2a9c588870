"""What our selectors are compared with: the published packages that make the same picks, and the loops people write.

Every peer is a function of a `Problem` that returns an `Answer`; `PEERS` is the table. Packages are imported when a
peer is first run, and one that is not installed, or does not work with the versions here, is reported, not an error:
see `usable`. `pip install -e ".[bench]"` brings them all.

How each is asked for the same picks as ours:

- k_center: every peer is given the same first row, the one nearest the mean. bmdal-reg and scikit-activeml begin from
  labelled rows, so that row is their training set.
- d_optimal: with noise sigma, bmdal-reg's MaxDet maximises det(K_S + sigma^2 I), which for sigma^2 = ridge is ridge^k
  times det(I + X_S^T X_S / ridge): the same order.
- facility_location: apricot and submodlib are given the similarity matrix, which they need, made by scikit-learn's
  `rbf_kernel` and counted in their time. submodlib's own similarities are exp(-distance / d), not squared, so they
  cannot give the same answer and are no peer.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import NamedTuple
from unittest import mock

import numpy as np


class Problem(NamedTuple):
    """x: (n, d) float32 pool. first: the row k_center begins with. ridge: d_optimal's. gamma: facility location's."""

    x: np.ndarray
    budget: int
    first: int
    ridge: float
    gamma: float


class Answer(NamedTuple):
    """picks: (budget,) rows in the order taken. build_s: seconds of the (n, n) matrix, where one is made."""

    picks: np.ndarray
    build_s: float | None = None


class Peer(NamedTuple):
    """run: problem in, answer out. modules: what it imports besides NumPy. note: what to know about its time."""

    run: Callable[[Problem], Answer]
    modules: tuple[str, ...] = ()
    note: str = ""


def problem(x: np.ndarray, budget: int) -> Problem:
    """The first row, ridge and kernel width that our selectors take by default."""
    centred = x - x.mean(0, dtype=np.float64).astype(np.float32)
    norms = np.sum(centred * centred, axis=1)
    square = float(norms.mean(dtype=np.float64))
    return Problem(x, budget, int(np.argmin(norms)), ridge=0.1 * square, gamma=0.25 * 2 * square)


# k_center


def numpy_k_center(p: Problem) -> Answer:
    """One matrix-vector product per pick, distances by |a|^2 + |b|^2 - 2ab on the centred pool."""
    x = p.x - p.x.mean(0)
    norms = np.sum(x * x, axis=1)
    nearest = np.full(len(x), np.inf, np.float32)
    picks = np.empty(p.budget, np.int64)
    j = p.first
    for t in range(p.budget):
        picks[t] = j
        np.minimum(nearest, norms - 2 * (x @ x[j]) + norms[j], out=nearest)
        nearest[j] = -1
        j = int(nearest.argmax())
    return Answer(picks)


def torch_k_center(p: Problem) -> Answer:
    """`numpy_k_center` in torch."""
    import torch

    x = torch.from_numpy(p.x)
    x = x - x.mean(0)
    norms = (x * x).sum(1)
    nearest = torch.full((len(x),), torch.inf)
    picks = np.empty(p.budget, np.int64)
    j = p.first
    for t in range(p.budget):
        picks[t] = j
        torch.minimum(nearest, norms - 2 * torch.mv(x, x[j]) + norms[j], out=nearest)
        nearest[j] = -1
        j = int(nearest.argmax())
    return Answer(picks)


def torch_cdist_k_center(p: Problem) -> Answer:
    """The distances to each new pick by `torch.cdist`, as such a loop is usually written."""
    import torch

    x = torch.from_numpy(p.x)
    nearest = torch.full((len(x),), torch.inf)
    picks = np.empty(p.budget, np.int64)
    j = p.first
    for t in range(p.budget):
        picks[t] = j
        torch.minimum(nearest, torch.cdist(x, x[j : j + 1])[:, 0], out=nearest)
        nearest[j] = -1
        j = int(nearest.argmax())
    return Answer(picks)


def sklearn_k_center(p: Problem) -> Answer:
    """The distances to each new pick by scikit-learn, which computes float32 rows in float64."""
    from sklearn.metrics.pairwise import euclidean_distances

    nearest = np.full(len(p.x), np.inf, np.float32)
    picks = np.empty(p.budget, np.int64)
    j = p.first
    for t in range(p.budget):
        picks[t] = j
        np.minimum(nearest, euclidean_distances(p.x, p.x[j : j + 1], squared=True)[:, 0], out=nearest)
        nearest[j] = -1
        j = int(nearest.argmax())
    return Answer(picks)


def skmatter_k_center(p: Problem) -> Answer:
    """Farthest point sampling."""
    from skmatter.sample_selection import FPS

    return Answer(FPS(initialize=p.first, n_to_select=p.budget).fit(p.x).selected_idx_)


def skactiveml_k_center(p: Problem) -> Answer:
    """Core-set query with the first row labelled."""
    from skactiveml.pool import CoreSet

    y = np.full(len(p.x), np.nan)
    y[p.first] = 0
    return _after_first(p, CoreSet(random_state=0).query(p.x, y, batch_size=p.budget - 1))


def bmdal_k_center(p: Problem) -> Answer:
    """MaxDist with the first row as training set."""
    with _numpy_1_names():
        from bmdal_reg.bmdal.selection import MaxDistSelectionMethod

        pool, train = _bmdal_features(p.x), _bmdal_features(p.x[p.first : p.first + 1])
        method = MaxDistSelectionMethod(pool, train, sel_with_train=True, verbosity=0)
        return _after_first(p, _bmdal_select(method, p.budget - 1))


def _after_first(p: Problem, rest: np.ndarray) -> Answer:
    return Answer(np.concatenate([[p.first], rest]))


# d_optimal


def numpy_d_optimal(p: Problem) -> Answer:
    """One Sherman-Morrison update of (X_S^T X_S + ridge I)^-1 and one matrix-vector product per pick."""
    x, ridge = p.x, np.float32(p.ridge)
    inverse = np.eye(x.shape[1], dtype=np.float32) / ridge
    leverage = np.sum(x * x, axis=1) / ridge
    picks = np.empty(p.budget, np.int64)
    for t in range(p.budget):
        picks[t] = j = int(leverage.argmax())
        v = inverse @ x[j]
        scale = 1 + x[j] @ v
        leverage -= np.square(x @ v) / scale
        leverage[j] = -1
        inverse -= np.outer(v, v) / scale
    return Answer(picks)


def chen_d_optimal(p: Problem) -> Answer:
    """Fast greedy MAP inference of a determinantal point process (Chen, Zhang & Zhou 2018, arXiv 1709.05135, Alg. 1).

    On the (n, n) kernel I + X X^T / ridge, whose making is counted.
    """
    start = time.perf_counter()
    kernel = p.x @ p.x.T
    kernel /= np.float32(p.ridge)
    kernel.flat[:: len(kernel) + 1] += 1
    build_s = time.perf_counter() - start
    left = kernel.diagonal().copy()
    rows = np.zeros((p.budget, len(kernel)), np.float32)
    picks = np.empty(p.budget, np.int64)
    for t in range(p.budget):
        picks[t] = j = int(left.argmax())
        rows[t] = (kernel[j] - rows[:t, j] @ rows[:t]) / np.sqrt(left[j])
        left -= np.square(rows[t])
        left[j] = -np.inf
    return Answer(picks, build_s)


def bmdal_d_optimal(p: Problem) -> Answer:
    """MaxDet, in kernel space as the package chooses for these sizes."""
    with _numpy_1_names():
        from bmdal_reg.bmdal.selection import MaxDetSelectionMethod

        pool, nothing = _bmdal_features(p.x), _bmdal_features(p.x[:1])
        method = MaxDetSelectionMethod(pool, nothing, sel_with_train=False, noise_sigma=p.ridge**0.5, verbosity=0)
        return Answer(_bmdal_select(method, p.budget))


def _numpy_1_names():
    """bmdal-reg 3.0.2 says np.Inf, which NumPy 2 has no more."""
    return mock.patch.object(np, "Inf", np.inf, create=True)


def _bmdal_features(x: np.ndarray):
    import torch
    from bmdal_reg.bmdal.feature_data import TensorFeatureData
    from bmdal_reg.bmdal.feature_maps import IdentityFeatureMap
    from bmdal_reg.bmdal.features import Features

    data = TensorFeatureData(torch.from_numpy(x))
    return Features(IdentityFeatureMap(n_features=x.shape[1]), data).precompute().simplify()


def _bmdal_select(method, budget: int) -> np.ndarray:
    picks = method.select(budget).numpy()
    if method.get_status():
        raise RuntimeError(method.get_status())
    return picks


# facility_location


def apricot_facility_location(p: Problem) -> Answer:
    """FacilityLocationSelection with its lazy optimizer."""
    from apricot import FacilityLocationSelection

    similarities, build_s = _similarities(p)
    chosen = FacilityLocationSelection(p.budget, metric="precomputed", optimizer="lazy").fit(similarities)
    return Answer(chosen.ranking, build_s)


def submodlib_facility_location(p: Problem) -> Answer:
    """FacilityLocationFunction with LazyGreedy."""
    from submodlib import FacilityLocationFunction

    similarities, build_s = _similarities(p)
    function = FacilityLocationFunction(n=len(p.x), mode="dense", separate_rep=False, sijs=similarities)
    chosen = function.maximize(budget=p.budget, optimizer="LazyGreedy", show_progress=False)
    return Answer(np.array([row for row, _ in chosen]), build_s)


def _similarities(p: Problem) -> tuple[np.ndarray, float]:
    from sklearn.metrics.pairwise import rbf_kernel

    start = time.perf_counter()
    return rbf_kernel(p.x, gamma=1 / p.gamma), time.perf_counter() - start


PEERS: dict[str, dict[str, Peer]] = {
    "k_center": {
        "numpy": Peer(numpy_k_center),
        "torch": Peer(torch_k_center, ("torch",), note="a matrix-vector product a pick, as numpy"),
        "torch-cdist": Peer(torch_cdist_k_center, ("torch",), note="torch.cdist a pick"),
        "skmatter": Peer(skmatter_k_center, ("skmatter",)),
        "scikit-activeml": Peer(skactiveml_k_center, ("skactiveml",)),
        "bmdal-reg": Peer(bmdal_k_center, ("torch", "bmdal_reg")),
        "scikit-learn": Peer(sklearn_k_center, ("sklearn",)),
    },
    "d_optimal": {
        "numpy": Peer(numpy_d_optimal),
        "chen-2018": Peer(chen_d_optimal, note="our NumPy code of the paper's Algorithm 1 on an (n, n) kernel"),
        "bmdal-reg": Peer(bmdal_d_optimal, ("torch", "bmdal_reg")),
    },
    "facility_location": {
        "apricot-select": Peer(
            apricot_facility_location,
            ("apricot", "sklearn"),
            "compiles with Numba at every fit, which is counted; copies the similarities to float64",
        ),
        "submodlib": Peer(submodlib_facility_location, ("submodlib", "sklearn")),
    },
}


def installed(method: str) -> list[str]:
    """The peers of a method whose packages are here."""
    return [name for name, peer in PEERS[method].items() if all(find_spec(module) for module in peer.modules)]


def usable(method: str, names: list[str]) -> tuple[dict[str, Peer], dict[str, str]]:
    """Those of `names` that can be run, and the reason for each that cannot.

    Each is tried on a small pool, so that what it imports and compiles once is not in a time taken later.
    """
    good, skipped = {}, {}
    small = problem(np.random.default_rng(0).standard_normal((200, 8)).astype(np.float32), 5)
    for name in names:
        peer = PEERS[method][name]
        try:
            for module in peer.modules:
                importlib.import_module(module)
            peer.run(small)
        except Exception as e:
            skipped[name] = reason(e)
        else:
            good[name] = peer
    return good, skipped


def reason(e: Exception) -> str:
    """An exception in a line."""
    return f"{type(e).__name__}: {e}".splitlines()[0]


# What a choice is worth, in float64


def radius(p: Problem, picks: np.ndarray) -> float:
    """k_center: the largest distance of a row to its nearest pick."""
    return max(float(nearest.max()) for nearest in _nearest(p.x, picks)) ** 0.5


def log_det(p: Problem, picks: np.ndarray) -> float:
    """d_optimal: log det(I + X_S^T X_S / ridge)."""
    rows = p.x[picks].astype(np.float64)
    return float(np.linalg.slogdet(np.eye(rows.shape[1]) + rows.T @ rows / p.ridge)[1])


def coverage(p: Problem, picks: np.ndarray) -> float:
    """facility_location: sum_i max_{j in S} exp(-||x_i - x_j||^2 / gamma)."""
    return sum(float(np.exp(-nearest / p.gamma).sum()) for nearest in _nearest(p.x, picks))


VALUES: dict[str, tuple[str, Callable[[Problem, np.ndarray], float]]] = {
    "k_center": ("covering radius, less is better", radius),
    "d_optimal": ("log det, more is better", log_det),
    "facility_location": ("sum of similarities, more is better", coverage),
}


def _nearest(x: np.ndarray, picks: np.ndarray, tile: int = 4096):
    """Squared distances to the nearest pick, a tile of rows at a time."""
    mean = x.mean(0, dtype=np.float64)
    chosen = x[picks] - mean
    norms = np.sum(chosen * chosen, axis=1)
    for start in range(0, len(x), tile):
        rows = x[start : start + tile] - mean
        square = np.sum(rows * rows, axis=1)[:, None] + norms - 2 * (rows @ chosen.T)
        yield np.maximum(square.min(axis=1), 0)
