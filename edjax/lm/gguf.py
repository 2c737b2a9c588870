"""A GGUF file of the Llama architecture, dequantised once into a Hugging Face directory."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from edjax.errors import DataError, EnvError

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
REQUIRED = (
    "llama.attention.head_count",
    "llama.attention.layer_norm_rms_epsilon",
    "llama.block_count",
    "llama.context_length",
    "llama.embedding_length",
    "llama.feed_forward_length",
    "tokenizer.ggml.tokens",
)
CONTROL = 3  # token type of special tokens in tokenizer.ggml.token_type


def convert(gguf_path: Path, out: Path) -> Path:
    """Write config.json, model.safetensors (float32), tokenizer.json and tokenizer_config.json into `out`.

    The directory appears whole or not at all.

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

    try:
        reader = gguf.GGUFReader(str(gguf_path))
        meta = {name: field.contents() for name, field in reader.fields.items()}
    except (ValueError, IndexError, KeyError, OSError) as e:
        raise DataError(f"{gguf_path} is not a readable GGUF file ({e}); fetch it again") from e
    if meta.get("general.architecture") != "llama":
        raise DataError(f"{gguf_path} is of architecture {meta.get('general.architecture')!r}; llama is supported")
    scaling = meta.get("llama.rope.scaling.type", "none")
    if scaling != "none":
        raise DataError(f"{gguf_path} uses rope scaling {scaling!r}, which edjax does not read from GGUF")
    missing = [key for key in REQUIRED if key not in meta]
    if missing:
        raise DataError(f"{gguf_path} lacks the settings {', '.join(missing)}; is it a whole Llama checkpoint?")
    config = hf_config(meta, tied=not any(t.name == "output.weight" for t in reader.tensors))
    tmp = out.with_name(f"{out.name}.tmp-{os.getpid()}")
    shutil.rmtree(tmp, ignore_errors=True)
    tmp.mkdir(parents=True)
    try:
        tensors = {}
        for t in reader.tensors:
            name = hf_name(t.name)
            value = gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32).reshape(t.shape[::-1])
            if name.endswith(("q_proj.weight", "k_proj.weight")):
                heads = "num_attention_heads" if name.endswith("q_proj.weight") else "num_key_value_heads"
                value = unpermute(value, config[heads])
            tensors[name] = np.ascontiguousarray(value)
        save_file(tensors, tmp / "model.safetensors", metadata={"format": "pt"})
        _write(tmp / "config.json", config)
        _write_tokenizer(meta, gguf_path, tmp)
        if out.exists():
            shutil.rmtree(out)
        os.replace(tmp, out)
    finally:
        shutil.rmtree(tmp, ignore_errors=True)
    return out


def hf_name(name: str) -> str:
    """`blk.3.attn_q.weight` -> `model.layers.3.self_attn.q_proj.weight`."""
    top = {
        "token_embd.weight": "model.embed_tokens.weight",
        "output_norm.weight": "model.norm.weight",
        "output.weight": "lm_head.weight",
    }
    if name in top:
        return top[name]
    parts = name.split(".")
    if len(parts) == 4 and parts[0] == "blk" and parts[2] in MODULES:
        return f"model.layers.{parts[1]}.{MODULES[parts[2]]}.{parts[3]}"
    raise DataError(f"unknown GGUF tensor {name!r}; a plain Llama checkpoint has none of this name")


def unpermute(w: np.ndarray, heads: int) -> np.ndarray:
    """Undo GGUF's reordering of query and key rows.

    llama.cpp rotates neighbouring pairs (2i, 2i+1), Hugging Face the two halves (i, i + k/2), so its converter
    interleaves the halves of every head. Left as they are the logits are wrong without any error: on a paragraph
    of prose (tests/lm/test_gguf.py) SmolLM2 then needs 1.47 bits per byte instead of 0.97.
    """
    out, n_in = w.shape
    return w.reshape(heads, out // heads // 2, 2, n_in).swapaxes(1, 2).reshape(out, n_in)


def hf_config(meta: dict[str, Any], *, tied: bool) -> dict[str, Any]:
    """The config.json of the same model."""
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
        "vocab_size": len(meta["tokenizer.ggml.tokens"]),
        "max_position_embeddings": int(meta["llama.context_length"]),
        "rms_norm_eps": float(f"{meta[f'{a}layer_norm_rms_epsilon']:.6g}"),
        "rope_theta": float(meta.get("llama.rope.freq_base", 10_000.0)),
        "hidden_act": "silu",
        "tie_word_embeddings": tied,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": meta.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": meta.get("tokenizer.ggml.eos_token_id"),
        "dtype": "float32",
    }


def _write_tokenizer(meta: dict[str, Any], gguf_path: Path, out: Path) -> None:
    beside = gguf_path.with_name("tokenizer.json")
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
