"""GGUF files of random models, written as llama.cpp's converter does."""

import gguf
import numpy as np
import pytest
from lm_cases import EOS, TINY, byte_alphabet

from edjax.keep.errors import DataError
from edjax.lm.gguf import MODULES, convert


def permute(w, heads):
    """As llama.cpp's convert_hf_to_gguf.py has it (LlamaModel.permute)."""
    return w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def write_gguf(path, tensors, config=TINY, arch="llama", pre="smollm", leave_out=(), **more):
    """A GGUF file of a random model, written as llama.cpp's converter does."""
    w = gguf.GGUFWriter(path, arch)
    w.add_context_length(config["max_position_embeddings"])
    w.add_embedding_length(config["hidden_size"])
    w.add_block_count(config["num_hidden_layers"])
    w.add_feed_forward_length(config["intermediate_size"])
    if "head_count" not in leave_out:
        w.add_head_count(config["num_attention_heads"])
    if "head_count_kv" not in leave_out:
        w.add_head_count_kv(config["num_key_value_heads"])
    w.add_key_length(config["head_dim"])
    w.add_layer_norm_rms_eps(config["rms_norm_eps"])
    w.add_rope_freq_base(config["rope_theta"])
    for name, value in more.items():
        getattr(w, name)(value)
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre(pre)
    w.add_token_list([*byte_alphabet(), EOS, "Ġt"])
    w.add_token_types([gguf.TokenType.NORMAL] * 256 + [gguf.TokenType.CONTROL, gguf.TokenType.NORMAL])
    w.add_token_merges(["Ġ t"])
    w.add_eos_token_id(256)
    w.add_chat_template("{% for m in messages %}{{ m.content }}{% endfor %}")
    names = {v: k for k, v in MODULES.items()}
    top = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    for name, value in tensors.items():
        stem, leaf = name.rsplit(".", 1)
        if stem == "rope_freqs":
            w.add_tensor(name, value)
            continue
        if stem in top:
            w.add_tensor(f"{top[stem]}.{leaf}", value)
            continue
        _, _, layer, module = stem.split(".", 3)
        if names.get(module) in ("attn_q", "attn_k"):
            heads = "num_attention_heads" if names[module] == "attn_q" else "num_key_value_heads"
            value = np.ascontiguousarray(permute(value, config[heads]))
        w.add_tensor(f"blk.{layer}.{names.get(module, module)}.{leaf}", value)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return path


def refused(path, out, match):
    with pytest.raises(DataError, match=match) as e:
        convert(path, out)
    assert str(path) in str(e.value)
    assert sorted(p.name for p in out.parent.iterdir()) == [path.name]  # nothing half-written
