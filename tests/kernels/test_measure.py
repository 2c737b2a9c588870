"""What rows are measured with, held to its definition in float64, and to what the command line computes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edjax.kernels import FacilityLocation, Ground, float64, measure, on_host, reference, select
from edjax.selection import defaults

N, D, Q = 200, 12, 10
WIDEST, NARROWEST = 30, 0.1


def rows(seed, offset=0.0):
    """Rows with an offset and a spectrum as wide as that of hidden states."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.normal(size=(D, D)))[0]
    return (rng.normal(size=(N, D)) * np.geomspace(WIDEST, NARROWEST, D) @ turn + offset).astype(np.float32)


@pytest.fixture(scope="module")
def problems():
    return np.stack([rows(seed, offset) for seed in range(17) for offset in (0, 50, 1000)])


# Preparation


@pytest.mark.parametrize("normalise", measure.NORMALISE)
def test_fifty_pools_at_once_are_those_of_the_definition(problems, normalise):
    by = jax.vmap(lambda x: measure.fit(x, normalise, Q))(problems)
    got = jax.vmap(measure.apply)(by, problems)
    assert got.dtype == jnp.float32
    for x, ours in zip(problems, np.asarray(got), strict=True):
        twin = reference.prepare(x, normalise, Q)
        # What `fit` says: of a component that is 300 times narrower than the widest, 300 x 10^-6.
        near = WIDEST / NARROWEST * 1e-6 if normalise == "whiten" else 2e-7 * np.abs(twin).max()
        np.testing.assert_allclose(ours, twin, atol=near)


@pytest.mark.parametrize("normalise", ["whiten", "l2", "centre"])
def test_the_host_s_preparation_is_the_same_one(problems, normalise):
    for x in problems[:9]:
        ours, theirs = measure.fit(x, normalise, Q), on_host.fit([x[:90], x[90:]], N, normalise, Q)
        if normalise != "centre":
            theirs, _ = on_host.scaled(theirs, on_host.projected(theirs, x))
        assert jax.tree.structure(ours) == jax.tree.structure(theirs)
        np.testing.assert_allclose(ours.mean.sum(0), theirs.mean.sum(0), atol=1e-6 * np.abs(x).max())
        if ours.axes is not None:
            scale = np.abs(theirs.axes).max(axis=0)
            np.testing.assert_allclose(ours.axes / scale, theirs.axes / scale, atol=3e-4)
        # Either's preparation may be applied by the other.
        np.testing.assert_allclose(measure.apply(theirs, x), on_host.apply(theirs, x), atol=2e-6 * np.abs(x).max())


def test_fitted_on_some_rows_and_applied_to_all():
    x = rows(0, 50)
    some = np.arange(N) % 2 == 0
    spoilt = x.copy()
    spoilt[1], spoilt[3, 2] = np.nan, np.inf
    fitted = jax.jit(lambda x, valid: measure.fit(x, "whiten", Q, valid=valid))(spoilt, some)
    twin = reference.prepare(x, "whiten", Q, fitted_on=np.flatnonzero(some))
    np.testing.assert_allclose(measure.apply(fitted, x), twin, atol=3e-4)
    seen = measure.apply(fitted, spoilt)
    assert np.flatnonzero(~np.isfinite(seen).all(axis=1)).tolist() == [1, 3]


def test_few_rows_leave_few_axes():
    """The shape is that of the arguments; what the rows do not tell apart is zero."""
    by = measure.fit(rows(0), "whiten", Q, valid=np.arange(N) < 13)
    assert by.axes.shape == (D, Q) and np.flatnonzero(np.asarray(by.axes).any(axis=0)).tolist() == [0, 1, 2]
    flat = rows(0)
    flat[:, 6:] = flat[:, :6]  # twelve features, six directions
    assert np.asarray(measure.fit(flat, "whiten", Q).axes).any(axis=0).sum() == 6
    same = np.full((N, D), 7, np.float32)
    for normalise in ("whiten", "l2", "centre"):
        assert not np.asarray(measure.apply(measure.fit(same, normalise, Q), same)).any()


@pytest.mark.parametrize("offset", [0, 1e2, 1e4])
def test_rounding_far_from_zero_is_no_direction(offset):
    rng = np.random.default_rng(3)
    x = (rng.normal(size=(N, 3)) @ rng.normal(size=(3, D)) + offset).astype(np.float32)
    assert np.asarray(measure.fit(x, "whiten", Q).axes).any(axis=0).sum() == 3


@pytest.mark.parametrize("unit", [2.0**-90, 2.0**90])
@pytest.mark.parametrize("normalise", ["whiten", "l2"])
def test_the_unit_of_the_rows_is_nothing(normalise, unit):
    x = rows(1, 50)
    at = [measure.apply(measure.fit(y, normalise, Q), y) for y in (x, x * np.float32(unit))]
    np.testing.assert_array_equal(*at)


