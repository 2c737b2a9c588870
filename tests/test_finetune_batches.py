"""What a batch holds: packing, accumulation, dropout and the turns of a conversation change nothing they should not."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lm_cases import pair_batch, story_pool, tiny_model

from edjax.data.pool import Pool
from edjax.finetuning import FinetuneConfig, finetune
from edjax.finetuning.examples import encode_rows
from edjax.finetuning.order import Order, pack_rows, split_rows
from edjax.keep.errors import DataError, UsageError
from edjax.lm.batch import Example, make_batch
from edjax.lm.encode import Encoder
from edjax.lm.load import load
from edjax.lm.lora import LoraConfig, add_lora
from edjax.lm.train import Trainer, response_nll


def examples(n=24, vocabulary=500, longest=20):
    rng = np.random.default_rng(0)
    return [
        Example.of(rng.integers(5, vocabulary, rng.integers(1, longest)).tolist(), [*rng.integers(5, vocabulary, k), 2])
        for k in rng.integers(0, 8, n)
    ]


@pytest.fixture(scope="module")
def windowed(tmp_path_factory):
    """A random Mistral whose window is shorter than most rows here."""
    path = tmp_path_factory.mktemp("model") / "m"
    tiny_model(path, model_type="mistral", architectures=["MistralForCausalLM"], sliding_window=7)
    return load(str(path))


@pytest.fixture(params=["stories", "windowed"])
def loaded(request):
    return request.getfixturevalue(request.param)


def adapted(model, **kw):
    """With an adapter whose B is not zero."""
    out = add_lora(model, LoraConfig(2, 4.0, **kw))
    for i, linear in enumerate((out.layers.q_proj, out.layers.down_proj)):
        linear.lora_b[...] = 0.05 * jax.random.normal(jax.random.key(i), linear.lora_b.shape)
    return out


def far(a, b):
    """The largest difference of two trees, relative to the largest entry."""
    a, b = (np.concatenate([np.ravel(v) for v in jax.tree.leaves(t)]) for t in (a, b))
    return np.abs(a - b).max() / np.abs(b).max()


# Packing


@pytest.mark.parametrize("capacity", [20, 32, 100])
def test_pack_rows(capacity):
    lengths = np.random.default_rng(1).integers(1, 21, 200)
    bins = pack_rows(lengths, capacity)
    assert sorted(i for b in bins for i in b) == list(range(200))
    totals = [lengths[b].sum() for b in bins]
    assert max(totals) <= capacity
    assert len(bins) <= 11 / 9 * np.ceil(lengths.sum() / capacity) + 4
    assert pack_rows(lengths, capacity) == bins


def test_packed_loss_and_gradient_are_the_unpacked(loaded):
    """Each token's loss, whatever it is packed with: RELIABILITY's 1e-5."""
    rows = examples(vocabulary=250)
    lengths = np.asarray([len(e.tokens) for e in rows])
    bins = pack_rows(lengths, 48)
    assert len(bins) < len(rows) / 2
    packed = make_batch([[rows[i] for i in b] for b in bins], len(bins) + 1, packed=True)
    alone = make_batch([[e] for e in rows], len(rows))
    trainer = Trainer(adapted(loaded.model))
    losses, grads = zip(
        *(trainer.gradients(trainer.state.lora, trainer.frozen, b) for b in (packed, alone)), strict=True
    )
    assert abs(losses[0] - losses[1]) < 1e-5
    assert far(*grads) < 1e-4
    run = jax.jit(lambda m, b: response_nll(m, b, remat=False))
    got, want = run(trainer.model(), packed), run(trainer.model(), alone)
    flat = np.concatenate([np.asarray(got[i])[: sum(len(rows[j].trained) for j in b)] for i, b in enumerate(bins)])
    each = np.concatenate([np.asarray(want[j])[: len(rows[j].trained)] for b in bins for j in b])
    np.testing.assert_allclose(flat, each, atol=2e-5)


def test_rows_without_segments_would_see_each_other(stories):
    """What packing would do without its mask: the losses differ, so the test above can fail."""
    rows = examples()[:2]
    packed = make_batch([rows], 1, packed=True)
    run = jax.jit(lambda m, b: response_nll(m, b, remat=False).sum())
    assert abs(run(stories.model, packed) - run(stories.model, packed._replace(segments=None))) > 1e-2
    with pytest.raises(ValueError, match="packed=True"):
        make_batch([rows], 1)


def test_a_packed_run(stories, tmp_path):
    """The whole road: fewer steps, all rows in every epoch, the loss falls, the same bytes again."""
    config = FinetuneConfig(num_train_epochs=4, per_device_train_batch_size=2, max_length=64, packing=True, lora_r=2)
    for name in ("a", "b"):
        done = finetune(story_pool(24), "s", out=tmp_path / name, config=config, loaded=stories, show_progress=False)
    log = [json.loads(line) for line in (tmp_path / "a" / "metrics.jsonl").read_text().splitlines()]
    assert done.steps == len(log) < 4 * 12
    assert log[-1]["loss"] < log[0]["loss"]
    one, two = ((tmp_path / n / "adapter_model.safetensors").read_bytes() for n in "ab")
    assert one == two


def test_order_has_every_row_once_an_epoch():
    lengths = np.random.default_rng(2).integers(1, 30, 101)
    for capacity in (None, 40):
        order = Order.of(lengths, 4, 7, group_by_length=True, capacity=capacity)
        for epoch in range(3):
            seen = [order.rows(epoch * order.per_epoch + i) for i in range(order.per_epoch)]
            assert sorted(i for batch in seen for s in batch for i in s) == list(range(101))
            assert all(len(batch) <= 4 for batch in seen)
        assert order.rows(0) == order.rows(0) != order.rows(order.per_epoch)


# Accumulation


@pytest.mark.parametrize("packed", [False, True])
def test_accumulated_step_is_the_big_batch(stories, packed):
    """Rows of unlike numbers of trained tokens: the mean is over tokens, not over micro-batches."""
    rows = examples()
    sequences = [[e] for e in rows[:8]] if not packed else [rows[i : i + 3] for i in range(0, 24, 3)]
    batch = make_batch(sequences, 8, packed=packed)
    done = []
    for parts in (1, 2, 4):
        trainer = Trainer(adapted(stories.model))
        infos = [trainer.step(batch.split(parts), 1e-2)]
        gradient = trainer.state.opt_state[1].mu  # Adam's first moment: a tenth of the clipped gradient
        gradient = jax.tree.map(jnp.copy, gradient)
        infos += [trainer.step(batch.split(parts), 1e-2) for _ in range(2)]
        done.append((gradient, [(float(i.loss), float(i.grad_norm)) for i in infos]))
    for gradient, infos in done[1:]:
        assert far(gradient, done[0][0]) < 1e-5
        np.testing.assert_allclose(infos, done[0][1], rtol=2e-5)


def test_accumulation_through_finetune(stories, tmp_path):
    base = FinetuneConfig(num_train_epochs=2, lora_r=2, max_length=32, per_device_train_batch_size=8)
    small = dataclasses.replace(base, per_device_train_batch_size=2, gradient_accumulation_steps=4)
    logs = []
    for name, config in (("big", base), ("small", small)):
        finetune(story_pool(20), "s", out=tmp_path / name, config=config, loaded=stories, show_progress=False)
        logs.append([json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()])
    assert len(logs[0]) == len(logs[1]) == 6
    np.testing.assert_allclose([e["loss"] for e in logs[0]], [e["loss"] for e in logs[1]], atol=1e-5)


# Dropout


def test_dropout_is_a_function_of_seed_and_step(stories):
    batch = pair_batch([(list(range(10, 20)), [30, 31, 2]), ([7, 8], [9, 2])], 2)

    def losses(seed, numbers, **kw):
        trainer = Trainer(adapted(stories.model, **kw), seed=seed)
        return [float(trainer.step(batch, 0.0, n).loss) for n in numbers]

    one = losses(0, (0, 1, 0), lora_dropout=0.5)
    assert one[0] == one[2] != one[1]
    assert losses(1, (0,), lora_dropout=0.5)[0] != one[0]
    plain = losses(0, (0, 1))
    assert plain[0] == plain[1]
    trainer = Trainer(adapted(stories.model, lora_dropout=0.5))
    np.testing.assert_allclose(trainer.loss([batch]), plain[0], rtol=1e-6)  # evaluation drops nothing


def test_dropout_keeps_the_expectation(stories):
    """The mean over many keys of x W + drop(x) A B is x (W + A B): PEFT's place and scale of dropout."""
    from edjax.lm.linear import dropout

    x = jax.random.normal(jax.random.key(0), (64, 32))
    drawn = jax.vmap(lambda k: dropout(x, 0.3, k))(jax.random.split(jax.random.key(1), 4000))
    np.testing.assert_allclose(drawn.mean(0), x, atol=0.15)
    assert abs(float((drawn == 0).mean()) - 0.3) < 0.002
    linear = adapted(stories.model, lora_dropout=0.3).layers.q_proj
    one = jax.tree.map(lambda v: v[0], linear)
    x = jax.random.normal(jax.random.key(2), (3, linear.kernel.shape[1]))
    keys = jax.random.split(jax.random.key(3), 8000)
    many = jax.jit(jax.vmap(lambda k: one(x, k)))(keys)
    spread = np.asarray(many).std(0) / np.sqrt(len(keys))
    assert (np.abs(many.mean(0) - one(x)) < 5 * spread + 1e-5).all()
    assert np.asarray(many).std(0).max() > 1e-3


