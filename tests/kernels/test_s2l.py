"""S2L: quotas of the worked examples, the picks by their definition, a draw that is even."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edjax.kernels import METHODS, Ground, kmeans, select
from edjax.kernels.methods.s2l import drawn
from edjax.kernels.quotas import water_filling

S2L = METHODS["s2l"]
N, T = 61, 4


@pytest.mark.parametrize(
    ("sizes", "budget", "above", "quota"),
    [
        ([50, 3, 10, 100], 60, 0, [23, 3, 10, 24]),
        ([50, 3, 10, 100], 160, 0, [50, 3, 10, 97]),
        ([5, 5, 5], 7, 0, [2, 2, 3]),
        ([40, 2, 9, 1, 8], 30, 2, [13, 0, 9, 0, 8]),
        ([4, 2, 3, 1], 9, 2, [4, 0, 3, 0]),  # and 2 from the small ones
        ([0, 7], 9, 0, [0, 7]),
        ([], 3, 0, []),
    ],
)
def test_the_worked_examples_of_quotas(sizes, budget, above, quota):
    """SYSTEMS 1.9."""
    assert water_filling(jnp.asarray(sizes, jnp.int32), budget, above=above).tolist() == quota


def test_quotas_are_a_level_within_a_row():
    quotas = jax.jit(water_filling)
    for seed in range(200):
        rng = np.random.default_rng(seed)
        sizes = rng.integers(0, 50, 6)
        budget = int(rng.integers(0, sizes.sum() + 5))
        got = np.asarray(quotas(sizes, budget))
        assert got.sum() == min(budget, sizes.sum()) and (got <= sizes).all()
        level = got[got < sizes]
        assert level.size == 0 or (level.max() - level.min() <= 1 and got.max() <= level.min() + 1)


def by_definition(sizes, budget):
    left, waiting, quota = budget, len(sizes), [0] * len(sizes)
    for i in sorted(range(len(sizes)), key=lambda i: (sizes[i], i)):
        quota[i] = min(sizes[i], left // waiting)
        left, waiting = left - quota[i], waiting - 1
    return quota


def test_the_picks_are_those_of_the_rule():
    """50 chance problems against loops over sources and clusters."""
    sources, clusters, budget = 3, 5, 25
    run = jax.jit(lambda *a: drawn(*a, sources, clusters, budget)[0])
    for seed in range(50):
        rng = np.random.default_rng(seed)
        source = rng.choice(sources, N, p=[0.1, 0.3, 0.6]).astype(np.int32)
        labels = rng.choice(np.arange(-1, clusters), N, p=[0.05, 0.5, 0.3, 0.05, 0.05, 0.05]).astype(np.int32)
        draw = rng.permutation(N).astype(np.float32) / N
        want = set()
        of_source = by_definition([np.count_nonzero((source == s) & (labels >= 0)) for s in range(sources)], budget)
        for s, most in enumerate(of_source):
            rows = [[i for i in range(N) if source[i] == s and labels[i] == c] for c in range(clusters)]
            large, few = [r for r in rows if len(r) > 2], [i for r in rows if len(r) <= 2 for i in r]
            quota = by_definition([len(r) for r in large], most)
            for r, q in zip([*large, few], [*quota, most - sum(quota)], strict=True):
                want |= set(sorted(r, key=lambda i: draw[i])[:q])
        assert set(np.flatnonzero(run(source, labels, draw)).tolist()) == want, seed


def problem(**more):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, T)).astype(np.float32) + 6 * rng.integers(0, 3, N)[:, None].astype(np.float32)
    x[[5, 40], 1] = np.nan
    return Ground({"trajectory": x, "from": np.arange(N) % 4 // 3}, **more)


def test_every_source_and_cluster_gives_its_part():
    there = problem(given=np.array([0, 3]), valid=np.arange(N) != 2)
    method = replace(S2L, clusters=3, by="from")
    got = select(method, there, 20, key=jax.random.key(1))
    picks = np.asarray(got.indices)
    assert len(set(picks.tolist())) == 20 and not {0, 2, 3, 5, 40} & set(picks.tolist())
    source = np.asarray(there.columns["from"])
    assert np.bincount(source[picks]).tolist() == [10, 10] and (np.asarray(got.gains) == 0).all()
    mine = np.where(((source == 0) & ~np.isin(np.arange(N), [0, 2, 3]))[:, None], there.columns["trajectory"], np.nan)
    labels = np.asarray(kmeans(jnp.asarray(mine), 3).labels)
    sizes = np.bincount(labels[labels >= 0], minlength=3)
    assert np.bincount(labels[picks[source[picks] == 0]], minlength=3).tolist() == by_definition(sizes.tolist(), 10)


def test_rows_without_numbers_come_last_and_no_row_twice():
    got = select(replace(S2L, clusters=3), problem(), N, key=jax.random.key(0))
    picks = got.indices.tolist()
    assert sorted(picks) == list(range(N)) and picks[-2:] == [5, 40]
    assert np.asarray(got.gains)[-2:].tolist() == [-np.inf] * 2


def test_the_draw_is_even_and_by_the_key():
    x = jnp.asarray(np.repeat(np.eye(2, T), [12, 18], axis=0))
    one = jax.jit(lambda key: select(replace(S2L, clusters=2), Ground({"trajectory": x}), 10, key=key).indices)
    picks = np.asarray(jax.jit(lambda keys: jax.lax.map(one, keys))(jax.random.split(jax.random.key(0), 600)))
    assert ((picks < 12).sum(axis=1) == 5).all(), "half from each kind"
    counts, share = np.bincount(picks.ravel(), minlength=30), np.repeat([5 / 12, 5 / 18], [12, 18])
    assert (np.abs(counts - 600 * share) < 5 * np.sqrt(600 * share * (1 - share))).all()
    assert (one(jax.random.key(1)) == one(jax.random.key(1))).all()


def test_what_makes_no_sense_is_named():
    for method, columns, said in [
        (S2L, {"trajectory": np.zeros(5)}, r"trajectory must have shape \(5, \*\)"),
        (S2L, {"embedding": np.zeros((5, 2))}, "s2l needs the column 'trajectory'"),
        (replace(S2L, clusters=0), {"trajectory": np.zeros((5, 2))}, "clusters must be at least 1"),
        (replace(S2L, by="from"), {"trajectory": np.zeros((5, 2)), "from": np.full(5, 9)}, "from must be from 0 to 4"),
    ]:
        with pytest.raises(ValueError, match=said):
            select(method, Ground(columns), 2, key=jax.random.key(0))
    with pytest.raises(ValueError, match="s2l needs key"):
        select(S2L, Ground({"trajectory": np.zeros((5, 2))}), 2)
