"""Token uncertainty against its float64 twin, and what may not change it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edjax.kernels import (
    prompt_scores,
    reference,
    sequence_scores,
    token_statistics,
    token_statistics_from_hidden,
    token_uncertainty,
)

B, T, V = 6, 9, 53


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    logits = (4 * rng.normal(size=(B, T, V))).astype(np.float32)
    tokens = rng.integers(0, V, (B, T))
    mask = np.arange(T) < rng.integers(1, T + 1, (B, 1))
    return logits, tokens, mask


@pytest.mark.parametrize("shift", [0.0, 1e4, -1e4])
def test_scores_are_the_twins(case, shift):
    logits, tokens, mask = case
    ours = token_uncertainty(jnp.asarray(logits + np.float32(shift)), jnp.asarray(tokens), jnp.asarray(mask))
    twin = reference.token_uncertainty(logits + np.float32(shift), tokens, mask)
    assert ours._fields == (
        "mean_entropy", "max_entropy", "least_confidence", "mean_nll", "mean_margin", "min_margin",
    )  # fmt: skip
    for a, b in zip(ours, twin, strict=True):
        assert a.shape == (B,)
        assert a.dtype == jnp.float32
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


def test_least_confidence_order_is_the_product_order(case):
    logits, tokens, _ = case
    p = np.exp(logits.astype(np.float64))
    p = np.take_along_axis(p / p.sum(-1, keepdims=True), tokens[..., None], -1)[..., 0].prod(-1)
    ours = token_uncertainty(logits, tokens, np.ones((B, T), bool)).least_confidence
    assert np.argsort(ours).tolist() == np.argsort(-p).tolist()


def test_masked_tokens_change_nothing(case):
    logits, tokens, mask = case
    spoiled = np.where(mask[..., None], logits, np.nan)
    longer = np.concatenate([spoiled, np.full((B, 7, V), np.inf, np.float32)], axis=1)
    names = np.concatenate([np.where(mask, tokens, 0), np.zeros((B, 7), int)], axis=1)
    more = np.concatenate([mask, np.zeros((B, 7), bool)], axis=1)
    for a, b in zip(token_uncertainty(logits, tokens, mask), token_uncertainty(longer, names, more), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_batch_composition_changes_nothing(case):
    logits, tokens, mask = case
    whole = token_uncertainty(logits, tokens, mask)
    for i in range(B):
        one = token_uncertainty(logits[i : i + 1], tokens[i : i + 1], mask[i : i + 1])
        assert [float(a[i]) for a in whole] == [float(a[0]) for a in one]


def test_empty_sequences_score_zero():
    scores = token_uncertainty(jnp.full((2, 3, 4), jnp.nan), jnp.zeros((2, 3), int), jnp.zeros((2, 3), bool))
    assert [s.tolist() for s in scores] == [[0.0, 0.0]] * 6
    assert sequence_scores(*[jnp.zeros((2, 0))] * 4).max_entropy.tolist() == [0.0, 0.0]


def test_extreme_logits():
    sure = token_statistics(jnp.array([3e38, -3e38, 0.0]), jnp.array(0))
    assert [float(v) for v in sure] == [0.0, 1.0, 0.0]
    impossible = token_statistics(jnp.array([0.0, -jnp.inf, 0.0]), jnp.array(0))
    np.testing.assert_allclose(impossible, [np.log(2), 0, np.log(2)], rtol=1e-6)
    assert float(token_statistics(jnp.array([7.0]), jnp.array(0)).margin) == 1.0


@pytest.mark.parametrize("chunk", [1, 4, 1000])
def test_fused_form_is_the_whole_form(case, chunk):
    _, tokens, _ = case
    rng = np.random.default_rng(1)
    hidden, embedding = jnp.asarray(rng.normal(size=(B, T, 8))), jnp.asarray(rng.normal(size=(V, 8)))
    fused = jax.jit(lambda h, e, y: token_statistics_from_hidden(h, e, y, chunk=chunk))(hidden, embedding, tokens)
    whole = token_statistics(hidden @ embedding.T, tokens)
    for a, b in zip(fused, whole, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_fused_form_never_holds_all_logits():
    t, v, d = 4096, 5000, 4
    compiled = (
        jax.jit(lambda h, e, y: token_statistics_from_hidden(h, e, y, chunk=64))
        .lower(jnp.zeros((t, d)), jnp.zeros((v, d)), jnp.zeros(t, int))
        .compile()
    )
    assert compiled.memory_analysis().temp_size_in_bytes < 4 * t * v / 8


def test_bad_shapes_are_named():
    with pytest.raises(ValueError, match="tokens and mask"):
        token_uncertainty(jnp.zeros((2, 3, 4)), jnp.zeros((2, 3), int), jnp.zeros((2, 4), bool))
    with pytest.raises(ValueError, match="vocabulary"):
        token_uncertainty(jnp.zeros((2, 2, 4)), jnp.zeros((2, 3), int), jnp.zeros((2, 3), bool))
    with pytest.raises(ValueError, match="do not fit"):
        token_statistics_from_hidden(jnp.zeros((2, 3)), jnp.zeros((5, 4)), jnp.zeros(2, int))


@pytest.mark.parametrize("shift", [0.0, 1e4, -1e4])
def test_scores_of_a_prompt_are_the_twins(case, shift):
    """Of 54 prompts; and the closed form is the gradient that a machine takes."""
    logits = case[0].reshape(-1, V) + np.float32(shift)
    hidden = np.random.default_rng(1).normal(size=(B * T, 7)).astype(np.float32)
    ours, twin = prompt_scores(jnp.asarray(logits), jnp.asarray(hidden)), reference.prompt_scores(logits, hidden)
    for a, b in zip(ours, twin, strict=True):
        assert a.shape == (B * T,) and a.dtype == jnp.float32
        np.testing.assert_allclose(a, b, rtol=2e-5)
    if not shift:
        head = np.linalg.lstsq(hidden[:7], logits[:7], rcond=None)[0].astype(np.float32)  # of these 7 logits

        def loss(w, h):
            return -jnp.mean(jax.nn.log_softmax(h @ w))

        slopes = [np.abs(jax.grad(loss)(jnp.asarray(head), h)).sum() for h in hidden[:7]]
        np.testing.assert_allclose(-np.asarray(ours.grad_norm[:7]), slopes, rtol=1e-3)


def test_an_even_distribution_has_no_gradient_and_tokens_that_cannot_occur_no_energy():
    even = prompt_scores(jnp.zeros((1, V)), jnp.ones((1, 3)))
    assert abs(float(even.grad_norm[0])) < 1e-5 and np.isclose(even.energy[0], -np.log(V))
    some = prompt_scores(jnp.array([[0.0, 0.0, -jnp.inf, -jnp.inf]]), jnp.ones((1, 2)))
    np.testing.assert_allclose([some.energy[0], some.grad_norm[0]], [-np.log(2), -2.0], rtol=1e-6)
