"""Token uncertainty: how unsure a language model was of each token, and six scores of a sequence; and two of a prompt.

Larger is more uncertain in all of them. The three per-token numbers and a mask are all the scores need, so a decoder
computes them token by token and keeps no logits.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from . import geometry
from .geometry import Precision


class TokenStatistics(NamedTuple):
    """Per token, float32, shaped as the tokens. entropy: H in nats. margin: the difference of the two largest
    probabilities. nll: -ln p(token)."""

    entropy: jax.Array
    margin: jax.Array
    nll: jax.Array


class SequenceScores(NamedTuple):
    """Six scores of each sequence, (b,) float32, larger = more uncertain. A sequence without a token scores 0 in all.

    mean_entropy: (1/L) sum H_i. max_entropy: max H_i. least_confidence: sum nll_i = -ln prod p_i, the order of
    -prod p_i without its underflow. mean_nll: (1/L) sum nll_i. mean_margin: -(1/L) sum margin_i. min_margin:
    -min margin_i.
    """

    mean_entropy: jax.Array
    max_entropy: jax.Array
    least_confidence: jax.Array
    mean_nll: jax.Array
    mean_margin: jax.Array
    min_margin: jax.Array


class PromptScores(NamedTuple):
    """How unlike what a model knows a prompt is, at its last token, before any answer; (...) float32, larger = more so.

    energy: E = -ln sum_v exp(z_v), the temperature 1 (Liu, Wang, Owens & Li 2020, arXiv 2010.03759, equation 4).
    grad_norm: -||h||_1 sum_v |p_v - 1/V|, the negative of the L1 norm of the gradient, by the head's weights, of the
    cross-entropy to the uniform distribution (Huang, Geng & Li 2021, arXiv 2110.00218, section 3): a small gradient is
    unusual. As scores to choose by, Xie, Zhang, Bai & Nowak 2024, arXiv 2411.06353; where to take them is ours.
    """

    energy: jax.Array
    grad_norm: jax.Array


def prompt_scores(logits: jax.Array, hidden: jax.Array) -> PromptScores:
    """Energy and GradNorm of the next token's distribution.

    Args:
        logits: (..., v) float, of which -inf are tokens that cannot occur. hidden: (..., d) float, what the output head
            was given for them; of a head that caps its logits the gradient is that before the cap.

    Returns:
        `PromptScores` of two (...) float32 arrays.

    Cost: two passes over the logits beside those of `token_statistics`.

    >>> scores = prompt_scores(jnp.log(jnp.array([3.0, 1.0])), jnp.array([1.0, -2.0]))
    >>> [round(float(s), 4) for s in scores]
    [-1.3863, -1.5]
    """
    z = logits.astype(jnp.float32)
    top = jnp.max(z, axis=-1, keepdims=True)
    p = jnp.exp(z - top)
    total = jnp.sum(p, axis=-1, keepdims=True)
    uneven = jnp.sum(jnp.abs(p / total - 1 / z.shape[-1]), axis=-1)
    norm = jnp.sum(jnp.abs(hidden.astype(jnp.float32)), axis=-1)
    return PromptScores(-(top + jnp.log(total))[..., 0], -norm * uneven)


def token_uncertainty(logits: jax.Array, tokens: jax.Array, mask: jax.Array) -> SequenceScores:
    """Six uncertainty scores of each sequence.

    Args:
        logits: (b, t, v) float, the logits from which tokens[:, i] was drawn.
        tokens: (b, t) int in [0, v).
        mask: (b, t) bool or 0/1, True for tokens of the response (its EOS too). What is masked changes nothing, NaN
            included.

    Returns:
        `SequenceScores` of six (b,) float32 arrays.

    Raises:
        ValueError: for shapes that do not fit.

    Source: Bhatt et al. 2024, arXiv 2401.06692, section 3; `mean_nll` is ours. Cost: three passes over the logits.

    >>> logits = jnp.log(jnp.array([[[0.5, 0.25, 0.25], [0.8, 0.1, 0.1]]]))
    >>> scores = token_uncertainty(logits, jnp.array([[0, 0]]), jnp.array([[1, 1]]))
    >>> [round(float(s[0]), 3) for s in scores]
    [0.839, 1.04, 0.916, 0.458, -0.475, -0.25]
    """
    if mask.shape != tokens.shape or tokens.ndim != 2:
        raise ValueError(f"tokens and mask must have one shape (b, t), got {tokens.shape} and {mask.shape}")
    return sequence_scores(*token_statistics(logits, tokens), mask)


def token_statistics(logits: jax.Array, tokens: jax.Array) -> TokenStatistics:
    """Entropy, margin and negative log-likelihood of each token.

    logZ = logsumexp(z); H = logZ - sum softmax(z) z; margin = exp(z1 - logZ) - exp(z2 - logZ); nll = logZ - z[y], from
    float32 logits shifted by their maximum, so that no term overflows. Logits of -inf are tokens that cannot occur.

    Args:
        logits: (..., v) float. tokens: (...) int in [0, v).

    Returns:
        `TokenStatistics` of three (...) float32 arrays.

    >>> stats = token_statistics(jnp.array([1000.0, 1000.0]), jnp.array(1))
    >>> [round(float(s), 4) for s in stats]
    [0.6931, 0.0, 0.6931]
    """
    if logits.shape[:-1] != tokens.shape:
        raise ValueError(f"logits {logits.shape} must be tokens' shape {tokens.shape} and a vocabulary")
    z = logits.astype(jnp.float32)
    best = jnp.argmax(z, axis=-1)
    top = jnp.max(z, axis=-1, keepdims=True)
    z = z - lax.stop_gradient(top)
    is_best = lax.broadcasted_iota(jnp.int32, z.shape, z.ndim - 1) == best[..., None]
    second = jnp.max(jnp.where(is_best, -jnp.inf, z), axis=-1)
    p = jnp.exp(z)
    total = jnp.sum(p, axis=-1)
    log_total = jnp.log(total)
    entropy = log_total - jnp.sum(jnp.where(p > 0, p * jnp.where(p > 0, z, 0), 0), axis=-1) / total
    nll = log_total - jnp.take_along_axis(z, tokens[..., None].astype(jnp.int32), axis=-1)[..., 0]
    return TokenStatistics(jnp.maximum(entropy, 0), (1 - jnp.exp(second)) / total, nll)


def sequence_scores(entropy: jax.Array, margin: jax.Array, nll: jax.Array, mask: jax.Array) -> SequenceScores:
    """The six scores from per-token values (..., t) and a mask (..., t); masked values are not read."""
    mask = mask.astype(bool)
    length = jnp.sum(mask, axis=-1)
    some = length > 0

    def total(v):
        return jnp.sum(jnp.where(mask, v, 0), axis=-1)

    def mean(v):
        return total(v) / jnp.maximum(length, 1)

    def largest(v):
        return jnp.where(some, jnp.max(jnp.where(mask, v, -jnp.inf), axis=-1, initial=-jnp.inf), 0)

    return SequenceScores(mean(entropy), largest(entropy), total(nll), mean(nll), mean(-margin), largest(-margin))


def token_statistics_from_hidden(
    hidden: jax.Array,
    embedding: jax.Array,
    tokens: jax.Array,
    *,
    chunk: int = 64,
    precision: Precision = "highest",
) -> TokenStatistics:
    """`token_statistics(hidden @ embedding.T, tokens)` that never holds more than (chunk, v) logits.

    Args:
        hidden: (..., d) last hidden states, after the final norm. embedding: (v, d) the output embedding.
        tokens: (...) int. chunk: tokens a matrix product takes, static.

    Returns:
        `TokenStatistics` of (...) float32 arrays. For use inside `jit`.

    Cost: 2 T v d FLOPs; 4 chunk v bytes a few times over instead of 4 T v.

    >>> h, e = jnp.ones((3, 2)), jnp.eye(4, 2)
    >>> y = jnp.array([0, 1, 3])
    >>> fused, whole = token_statistics_from_hidden(h, e, y, chunk=2), token_statistics(h @ e.T, y)
    >>> all(jnp.allclose(a, b) for a, b in zip(fused, whole))
    True
    """
    if hidden.shape[:-1] != tokens.shape or hidden.shape[-1] != embedding.shape[-1]:
        raise ValueError(f"hidden {hidden.shape}, embedding {embedding.shape} and tokens {tokens.shape} do not fit")
    count = tokens.size
    chunk = min(chunk, max(count, 1))
    pad = -count % chunk
    flat = jnp.pad(hidden.reshape(count, -1), ((0, pad), (0, 0))).reshape(-1, chunk, hidden.shape[-1])
    names = jnp.pad(tokens.reshape(count), (0, pad)).reshape(-1, chunk)

    def of_chunk(args):
        h, y = args
        return token_statistics(geometry.matmul(h, embedding, precision), y)

    stats = lax.map(of_chunk, (flat, names))
    return TokenStatistics(*(s.reshape(-1)[:count].reshape(tokens.shape) for s in stats))