# Conversations

TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}<|endoftext|>\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    """A byte-level tokenizer with a chat template."""
    path = tmp_path_factory.mktemp("model") / "chat"
    tiny_model(path)
    loaded = load(str(path))
    loaded.tokenizer.chat_template = TEMPLATE
    return loaded


def conversation(turns):
    messages = tuple({"role": r, "content": c} for r, c in turns[:-1])
    return Pool(("talk",), (messages,), (turns[-1][1],), ({"id": "talk"},), None, "test")


TURNS = [
    ("user", "Hi"),
    ("assistant", "Hello you"),
    ("user", "And?"),
    ("assistant", "Well."),
    ("user", "?"),
    ("assistant", "Bye"),
]


@pytest.mark.parametrize("limit", [1024, 60, 45, 16, 2])
def test_every_turn(chat, limit):
    """The trained tokens are, letter by letter, the assistant's text and the token that ends each of its turns."""
    encoder = Encoder(chat.tokenizer, max_length=limit)
    pool = conversation(TURNS)
    _, (every,) = encode_rows(pool, encoder, every_turn=True)
    _, (last,) = encode_rows(pool, encoder)
    assert every.tokens == last.tokens
    assert len(every.tokens) <= limit

    def text(example):
        return chat.tokenizer.decode([example.tokens[i] for i in example.trained])

    want = "Hello you<|endoftext|>Well.<|endoftext|>Bye<|endoftext|>"
    assert min(every.trained) > 0
    if limit == 1024:
        assert text(every) == want
    elif limit == 2:
        assert text(every) == "B"
    else:
        assert want.endswith(text(every))
        assert text(every).endswith("Bye<|endoftext|>")
    if limit == 45:
        assert len(every.trained) > len(last.trained)


