"""GRAPE: of several responses to a prompt those that the model itself finds likeliest."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from .. import checks, combine
from ..geometry import Precision
from ..ground import Ground, Method, method, option
from ..modular import modular
from ..objective import Objective
from ..shapes import Plan, Shape, made


@method
class Grape(Method):
    """Of the rows of a prompt, which are its responses, the `keep` whose tokens are likeliest; over prompts, likewise.

    A row's value is s = (1/L) ln P(response | prompt) in nats, with L its tokens (mean), or without the 1/L (sum, which
    favours short responses as the mean does long ones). The budget's rows are those of largest value, at most `keep` of
    a prompt: with a budget of `keep` a prompt it is the argmax of each (Zhang, Dai & Peng 2025, arXiv 2502.04194).
    Ties go to the lowest row. A response that is given counts for its prompt. Rows of fewer tokens than `min_tokens`
    (one at the least: the mean over none is nothing) or more than `max_tokens` are no candidates at all.

    Cost: O(n log n).

    >>> from ..ground import select
    >>> columns = {"prompt_id": [0, 0, 1], "response_nll": [9.0, 2.0, 3.0], "n_response_tokens": [9, 1, 2]}
    >>> select(Grape(), Ground(columns), 2).indices.tolist()
    [0, 2]
    """

    name = "grape"
    summary = "of each prompt's responses the one that fits the model: its likeliest"
    paper = "Zhang, Dai & Peng 2025, arXiv 2502.04194"
    valued = True

    by: str = option("column that names the prompt", default="prompt_id")
    keep: int = option("responses a prompt", default=1, least=1)
    normalise: Literal["mean", "sum"] = option("of the tokens' logarithms", default="mean", choices=("mean", "sum"))
    min_tokens: int = option("of a response", default=1, least=1)
    max_tokens: int = option("of a response; 0: any number", default=0, least=0)

    @property
    def needs(self) -> tuple[str, ...]:
        return ("response_nll", "n_response_tokens", self.by)

    @property
    def groups(self) -> tuple[str, ...]:
        return (self.by,)

    def ready(self, ground: Ground, key: jax.Array | None) -> "tuple[Grape, Ground]":
        if self.normalise not in ("mean", "sum"):
            raise ValueError(f"normalise must be 'mean' or 'sum', got {self.normalise!r}")
        for name, least in (("keep", 1), ("min_tokens", 1), ("max_tokens", 0)):
            if checks.check_budget(getattr(self, name), np.iinfo(np.int32).max, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        read = {name: checks.check_scores(ground.columns[name], ground.n, name) for name in self.needs[:2]}
        read[self.by] = checks.check_groups(ground.columns[self.by], ground.n, self.by)
        return self, ground._replace(columns={**ground.columns, **read})

    def objective(self, ground: Ground, *, block: int, precision: Precision, shards: int | None) -> Objective:
        nll, tokens, prompt = (ground.columns[name] for name in self.needs)
        worth = -nll / jnp.maximum(tokens, 1) if self.normalise == "mean" else -nll
        given = jnp.zeros(0, jnp.int32) if ground.given is None else ground.given
        left = jnp.full(ground.n, self.keep, jnp.int32).at[prompt[given]].add(-1)
        return combine.within(combine.at_most(modular(worth, given), prompt, left), self.allowed(tokens))

    def allowed(self, tokens: Any) -> Any:
        """(n,) bool, whether responses of these tokens, (n,) NumPy or JAX, are candidates at all."""
        enough = tokens >= self.min_tokens
        return enough & (tokens <= self.max_tokens) if self.max_tokens else enough

    def gains(self, ground: Ground, rows: list[int]) -> np.ndarray:
        nll, tokens = (np.asarray(ground.columns[name], np.float64) for name in self.needs[:2])
        prompt = np.asarray(ground.columns[self.by])
        worth = -nll / np.maximum(tokens, 1) if self.normalise == "mean" else -nll
        taken = np.bincount(prompt[rows], minlength=ground.n)[prompt]
        return np.where((taken < self.keep) & self.allowed(tokens), worth, -np.inf)

    def nothing(self, ground: Ground) -> float:
        gains = self.gains(ground, [])
        return float(gains.min(where=np.isfinite(gains), initial=np.inf))

    def plan(self, shape: Shape, *, form: str | None = None, **how: Any) -> Plan:
        if form not in (None, "auto", "sort"):
            raise ValueError(f"form must be 'auto' or 'sort', got {form!r}")
        return made(self.name, "sort", shape, 32 * shape.n, 0)