def test_a_row_of_the_mean_is_zero_wherever_it_stands():
    """As one of many and alone: what is rounding is said by the pool."""
    x = rows(2)
    x[7] = np.delete(x, 7, axis=0).mean(axis=0, dtype=np.float64)
    for normalise in ("whiten", "l2"):
        by = measure.fit(x, normalise, Q)
        assert np.linalg.norm(measure.apply(by, x[:1])) == pytest.approx(1)
        assert not np.asarray(measure.apply(by, x[7:8])).any() and not np.asarray(measure.apply(by, x))[7].any()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda x: measure.fit(x, "scale"), "normalise must be one of l2, whiten, centre, none, got 'scale'"),
        (lambda x: measure.fit(x, whiten_dims=0), "whiten_dims must be at least 1, got 0"),
        (lambda x: measure.fit(x, whiten_dims=1.5), "whiten_dims must be a whole number, got 1.5"),
        (lambda x: measure.fit(x[:0]), "x has no rows to fit on"),
        (lambda x: measure.fit(x, valid=np.ones(3, bool)), r"valid must be \(200,\) true or false"),
        (lambda x: measure.fit(x[0]), "x must be 2-dimensional"),
        (lambda x: measure.apply(measure.fit(x), x[:, :5]), "x has 5 features, and the preparation is of 12"),
        (lambda x: measure.squared_distances(x, x[:, :5]), "a has 12 features, b has 5"),
        (lambda x: measure.cosine_similarity(x, x > 0), "b must hold real numbers"),
        (lambda x: measure.rbf_similarity(x, x, 0.0), "bandwidth must be a positive finite number"),
        (lambda x: measure.rbf_similarity(x, x, precision="low"), "precision must be 'highest' or 'fast'"),
    ],
)
def test_what_makes_no_sense_is_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call(rows(0))


def test_the_command_line_has_the_same_ways():
    assert defaults.WAYS == measure.NORMALISE
    by = measure.fit(np.random.default_rng(0).normal(size=(900, 210)).astype(np.float32))
    assert by.axes.shape == (210, defaults.WHITEN_DIMS)


# Distances and similarities


@pytest.fixture(scope="module", params=[5, 24], ids=["differences", "products"])
def pairs(request):
    """Rows far from the origin, some of them close to or copies of others, zeros, and one that holds NaN."""
    rng = np.random.default_rng(request.param)
    a = (rng.normal(size=(40, request.param)) + 100).astype(np.float32)
    b = (rng.normal(size=(30, request.param)) + 100).astype(np.float32)
    b[0], b[1], b[2] = a[3], a[4] * np.float32(1 + 2**-12), 0
    b[3, 1] = np.nan
    return a, b


@pytest.mark.parametrize("jitted", [False, True])
def test_squared_distances(pairs, jitted):
    a, b = pairs
    measured = jax.jit(measure.squared_distances) if jitted else measure.squared_distances
    got, sound = np.asarray(measured(a, b)), np.isfinite(b).all(axis=1)
    np.testing.assert_allclose(got[:, sound], float64.squared_distances(*map(np.float64, (a, b[sound]))), rtol=1e-4)
    assert got[3, 0] == 0 and np.isinf(got[:, 3]).all() and got.dtype == np.float32


def test_cosine_similarity(pairs):
    a, b = (side - np.float32(100) for side in pairs)  # of all directions
    b[0], b[2] = a[3] * np.float32(2), 0
    got, sound = np.asarray(measure.cosine_similarity(a, b)), np.isfinite(b).all(axis=1)
    lengths = [np.maximum(np.linalg.norm(np.float64(side), axis=1), 1e-300) for side in (a, b[sound])]
    twin = np.float64(a) @ np.float64(b[sound]).T / (lengths[0][:, None] * lengths[1])
    np.testing.assert_allclose(got[:, sound], twin, atol=1e-6)
    assert got[3, 0] == 1 and not got[:, 2:4].any() and (got < -0.3).any()


def test_rbf_similarity_is_what_facility_location_gains(pairs):
    a, b = pairs
    for bandwidth in (0.25, 1.0):
        got, sound = np.asarray(measure.rbf_similarity(a, b, bandwidth)), np.isfinite(b).all(axis=1)
        gamma = bandwidth * float64.squared_distances(*map(np.float64, (a, a))).mean()
        twin = np.exp(-float64.squared_distances(*map(np.float64, (a, b[sound]))) / gamma)
        np.testing.assert_allclose(got[:, sound], twin, atol=1e-6)
        assert got[3, 0] == 1 and not got[:, 3].any()
        first = select(FacilityLocation(bandwidth=bandwidth), Ground({"embedding": a}, target={"embedding": b}), 1)
        assert first.indices[0] == got.sum(axis=1).argmax()
        np.testing.assert_allclose(first.gains[0], got.sum(axis=1).max(), rtol=1e-5)


def test_a_stack_of_pools_and_traced_widths(pairs):
    a = np.stack([pairs[0], pairs[0][::-1]])
    width = jnp.array([0.25, 1.0])
    both = jax.vmap(measure.rbf_similarity)(a, a, width)
    for x, w, ours in zip(a, width, both, strict=True):
        np.testing.assert_allclose(ours, measure.rbf_similarity(x, x, w), atol=1e-6)
    assert jax.vmap(measure.cosine_similarity)(a, a).shape == jax.vmap(measure.squared_distances)(a, a).shape
