"""What the tests of selections share: columns for every strategy, and the honest comparison with the float64 twin."""

import numpy as np

from edjax.data.features import SCORES
from edjax.kernels import reference
from edjax.selection.strategies import STRATEGIES, scores_of

FITTED = ("dspn",)  # fits a network for each call, so it has tests of its own
# Those that serve any pool and spend any budget.
SERVING = [
    name for name, method in STRATEGIES.items() if not method.needs_target and not method.fewer and name not in FITTED
]
NESTED = [name for name in SERVING if STRATEGIES[name].nested]


def scores(n, rng):
    """Every score that a strategy of the table reads, random."""
    read = (*SCORES, *sorted(name for method in STRATEGIES.values() for name in scores_of(method)))
    other = facts(n) | arrays(n) | pairs(n)
    return {name: rng.random(n, np.float32) for name in dict.fromkeys(read) if name not in other}


def facts(n):
    """What they read beside: every row is the response, of one token, to a prompt of its own."""
    return {"prompt_id": np.asarray([f"p{i}" for i in range(n)], object), "n_response_tokens": np.ones(n, np.int32)}


def arrays(n):
    """And with more than a number in each row."""
    rng = np.random.default_rng(0)
    return {"trajectory": rng.random((n, 4), np.float32), "tokens": rng.random((n, 3, 4), np.float32)}


def pairs(n):
    """And with a number for each other row, one of which is not known."""
    found = np.random.default_rng(1).normal(size=(n, n)).astype(np.float32)
    found[0, 1:2] = np.nan
    return {"icl_utility": found}


def assert_greedy(picks, strategy, x, rtol=2e-5, **options):
    """Every pick is greedy in float64 up to rounding, and the order is the twin's up to the first near-tie."""
    twin = getattr(reference, strategy)
    oracle, followed = twin(x, len(picks), **options), twin(x, len(picks), **options, follow=picks)
    finite = np.isfinite(oracle.best)
    scale = np.abs(oracle.gains[finite]).max(initial=1e-30)
    near_tie = finite & (oracle.best - oracle.second <= rtol * scale)
    until = int(np.argmax(near_tie)) if near_tie.any() else len(picks)
    np.testing.assert_array_equal(picks[:until], oracle.indices[:until])
    ok = np.isfinite(followed.best) & np.isfinite(followed.gains)
    assert (followed.best[ok] - followed.gains[ok]).max(initial=0) <= rtol * scale, "a pick was not greedy"
