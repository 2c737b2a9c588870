"""Chat rows to token ids: a prompt, or a prompt with the response that is to be learned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edjax.keep.errors import DataError, UsageError
from edjax.lm.bounds import Bounds, Row, own_bounds
from edjax.lm.dates import dated, today
from edjax.lm.spelling import ControlTokens, Spelling, Tokens
from edjax.lm.tools import Message as Message
from edjax.lm.tools import check_shown, refuse_plain
from edjax.lm.untrusted import bounded

if TYPE_CHECKING:
    from edjax.lm.load import LoadedModel

TEMPLATES = ("auto", "chat", "plain")
Tools = Sequence[dict[str, Any]] | None


class Encoder:
    """Encodes rows one way, whether they are scored, trained on or evaluated.

    What a row holds is text: a control token of the model in it, such as `<|im_end|>`, is written in letters
    (`edjax.lm.spelling`), and only the template's own are control tokens. Long rows are cut by the one rule of
    `edjax.lm.bounds`.

    A chat template is code of the model's maker. It runs in jinja2's sandbox, as `transformers` sets it up (no access
    to Python's internals, no files, no changes to its input), for 5 s of processor time a prompt at the most; memory is
    not bounded. Whatever it raises is a `DataError`.

    Args:
      tokenizer: a `transformers` tokenizer.
      template: "chat" puts the model's chat template around the prompt; "plain" joins the messages' text with
        newlines and ends it with one; "auto" is "chat" where the tokenizer has a template, else "plain".
      max_length: the most tokens of prompt and response together.
      window: the most that the model can take (`max_position_embeddings`), which `max_length` does not go beyond.
      max_prompt, max_response: the most tokens of each; None: as `edjax.lm.bounds.Bounds` shares out `max_length`.
      date: the day, as 2026-01-31, that a template prints where it asks for today's; None: today.

    Raises:
      UsageError: "chat" was asked of a tokenizer without a chat template; bounds that `Bounds.of` refuses.
    """

    def __init__(
        self,
        tokenizer: Any,
        template: str = "auto",
        max_length: int = 1024,
        *,
        window: int | None = None,
        date: str | None = None,
        max_prompt: int | None = None,
        max_response: int | None = None,
    ):
        if template not in TEMPLATES:
            raise UsageError(f"template {template!r} is not one of {', '.join(TEMPLATES)}")
        has = bool(getattr(tokenizer, "chat_template", None))
        if template == "chat" and not has:
            raise UsageError("template chat: the model's tokenizer has no chat template; use --template plain")
        self.chat = has and template != "plain"
        self.tokenizer = tokenizer
        self.bounds = Bounds.of(max_length, window, max_prompt=max_prompt, max_response=max_response)
        self.control = ControlTokens(tokenizer)
        if self.chat:
            self._dated = self._on(date or today())
        self.end = self._end_of_turn() if self.chat else tokenizer.eos_token_id
        self._appended = 0 if self.chat else _appended(tokenizer)

    @classmethod
    def of(
        cls, loaded: LoadedModel, template: str, max_length: int, date: str | None = None, **own: int | None
    ) -> Encoder:
        """For a model, within its window; `own` are max_prompt and max_response."""
        window = loaded.model.config.max_position_embeddings
        return cls(loaded.tokenizer, template, max_length, window=window, date=date, **own)

    @classmethod
    def by(cls, loaded: LoadedModel, settings: Mapping[str, Any], date: str | None = None) -> Encoder:
        """As the settings of a verb say, of which some are template, max_length, max_prompt and max_response."""
        return cls.of(loaded, settings["template"], settings["max_length"], date, **own_bounds(settings))

    def rows(
        self,
        ids: Sequence[str],
        messages: Sequence[Sequence[Message]],
        responses: Iterable[str | None] | None = None,
        *,
        tools: Sequence[Tools],
        source: str,
    ) -> list[Row]:
        """All rows of a pool, as `row` encodes them; without `responses` their prompts alone.

        Raises:
          DataError: messages that the chat template refuses, tools that it leaves out, a prompt without tokens; names
            the row.
        """
        answers = [None] * len(ids) if responses is None else responses
        encoded = []
        for name, turns, offered, answer in zip(ids, messages, tools, answers, strict=True):
            try:
                encoded.append(self.row(turns, answer, tools=offered))
            except DataError as e:
                raise DataError(f"{source}: row {name!r}: {e}") from e
        return encoded

    def row(self, messages: Sequence[Message], response: str | None = None, *, tools: Tools = None) -> Row:
        """The tokens of a prompt and its response that the model sees, and whether they are all there.

        Args:
          messages: turns with role and content, and with tool_calls where they call `tools` (`edjax.data.tools`).
        """
        whole = self._whole(messages, tools)
        prompt = whole[-self.bounds.prompt :]
        answer = [] if response is None else self.response(response)
        kept = answer[: self.bounds.response(prompt)]
        cut = len(prompt) < len(whole) or len(kept) < len(answer)
        return Row(prompt, kept, cut, self.control.held([*messages, response, tools]))

    def prompt(self, messages: Sequence[Message], tools: Tools = None) -> list[int]:
        """Token ids of a prompt, ready to be continued by a response; of a long one the last."""
        return self.row(messages, tools=tools).prompt

    def response(self, text: str) -> list[int]:
        """Token ids of a response, and the token that ends it: the template's end of turn, else the end of text."""
        return [*self._text(text, add_special_tokens=False), self.end]

    def answered(self, messages: Sequence[Message], tools: Tools = None) -> list[int]:
        """The places in `prompt(messages, tools)` that an assistant wrote: earlier turns and the token that ends each.

        A token counts if the whole of its text is the turn's, as the template lays it out. Turns of weight 0 do not.

        Raises:
          UsageError: there is no chat template, so nothing tells the turns apart.
          DataError: the template renders a turn differently once the conversation goes on.
        """
        if not self.chat:
            raise UsageError("assistant_only_loss needs a chat template; the text of a plain prompt names no turns")
        messages, tools, spelling = self._hidden(messages, tools)

        def written(turns: Sequence[Message], reply: bool) -> str:
            text = self._render(turns, tools, reply=reply)
            return self.control.shown(text, spelling) if spelling else text

        text = written(messages, True)
        spans = []
        for n, message in enumerate(messages):
            if message["role"] == "assistant" and message.get("weight") != 0:
                before = written(messages[:n], True)
                after = written(messages[: n + 1], False).rstrip()
                if not (text.startswith(after) and after.startswith(before)):
                    raise DataError(
                        f"the chat template renders turn {n + 1} differently once the conversation goes on, so its "
                        "tokens cannot be told; leave assistant_only_loss off"
                    )
                spans.append((len(before), len(after)))
        if spelling:
            found = self.control.encode(text, spelling)
        else:
            plain = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
            found = Tokens(plain.input_ids, plain.offset_mapping)
        places = [
            place
            for place, (start, end) in enumerate(found.offsets)
            if end > start and any(first <= start and end <= last for first, last in spans)
        ]
        cut = max(len(found.ids) - self.bounds.prompt, 0)
        return [place - cut for place in places if place >= cut]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of generated ids, special tokens left out."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True)

    def _whole(self, messages: Sequence[Message], tools: Tools) -> list[int]:
        """All token ids of a prompt."""
        if self.chat:
            messages, tools, spelling = self._hidden(messages, tools)
            text = self._render(messages, tools)
            if tools or any("tool_calls" in m or m["role"] == "tool" for m in messages):
                check_shown(text, messages, self._render if tools else None, lambda m: self._render(m, tools))
            if spelling:
                ids = self.control.encode(self.control.shown(text, spelling), spelling).ids
            else:
                ids = self.tokenizer(text, add_special_tokens=False).input_ids
        else:
            refuse_plain(messages, tools)
            ids = self._text("\n".join(m["content"] for m in messages) + "\n", add_special_tokens=True)
            ids = ids[: len(ids) - self._appended]
        if not ids:
            raise DataError("a prompt has no tokens")
        return ids

    def _hidden(self, messages: Sequence[Message], tools: Tools) -> tuple[Sequence[Message], Tools, Spelling | None]:
        """The messages and tools as the template gets them: marks hide control tokens in their text, where there are
        any."""
        if not self.control.held([messages, tools]):
            return messages, tools, None
        (messages, tools), spelling = self.control.hide([messages, tools])
        return messages, tools, spelling

    def _text(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """The token ids of text without a template."""
        if self.control.held(text):
            return self.control.encode(text, add_special_tokens=add_special_tokens).ids
        return self.tokenizer(text, add_special_tokens=add_special_tokens).input_ids

    def _on(self, day: str) -> dict[str, Any]:
        """What a template that prints today's date is given in order to print this day's."""
        try:
            written = self.tokenizer.get_chat_template()
            text, values = dated(written, day)
        except Exception as e:  # not one template but several, or a format that is none
            raise DataError(f"the model's chat template cannot be used: {e}") from e
        return {} if text == written else {"chat_template": text, **values}

    def _render(self, messages: Sequence[Message], tools: Tools = None, *, reply: bool = True) -> str:
        """The messages in the model's chat template; with `reply` up to where an assistant turn would begin."""
        try:
            with bounded():
                return self.tokenizer.apply_chat_template(
                    list(messages),
                    tools=tools and list(tools),
                    tokenize=False,
                    add_generation_prompt=reply,
                    **self._dated,
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


def _appended(tokenizer: Any) -> int:
    """How many tokens a tokenizer puts after a text. A prompt goes on, so it has no use for an end of text."""
    bare = tokenizer("a", add_special_tokens=False).input_ids
    whole = tokenizer("a").input_ids
    starts = [i for i in range(len(whole) - len(bare) + 1) if whole[i : i + len(bare)] == bare]
    return len(whole) - len(bare) - starts[0] if starts and bare else 0
