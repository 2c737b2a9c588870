"""jit, vmap, one trace a shape, and a pool split over devices."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kernel_cases import SELECTORS, Problem, assert_greedy, mixture
from quick import of_devices

from edjax.kernels import Block, FacilityLocation, Ground, Objective, facility_location, geometry, maximize, stacked
from edjax.kernels.ground import _select

all_selectors = pytest.mark.parametrize("name", SELECTORS)


@all_selectors
def test_inside_jit(name):
    select, twin = SELECTORS[name]
    x, rows = mixture(1, 90, 6), np.array([3, 5])
    inside = jax.jit(lambda x, rows: select(x, 20, labelled=rows, block=16))(x, rows)
    assert_greedy(inside, twin, Problem(x, 20, {"labelled": rows.tolist()}))


@all_selectors
@pytest.mark.parametrize("together", [False, True])
def test_vmap_over_pools(name, together, monkeypatch):
    if together:  # what an accelerator does
        monkeypatch.setattr(stacked, "in_turn_pays", lambda: False)
    select, twin = SELECTORS[name]
    n = 91 if together else 90  # a shape of its own: the rule is cached with the compilation
    stack = np.stack([mixture(s, n, 6) for s in range(4)])
    picks = jax.vmap(lambda p: select(p, 20, block=16))(stack)
    for i, pool in enumerate(stack):
        assert_greedy(jax.tree.map(lambda a, i=i: a[i], picks), twin, Problem(pool, 20, {}))


@all_selectors
def test_vmap_nests_and_keeps_what_is_shared(name):
    select, _ = SELECTORS[name]
    stack = np.stack([mixture(s, 50, 4) for s in range(6)]).reshape(2, 3, 50, 4)
    starts = jnp.array([[0], [9]])

    def both(pool, rows):
        return select(pool, 8, labelled=rows, block=16).indices

    over_starts = jax.vmap(both, (None, 0))
    got = jax.jit(jax.vmap(jax.vmap(over_starts, (0, None)), (0, None)))(stack, starts)
    assert got.shape == (2, 3, 2, 8)
    for i in np.ndindex(2, 3, 2):
        assert got[i].tolist() == both(stack[i[:2]], starts[i[2]]).tolist()


@all_selectors
def test_vmap_over_start_sets(name):
    select, twin = SELECTORS[name]
    x, starts = mixture(1, 90, 6), jnp.array([[0, 1], [40, 41], [7, 89]])
    picks = jax.vmap(lambda rows: select(x, 20, labelled=rows, block=16))(starts)
    for i, rows in enumerate(starts):
        one = jax.tree.map(lambda a, i=i: a[i], picks)
        assert_greedy(one, twin, Problem(x, 20, {"labelled": rows.tolist()}))


@all_selectors
def test_one_trace_for_three_calls(name):
    select, _ = SELECTORS[name]
    jitted = _select
    before = jitted._cache_size()
    for seed in range(3):
        select(mixture(seed, 73, 4), 9)
    assert jitted._cache_size() == before + 1


@all_selectors
def test_tiles_change_nothing(name, monkeypatch):
    monkeypatch.setattr(geometry, "_WHOLE_ELEMENTS", 0)
    monkeypatch.setattr(geometry, "_TILE_ELEMENTS", 64 * 50)
    select, twin = SELECTORS[name]
    x = mixture(2, 301, 5)  # a shape of its own: a cached compilation would not be tiled
    assert_greedy(select(x, 40), twin, Problem(x, 40, {}))


def test_a_fourth_objective_needs_no_engine_line():
    """Weighted coverage: the gain of a set is the weight of what it newly covers."""
    rng = np.random.default_rng(0)
    sets = jnp.asarray(rng.random((60, 40)) < 0.1)
    weights = jnp.asarray(rng.random(40), jnp.float32)

    def gains(sets, covered):
        return jnp.sum(jnp.where(sets & ~covered, weights, 0), axis=-1)

    covered = jnp.zeros(40, bool)
    coverage = Objective(
        init=lambda: (covered, gains(sets, covered)),
        refresh=lambda covered, ids: Block(gains(sets[ids], covered), sets[ids], covered),
        take=lambda rows, covered, old, j: (covered | rows[j], old),
        commit=lambda covered, bounds, block, order, count: (block.live, bounds),
        peek=lambda rows, covered, j: gains(rows[j], covered),
    )
    picks = jax.jit(lambda: maximize(coverage, 15, block=8))().indices.tolist()
    expected = []
    for _ in range(15):
        now = np.array(gains(sets, covered))
        now[expected] = -1
        expected.append(int(np.argmax(now)))
        covered = covered | sets[expected[-1]]
    assert picks == expected


def test_facility_location_in_tiles_holds_no_square():
    n = 20_000
    ground = Ground({"embedding": jax.ShapeDtypeStruct((n, 16), jnp.float32)}, given=jnp.zeros(0, jnp.int32))
    static = {"budget": 50, "block": 128, "precision": "highest", "shards": 1}
    compiled = _select.lower(FacilityLocation(form="tiled"), ground, None, **static).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 4 * n * n / 16
    assert facility_location(mixture(0, 50, 3), 5, memory=0).indices.shape == (5,)


SHARDED = """
    import re
    import jax, jax.numpy as jnp, numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec
    from kernel_cases import SELECTORS, mixture
    from edjax.kernels import geometry

    def largest(line):
        shapes = re.findall(r"[a-z]+[0-9]*\\[([0-9,]*)\\]", line)
        return max(int(np.prod([int(v) for v in shape.split(",") if v])) for shape in shapes)

    n, d = 2048, 24
    assert len(jax.devices()) == 8
    x = mixture(0, n, d)
    split = jax.device_put(x, NamedSharding(Mesh(np.array(jax.devices()), ("rows",)), PartitionSpec("rows")))
    for name, (select, _) in SELECTORS.items():
        options = {"form": "tiled"} if name == "facility_location" else {}
        one = select(x, 60, block=32, **options).indices.tolist()
        for shards in (None, 8):
            if shards:
                geometry._WHOLE_ELEMENTS, geometry._TILE_ELEMENTS = 0, 64 * 50  # several tiles a device
            call = jax.jit(lambda x: select(x, 60, block=32, shards=shards, **options)).lower(split).compile()
            assert call(split).indices.tolist() == one, name
            for line in call.as_text().splitlines():
                if re.search(r"= .*(all-gather|all-to-all|all-reduce|collective-permute)[(]", line):
                    assert largest(line) < n * d / 4, (name, shards, line)
    assert select(split, 60, block=32, **options).indices.tolist() == one
    print("same picks")
"""


def test_a_pool_split_over_eight_devices():
    script = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n" + textwrap.dedent(SHARDED)
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | of_devices(8),
        capture_output=True,
        text=True,
    )
    assert "same picks" in done.stdout, done.stdout + done.stderr


@all_selectors
def test_picks_are_constants_to_grad(name):
    select, _ = SELECTORS[name]
    x = jnp.asarray(mixture(11, 60, 4))
    gradient = jax.grad(lambda z: jnp.sum(z[select(z, 5).indices] ** 2))(x)
    rows = select(x, 5).indices
    np.testing.assert_allclose(gradient, jnp.zeros_like(x).at[rows].set(2 * x[rows]))


@all_selectors
@pytest.mark.parametrize("n", [60, 13_000])
def test_with_x64_on(name, n):
    select, _ = SELECTORS[name]
    x = mixture(12, n, 3)
    options = {"form": "tiled"} if name == "facility_location" and n > 1000 else {}
    expected = select(x, 4, **options).indices.tolist()
    with jax.enable_x64(True):
        assert select(x, 4, **options).indices.tolist() == expected
