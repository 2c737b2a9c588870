"""LoRA: an adapter that changes nothing at first, its gradients, and PEFT's format out and in."""

import json
import math
import struct
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from lm_cases import ALL, STORIES, forward, nll_of, pair_batch, reference, reference_outputs
from safetensors.numpy import load_file, save_file

from edjax.keep.errors import DataError, UsageError
from edjax.lm.linear import lora_products
from edjax.lm.lora import LoraConfig, add_lora, targets
from edjax.lm.peft import export_adapter, import_adapter
from edjax.lm.train import Trainer, response_nll

SOME = ("q_proj", "v_proj", "down_proj")
PAIRS = [(STORIES[0], "He was happy."), (STORIES[1], "They ran and ran."), (STORIES[2], "sat."), (STORIES[5], "Mom")]


def noisy(model, config, seed=3):
    """With an adapter of which neither half is zero."""
    adapted = add_lora(model, config, seed)
    rng = np.random.default_rng(seed)
    for linear in targets(adapted, config).values():
        b = linear.lora_b
        linear.lora_b = nnx.LoRAParam(jnp.asarray(0.05 * rng.standard_normal(b.shape), jnp.float32))
    return adapted


@pytest.fixture(scope="module")
def rows(stories):
    t = stories.tokenizer
    return [(t(p).input_ids, [*t(r, add_special_tokens=False).input_ids, 2]) for p, r in PAIRS]


def leaves(model, kind=nnx.Param):
    """Copies of every parameter outside the adapter, by path."""
    flat = nnx.to_flat_state(nnx.state(model))
    return {path: np.array(v[...]) for path, v in flat if not isinstance(v, nnx.LoRAParam) and isinstance(v, kind)}


def test_a_fresh_adapter_changes_nothing(stories):
    ids = stories.tokenizer(STORIES[0]).input_ids
    adapted = add_lora(stories.model, LoraConfig(4, 8.0))
    np.testing.assert_array_equal(forward(adapted, ids)[0], forward(stories.model, ids)[0])
    assert stories.model.layers.q_proj.lora_a is None
    bound = 1 / np.sqrt(64)
    a = np.asarray(adapted.layers.q_proj.lora_a[...])
    assert a.shape == (5, 64, 4)
    assert 0.9 * bound < np.abs(a).max() <= bound
    again = add_lora(stories.model, LoraConfig(4, 8.0), seed=0)
    other = add_lora(stories.model, LoraConfig(4, 8.0), seed=1)
    np.testing.assert_array_equal(again.layers.q_proj.lora_a[...], a)
    assert not np.array_equal(other.layers.q_proj.lora_a[...], a)


def test_training_leaves_the_base_alone(stories, rows):
    before = leaves(stories.model)
    trainer = Trainer(add_lora(stories.model, LoraConfig(4, 8.0)), weight_decay=0.1)
    losses = [trainer.step(pair_batch(rows, 4), 1e-2)[0] for _ in range(5)]
    assert losses[-1] < losses[0]
    trained = trainer.model()
    after = leaves(trained)
    assert after.keys() == before.keys()
    for path, value in before.items():
        assert after[path].tobytes() == value.tobytes(), path
    assert np.asarray(trained.layers.down_proj.lora_b[...]).any()


def test_only_the_named_projections_are_adapted(stories, rows):
    trainer = Trainer(add_lora(stories.model, LoraConfig(2, 4.0, SOME)))
    paths = {path[1:] for path, _ in nnx.to_flat_state(trainer.state.lora)}
    assert paths == {(name, side) for name in SOME for side in ("lora_a", "lora_b")}


@pytest.mark.parametrize("remat", [False, True])
def test_loss_is_the_mean_over_response_tokens(stories, rows, remat):
    batch = pair_batch(rows, 6)
    got = np.asarray(jax.jit(partial(response_nll, remat=remat))(stories.model, batch))
    for i, (prompt, response) in enumerate(rows):
        np.testing.assert_allclose(got[i, : len(response)], nll_of(stories.model, prompt, response), atol=1e-4)
        assert not got[i, len(response) :].any()
    assert not got[len(rows) :].any()
    trainer = Trainer(add_lora(stories.model, LoraConfig()), remat=remat)
    loss, _ = trainer.gradients(trainer.state.lora, trainer.frozen, batch)
    want = np.concatenate([nll_of(stories.model, p, r) for p, r in rows]).mean()
    assert abs(float(loss) - want) < 1e-4


def test_the_scale_of_rslora():
    assert LoraConfig(16, 8.0).scale == 0.5
    assert LoraConfig(16, 8.0, use_rslora=True).scale == 2.0


def test_bad_configs():
    with pytest.raises(UsageError, match="lora_r is 0"):
        LoraConfig(0)
    with pytest.raises(UsageError, match="w_proj"):
        LoraConfig(lora_target_modules=("w_proj",))
    with pytest.raises(UsageError, match="empty"):
        LoraConfig(lora_target_modules=())


