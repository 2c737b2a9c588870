"""Sampling: filters against transformers' warpers, draws against exact probabilities, rows apart from each other."""

from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lm_cases import STORIES, log_softmax, nll_of

from edjax.keep.errors import UsageError
from edjax.lm.batching import pad
from edjax.lm.decode import decode
from edjax.lm.decoder import Cache
from edjax.lm.generate import generate
from edjax.lm.sampling import Sampling, draw, filtered, row_keys

HOT = Sampling(1.3, top_k=40, top_p=0.95)


@pytest.fixture(scope="module")
def logits():
    rng = np.random.default_rng(0)
    return (3 * rng.standard_normal((6, 400))).astype(np.float32)


# The filters


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0.7},
        {"top_k": 1},
        {"top_k": 17},
        {"top_k": 1000},
        {"top_p": 0.01},
        {"top_p": 0.5},
        {"top_p": 0.999},
        {"top_p": 1.0},
        {"min_p": 0.05},
        {"min_p": 1.0},
        {"temperature": 2.0, "top_k": 50, "top_p": 0.9, "min_p": 0.02},
        {"temperature": 0.3, "top_k": 5, "top_p": 0.6},
    ],
)
def test_filters_are_those_of_transformers(logits, torch, settings):
    from transformers.generation import logits_process as hf

    scores = torch.tensor(logits)
    kinds = {
        "temperature": hf.TemperatureLogitsWarper,
        "top_k": hf.TopKLogitsWarper,
        "top_p": hf.TopPLogitsWarper,
        "min_p": hf.MinPLogitsWarper,
    }
    for name, value in settings.items():
        scores = kinds[name](value)(None, scores)
    got = np.asarray(filtered(jnp.asarray(logits), Sampling(**settings)))
    np.testing.assert_array_equal(np.isfinite(got), np.isfinite(scores.numpy()))
    np.testing.assert_allclose(got, scores.numpy(), rtol=1e-6)


def kept(row, **settings):
    return np.flatnonzero(np.isfinite(filtered(jnp.log(jnp.asarray(row)), Sampling(**settings)))).tolist()


def test_filters_by_hand():
    row = [0.4, 0.1, 0.3, 0.2]
    assert kept(row, top_p=0.69) == [0, 2]
    assert kept(row, top_p=0.71) == [0, 2, 3]
    assert kept(row, min_p=0.45) == [0, 2, 3]
    assert kept(row, top_k=2, top_p=0.56) == [0]  # 0.4 / 0.7 is enough after top-k
    assert kept([0.25] * 4, top_p=0.3) == [0, 1, 2, 3]  # ties at the border stay together
    assert kept([0.25] * 4, top_k=1) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_p": 1.1}, "top_p is 1.1"),
        ({"min_p": -0.1}, "min_p is -0.1"),
    ],
)
def test_settings_that_make_no_sense(settings, match):
    with pytest.raises(UsageError, match=match):
        Sampling(**settings)


# The draws


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.5, "top_k": 6}, {"temperature": 2.0, "top_p": 0.8}])
def test_draws_follow_the_probabilities(logits, settings):
    """Pearson's chi-square of 20,000 draws with fixed keys, below its 99.9 % point (Wilson-Hilferty)."""
    sampling, n = Sampling(**settings), 20_000
    row = logits[0, :12]
    got = jax.jit(draw, static_argnums=3)(row_keys(0, np.arange(n)), 3, jnp.tile(row, (n, 1)), sampling)
    p = np.exp(log_softmax(np.asarray(filtered(row, sampling), np.float64)))
    counts = np.bincount(got, minlength=12)
    assert not counts[p == 0].any()
    alive = n * p > 5
    expected = np.append(n * p[alive], n * p[~alive].sum())
    seen = np.append(counts[alive], counts[~alive].sum())
    expected, seen = expected[expected > 0], seen[expected > 0]
    freedom = len(seen) - 1
    bound = freedom * (1 - 2 / (9 * freedom) + 3.09 * np.sqrt(2 / (9 * freedom))) ** 3
    assert freedom >= 3
    assert ((seen - expected) ** 2 / expected).sum() < bound


def test_every_row_and_step_draws_anew(logits):
    flat = jnp.zeros((500, 400))
    one, two = (np.asarray(draw(row_keys(1, np.arange(500)), step, flat, Sampling())) for step in (0, 1))
    other = np.asarray(draw(row_keys(2, np.arange(500)), 0, flat, Sampling()))
    for a, b in ((one, two), (one, other), (one[1:], one[:-1])):
        assert (a == b).mean() < 0.02


# Decoding


@partial(jax.jit, static_argnames=("n", "eos_ids", "sampling"))
def run(model, tokens, lengths, keys, *, n, eos_ids=(), sampling=HOT):
    hidden, _, cache = model.prefill(tokens)
    return decode(model, hidden, cache, lengths, max_new_tokens=n, eos_ids=eos_ids, sampling=sampling, keys=keys)


@pytest.fixture(scope="module")
def rows(stories):
    return [stories.tokenizer(text).input_ids for text in STORIES]


@pytest.fixture(scope="module")
def together(stories, rows):
    tokens, lengths = pad(rows, 8)
    return run(stories.model, tokens, lengths, row_keys(5, np.arange(8)), n=12)


