"""Chat rows to token ids: a prompt, or a prompt with the response that is to be learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edjax.errors import DataError, UsageError
from edjax.lm.untrusted import bounded

TEMPLATES = ("auto", "chat", "plain")
Message = dict[str, str]


class Encoder:
    """Encodes rows one way throughout a run.

    A chat template is code of the model's maker. It runs in jinja2's sandbox, as `transformers` sets it up (no access
    to Python's internals, no files, no changes to its input), for 5 s of processor time a prompt at the most; memory is
    not bounded. Whatever it raises is a `DataError`.

    Args:
      tokenizer: a `transformers` tokenizer.
      template: "chat" puts the model's chat template around the prompt; "plain" joins the messages' text with
        newlines and ends it with one; "auto" is "chat" where the tokenizer has a template, else "plain".
      max_length: prompts longer than this many tokens keep their last `max_length` tokens.

    Raises:
      UsageError: "chat" was asked of a tokenizer without a chat template.
    """

    def __init__(self, tokenizer: Any, template: str = "auto", max_length: int = 1024):
        if template not in TEMPLATES:
            raise UsageError(f"template {template!r} is not one of {', '.join(TEMPLATES)}")
        has = bool(getattr(tokenizer, "chat_template", None))
        if template == "chat" and not has:
            raise UsageError("template chat: the model's tokenizer has no chat template; use --template plain")
        self.chat = has and template != "plain"
        self.tokenizer = tokenizer
        self.max_length = max_length

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a prompt, ready to be continued by a response."""
        if self.chat:
            try:
                with bounded():
                    text = self.tokenizer.apply_chat_template(
                        list(messages), tokenize=False, add_generation_prompt=True
                    )
            except Exception as e:  # a template may raise anything, and does for roles it does not know
                raise DataError(f"the chat template refuses these messages: {e}") from e
            ids = self.tokenizer(text, add_special_tokens=False).input_ids
        else:
            ids = self.tokenizer("\n".join(m["content"] for m in messages) + "\n").input_ids
        if not ids:
            raise DataError("a prompt has no tokens")
        return ids[-self.max_length :]

    def response(self, text: str) -> list[int]:
        """Token ids of a response, its end-of-text token included."""
        return [*self.tokenizer(text, add_special_tokens=False).input_ids, self.tokenizer.eos_token_id]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of generated ids, special tokens left out."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True)
