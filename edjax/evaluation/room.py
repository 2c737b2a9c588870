"""How many adapters a device has memory to evaluate at once."""

from __future__ import annotations

from collections.abc import Sequence

from edjax.keep.memory import as_many_as_fit
from edjax.lm.batching import bucket
from edjax.lm.bounds import Row
from edjax.lm.config import LMConfig
from edjax.lm.head import CHUNK

MOST = 32


def adapters_at_once(
    model: LMConfig, rows: Sequence[Row], *, adapter: int, batch_size: int, max_new_tokens: int, dtype: str
) -> int:
    """As many adapters as fit beside what the first device holds already, 32 at the most; 1 on a CPU, which one adapter
    keeps busy, and where the memory of a device is not to be known. Arguments as in `bytes_of_one`."""
    each = bytes_of_one(model, rows, adapter=adapter, batch_size=batch_size, max_new_tokens=max_new_tokens, dtype=dtype)
    return as_many_as_fit(each, MOST)


def bytes_of_one(
    model: LMConfig, rows: Sequence[Row], *, adapter: int, batch_size: int, max_new_tokens: int, dtype: str
) -> int:
    """An estimate of what one adapter more takes, from the longest prompt and the longest response.

    Counted: its parameters once more, since those of a pass are stacked; hidden states and key-value cache of a batch,
    the cache twice, of the prompts and grown; what one layer computes, attention scores among it; and logits.

    Args:
      adapter: bytes of its parameters.
      batch_size: rows of each adapter a batch.
      dtype: of activations, float32 or bfloat16.
    """
    size = 2 if dtype == "bfloat16" else 4
    queries, keys = model.num_heads * model.head_dim, model.num_kv_heads * model.head_dim
    d, f = model.hidden_size, model.intermediate_size
    prompt = bucket(max(len(row.prompt) for row in rows))
    further = max(max_new_tokens, bucket(max(len(row.response) for row in rows)))
    whole = prompt + further
    cache = model.num_layers * 2 * keys * (prompt + whole)
    a_layer = (2 * queries + 2 * keys + 3 * f + 4 * d) * whole
    scores = 3 * model.num_heads * whole * whole
    logits = 2 * model.vocab_size * max(batch_size, CHUNK)
    return adapter + batch_size * (size * (cache + a_layer) + 4 * scores) + 4 * logits