# The backward pass of the projections of one input


def plainly(x, ws, as_, bs):
    return tuple(x @ w + (x @ a) @ b for w, a, b in zip(ws, as_, bs, strict=True))


@pytest.fixture
def products():
    """Two projections of one input, of different ranks and widths, and the gradients of their outputs."""
    with jax.enable_x64():
        rng = np.random.default_rng(0)

        def draw(*shape):
            return jnp.asarray(rng.standard_normal(shape))

        x, w, a, b = draw(2, 3, 7), (draw(7, 5), draw(7, 4)), (draw(7, 2), draw(7, 3)), (draw(2, 5), draw(3, 4))
        assert x.dtype == jnp.float64
        yield (x, w, a, b), (draw(2, 3, 5), draw(2, 3, 4))


def test_lora_products_against_autodiff(products):
    args, dys = products
    ys, back = jax.vjp(lora_products, *args)
    plain, plain_back = jax.vjp(plainly, *args)
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-13), ys, plain)
    (dx, dw, da, db), want = back(dys), plain_back(dys)
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-12), (dx, da, db), (want[0], want[2], want[3]))
    assert not any(np.asarray(d).any() for d in dw)  # frozen by definition


def test_lora_products_against_finite_differences(products):
    (x, w, a, b), dys = products

    def f(x, a, b):
        return float(sum((y * dy).sum() for y, dy in zip(lora_products(x, w, a, b), dys, strict=True)))

    grads = jax.vjp(lambda x, a, b: lora_products(x, w, a, b), x, a, b)[1](dys)
    rng = np.random.default_rng(1)
    for which, grad in enumerate(grads):
        direction = jax.tree.map(lambda g: jnp.asarray(rng.standard_normal(g.shape)), grad)
        ends = []
        for h in (1e-6, -1e-6):
            values = [x, a, b]
            values[which] = jax.tree.map(lambda v, d, h=h: v + h * d, values[which], direction)
            ends.append(f(*values))
        along = sum(
            float((g * d).sum()) for g, d in zip(jax.tree.leaves(grad), jax.tree.leaves(direction), strict=True)
        )
        assert abs((ends[0] - ends[1]) / 2e-6 - along) < 1e-6


# PEFT


def lora_model(torch, peft, directory, **settings):
    base = reference(torch, directory)
    config = peft.LoraConfig(
        **({"r": 4, "lora_alpha": 12, "target_modules": list(ALL), "init_lora_weights": False} | settings)
    )
    torch.manual_seed(5)
    model = peft.get_peft_model(base, config).eval()
    with torch.no_grad():  # peft draws B as large as the base weights, and float32 itself is then off by 3e-4
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.mul_(0.1)
    return model


@pytest.mark.parametrize(
    "config", [LoraConfig(4, 12.0, ALL), LoraConfig(4, 12.0, SOME), LoraConfig(4, 6.0, SOME, use_rslora=True)]
)
def test_export_to_peft(stories, torch, peft, tmp_path, config):
    adapted = noisy(stories.model, config)
    export_adapter(adapted, config, tmp_path, str(stories.directory))
    other = peft.PeftModel.from_pretrained(reference(torch, stories.directory), tmp_path).eval()
    for text in STORIES[:3]:
        ids = stories.tokenizer(text).input_ids
        got = forward(adapted, ids)[0]
        np.testing.assert_allclose(got, reference_outputs(torch, other, ids)[0], atol=1e-4, rtol=0)
        assert np.abs(got - forward(stories.model, ids)[0]).max() > 0.1


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"target_modules": list(SOME)},
        {"target_modules": "all-linear"},
        {"target_modules": r".*\.(q|v)_proj"},
        {"use_rslora": True, "lora_dropout": 0.5},
    ],
)
def test_import_from_peft(stories, torch, peft, tmp_path, settings):
    other = lora_model(torch, peft, stories.directory, **settings)
    other.save_pretrained(tmp_path)
    adapted, config = import_adapter(stories.model, tmp_path)
    assert (config.lora_r, config.lora_alpha) == (4, 12.0)
    assert config.use_rslora == bool(settings.get("use_rslora"))
    for text in STORIES[:3]:
        ids = stories.tokenizer(text).input_ids
        got = forward(adapted, ids)[0]
        np.testing.assert_allclose(got, reference_outputs(torch, other, ids)[0], atol=1e-4, rtol=0)
        assert np.abs(got - forward(stories.model, ids)[0]).max() > 0.1


@pytest.mark.parametrize("rslora", [False, True])
def test_export_import_round_trip(stories, tmp_path, rslora):
    config = LoraConfig(3, 7.5, SOME, use_rslora=rslora)
    adapted = noisy(stories.model, config)
    export_adapter(adapted, config, tmp_path, "base")
    back, found = import_adapter(stories.model, tmp_path)
    assert found == config
    ids = stories.tokenizer(STORIES[0]).input_ids
    np.testing.assert_array_equal(forward(back, ids)[0], forward(adapted, ids)[0])
    written = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert written.keys() == {"adapter_config.json", "adapter_model.safetensors"}
    export_adapter(back, found, tmp_path, "base")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == written


