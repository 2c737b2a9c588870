"""A deep submodular function, learned from facility location on a part of the rows."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from edjax.kernels import FacilityLocation, FeatureBased, Ground, measure, select

FITTED = 1000  # rows at most that it is fitted on: facility location is quadratic in them
LARGEST = 96  # rows of a set at most
ROUNDS = 4  # of drawing sets: those of a round are like the picks of the function so far
BATCH = 128  # pairs a step
BANDWIDTH = 0.25  # of the oracle's kernel, facility_location's own
LEARNING_RATE = 3e-3
SHARPNESS, THRESHOLD = 16.0, 0.75  # before fitting a feature rises from a cosine of 0.75 to its row on
SAME = 1e-6  # differences of the oracle, whose whole value is 1, that say nothing


class Pillar(nnx.Module):
    """Rows x (n, d) to features (n, f) of 0 or more: softplus(W2 relu(W1 x / ||x|| + b1) + b2).

    Before fitting a feature is the likeness to one row, an `anchor` (f, d).
    """

    def __init__(self, anchors: jax.Array):
        f = anchors.shape[0]
        self.inner = nnx.Param(_unit(anchors).T)
        self.inner_bias = nnx.Param(jnp.zeros(f))
        self.outer = nnx.Param(SHARPNESS * jnp.eye(f))
        self.outer_bias = nnx.Param(jnp.full(f, -SHARPNESS * THRESHOLD))

    def __call__(self, x: jax.Array) -> jax.Array:
        hidden = jax.nn.relu(_unit(x) @ self.inner[...] + self.inner_bias[...])
        return jax.nn.softplus(hidden @ self.outer[...] + self.outer_bias[...])


class DeepSubmodular(nnx.Module):
    """F(A) = sum_f w_f ln(1 + sum_{j in A} c_jf), c = pillar(x): monotone and submodular whatever its parameters."""

    def __init__(self, anchors: jax.Array):
        self.pillar = Pillar(anchors)
        self.roof = nnx.Param(jnp.zeros(anchors.shape[0]))

    @property
    def weights(self) -> jax.Array:
        """w (f,), 0 or more."""
        return jax.nn.softplus(self.roof[...])

    def __call__(self, c: jax.Array, sets: jax.Array) -> jax.Array:
        """F (s,) of sets (s, n), 1 where a row is in one, of rows whose features are c (n, f)."""
        return jnp.log1p(sets @ c) @ self.weights


def _unit(x: jax.Array) -> jax.Array:
    return x / jnp.maximum(jnp.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def peripteral(learned: jax.Array, oracle: jax.Array) -> jax.Array:
    """|D| ln(1 + exp(1 - d / D)), D what one set is worth more than another by the oracle and d by the learner: (s,).

    It falls as d grows in the direction of D, and counts a pair the more, the clearer it is. 0 where D is.
    """
    clear = jnp.abs(oracle) > SAME
    ratio = learned / jnp.where(clear, oracle, 1)
    return jnp.where(clear, jnp.abs(oracle) * jnp.logaddexp(0.0, 1 - ratio), 0)


class Pairs(NamedTuple):
    """Sets in pairs of one size, set i with set s + i: `members` (2 s, n) float32, 1 where a row is in a set, and
    `values` (2 s,), facility location's, 1 for all rows."""

    members: jax.Array
    values: jax.Array


@functools.partial(jax.jit, static_argnames=("count",))
def draw(key: jax.Array, similarity: jax.Array, orders: jax.Array, count: int) -> Pairs:
    """Graded sets: a share of a set's rows, itself drawn, stand in one of `orders` (o, k) or in a bunch of like rows,
    and the others are any. Sizes are from 1 to k, small ones as often as large ones in their logarithm."""
    n, (kinds, k) = similarity.shape[0], orders.shape
    keys = jax.random.split(key, 7)
    size = jnp.exp(jax.random.uniform(keys[0], (count,)) * jnp.log(k + 0.99)).astype(jnp.int32)
    near = jax.lax.top_k(similarity, k)[1][jax.random.randint(keys[1], (2 * count,), 0, n)]
    bunch = jax.random.permutation(keys[2], near, axis=1, independent=True)
    kind = jax.random.randint(keys[3], (2 * count,), -1, kinds)
    of_order = jnp.where((kind < 0)[:, None], bunch, orders[kind])
    share = jax.random.uniform(keys[4], (2 * count, 1))
    other = jax.random.randint(keys[5], (2 * count, k), 0, n)
    rows = jnp.where(jax.random.uniform(keys[6], (2 * count, k)) < share, of_order, other)
    there = jnp.arange(k) < jnp.concatenate([size, size])[:, None]

    def value(one):
        return jnp.max(jnp.where(one[1], similarity[:, one[0]], 0), axis=1).mean()

    values = jax.lax.map(value, (rows, there), batch_size=32)
    where = jnp.arange(2 * count)[:, None]
    return Pairs(jnp.zeros((2 * count, n)).at[where, rows].max(there.astype(jnp.float32)), values)


