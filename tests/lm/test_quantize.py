"""Quantised base weights: the codes, their memory, logits beside float32, and LoRA on top of them."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from lm_cases import STORIES, forward, log_softmax, pair_batch, story_pool, tiny_model

import edjax.lm.quantize
from edjax.evaluation import evaluate
from edjax.finetuning import FinetuneConfig, finetune
from edjax.keep.errors import DataError, EnvError, UsageError
from edjax.lm.batching import pad
from edjax.lm.decode import decode
from edjax.lm.linear import lora_products
from edjax.lm.load import load
from edjax.lm.lora import LoraConfig, add_lora, projections
from edjax.lm.merge import export_merged, merge_lora
from edjax.lm.quantize import BLOCK, KINDS, Quantized, dense, quantized
from edjax.lm.train import Trainer

NF4 = [
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _qwix():
    pytest.importorskip("qwix", reason="quantised weights need qwix: pip install 'edjax[quant]'")


@pytest.fixture(scope="module", params=KINDS)
def low(request, stories):
    return load(str(stories.directory), quantize=request.param)


def kind_of(model):
    return model.layers.q_proj.kernel[...].kind


# The codes


@pytest.mark.parametrize("n_in", [128, 172, 24])
def test_the_nearest_code_of_each_weight(n_in):
    """In float64, block by block: no other code is nearer than the one stored."""
    w = np.random.default_rng(0).standard_normal((3, n_in, 5)).astype(np.float32)
    got = np.asarray(dense(quantized(jnp.asarray(w), "int8"), jnp.float32), np.float64)
    step = np.abs(w).max(1, keepdims=True) / 127.5
    assert (np.abs(got - w) <= 0.5001 * step).all()
    block = max(d for d in range(1, BLOCK + 1) if n_in % d == 0)
    assert block == {128: 64, 172: 43, 24: 24}[n_in]
    q = quantized(jnp.asarray(w), "nf4")
    assert q.shape == w.shape
    got = np.asarray(dense(q, jnp.float32), np.float64).reshape(3, -1, block, 5)
    tiles = w.astype(np.float64).reshape(got.shape)
    scale = np.abs(tiles).max(2, keepdims=True)
    best = np.abs(tiles[..., None] - np.array(NF4) * scale[..., None]).min(-1)
    np.testing.assert_allclose(np.abs(got - tiles), best, atol=1e-6)


def test_a_layer_of_a_stack_is_the_same(stories):
    w = stories.model.layers.down_proj.kernel[...]
    for kind in KINDS:
        q = quantized(w, kind)
        np.testing.assert_array_equal(dense(q[2], jnp.float32), dense(q, jnp.float32)[2])


def test_memory(stories, low):
    """int8: a quarter of float32 and a scale a column; nf4: an eighth and a scale a block. Nothing else changes."""
    per_weight = {"int8": 1.0, "nf4": 0.5}[kind_of(low.model)]
    for name in projections(stories.model):
        full, q = getattr(stories.model.layers, name).kernel[...], getattr(low.model.layers, name).kernel[...]
        assert isinstance(q, Quantized)
        n_in = full.shape[1]
        block = {"int8": n_in, "nf4": 43 if n_in == 172 else 64}[q.kind]
        assert q.codes.dtype.itemsize == 1
        assert sum(a.nbytes for a in (q.codes, q.scale)) == full.size * per_weight + 4 * full.size // block
    assert sum(a.nbytes for a in jax.tree.leaves(nnx.state(low.model))) < 0.5 * sum(
        a.nbytes for a in jax.tree.leaves(nnx.state(stories.model))
    )
    np.testing.assert_array_equal(low.model.embed[...], stories.model.embed[...])


# The model


def test_logits(stories, low):
    """Mean KL divergence from float32's next-token distribution, in nats: measured 4.1e-4 (int8) and 0.11 (nf4).

    The test after this one shows that it is the codes' rounding and nothing else; a model of 64 channels feels it most.
    """
    far = []
    for text in STORIES:
        ids = stories.tokenizer(text).input_ids
        p, q = (log_softmax(forward(m, ids)[0]) for m in (stories.model, low.model))
        far.append((np.exp(p) * (p - q)).sum(-1).mean())
    assert 1e-5 < np.mean(far) < {"int8": 8e-4, "nf4": 0.2}[kind_of(low.model)], far


def test_it_computes_what_its_dense_weights_say(low):
    """The same model with the codes made dense beforehand: one stack, sliced and dequantised in the scan."""
    graph, state = nnx.split(low.model)
    plain = nnx.merge(graph, state)
    for name in projections(plain):
        linear = getattr(plain.layers, name)
        linear.kernel = nnx.Param(dense(linear.kernel[...], jnp.float32))
    tokens, lengths = pad([[5, 6, 7, 8], [9, 10]], 2)

    @jax.jit
    def run(model):
        hidden, _, cache = model.prefill(tokens)
        return decode(model, hidden, cache, lengths, max_new_tokens=6, eos_ids=()), model.hidden(tokens)

    (got, a), (want, b) = run(low.model), run(plain)
    np.testing.assert_array_equal(got.tokens, want.tokens)
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_bfloat16(stories):
    """The codes are made from the checkpoint's own values, before any rounding; the rest runs in bfloat16."""
    full, half = (load(str(stories.directory), dtype, "nf4").model for dtype in ("float32", "bfloat16"))
    for name in projections(full):
        a, b = (getattr(m.layers, name).kernel[...].codes for m in (full, half))
        np.testing.assert_array_equal(a, b)
    ids = stories.tokenizer(STORIES[0]).input_ids
    want, got = forward(full, ids)[0], forward(half, ids)[0]
    assert half.embed.dtype == jnp.bfloat16
    assert 0 < np.abs(got - want).max() < 0.05 * np.abs(want).max()