@pytest.fixture
def adapter(stories, tmp_path):
    config = LoraConfig(2, 4.0, SOME)
    export_adapter(noisy(stories.model, config), config, tmp_path, "base")
    return tmp_path


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"peft_type": "IA3"}, "only plain LoRA"),
        ({"use_dora": True}, "only plain LoRA"),
        ({"rank_pattern": {"q_proj": 8}}, "only plain LoRA.*LORA, rank_pattern"),
        ({"alpha_pattern": {"q_proj": 8}}, "only plain LoRA.*alpha_pattern"),
        ({"modules_to_save": ["lm_head"]}, "only plain LoRA.*modules_to_save"),
        ({"layers_to_transform": [0, 1]}, "no place"),
        ({"layers_to_transform": [99]}, r"layers_to_transform \[99\] leave nothing.*layers 0 to 4"),
        ({"exclude_modules": list(ALL)}, "leave nothing"),
        ({"layers_pattern": "blocks"}, "only plain LoRA.*layers_pattern blocks"),
        ({"target_modules": ["q_proj", "embed_tokens"]}, "no other module .embeddings.*merge_and_unload"),
        ({"lora_bias": True}, "only plain LoRA.*lora_bias"),
        ({"init_lora_weights": "pissa_niter_4"}, "only plain LoRA.*init_lora_weights pissa_niter_4"),
        ({"bias": "all"}, "only plain LoRA.*bias all"),
        ({"r": 3}, "has shape"),
        ({"target_modules": ["q_proj"]}, "no place"),
        ({"target_modules": list(ALL)}, "is missing"),
        ({"target_modules": ["q_proj", "c_attn"]}, "c_attn"),
        ({"target_modules": None}, "target_modules"),
        ({"r": None}, "r"),
        ({"r": 2.5}, "r"),
        ({"lora_alpha": math.nan}, "lora_alpha"),
        ({"lora_alpha": math.inf}, "lora_alpha"),
    ],
)
def test_adapters_that_do_not_fit(stories, adapter, changes, match):
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(DataError, match=match):
        import_adapter(stories.model, adapter)


def hostile(path, name, shape):
    """A file that says it holds one float32 tensor of this shape, and takes no room."""
    size = 4 * int(np.prod(shape))
    head = json.dumps({name: {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}}).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(head)) + head)
        f.truncate(8 + len(head) + size)


@pytest.mark.parametrize(
    ("rank", "shape", "match"),
    [(10**9, [10**9, 64], "is missing|has shape"), (2, [5_000_000, 5_000], "has shape"), (10**15, [2, 2], "has shape")],
)
def test_adapters_are_not_taken_at_their_word(stories, adapter, rank, shape, match):
    """Neither a rank nor a file of 100 GB makes anything of that size."""
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"r": rank}))
    key = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    hostile(adapter / "adapter_model.safetensors", key, shape)
    start = time.process_time()
    with pytest.raises(DataError, match=match) as e:
        import_adapter(stories.model, adapter)
    assert str(adapter / "adapter_model.safetensors") in str(e.value)
    assert time.process_time() - start < 1


@pytest.mark.parametrize("data", [b"", b"\0" * 7, struct.pack("<Q", 2**31) + b"{}", struct.pack("<Q", 8) + b"not JSON"])
def test_adapter_files_that_are_none(stories, adapter, data):
    (adapter / "adapter_model.safetensors").write_bytes(data)
    with pytest.raises(DataError, match=r"adapter_model\.safetensors cannot be read"):
        import_adapter(stories.model, adapter)


def test_adapters_of_integers(stories, adapter):
    weights = adapter / "adapter_model.safetensors"
    save_file({k: v.astype(np.int32) for k, v in load_file(weights).items()}, weights)
    with pytest.raises(DataError, match="has dtype int32"):
        import_adapter(stories.model, adapter)


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.pt"])
def test_pickled_adapters(stories, adapter, name):
    (adapter / "adapter_model.safetensors").rename(adapter / name)
    with pytest.raises(DataError, match="is not an adapter"):
        import_adapter(stories.model, adapter)


def test_damaged_adapters(stories, adapter, tmp_path):
    weights = adapter / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-10])
    with pytest.raises(DataError, match="cannot be read"):
        import_adapter(stories.model, adapter)
    weights.write_bytes(whole)
    tensors = load_file(weights)
    next(iter(tensors.values()))[0, 0] = np.nan
    save_file(tensors, weights)
    with pytest.raises(DataError, match="NaN"):
        import_adapter(stories.model, adapter)
    weights.unlink()
    with pytest.raises(DataError, match="is not an adapter"):
        import_adapter(stories.model, adapter)
