"""A model as several calls use it: found, loaded and digested once, with what else decides how rows are read."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edjax.keep.errors import UsageError
from edjax.lm.bounds import Bounds, own_bounds
from edjax.lm.encode import TEMPLATES
from edjax.lm.load import DTYPES
from edjax.settings import check, setting

if TYPE_CHECKING:
    from edjax.lm.load import LoadedModel

MODEL, ROW = "Model and memory", "What a row is"


@dataclass(frozen=True)
class Session:
    """A model and how it is used, for `score`, `finetune` and `evaluate` in place of its name.

    Nothing is read before it is needed, and then once: three verbs on one session load the weights a single time.

    Attributes:
      name: as in `edjax.lm.load.locate`: smollm2, a directory, a .gguf file, a hub id.
      dtype: float32 or bfloat16, of weights and activations.
      quantize: none, or int8 or nf4 for the projections.
      mesh: the devices, as in `edjax.lm.mesh.parse_mesh`.
      template: auto, chat or plain, as in `edjax.lm.encode.Encoder`.
      max_length: most tokens of prompt and response together (`edjax.lm.bounds`).
      max_prompt, max_response: most tokens of each; None: prompts leave a quarter of max_length to responses, or
        max_response where that is given.

    >>> session = Session("smollm2", max_length=512)
    >>> session.max_length, "loaded" in vars(session)
    (512, False)
    """

    name: str = "smollm2"
    dtype: str = setting("float32", "float32 or bfloat16.", section=MODEL, choices=DTYPES)
    quantize: str = setting("none", "Keep the model's projections in int8 or nf4.", section=MODEL)
    mesh: str = setting(
        "",
        "Devices: data=8 shares out rows, fsdp=8 the weights too, tensor=2 splits layers; -1: the rest.",
        section=MODEL,
    )
    template: str = setting("auto", "auto, chat (the model's chat template) or plain.", section=ROW, choices=TEMPLATES)
    max_length: int = setting(
        1024, "Most tokens of prompt and response together; prompts leave a quarter.", section=ROW
    )
    max_prompt: int | None = setting(
        None, "Most tokens of a prompt; without it, three quarters of max-length.", section=ROW, kind=int, least=1
    )
    max_response: int | None = setting(
        None,
        "Most tokens of a response; without it, a quarter of max-length or more.",
        section=ROW,
        kind=int,
        least=1,
    )

    def __post_init__(self) -> None:
        check(self)
        Bounds.of(self.max_length, **self.own_bounds)

    @property
    def own_bounds(self) -> dict[str, int]:
        """max_prompt and max_response, where they are given."""
        return own_bounds(vars(self))

    @classmethod
    def of(cls, model: str | Session, loaded: LoadedModel | None = None, **asked: Any) -> Session:
        """The session that a verb was given, or one for the name of a model.

        Args:
          loaded: weights that the caller has already.
          asked: the verb's own arguments. Beside a session they may say the same, or be left at their defaults.

        Raises:
          UsageError: one that says something else than the session.
        """
        if not isinstance(model, Session):
            session = cls(model, **asked)
        else:
            for name, value in asked.items():
                own = getattr(model, name)
                if value not in (own, _DEFAULTS[name]):
                    raise UsageError(f"{name} {value!r} is given beside a session of {name} {own!r}; say it there")
            session = model if loaded is None else dataclasses.replace(model)
        if loaded is not None:
            vars(session)["loaded"] = loaded
        return session

    @cached_property
    def devices(self) -> Any:
        """The mesh; None for jax's default device."""
        from edjax.lm.mesh import parse_mesh

        return parse_mesh(self.mesh)

    @cached_property
    def loaded(self) -> LoadedModel:
        """The decoder, its tokenizer and where they came from."""
        from edjax.lm.load import load

        return load(self.name, self.dtype, self.quantize, self.devices)

    @property
    def directory(self) -> Path:
        """Where the model lies; nothing is loaded for it."""
        return self.loaded.directory if "loaded" in vars(self) else self._located

    @cached_property
    def _located(self) -> Path:
        from edjax.lm.load import locate

        return locate(self.name)

    @cached_property
    def digest(self) -> str:
        """One sha256 over weights, config and tokenizer."""
        from edjax.lm.load import digest

        return digest(self.directory)

    def settings(self, config: Any) -> Any:
        """A `FinetuneConfig` with what the session says in place of its defaults.

        Raises:
          UsageError: it says something else than the session.
        """
        shared = {name: getattr(config, name) for name in _DEFAULTS}
        Session.of(self, **shared)
        return dataclasses.replace(config, **{name: getattr(self, name) for name in _DEFAULTS})


_DEFAULTS = {f.name: f.default for f in dataclasses.fields(Session) if f.name != "name"}