# Training


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_the_dense_weights(kind):
    rng = np.random.default_rng(0)
    x, w, a, b, dy = (
        jnp.asarray(rng.standard_normal(s), jnp.float32) for s in ((2, 3, 8), (1, 8, 6), (8, 2), (2, 6), (2, 3, 6))
    )
    q = quantized(w, kind)[0]
    y, back = jax.vjp(lambda x, a, b: lora_products(x, (q,), (a,), (b,))[0], x, a, b)
    plain, plain_back = jax.vjp(lambda x, a, b: lora_products(x, (dense(q, jnp.float32),), (a,), (b,))[0], x, a, b)
    np.testing.assert_allclose(y, plain, atol=1e-5)
    for got, want in zip(back(dy), plain_back(dy), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("remat", [False, True])
def test_training_lowers_the_loss_and_leaves_the_codes(low, remat):
    def codes(model):
        return [np.array(v) for v in jax.tree.leaves(nnx.state(model.layers, nnx.Param)) if v.dtype.itemsize == 1]

    t = low.tokenizer
    rows = [(t(p).input_ids, [*t(r, add_special_tokens=False).input_ids, 2]) for p, r in ((STORIES[1], "They ran."),)]
    before = codes(low.model)
    trainer = Trainer(add_lora(low.model, LoraConfig(4, 8.0)), remat=remat)
    losses = [trainer.step(pair_batch(rows, 2), 1e-2)[0] for _ in range(8)]
    assert losses[-1] < losses[0] - 0.5
    after = codes(trainer.model())
    assert len(before) == len(after) == 7
    assert all(a.tobytes() == b.tobytes() for a, b in zip(before, after, strict=True))
    assert {v.dtype for v in jax.tree.leaves(trainer.state.lora)} == {np.dtype(np.float32)}


def test_the_backward_pass_keeps_no_dense_weights(low):
    """Without remat, what is kept between the passes holds the codes, not L dense matrices."""
    adapted = add_lora(low.model, LoraConfig(2, 4.0))
    graph, lora, frozen = nnx.split(adapted, nnx.LoRAParam, ...)
    tokens = jnp.ones((1, 4), jnp.int32)
    _, back = jax.vjp(lambda lora: nnx.merge(graph, lora, frozen).hidden(tokens), lora)
    full = adapted.layers.down_proj.kernel[...].shape
    kept = [v.shape for v in jax.tree.leaves(back) if jnp.issubdtype(v.dtype, jnp.floating)]
    assert kept and full not in kept, kept


def test_finetune_and_evaluate(stories, tmp_path):
    """From disk to disk: the adapter is plain PEFT, and fits the quantised model and the full one."""
    name, pool = str(stories.directory), story_pool(6)
    config = FinetuneConfig(num_train_epochs=4, per_device_train_batch_size=3, quantize="nf4", lora_r=2, save_steps=0)
    done = finetune(pool, name, out=tmp_path / "a", config=config, show_progress=False)
    scores = {}
    for label, settings in (
        ("base", {"quantize": "nf4"}),
        ("tuned", {"quantize": "nf4", "adapter": done.directory}),
        ("full", {"adapter": done.directory}),
    ):
        got = evaluate(pool, name, metrics=["response_loss"], show_progress=False, batch_size=6, **settings)
        scores[label] = got.scores["response_loss"]
    assert scores["tuned"] < scores["base"] - 0.1
    assert scores["full"] < scores["base"] - 0.1


# What is refused


def test_refused(low, stories, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="'int4' is not one of none, int8, nf4"):
        load(str(stories.directory), quantize="int4")
    kind = kind_of(low.model)
    with pytest.raises(UsageError, match=f"projections are {kind}; merge into one"):
        merge_lora(low.model)
    with pytest.raises(UsageError, match=f"projections are {kind}; merge into one"):
        export_merged(low, low.model, tmp_path / "m")
    assert not (tmp_path / "m").exists()
    tiny_model(tmp_path / "odd", intermediate_size=47)
    load(str(tmp_path / "odd"), quantize="int8")
    with pytest.raises(DataError, match="has 47; use int8"):
        load(str(tmp_path / "odd"), quantize="nf4")
    find = importlib.util.find_spec
    monkeypatch.setattr(
        edjax.lm.quantize.importlib.util, "find_spec", lambda name, *a: None if name == "qwix" else find(name, *a)
    )
    with pytest.raises(EnvError, match=r"pip install 'edjax\[quant\]'"):
        load(str(stories.directory), quantize="nf4")
