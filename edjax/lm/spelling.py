"""Text that happens to hold a model's control tokens, such as `<|im_end|>` in a question about chat formats.

In a row's contents they are text. Only the chat template's own are control tokens: a user can neither end a turn nor
begin one, and a label teaches no token that stops an answer before its end.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from edjax.keep.errors import DataError

PRIVATE = range(0x100000, 0x10FFFE)  # code points that mean nothing by themselves


class Tokens(NamedTuple):
    """Ids of a text, and where each token's text begins and ends in it."""

    ids: list[int]
    offsets: list[tuple[int, int]]


class Spelling(NamedTuple):
    """How one row's text is told from its template's: what stands for a control token in the contents, and in the
    template."""

    contents: Mapping[str, str]
    template: Mapping[str, str]


class ControlTokens:
    """A tokenizer's control tokens: its added tokens that are special. Those that are not, such as `<think>` of many
    models, are words of the vocabulary that a label may well teach, and stay what they are."""

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        self.tokens = {t.content: t for t in tokenizer.added_tokens_decoder.values() if t.special and t.content.strip()}
        self._spellers: dict[str, Any] = {}

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Finds them as the tokenizer does: the longest of those that begin first."""
        longest = sorted(self.tokens, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest)) or r"(?!)")

    def held(self, value: Any) -> bool:
        """Whether any text of a message, or of a list of them, holds one."""
        return any(self.pattern.search(text) for text in _texts(value))

    def hide(self, messages: Sequence[Any]) -> tuple[list[Any], Spelling]:
        """Messages, or anything made of them, with marks in place of the control tokens in their text, for a template
        to carry along as it does any text, and what the marks mean."""
        whole = "".join(_texts(messages))
        unused = (c for c in map(chr, PRIVATE) if c not in whole)
        for_contents, for_template = itertools.islice(unused, 2)
        names = list(self.tokens)
        contents = {text: f"{for_contents}{i}{for_contents}" for i, text in enumerate(names)}
        template = {text: f"{for_template}{i}{for_template}" for i, text in enumerate(names)}
        hidden = _mapped(messages, lambda text: self.pattern.sub(lambda m: contents[m.group()], text))
        return hidden, Spelling({mark: text for text, mark in contents.items()}, template)

    def shown(self, rendered: str, spelling: Spelling) -> str:
        """A rendered conversation whose contents are as they were written and whose template's control tokens are
        marks."""
        mark = re.escape(next(iter(spelling.contents))[0])
        text = self.pattern.sub(lambda m: spelling.template[m.group()], rendered)
        return re.sub(f"{mark}[0-9]+{mark}", lambda m: spelling.contents[m.group()], text)

    def encode(self, text: str, spelling: Spelling | None = None, *, add_special_tokens: bool = False) -> Tokens:
        """Tokens of a text all of whose control tokens are letters, but for the marks of a template's.

        Raises:
          DataError: the tokenizer makes a control token out of letters.
        """
        speller, meant = self._speller(spelling)
        found = speller.encode(text, add_special_tokens=add_special_tokens)
        forged = {i for i, added in zip(found.ids, found.special_tokens_mask, strict=True) if not added} & self._ids
        if forged:
            named = self.tokenizer.convert_ids_to_tokens(min(forged))
            raise DataError(f"the text holds {named}, and this tokenizer cannot write it as text; leave it out")
        return Tokens([meant.get(i, i) for i in found.ids], found.offsets)

    @cached_property
    def _ids(self) -> set[int]:
        return {i for i, t in self.tokenizer.added_tokens_decoder.items() if t.special} - {self.tokenizer.unk_token_id}

    def _speller(self, spelling: Spelling | None) -> tuple[Any, dict[int, int]]:
        """A tokenizer that knows no control token but the marks, and which token each mark is."""
        marks = {} if spelling is None else dict(spelling.template)
        key = next(iter(marks.values()), "")
        if key not in self._spellers:
            from tokenizers import AddedToken, Tokenizer

            backend = getattr(self.tokenizer, "backend_tokenizer", None)
            if backend is None:
                raise DataError(
                    "the text holds control tokens of the model, and its tokenizer cannot write them as text"
                )
            speller = Tokenizer.from_str(backend.to_str())
            speller.no_truncation()
            speller.no_padding()
            speller.encode_special_tokens = True
            added = [(self.tokens[text], mark) for text, mark in marks.items()]
            speller.add_tokens(
                [AddedToken(mark, lstrip=t.lstrip, rstrip=t.rstrip, normalized=False) for t, mark in added]
            )
            ids = self.tokenizer.convert_tokens_to_ids
            self._spellers[key] = speller, {speller.token_to_id(mark): ids(t.content) for t, mark in added}
        return self._spellers[key]


def _texts(value: Any) -> list[str]:
    """All text of a message but the names of its keys."""
    if isinstance(value, str):
        return [value]
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return [text for item in items for text in _texts(item)]


def _mapped(value: Any, change: Any) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {k: _mapped(v, change) for k, v in value.items()}
    return [_mapped(v, change) for v in value] if isinstance(value, (list, tuple)) else value
