"""Pooling against its definition in float64, with rubbish in the padding."""

import jax
import numpy as np
import pytest

from edjax.keep.errors import UsageError
from edjax.lm.pooling import pool
from edjax.scoring import POOLINGS

LENGTHS = np.array([16, 1, 7, 11], np.int32)


@pytest.fixture(scope="module")
def hidden():
    return (5 + np.random.default_rng(0).standard_normal((4, 16, 24))).astype(np.float32)


def twin(hidden, lengths, how):
    out = []
    for row, n in zip(hidden.astype(np.float64), lengths, strict=True):
        w = {"mean": np.ones(n), "weighted_mean": np.arange(1, n + 1), "last": np.eye(n)[n - 1]}[how]
        out.append(w @ row[:n] / w.sum())
    return np.array(out)


@pytest.mark.parametrize("how", POOLINGS)
def test_definition(hidden, how):
    np.testing.assert_allclose(pool(hidden, LENGTHS, how), twin(hidden, LENGTHS, how), rtol=1e-6)


@pytest.mark.parametrize("how", POOLINGS)
def test_padding_changes_nothing(hidden, how):
    """A longer bucket, NaN in it: within 1e-6 (the sum may be taken in another order; "last" is equal in its bits)."""
    longer = np.full((4, 40, 24), np.nan, np.float32)
    for i, n in enumerate(LENGTHS):
        longer[i, :n] = hidden[i, :n]
    run = jax.jit(pool, static_argnames="how")
    got, want = run(longer, LENGTHS, how=how), run(hidden, LENGTHS, how=how)
    np.testing.assert_allclose(got, want, rtol=1e-6)
    if how == "last":
        np.testing.assert_array_equal(got, want)


def test_a_row_without_tokens(hidden):
    assert not np.asarray(pool(hidden, np.zeros(4, np.int32), "mean")).any()


def test_bfloat16_states_are_summed_in_float32(hidden):
    low = jax.numpy.asarray(hidden, "bfloat16")
    got = pool(low, LENGTHS)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, twin(np.asarray(low, np.float32), LENGTHS, "mean"), rtol=1e-6)


def test_unknown():
    with pytest.raises(UsageError, match="'max' is not one of mean, last, weighted_mean"):
        pool(np.zeros((1, 2, 3)), np.ones(1, np.int32), "max")
