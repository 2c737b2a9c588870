"""Whether a tokenizer fits an embedding: every id it gives is a row of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edjax.keep.errors import DataError

# Tokens that makers ship beyond the rows of text models, which never saw one: Gemma 3 1B's mark of an image, and the
# marks for filling in that Code Llama's sizes without it have.
UNTRAINED = {"<image_soft_token>", "▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>"}


def check_tokens(tokenizer: Any, rows: int, directory: Path) -> None:
    """Refuse a tokenizer with an id that the embedding has no row for; with fewer ids than rows it is fine.

    A padding token beyond the rows, and those of UNTRAINED, are taken out of the tokenizer instead: no row needs them,
    and where one spells them they are read as any other text.

    Raises:
      DataError: names the tokens and says how many rows there are.
    """
    beyond = {token: i for token, i in tokenizer.get_vocab().items() if i >= rows}
    if not beyond:
        return
    spare = UNTRAINED | {str(tokenizer.pad_token)} - {tokenizer.eos_token, tokenizer.bos_token, tokenizer.unk_token}
    if beyond.keys() <= spare and getattr(tokenizer, "backend_tokenizer", None) is not None:
        _forget(tokenizer, beyond.keys())
        return
    first = sorted(beyond, key=beyond.__getitem__)[:3]
    named = ", ".join(f"{token!r} ({beyond[token]})" for token in first)
    more = f" and {len(beyond) - 3} more" if len(beyond) > 3 else ""
    raise DataError(
        f"{directory}: the embedding has {rows} rows, and the tokenizer knows tokens beyond them: {named}{more}; take "
        "them out of tokenizer.json, or save the model again after resize_token_embeddings(len(tokenizer))"
    )


def _forget(tokenizer: Any, tokens: Any) -> None:
    """Take added tokens out of a tokenizer, which has no call for it."""
    from tokenizers import Tokenizer

    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["added_tokens"] = [t for t in state["added_tokens"] if t["content"] not in tokens]
    vocab = state["model"]["vocab"]
    if isinstance(vocab, dict):
        for token in tokens:
            vocab.pop(token, None)
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(state))
