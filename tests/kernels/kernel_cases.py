"""What the kernel tests share: one table of selectors, random pools, and the honest comparison with the twin."""

from typing import NamedTuple

import numpy as np

from edjax.kernels import Ground, Method, Sorted, d_optimal, facility_location, k_center, reference

SELECTORS = {
    "k_center": (k_center, reference.k_center),
    "d_optimal": (d_optimal, reference.d_optimal),
    "facility_location": (facility_location, reference.facility_location),
}


class Problem(NamedTuple):
    x: np.ndarray
    budget: int
    options: dict


def mixture(seed: int, n: int, d: int, clusters: int = 8) -> np.ndarray:
    """A Gaussian mixture with clusters of unequal spread, float32."""
    rng = np.random.default_rng(seed)
    centres = 2 * rng.normal(size=(clusters, d))
    spread = rng.uniform(0.3, 1.5, (n, 1))
    return (centres[rng.integers(0, clusters, n)] + spread * rng.normal(size=(n, d))).astype(np.float32)


WIDE = {"tokens": (3, 4)}  # columns that are no scores: what a row of each is
PAIRS = ("icl_utility",)  # and those with a number for each row


def ground_for(method: Method, seed: int = 0, n: int = 61, **more) -> Ground:
    """A pool with every column that the method reads, and a target where it cannot do without."""
    rng = np.random.default_rng(seed)
    columns = {"embedding": mixture(seed, n, 5)} if "embedding" in method.needs else {}
    for name in method.needs:
        if name not in columns:
            shape = (n, n) if name in PAIRS else (n, *WIDE.get(name, ()))
            values = rng.normal(size=shape).astype(np.float32)
            columns[name] = values if len(shape) > 1 or isinstance(method, Sorted) else np.abs(values)
    columns |= {name: rng.permutation(n) for name in method.groups}
    if "n_response_tokens" in method.needs:
        columns["n_response_tokens"] = rng.integers(1, 9, n)
    if "group" in method.takes:
        columns["group"] = rng.integers(0, 4, n)
    if "draw" in method.takes:
        columns["draw"] = rng.permutation(n).astype(np.float32)
    target = {"embedding": mixture(seed + 100, 4, 5)} if method.needs_target else None
    return Ground(columns, target=target, **more)


# n, d, budget, block, options: ten shapes, so that the problems of one shape share a compilation.
FAMILIES = [
    (37, 2, 20, 1, ()),
    (64, 16, 33, 7, ()),
    (120, 24, 50, 256, ()),
    (150, 8, 40, 150, ()),
    (90, 5, 30, 7, ("labelled",)),
    (90, 12, 30, 256, ("labelled",)),
    (80, 6, 25, 7, ("weights",)),
    (80, 20, 25, 80, ("weights",)),
    (100, 10, 40, 16, ("labelled", "weights")),
    (70, 9, 64, 7, ("variant",)),
]
VARIANTS = {"k_center": {"first": 3}, "d_optimal": {"centre": True}, "facility_location": {"similarity": "cosine"}}


def problem(name: str, seed: int) -> tuple[Problem, int]:
    """Random problem number `seed` of a selector, and the block size to run it with."""
    rng = np.random.default_rng([seed, 7])
    n, d, budget, block, wanted = FAMILIES[seed % len(FAMILIES)]
    options = {}
    if "labelled" in wanted:
        options["labelled"] = rng.choice(n, 5, replace=False).tolist()
    if "weights" in wanted:
        options["weights"] = rng.uniform(0.2, 2.0, n).astype(np.float32)
    if "variant" in wanted:
        options |= VARIANTS[name]
    return Problem(mixture(seed, n, d), budget, options), block


def assert_greedy(selection, twin, p: Problem, rtol: float = 2e-5) -> None:
    """Every pick is greedy in float64 up to rounding, and the order is the twin's up to the first near-tie."""
    picks, gains = np.asarray(selection.indices), np.asarray(selection.gains)
    assert picks.shape == gains.shape == (p.budget,)
    assert len(set(picks.tolist())) == p.budget, "a row was picked twice"
    assert not set(picks.tolist()) & set(p.options.get("labelled", ())), "a labelled row was picked"
    oracle = twin(p.x, p.budget, **p.options)
    finite = np.isfinite(oracle.best)
    scale = np.abs(oracle.gains[finite]).max(initial=1e-30)
    near_tie = finite & (oracle.best - oracle.second <= rtol * scale)
    until = int(np.argmax(near_tie)) if near_tie.any() else p.budget
    np.testing.assert_array_equal(picks[:until], oracle.indices[:until])
    followed = twin(p.x, p.budget, **p.options, follow=picks)
    ok = np.isfinite(followed.best) & np.isfinite(followed.gains)
    assert (followed.best[ok] - followed.gains[ok]).max(initial=0) <= rtol * scale, "a pick was not greedy"
    np.testing.assert_array_equal(np.isfinite(gains), np.isfinite(followed.gains))
    np.testing.assert_allclose(gains[ok], followed.gains[ok], rtol=1e-3, atol=5e-4 * scale)
