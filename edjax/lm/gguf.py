"""A GGUF file of the Llama architecture, whole or split, dequantised once into a Hugging Face directory."""

from __future__ import annotations

import json
import os
import re
import shutil
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from edjax.keep.errors import DataError, EnvError
from edjax.lm.gguf_rope import scaling_of

CONVERTER = 2  # part of the name of what is kept of a .gguf: one more when another directory comes of the same file
MODULES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
HEADS = {"attn_q": "num_attention_heads", "attn_k": "num_key_value_heads"}  # whose rows are stored in another order
REQUIRED = (
    "llama.attention.head_count",
    "llama.attention.layer_norm_rms_epsilon",
    "llama.block_count",
    "llama.context_length",
    "llama.embedding_length",
    "llama.feed_forward_length",
    "tokenizer.ggml.tokens",
)
NEUTRAL = {  # settings beyond plain Llama, and the values at which they change nothing
    "rope.scaling.factor": (0, 1),
    "rope.scale_linear": (0, 1),
    "expert_count": (0,),
    "attention.clamp_kqv": (0,),
    "attention.scale": (0,),
    "attention.sliding_window": (0,),
    "attention.causal": (True,),
    "logit_scale": (0, 1),
    "embedding_scale": (0, 1),
    "residual_scale": (0, 1),
}
BIASES = {  # the switch in config.json, and the projections that have a bias where it is on
    "attention_bias": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
    "mlp_bias": ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
}
SPLIT = re.compile(r"(.+)-(\d{5})-of-(\d{5})")  # how llama-gguf-split names the parts of a file
ELSEWHERE = "use the safetensors that it was made from"
CONTROL = 3  # token type of special tokens in tokenizer.ggml.token_type


def parts(path: Path) -> list[Path]:
    """All files of a GGUF: itself, or where it is one part of a split one all of them in order.

    Raises:
      DataError: a part that is not there.
    """
    found = SPLIT.fullmatch(path.stem)
    if found is None or not 1 <= int(found[2]) <= int(found[3]):
        return [path]
    files = [path.with_stem(f"{found[1]}-{i:05d}-of-{found[3]}") for i in range(1, int(found[3]) + 1)]
    if absent := next((f for f in files if not f.is_file()), None):
        raise DataError(f"{path} is one of {int(found[3])} parts, and {absent.name} is not beside it; fetch it too")
    return files


def name_of(path: Path) -> str:
    """What the model is called: the file's name without the number of its part."""
    found = SPLIT.fullmatch(path.stem)
    return found[1] if found else path.stem


def tokenizer_of(path: Path) -> Path:
    """The tokenizer.json beside the file, which goes before the one that the file describes."""
    return path.with_name("tokenizer.json")