def test_every_turn_through_finetune(chat, tmp_path):
    pool = conversation(TURNS)
    config = FinetuneConfig(num_train_epochs=1, lora_r=1, assistant_only_loss=True)
    done = finetune(pool, "c", out=tmp_path / "a", config=config, loaded=chat, show_progress=False)
    assert done.response_tokens == len("Hello youWell.Bye") + 3
    plain = dataclasses.replace(config, template="plain")
    with pytest.raises(UsageError, match="needs a chat template"):
        finetune(pool, "c", out=tmp_path / "b", config=plain, loaded=chat, show_progress=False)


def test_a_template_that_forgets(chat):
    """One that shortens earlier turns cannot say which tokens are theirs: refused, with the row's name."""
    loaded_template, chat.tokenizer.chat_template = (
        chat.tokenizer.chat_template,
        (
            "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] if loop.last else m['content'][:2] }}<|endoftext|>"
            "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
        ),
    )
    try:
        with pytest.raises(DataError, match=r"row 'talk': the chat template renders turn 2 differently"):
            encode_rows(conversation(TURNS), Encoder(chat.tokenizer), every_turn=True)
    finally:
        chat.tokenizer.chat_template = loaded_template


def test_the_end_of_a_response_is_the_templates(tmp_path):
    """Gemma's way: turns end with a token that is not the end of text."""
    tiny_model(tmp_path)
    tokenizer = load(str(tmp_path)).tokenizer
    tokenizer.add_special_tokens({"additional_special_tokens": ["<turn>"]})
    mark = tokenizer.convert_tokens_to_ids("<turn>")
    tokenizer.chat_template = TEMPLATE.replace("<|endoftext|>", "<turn>")
    assert Encoder(tokenizer).response("Yes")[-1] == mark != tokenizer.eos_token_id
    assert Encoder(tokenizer, "plain").response("Yes")[-1] == tokenizer.eos_token_id
    tokenizer.chat_template = TEMPLATE.replace("<|endoftext|>", "")
    assert Encoder(tokenizer).response("Yes")[-1] == tokenizer.eos_token_id


def test_real_chat_template(smollm2):
    """SmolLM2: all assistant turns and nothing else, with the default system turn in front."""
    encoder = Encoder(smollm2.tokenizer)
    _, (example,) = encode_rows(conversation(TURNS), encoder, every_turn=True)
    text = smollm2.tokenizer.decode([example.tokens[i] for i in example.trained])
    assert text == "Hello you<|im_end|>Well.<|im_end|>Bye<|im_end|>"


# Validation rows


@pytest.mark.parametrize(("n", "share"), [(2, 0.1), (10, 0.25), (101, 0.1)])
def test_split_rows(n, share):
    kept, held = split_rows(n, share, 3)
    assert sorted([*kept, *held]) == list(range(n))
    assert len(held) == max(round(share * n), 1)
    assert len(kept) >= 1
    if n > 10:
        assert split_rows(n, share, 4)[1].tolist() != held.tolist()