def test_company_and_padding_change_no_draw(stories, rows, together):
    """A row's tokens in another order, another bucket and beside other rows."""
    order = np.array([4, 1, 5])
    tokens, lengths = pad([rows[i] for i in order], 4, 96)
    out = run(stories.model, tokens, lengths, row_keys(5, [*order, 99]), n=12)
    np.testing.assert_array_equal(out.tokens[:3], together.tokens[order])
    np.testing.assert_allclose(out.entropy[:3], together.entropy[order], atol=1e-4)
    other = run(stories.model, tokens, lengths, row_keys(6, [*order, 99]), n=12)
    assert (np.asarray(other.tokens[:3]) != np.asarray(out.tokens[:3])).mean() > 0.2


def test_statistics_are_the_models_own(stories, rows, together):
    """Of the unfiltered distribution, at the token taken; padded rows are zero."""
    for i in (0, 2):
        answer = together.tokens[i].tolist()
        np.testing.assert_allclose(together.nll[i], nll_of(stories.model, rows[i], answer), atol=1e-4)
    assert (np.asarray(together.nll)[: len(rows)] > 1).any()  # not always the likeliest
    for field in together:
        assert not np.asarray(field)[len(rows) :].any()


def test_a_cold_or_narrow_draw_is_greedy(stories, rows):
    tokens, lengths = pad(rows, 8)
    keys = row_keys(0, np.arange(8))
    greedy = run(stories.model, tokens, lengths, None, n=8, sampling=None)
    for sampling in (Sampling(5.0, top_k=1), Sampling(1e-4), Sampling(1.0, top_p=1e-6)):
        out = run(stories.model, tokens, lengths, keys, n=8, sampling=sampling)
        np.testing.assert_array_equal(out.tokens, greedy.tokens)


def test_ended_rows_are_zero_and_others_go_on(stories, rows, together):
    stop = int(together.tokens[0, 3])
    tokens, lengths = pad(rows, 8)
    out = run(stories.model, tokens, lengths, row_keys(5, np.arange(8)), n=12, eos_ids=(stop,))
    for i in range(len(rows)):
        want = together.tokens[i].tolist()
        n = want.index(stop) + 1 if stop in want else 12
        assert out.tokens[i].tolist() == want[:n] + [0] * (12 - n)
        for name in ("mask", "entropy", "margin", "nll"):
            assert not np.asarray(getattr(out, name))[i, n:].any()
    assert 1 <= np.asarray(out.mask)[0].sum() <= 4
    assert np.asarray(out.mask).sum(1).max() == 12


@pytest.mark.parametrize("sampling", [None, Sampling(0.5)])
def test_the_loop_ends_with_its_last_row(sampling):
    """A model that counts its steps: it says token 7 until position 5, then the end, token 3."""
    seen = []

    def extend(tokens, cache, slot, positions, valid):
        jax.debug.callback(lambda p: seen.append(int(p[0, 0])), positions)
        return jnp.broadcast_to(positions[..., None], (2, 1, 1)).astype(jnp.float32), cache

    def say(hidden):
        token = jnp.where(hidden[..., 0] >= 5, 3, 7)
        return 100.0 * jax.nn.one_hot(token, 9)

    model = SimpleNamespace(extend=extend, logits=say, config=SimpleNamespace(max_position_embeddings=64))
    cache = Cache(*jnp.zeros((2, 1, 2, 4, 1, 1)))
    lengths = jnp.array([4, 0], jnp.int32)
    keys = row_keys(0, np.arange(2))
    out = decode(
        model, jnp.zeros((2, 4, 1)), cache, lengths, max_new_tokens=50, eos_ids=(3,), sampling=sampling, keys=keys
    )
    jax.effects_barrier()
    assert out.tokens[0, :4].tolist() == [7, 7, 3, 0]
    assert seen == [4, 5]  # of 49
    assert np.asarray(out.mask).sum(1).tolist() == [3, 0]


def test_sampling_without_keys():
    with pytest.raises(ValueError, match="row_keys"):
        decode(None, None, None, None, max_new_tokens=1, eos_ids=(), sampling=Sampling())


# generate


def test_generate(stories):
    """Batch size and order change nothing; a repeated prompt draws anew; greedy is the default."""
    prompts = [*STORIES[:3], [{"role": "user", "content": STORIES[0]}]]
    hot = {"max_new_tokens": 10, "temperature": 1.5, "seed": 3}
    a, b = generate(stories, prompts, batch_size=4, **hot), generate(stories, prompts, batch_size=3, **hot)
    assert a.tokens == b.tokens
    assert a.texts == b.texts
    assert a.tokens[0] != a.tokens[3]
    assert all(len(s.nll) == len(t) == 10 for s, t in zip(a.statistics, a.tokens, strict=True))
    greedy = generate(stories, prompts, max_new_tokens=10, batch_size=4)
    assert greedy.tokens[0] == greedy.tokens[3]
    ids = stories.tokenizer(STORIES[0] + "\n").input_ids
    np.testing.assert_allclose(greedy.statistics[0].nll, nll_of(stories.model, ids, greedy.tokens[0]), atol=1e-4)
    assert greedy.texts[0] == stories.tokenizer.decode(greedy.tokens[0])
    assert generate(stories, []).texts == []


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"top_k": 5}, "temperature above 0"),
        ({"temperature": -0.5}, "temperature is -0.5"),
        ({"max_new_tokens": 0}, "1 or more"),
    ],
)
def test_generate_refuses(stories, settings, match):
    with pytest.raises(UsageError, match=match):
        generate(stories, ["a"], **settings)
    with pytest.raises(UsageError, match="a list"):
        generate(stories, "a")