def convert(gguf_path: Path, out: Path) -> Path:
    """Write config.json, model.safetensors (float32), tokenizer.json and tokenizer_config.json into `out`.

    The directory appears whole or not at all. Of a split file, any part names all.

    Raises:
      EnvError: the `gguf` package is missing.
      DataError: the file is not GGUF, is damaged, not a Llama that the decoder computes, or its tokenizer is of an
        unknown kind.
    """
    try:
        import gguf
    except ImportError as e:
        raise EnvError("reading a GGUF file needs the package gguf: pip install 'edjax[demo]'") from e
    from safetensors.numpy import save_file

    files = parts(gguf_path)
    try:
        readers = [gguf.GGUFReader(str(f)) for f in files]
        meta = {name: field.contents() for name, field in readers[0].fields.items()}
    except (ValueError, IndexError, KeyError, OSError) as e:
        raise DataError(f"{gguf_path} is not a readable GGUF file ({e}); fetch it again") from e
    found = list(chain.from_iterable(reader.tensors for reader in readers))
    split = meta.get("split.count") or 1, meta.get("split.tensors.count", len(found))
    if split != (len(files), len(found)):
        raise DataError(
            f"{gguf_path} is one of {split[0]} parts of a split file, {split[1]} tensors in all; keep every part under "
            "the name it came with (...-00001-of-00002.gguf), or join them with `llama-gguf-split --merge`"
        )
    # GGUF names the dimension that varies fastest first.
    shapes = {t.name: tuple(int(n) for n in t.shape[::-1]) for t in found}
    try:
        _check(meta, gguf_path, shapes)
        config = hf_config(meta, shapes)
    except (TypeError, ValueError, ArithmeticError) as e:  # a list by layer, where Llama has one number
        raise DataError(f"{gguf_path} is no plain Llama ({e}); {ELSEWHERE}") from e
    tmp = out.with_name(f"{out.name}.tmp-{os.getpid()}")
    shutil.rmtree(tmp, ignore_errors=True)
    tmp.mkdir(parents=True)
    try:
        tensors: dict[str, np.ndarray] = {}
        for t in found:
            if t.name.endswith(("attn_rot_embd", "attn_rot_embd.weight")):
                continue  # old converters wrote the plain frequencies out, layer by layer
            try:
                value = gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32).reshape(shapes[t.name])
                for module, heads in HEADS.items():
                    if f".{module}." in t.name:
                        value = unpermute(value, config[heads])
            except (NotImplementedError, ValueError, ArithmeticError) as e:
                raise DataError(f"{gguf_path}: tensor {t.name!r} cannot be read ({e}); {ELSEWHERE}") from e
            if t.name == "rope_freqs.weight":
                scaling = scaling_of(value, config["rope_theta"], config["head_dim"])
                if scaling is None:
                    raise DataError(f"{gguf_path}: its {t.name} are not those of Llama 3.1's scaling; {ELSEWHERE}")
                config |= {"rope_scaling": scaling} if scaling else {}
                continue
            tensors[hf_name(t.name, gguf_path)] = np.ascontiguousarray(value)
        _fill_biases(tensors, config)
        # There are versions of transformers that refuse a file which does not name its format.
        save_file(tensors, tmp / "model.safetensors", metadata={"format": "pt"})
        _write(tmp / "config.json", config)
        _write_tokenizer(meta, gguf_path, tmp)
        if out.exists():
            shutil.rmtree(out)
        os.replace(tmp, out)
    finally:
        shutil.rmtree(tmp, ignore_errors=True)
    return out


