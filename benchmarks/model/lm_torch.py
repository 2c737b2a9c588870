"""The peer of `benchmarks.model.lm`: the same work by transformers and PEFT on torch, as their documentation does it.

Attention is torch's scaled_dot_product_attention (the default of transformers), AdamW its fused form; nothing is
compiled by torch.compile, as a user of `generate` or PEFT has it unless they ask.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

NAME = "transformers + PEFT on torch"


def versions() -> dict[str, str]:
    """Of the packages that are timed."""
    return {name: version(name) for name in ("torch", "transformers", "peft")}


class Torch:
    """A model as a torch user runs it: that of a directory, or what `load` gives. Every method but `lora` returns a
    function of no arguments."""

    def __init__(self, directory: Path | None, dtype: str, threads: int, load: Callable[[], Any] | None = None):
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(threads)
        self.dtype = getattr(torch, dtype)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self._load = load or (lambda: AutoModelForCausalLM.from_pretrained(directory, dtype=self.dtype).to(self.device))
        self._whole: Any = None
        self.adapted: Any = None  # of the last `lora`

    @property
    def model(self) -> Any:
        """Loaded when first asked for; without an end-of-text token, so that every answer has the wanted length."""
        if self._whole is None:
            self._whole = self._load().eval()
            self._whole.generation_config.eos_token_id = None
            self._whole.generation_config.pad_token_id = 0
        return self._whole

    def _on_device(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.asarray(array)).long().to(self.device)

    def _wait(self, value: Any) -> Any:
        if self.device == "cuda":
            torch.cuda.synchronize()
        return value

    def forward(self, tokens: np.ndarray, logits: bool) -> Callable[[], Any]:
        """The last hidden states (b, t, d), or the logits (b, t, v), as a tensor."""
        model, ids = self.model if logits else self.model.model, self._on_device(tokens)

        @torch.inference_mode()
        def run():
            out = model(input_ids=ids, use_cache=False)
            return self._wait(out.logits if logits else out.last_hidden_state)

        return run

    def decode(self, tokens: np.ndarray, new: int, scores: bool) -> Callable[[], Any]:
        """`generate`, greedy: the new ids (b, new); with `scores` the logits of every step are kept too."""
        model, ids = self.model, self._on_device(tokens)
        mask = torch.ones_like(ids)
        more = {"output_scores": True, "return_dict_in_generate": True} if scores else {}

        @torch.inference_mode()
        def run():
            out = model.generate(
                ids,
                attention_mask=mask,
                do_sample=False,
                use_cache=True,
                max_new_tokens=new,
                min_new_tokens=new,
                **more,
            )
            return self._wait(out)

        return run

    def lora(self, adapter: Path, batch: Any, rate: float, remat: bool) -> Callable[[], tuple[float, float]]:
        """A training step on an adapter in PEFT's format, on a copy of the model of its own: (loss, gradient norm)."""
        from peft import PeftModel

        model = PeftModel.from_pretrained(self._load(), str(adapter), is_trainable=True).train()
        if remat:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        self.adapted, base = model, model.get_base_model()
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=0.0, fused=True)
        ids, where, targets = (self._on_device(a) for a in (batch.tokens, batch.where, batch.targets))
        rows = torch.arange(len(ids), device=self.device)[:, None]

        def step() -> tuple[float, float]:
            hidden = base.model(input_ids=ids, use_cache=False).last_hidden_state
            logits = base.lm_head(hidden[rows, where]).float()
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            return loss.item(), norm.item()

        return step


def ids_of(result: Any, prompt: int) -> np.ndarray:
    """The new token ids (b, new) of what `decode` returned."""
    return getattr(result, "sequences", result)[:, prompt:].cpu().numpy()


def nll_of(result: Any) -> np.ndarray:
    """-ln P of every new token (b, new), from the scores kept."""
    found = [torch.logsumexp(s.float(), -1) - s.float().amax(-1) for s in result.scores]
    return torch.stack(found, 1).cpu().numpy()


def array_of(tensor: torch.Tensor) -> np.ndarray:
    """float32 on the host."""
    return tensor.float().cpu().numpy()