def loss(model: DeepSubmodular, x: jax.Array, pairs: Pairs, at: jax.Array) -> jax.Array:
    """The mean peripteral loss of the pairs `at`, F divided by its value of all rows, as the oracle's is."""
    count = pairs.values.shape[0] // 2
    both = jnp.concatenate([at, count + at])
    c = model.pillar(x)
    f = model(c, pairs.members[both]) / model(c, jnp.ones((1, x.shape[0])))
    d = pairs.values[at] - pairs.values[count + at]
    return peripteral(f[: at.shape[0]] - f[at.shape[0] :], d).mean()


@functools.partial(jax.jit, static_argnames=("graph", "steps"))
def _round(graph: Any, state: Any, moments: Any, x: jax.Array, pairs: Pairs, key: jax.Array, steps: int) -> Any:
    """`steps` of Adam, each on pairs drawn anew from those of the round."""

    def step(carry: Any, key: jax.Array) -> Any:
        state, moments = carry
        at = jax.random.randint(key, (BATCH,), 0, pairs.values.shape[0] // 2)
        value, slope = jax.value_and_grad(lambda s: loss(nnx.merge(graph, s), x, pairs, at))(state)
        updates, moments = _ADAM.update(slope, moments)
        return (optax.apply_updates(state, updates), moments), value

    return jax.lax.scan(step, (state, moments), jax.random.split(key, steps))


_ADAM = optax.adam(LEARNING_RATE)


def fit(x: np.ndarray, *, width: int, steps: int, sets: int, seed: int) -> DeepSubmodular:
    """A function fitted to facility location on finite rows x (n, d), on at most `FITTED` of them.

    Each of `ROUNDS` rounds draws `sets` pairs of sets: of bunches of like rows, of facility location's greedy picks,
    and of the picks by the function so far, all mixed with rows at random; then takes its share of the steps.

    Cost: for m rows it is fitted on and f features m f (d + f + 2 BATCH) multiplications a step, three times, and a
    round m sets LARGEST comparisons. Memory: 8 m sets bytes.
    """
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(len(x), min(FITTED, len(x)), replace=False))
    some = jnp.asarray(x[rows], jnp.float32)
    m = len(rows)
    anchors = some[np.sort(rng.choice(m, min(width, m), replace=False))]
    graph, state = nnx.split(DeepSubmodular(anchors))
    most, key, moments = max(min(LARGEST, m // 2), 1), jax.random.key(seed), _ADAM.init(state)
    similarity = measure.rbf_similarity(some, some, BANDWIDTH)
    taught = select(FacilityLocation(bandwidth=BANDWIDTH), Ground({"embedding": some}), most).indices
    for part in np.array_split(np.arange(steps), ROUNDS):
        if not len(part):
            break
        key, drawing, stepping = jax.random.split(key, 3)
        ground = Ground({"counts": nnx.merge(graph, state).pillar(some)})
        own = select(by_features(nnx.merge(graph, state)), ground, most).indices
        pairs = draw(drawing, similarity, jnp.stack([taught, own]), sets)
        (state, moments), _ = _round(graph, state, moments, some, pairs, stepping, len(part))
    return nnx.merge(graph, state)


def by_features(model: DeepSubmodular) -> FeatureBased:
    """The method that maximises the function, of a column "counts" that holds the rows' features."""
    return FeatureBased(concave="log1p", column="counts", weights=model.weights)
