"""The decoder against itself: padding, cache, decoding loop, statistics, teacher forcing; all on a trained model."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lm_cases import STORIES, forward, greedy, log_softmax, nll_of

from edjax.lm.attention import attend, softcapped
from edjax.lm.batching import LENGTHS, bucket, by_length, chunks, pad
from edjax.lm.decode import continuation_nll, decode, last_hidden
from edjax.lm.head import CHUNK, token_nll

TOL = {"atol": 1e-4, "rtol": 0}


@pytest.fixture(scope="module")
def rows(stories):
    return [stories.tokenizer(text).input_ids for text in STORIES]


prefill = jax.jit(lambda m, t: m.prefill(t))
extend = jax.jit(lambda m, *args: m.extend(*args))


@partial(jax.jit, static_argnames=("n", "eos_ids", "statistics"))
def run(model, tokens, lengths, *, n, eos_ids, statistics=True):
    hidden, _, cache = model.prefill(tokens)
    return decode(model, hidden, cache, lengths, max_new_tokens=n, eos_ids=eos_ids, statistics=statistics)


def test_padding_and_company_change_nothing(stories, rows):
    """A row alone and unpadded, in a batch, and in a batch with rubbish behind it."""
    tokens, lengths = pad(rows, 8, 64)
    rubbish = np.where(np.arange(64) < lengths[:, None], tokens, 77).astype(np.int32)
    together, dirty = prefill(stories.model, tokens)[0], prefill(stories.model, rubbish)[0]
    for i, row in enumerate(rows):
        alone = prefill(stories.model, np.asarray([row], np.int32))[0][0] if i < 3 else dirty[i, : len(row)]
        np.testing.assert_allclose(together[i, : len(row)], alone, **TOL)
        np.testing.assert_array_equal(together[i, : len(row)], dirty[i, : len(row)])


def test_hidden_is_prefill(stories, rows):
    tokens, _ = pad(rows, 8, 64)
    want = prefill(stories.model, tokens)[0]
    for remat in (False, True):
        np.testing.assert_allclose(
            jax.jit(partial(type(stories.model).hidden, remat=remat))(stories.model, tokens), want, **TOL
        )


def test_prefill_then_extend_is_one_forward(stories, rows):
    """Rows of different lengths continue at the same slots; each keeps its own positions."""
    tails = [[5 + i, 40 + i, 300 - i, 9] for i in range(len(rows))]
    tokens, lengths = pad(rows, len(rows))
    t = tokens.shape[1]
    _, _, cache = prefill(stories.model, tokens)
    valid = np.arange(t + 4)[None] < lengths[:, None]
    positions = lengths[:, None] + np.arange(4)[None]
    got, grown = extend(stories.model, np.asarray(tails, np.int32), cache.grow(4), t, positions, valid)
    assert grown.k.shape[2] == t + 4
    for i, (row, tail) in enumerate(zip(rows, tails, strict=True)):
        np.testing.assert_allclose(stories.model.logits(got[i]), forward(stories.model, [*row, *tail])[0][-4:], **TOL)
    # and token by token
    cache = cache.grow(4)
    for j in range(4):
        valid = (np.arange(t + 4) < lengths[:, None]) | ((np.arange(t + 4) >= t) & (np.arange(t + 4) < t + j))
        step, cache = extend(
            stories.model, np.asarray(tails, np.int32)[:, j : j + 1], cache, t + j, (lengths + j)[:, None], valid
        )
        np.testing.assert_allclose(step[:, 0], got[:, j], **TOL)


def test_layer_option(stories, rows):
    """0 are the embeddings, negative numbers count from the end, the last is after the final norm."""
    ids = rows[0]
    n = stories.model.config.num_layers
    logits, last = forward(stories.model, ids)
    np.testing.assert_array_equal(forward(stories.model, ids, 0)[1], np.asarray(stories.model.embed[...])[ids])
    np.testing.assert_array_equal(forward(stories.model, ids, n)[1], last)
    np.testing.assert_array_equal(forward(stories.model, ids, -n - 1)[1], forward(stories.model, ids, 0)[1])
    np.testing.assert_array_equal(forward(stories.model, ids, -3)[1], forward(stories.model, ids, n - 2)[1])
    np.testing.assert_array_equal(forward(stories.model, ids, 2)[0], logits)
    assert np.abs(forward(stories.model, ids, n - 1)[1] - last).max() > 0.1


@pytest.fixture(scope="module")
def slow(stories, rows):
    """(tokens, logits) of every row by repeated full forwards, without end-of-text."""
    return [greedy(stories.model, row, 12, ()) for row in rows]


def test_decode_is_the_argmax_of_full_forwards(stories, rows, slow):
    tokens, lengths = pad(rows, 8)
    out = run(stories.model, tokens, lengths, n=12, eos_ids=())
    for i, (want, _) in enumerate(slow):
        assert out.tokens[i].tolist() == want
    assert np.asarray(out.mask)[: len(rows)].all()


def test_decode_statistics(stories, rows, slow):
    """METHODS section 1 in float64 from the full logits: H, margin of probabilities, nll."""
    tokens, lengths = pad(rows, 8)
    out = run(stories.model, tokens, lengths, n=12, eos_ids=())
    for i, (want, logits) in enumerate(slow):
        logp = log_softmax(logits)
        p = np.exp(logp)
        top = np.sort(p, axis=-1)
        np.testing.assert_allclose(out.entropy[i], -(p * logp).sum(-1), **TOL)
        np.testing.assert_allclose(out.margin[i], top[:, -1] - top[:, -2], **TOL)
        np.testing.assert_allclose(out.nll[i], -logp[np.arange(len(want)), want], **TOL)


def test_end_of_text_ends_a_row(stories, rows, slow):
    """The end-of-text token counts, what follows is masked and zero, other rows go on."""
    stop = slow[0][0][4]
    tokens, lengths = pad(rows, 8)
    free = run(stories.model, tokens, lengths, n=12, eos_ids=())
    out = run(stories.model, tokens, lengths, n=12, eos_ids=(511, stop))
    counts = []
    for i, (want, _) in enumerate(slow):
        n = want.index(stop) + 1 if stop in want else 12
        counts.append(n)
        assert np.asarray(out.mask[i]).tolist() == [True] * n + [False] * (12 - n)
        assert out.tokens[i, :n].tolist() == want[:n]
        for name in ("tokens", "entropy", "margin", "nll"):
            assert not np.asarray(getattr(out, name)[i, n:]).any()
            np.testing.assert_array_equal(getattr(out, name)[i, :n], getattr(free, name)[i, :n])
    assert min(counts) < 12 == max(counts)


def test_every_row_ended_ends_the_loop(stories, rows):
    tokens, lengths = pad(rows[:2], 2)
    out = run(stories.model, tokens, lengths, n=12, eos_ids=tuple(range(512)))
    assert np.asarray(out.mask).sum(1).tolist() == [1, 1]


def test_rows_of_length_zero_decode_nothing(stories, rows):
    tokens, lengths = pad(rows, 8)
    out = run(stories.model, tokens, lengths, n=12, eos_ids=())
    for name in ("tokens", "mask", "entropy", "margin", "nll"):
        value = np.asarray(getattr(out, name))
        assert np.isfinite(value).all()
        assert not value[len(rows) :].any()
    dead = run(stories.model, np.zeros((2, 16), np.int32), np.zeros(2, np.int32), n=12, eos_ids=())
    assert not np.asarray(dead.mask).any()


def test_statistics_off_changes_no_token(stories, rows):
    tokens, lengths = pad(rows, 8)
    full = run(stories.model, tokens, lengths, n=12, eos_ids=())
    bare = run(stories.model, tokens, lengths, n=12, eos_ids=(), statistics=False)
    np.testing.assert_array_equal(bare.tokens, full.tokens)
    assert not np.asarray(bare.entropy).any()


@pytest.mark.parametrize("n", [0, 1])
def test_few_new_tokens(stories, rows, slow, n):
    tokens, lengths = pad(rows, 8)
    out = run(stories.model, tokens, lengths, n=n, eos_ids=())
    assert out.tokens.shape == (8, n)
    assert out.tokens[: len(rows)].tolist() == [want[:n] for want, _ in slow]


def test_decode_beside_other_rows(stories, rows, slow):
    """The same continuation in another bucket and beside other rows."""
    for i, extra in ((2, 0), (2, 40)):
        tokens, lengths = pad([rows[i], rows[3][:9]], 3, bucket(len(rows[i]) + extra))
        out = run(stories.model, tokens, lengths, n=12, eos_ids=())
        assert out.tokens[0].tolist() == slow[i][0]


def test_continuation_nll(stories, rows):
    answers = [
        stories.tokenizer(t, add_special_tokens=False).input_ids for t in ("ran home.", "a", "He was very happy!")
    ]
    answers = [[*a, 2] for a in answers]
    tokens, lengths = pad(rows[:3], 4)
    given, counts = pad(answers, 4, 24)
    hidden, _, cache = prefill(stories.model, tokens)
    got = np.asarray(jax.jit(continuation_nll)(stories.model, hidden, cache, lengths, given, counts))
    for i, (row, answer) in enumerate(zip(rows, answers, strict=False)):
        np.testing.assert_allclose(got[i, : len(answer)], nll_of(stories.model, row, answer), **TOL)
        assert not got[i, len(answer) :].any()
    assert not got[3].any()


@pytest.mark.parametrize("n", [CHUNK, 2 * CHUNK + 5])
def test_token_nll_in_chunks(stories, n):
    rng = np.random.default_rng(n)
    hidden = jnp.asarray(rng.standard_normal((n, 64)), jnp.float32)
    wanted = rng.integers(0, 512, n).astype(np.int32)
    want = -log_softmax(stories.model.logits(hidden))[np.arange(n), wanted]
    np.testing.assert_allclose(token_nll(stories.model, hidden, wanted), want, **TOL)
    grad = jax.grad(lambda h: token_nll(stories.model, h, wanted).sum())(hidden)
    plain = jax.grad(
        lambda h: -jnp.take_along_axis(jax.nn.log_softmax(stories.model.logits(h)), wanted[:, None], 1).sum()
    )(hidden)
    np.testing.assert_allclose(grad, plain, **TOL)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_of_other_backends_is_ours(monkeypatch, masked):
    """jax's own attention, which accelerators run, and the product written out for a CPU."""
    q, k, v = (jax.random.normal(jax.random.key(i), (2, 7, heads, 8)) for i, heads in enumerate((6, 2, 2)))
    mask = jnp.tril(jnp.ones((7, 7), bool), -1).at[0].set(True)[None, None] if masked else None
    ours = attend(q, k, v, mask, scale=0.3)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with monkeypatch.context() as m:
        called, real = [], jax.nn.dot_product_attention
        m.setattr(jax.nn, "dot_product_attention", lambda *a, **kw: called.append(1) or real(*a, **kw))
        theirs = attend(q, k, v, mask, scale=0.3)
    assert called
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("masked", [False, True])
def test_gradients_of_attention_against_autodiff(masked, softcap):
    """The backward pass written out, against jax's own of the plain formula."""

    def plain(q, k, v):
        k, v = (jnp.repeat(x, 3, axis=2) for x in (k, v))
        scores = softcapped(0.3 * jnp.einsum("bthd,bshd->bhts", q, k), softcap)
        shares = jax.nn.softmax(jnp.where(mask, scores, -jnp.inf), axis=-1)
        return jnp.einsum("bhts,bshd->bthd", shares, v)

    with jax.enable_x64():
        rng = np.random.default_rng(0)
        q, k, v, dy = (jnp.asarray(rng.standard_normal((2, 7, heads, 8))) for heads in (6, 2, 2, 6))
        causal = jnp.tril(jnp.ones((7, 7), bool))[None, None]
        mask = causal.at[..., 4, 2].set(False) if masked else causal
        y, back = jax.vjp(lambda *x: attend(*x, mask if masked else None, scale=0.3, softcap=softcap), q, k, v)
        want, plain_back = jax.vjp(plain, q, k, v)
        np.testing.assert_allclose(y, want, atol=1e-13)
        for got, expected in zip(back(dy), plain_back(dy), strict=True):
            np.testing.assert_allclose(got, expected, atol=1e-13)


def test_last_hidden():
    hidden = jnp.arange(2 * 4 * 3.0).reshape(2, 4, 3)
    np.testing.assert_array_equal(last_hidden(hidden, jnp.array([4, 2])), [hidden[0, 3], hidden[1, 1]])


def test_buckets_and_batches():
    assert [bucket(n) for n in (0, 1, 16, 17, 8192, 8193)] == [16, 16, 16, 24, 8192, 16384]
    assert list(LENGTHS) == sorted(set(LENGTHS))
    order = by_length([3, 1, 2, 1])
    assert order.tolist() == [1, 3, 2, 0]
    assert [c.tolist() for c in chunks(order, 3)] == [[1, 3, 2], [0]]
    tokens, lengths = pad([[7, 8], []], 3)
    assert tokens.shape == (3, 16)
    assert lengths.tolist() == [2, 0, 0]
    assert tokens[0].tolist() == [7, 8] + [0] * 14
