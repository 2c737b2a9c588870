"""Cases for the language-model tests: small pools, models made up on the spot, and plain reference formulas."""

import json
from functools import cache, partial
from pathlib import Path

import jax
import numpy as np
from safetensors.numpy import save_file

from edjax.data.pool import Pool

STORY = "Once upon a time"
STORY_GOES_ON = (
    ", there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big, red ball."
)
STORIES = (
    "Once upon a time, there was a little boy named Tim. He had a big red ball.",
    "Lily and her mom went to the park.",
    "The cat",
    'One day, a dog saw a bird in the tree. The bird said, "Hello! Do you want to play with me?" The dog was happy.',
    "Tom wanted to",
    "She was sad. Her toy was lost, and she did not know where to look for it.",
)
ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def make_pool(rows, source="test") -> Pool:
    """A pool of (prompt, response) or (prompt, response, further columns)."""
    ids, messages, responses, records = [], [], [], []
    for i, (prompt, response, *more) in enumerate(rows):
        ids.append(f"row-{i}")
        messages.append(({"role": "user", "content": prompt},))
        responses.append(response)
        records.append({"id": ids[-1], "prompt": prompt, "response": response, **(more[0] if more else {})})
    return Pool(tuple(ids), tuple(messages), tuple(responses), tuple(records), None, source)


def pair_batch(pairs, batch_size):
    """A training batch of (prompt ids, response ids) rows."""
    from edjax.lm.batch import Example, make_batch

    return make_batch([[Example.of(p, r)] for p, r in pairs], batch_size)


def story_pool(n: int) -> Pool:
    """n prompts of many lengths with short answers, all different, in the words the stories model knows."""
    who = ("Tim", "Lily", "Tom", "Mia", "Ben", "Sue", "Max")
    what = ("a red ball", "a big dog", "the little cat", "some cake", "a tree", "her mom")
    rows = []
    for i in range(n):
        a, b = who[i % len(who)], what[i % len(what)]
        prompt = " ".join([f"{a} saw {b} {i} times."] + [f"Then {a} was happy."] * (i % 3))
        rows.append((prompt, f"{a} liked {b}." if i % 3 else f"{a} said hello {i}."))
    return make_pool(rows)


def reference(torch, directory):
    """transformers' own torch model of a directory, float32, eager attention."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager")
    return model.eval()


def reference_outputs(torch, model, ids):
    """(logits, hidden states of every layer) of one token row, as NumPy."""
    with torch.no_grad():
        out = model(torch.tensor([list(ids)]), output_hidden_states=True)
    return out.logits[0].numpy(), [h[0].numpy() for h in out.hidden_states]


@cache
def _forward(layer):
    @jax.jit
    def run(model, tokens):
        hidden, wanted, _ = model.prefill(tokens, layer=layer)
        return model.logits(hidden), wanted

    return run


def forward(model, ids, layer=-1):
    """(logits (t, v), hidden states of `layer` (t, d)) of one token row.

    Padded to few widths, so that little is compiled; test_decoder shows that this changes no real token.
    """
    tokens = np.zeros((1, -(-len(ids) // 64) * 64), np.int32)
    tokens[0, : len(ids)] = ids
    logits, wanted = _forward(layer)(model, tokens)
    return np.asarray(logits[0, : len(ids)]), np.asarray(wanted[0, : len(ids)])


def log_softmax(logits):
    """In float64."""
    z = np.asarray(logits, np.float64)
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def nll_of(model, prompt, response):
    """-ln P of each response token, float64, from one full forward."""
    logp = log_softmax(forward(model, [*prompt, *response])[0])
    return np.array([-logp[len(prompt) - 1 + j, t] for j, t in enumerate(response)])


def greedy(model, ids, n, eos_ids):
    """(tokens, their logits) by n full forwards over a growing row; stops after an end-of-text token."""
    row, seen = list(ids), []
    for _ in range(n):
        seen.append(forward(model, row)[0][-1])
        row.append(int(seen[-1].argmax()))
        if row[-1] in eos_ids:
            break
    return row[len(ids) :], np.array(seen)


TINY = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 258,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
    "bos_token_id": None,
    "eos_token_id": 256,
    "dtype": "float32",
}
EOS = "<|endoftext|>"


@cache
def byte_alphabet() -> tuple[str, ...]:
    """The 256 letters of byte-level BPE in the order of GPT-2's vocabulary."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in printable]
    return tuple(map(chr, printable)) + tuple(chr(256 + i) for i in range(len(rest)))


def tiny_tensors(config=TINY, seed=0) -> dict[str, np.ndarray]:
    """Random weights of a Llama under their Hugging Face names."""
    rng = np.random.default_rng(seed)
    d, f, k = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    q, kv = config["num_attention_heads"] * k, config["num_key_value_heads"] * k
    draw = partial(_draw, rng)
    out = {"model.embed_tokens.weight": draw(config["vocab_size"], d), "model.norm.weight": 1 + draw(d)}
    if not config["tie_word_embeddings"]:
        out["lm_head.weight"] = draw(config["vocab_size"], d)
    for i in range(config["num_hidden_layers"]):
        shapes = {
            "input_layernorm": (d,),
            "post_attention_layernorm": (d,),
            "self_attn.q_proj": (q, d),
            "self_attn.k_proj": (kv, d),
            "self_attn.v_proj": (kv, d),
            "self_attn.o_proj": (d, q),
            "mlp.gate_proj": (f, d),
            "mlp.up_proj": (f, d),
            "mlp.down_proj": (d, f),
        }
        for name, shape in shapes.items():
            out[f"model.layers.{i}.{name}.weight"] = draw(*shape) + (1 if len(shape) == 1 else 0)
    return {name: np.ascontiguousarray(v, np.float32) for name, v in out.items()}


def _draw(rng, *shape):
    return 0.15 * rng.standard_normal(shape)


def write_tokenizer(directory: Path) -> None:
    """A byte-level tokenizer of 256 letters, one merge and an end-of-text token."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    vocab = {c: i for i, c in enumerate(byte_alphabet())} | {EOS: 256, "Ġt": 257}
    tokenizer = Tokenizer(models.BPE(vocab, [("Ġ", "t")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(EOS, special=True, normalized=False)])
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": EOS}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))


def tiny_model(directory: Path, seed=0, **overrides) -> dict[str, np.ndarray]:
    """Write a whole random model directory; returns its tensors."""
    config = TINY | overrides
    directory.mkdir(parents=True, exist_ok=True)
    tensors = tiny_tensors(config, seed)
    (directory / "config.json").write_text(json.dumps(config))
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    write_tokenizer(directory)
    return tensors