def _check(meta: dict[str, Any], path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """Refuse what is no plain Llama: nothing would say so later, the logits would just be off."""
    if (kind := meta.get("general.type", "model")) != "model":
        raise DataError(f"{path} is of type {kind!r}, not a whole model")
    if (arch := meta.get("general.architecture")) != "llama":
        raise DataError(f"{path} is of architecture {arch!r}; from GGUF llama is supported: {ELSEWHERE}")
    if (scaling := meta.get("llama.rope.scaling.type", "none")) != "none":
        raise DataError(f"{path} uses rope scaling {scaling!r}, which edjax does not read from GGUF; {ELSEWHERE}")
    missing = [key for key in REQUIRED if key not in meta]
    missing += [name for name in ("token_embd.weight",) if name not in shapes]
    if missing:
        raise DataError(f"{path} lacks {', '.join(missing)}; is it a whole Llama checkpoint?")
    for key, neutral in NEUTRAL.items():
        if (value := meta.get(f"llama.{key}", neutral[0])) not in neutral:
            raise DataError(f"{path} sets llama.{key} to {value}, which edjax does not read from GGUF; {ELSEWHERE}")
    size = meta.get("llama.attention.key_length")
    size = meta["llama.embedding_length"] // meta["llama.attention.head_count"] if size is None else size
    for key in ("llama.rope.dimension_count", "llama.attention.value_length"):
        if meta.get(key, size) != size:
            raise DataError(f"{path} sets {key} to {meta[key]} beside heads of {size}; {ELSEWHERE}")


def _fill_biases(tensors: dict[str, np.ndarray], config: dict[str, Any]) -> None:
    """Where one projection has a bias, Hugging Face's Llama has one in all of its kind: zeros for the others."""
    for switch, modules in BIASES.items():
        config[switch] = any(name.endswith(tuple(f"{m}.bias" for m in modules)) for name in tensors)
        for name in list(tensors) if config[switch] else ():
            stem, _, leaf = name.rpartition(".")
            if leaf == "weight" and stem.endswith(modules):
                tensors.setdefault(f"{stem}.bias", np.zeros(len(tensors[name]), np.float32))


def hf_name(name: str, path: Path | str = "the file") -> str:
    """`blk.3.attn_q.weight` -> `model.layers.3.self_attn.q_proj.weight`."""
    top = {
        "token_embd.weight": "model.embed_tokens.weight",
        "output_norm.weight": "model.norm.weight",
        "output.weight": "lm_head.weight",
    }
    if name in top:
        return top[name]
    block, _, rest = name.partition(".")
    layer, _, rest = rest.partition(".")
    module, _, leaf = rest.partition(".")
    if block == "blk" and module in MODULES and (leaf == "weight" or (leaf == "bias" and "norm" not in module)):
        return f"model.layers.{layer}.{MODULES[module]}.{leaf}"
    raise DataError(f"{path}: unknown GGUF tensor {name!r}; a plain Llama checkpoint has none of this name")


def unpermute(w: np.ndarray, heads: int) -> np.ndarray:
    """Undo GGUF's reordering of query and key rows, and of their biases.

    llama.cpp rotates neighbouring pairs (2i, 2i+1), Hugging Face the two halves (i, i + k/2), so its converter
    interleaves the halves of every head. Left as they are the logits are wrong without any error: on a paragraph
    of prose (tests/lm/test_gguf.py) SmolLM2 then needs 1.47 bits per byte instead of 0.97.
    """
    return w.reshape(heads, len(w) // heads // 2, 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def hf_config(meta: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    """The config.json of the same model, from the settings and the shapes of the tensors."""
    a = "llama.attention."
    heads = int(meta[f"{a}head_count"])
    hidden = int(meta["llama.embedding_length"])
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": int(meta["llama.feed_forward_length"]),
        "num_hidden_layers": int(meta["llama.block_count"]),
        "num_attention_heads": heads,
        "num_key_value_heads": int(meta.get(f"{a}head_count_kv", heads)),
        "head_dim": int(meta.get(f"{a}key_length", hidden // heads)),
        # Of the table and not of the tokenizer: it may have rows that no token is of.
        "vocab_size": shapes["token_embd.weight"][0],
        "max_position_embeddings": int(meta["llama.context_length"]),
        # Stored as float32, 1e-5 comes back as 9.99999974e-06; six digits are what the original config said.
        "rms_norm_eps": float(f"{meta[f'{a}layer_norm_rms_epsilon']:.6g}"),
        "rope_theta": float(meta.get("llama.rope.freq_base", 10_000.0)),
        "hidden_act": "silu",
        "tie_word_embeddings": "output.weight" not in shapes,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": meta.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": meta.get("tokenizer.ggml.eos_token_id"),
        "dtype": "float32",
    }


def _write_tokenizer(meta: dict[str, Any], gguf_path: Path, out: Path) -> None:
    beside = tokenizer_of(gguf_path)
    tokens = meta["tokenizer.ggml.tokens"]

    def token(key: str) -> str | None:
        index = meta.get(f"tokenizer.ggml.{key}_token_id")
        return None if index is None else tokens[index]

    if beside.exists():
        shutil.copy(beside, out / "tokenizer.json")
    elif meta.get("tokenizer.ggml.model") == "gpt2" and meta.get("tokenizer.ggml.pre") == "smollm":
        _smollm_tokenizer(meta).save(str(out / "tokenizer.json"))
    else:
        raise DataError(
            f"{gguf_path}: tokenizer {meta.get('tokenizer.ggml.model')!r} / {meta.get('tokenizer.ggml.pre')!r} cannot "
            "be rebuilt from GGUF; put the model's tokenizer.json beside the file"
        )
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": token("bos"),
        "eos_token": token("eos"),
        "unk_token": token("unknown"),
        "pad_token": token("padding"),
        "model_max_length": int(meta["llama.context_length"]),
        "clean_up_tokenization_spaces": False,
        "chat_template": meta.get("tokenizer.chat_template"),
    }
    _write(out / "tokenizer_config.json", {k: v for k, v in settings.items() if v is not None})


def _smollm_tokenizer(meta: dict[str, Any]) -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens, kinds = meta["tokenizer.ggml.tokens"], meta["tokenizer.ggml.token_type"]
    merges = [tuple(m.split(" ")) for m in meta["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [t for t, kind in zip(tokens, kinds, strict=True) if kind == CONTROL]
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    return tokenizer


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
