"""Chat rows to token ids: a prompt, or a prompt with the response that is to be learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edjax.errors import DataError, UsageError
from edjax.lm.tools import Message as Message
from edjax.lm.tools import check_shown, refuse_plain
from edjax.lm.untrusted import bounded

TEMPLATES = ("auto", "chat", "plain")
Tools = Sequence[dict[str, Any]] | None


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
        self.end = self._end_of_turn() if self.chat else tokenizer.eos_token_id

    def prompt(self, messages: Sequence[Message], tools: Tools = None) -> list[int]:
        """Token ids of a prompt, ready to be continued by a response.

        Args:
          messages: turns with role and content, and with tool_calls where they call `tools` (`edjax.tools`).

        Raises:
          DataError: a prompt without tokens; messages that the template refuses, or tools that it leaves out.
        """
        if self.chat:
            text = self._render(messages, tools)
            if tools or any("tool_calls" in m or m["role"] == "tool" for m in messages):
                check_shown(text, messages, self._render if tools else None, lambda m: self._render(m, tools))
            ids = self.tokenizer(text, add_special_tokens=False).input_ids
        else:
            refuse_plain(messages, tools)
            ids = self.tokenizer("\n".join(m["content"] for m in messages) + "\n").input_ids
        if not ids:
            raise DataError("a prompt has no tokens")
        return ids[-self.max_length :]

    def answered(self, messages: Sequence[Message], tools: Tools = None) -> list[int]:
        """The places in `prompt(messages, tools)` that an assistant wrote: earlier turns and the token that ends each.

        A token counts if the whole of its text is the turn's, as the template lays it out. Turns of weight 0 do not.

        Raises:
          UsageError: there is no chat template, so nothing tells the turns apart.
          DataError: the template renders a turn differently once the conversation goes on.
        """
        if not self.chat:
            raise UsageError("assistant_only_loss needs a chat template; the text of a plain prompt names no turns")
        text = self._render(messages, tools)
        spans = []
        for n, message in enumerate(messages):
            if message["role"] == "assistant" and message.get("weight") != 0:
                before = self._render(messages[:n], tools)
                after = self._render(messages[: n + 1], tools, reply=False).rstrip()
                if not (text.startswith(after) and after.startswith(before)):
                    raise DataError(
                        f"the chat template renders turn {n + 1} differently once the conversation goes on, so its "
                        "tokens cannot be told; leave assistant_only_loss off"
                    )
                spans.append((len(before), len(after)))
        found = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        places = [
            place
            for place, (start, end) in enumerate(found.offset_mapping)
            if end > start and any(first <= start and end <= last for first, last in spans)
        ]
        cut = max(len(found.input_ids) - self.max_length, 0)
        return [place - cut for place in places if place >= cut]

    def _render(self, messages: Sequence[Message], tools: Tools = None, *, reply: bool = True) -> str:
        """The messages in the model's chat template; with `reply` up to where an assistant turn would begin."""
        try:
            with bounded():
                return self.tokenizer.apply_chat_template(
                    list(messages), tools=tools and list(tools), tokenize=False, add_generation_prompt=reply
                )
        except Exception as e:  # a template may raise anything, and does for roles it does not know
            raise DataError(f"the chat template refuses these messages: {e}") from e

    def _end_of_turn(self) -> int:
        """The token that the template puts after an assistant turn; Gemma's is not its end of text."""
        turns = [{"role": "user", "content": "A"}, {"role": "assistant", "content": "B"}]
        try:
            text = self._render(turns, reply=False)
        except DataError:
            return self.tokenizer.eos_token_id
        rest = text.rpartition("B")[2].strip()
        ids = self.tokenizer(rest, add_special_tokens=False).input_ids if rest else []
        added = len(ids) == 1 and ids[0] in self.tokenizer.added_tokens_decoder
        return ids[0] if added else self.tokenizer.eos_token_id

    def response(self, text: str) -> list[int]:
        """Token ids of a response, and the token that ends it: the template's end of turn, else the end of text."""
        return [*self.tokenizer(text, add_special_tokens=False).input_ids, self.end]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of generated ids, special tokens left out."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True)
