"""The peer of `benchmarks.model.score`: the same pool by transformers on torch, by batched `generate`.

In the peer's favour: rows run sorted by length, so that it pads little, where a plain loop over the file would not; the
model is warm before the clock starts; and the six scores are computed step by step without a copy of all logits.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from edjax.data.features import UNCERTAINTIES

NAME = "transformers on torch"


def versions() -> dict[str, str]:
    """Of the packages that are timed."""
    return {name: version(name) for name in ("torch", "transformers")}


class Torch:
    """A model directory as a torch user runs it; loaded and warm."""

    def __init__(self, directory: Any, threads: int):
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(threads)
        self.tokenizer = AutoTokenizer.from_pretrained(directory)
        self.model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
        stops = self.model.generation_config.eos_token_id
        self.stops = torch.tensor(stops if isinstance(stops, list) else [stops])
        _batch(self.model, [[3, 4, 5]] * 4, 2, self.stops)

    def score(self, encode: Any, pool: Any, new: int, batch_size: int, after_batch: Any = None) -> dict[str, Any]:
        """Mean-pooled last hidden states, greedy continuations and their six scores of every row of a pool.

        Args:
          encode: from a row's messages to token ids.
          after_batch: is called after each.
        """
        rows = [encode(m) for m in pool.messages]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        parts, texts = [], [""] * len(rows)
        for at in range(0, len(rows), batch_size):
            which = order[at : at + batch_size]
            part = _batch(self.model, [rows[i] for i in which], new, self.stops)
            found = self.tokenizer.batch_decode(part.pop("tokens"), skip_special_tokens=True)
            for i, text in zip(which, found, strict=True):
                texts[i] = text
            parts.append(part)
            if after_batch:
                after_batch()
        back = np.argsort(order)
        return {k: np.concatenate([p[k] for p in parts])[back] for k in parts[0]} | {"generated": texts}


@torch.inference_mode()
def _batch(model: Any, rows: list[list[int]], new: int, stops: torch.Tensor) -> dict[str, Any]:
    width, pad = max(map(len, rows)), int(stops[0])
    ids = torch.tensor([[pad] * (width - len(r)) + r for r in rows])
    mask = torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rows])
    out = model.generate(
        ids,
        attention_mask=mask,
        do_sample=False,
        max_new_tokens=new,
        pad_token_id=pad,
        output_hidden_states=True,
        output_scores=True,
        return_dict_in_generate=True,
    )
    states = out.hidden_states[0][-1]
    embedding = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    tokens = out.sequences[:, width:]
    ended = torch.isin(tokens, stops).int().cumsum(1)
    live = (ended - torch.isin(tokens, stops).int()) == 0
    entropy, margin, nll = (torch.stack(v, 1) for v in zip(*map(_statistics, out.scores, tokens.T), strict=True))
    count = live.sum(1)
    zero, least = torch.zeros(()), torch.tensor(-torch.inf)

    def mean(v: torch.Tensor) -> torch.Tensor:
        return torch.where(live, v, zero).sum(1) / count

    def largest(v: torch.Tensor) -> torch.Tensor:
        return torch.where(live, v, least).amax(1)

    six = (mean(entropy), largest(entropy), mean(nll) * count, mean(nll), -mean(margin), largest(-margin))
    found = {"embedding": embedding, "n_new_tokens": count, **dict(zip(UNCERTAINTIES, six, strict=True))}
    return {k: v.numpy() for k, v in found.items()} | {"tokens": tokens}


def _statistics(logits: torch.Tensor, token: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    logp = torch.log_softmax(logits, -1)
    p = logp.exp()
    top = torch.topk(p, 2, dim=-1).values
    return -(p * logp).sum(-1), top[:, 0] - top[:, 1], -logp.gather(1, token[:, None])[:, 0]
