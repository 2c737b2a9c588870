"""Choose which prompts are worth annotating before anyone annotates them, then finetune on them.

    pool = edjax.read_pool("prompts.jsonl")
    features = edjax.score(pool, model="smollm2")
    selection = edjax.select(features, budget=100)

Names are imported when they are first used: `import edjax` costs neither JAX nor transformers.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edjax.errors import EdjaxError as EdjaxError
    from edjax.evaluate import evaluate as evaluate
    from edjax.features import Features as Features
    from edjax.features import read_features as read_features
    from edjax.finetune import FinetuneConfig as FinetuneConfig
    from edjax.finetune import finetune as finetune
    from edjax.lm.session import Session as Session
    from edjax.pool import Pool as Pool
    from edjax.pool import read_pool as read_pool
    from edjax.recipe import read_recipe as read_recipe
    from edjax.run import run as run
    from edjax.score import score as score
    from edjax.select import Selection as Selection
    from edjax.select import select as select
    from edjax.strategies import STRATEGIES as STRATEGIES

_HOME = {
    "EdjaxError": "errors",
    "Features": "features",
    "FinetuneConfig": "finetune",
    "Pool": "pool",
    "STRATEGIES": "strategies",
    "Selection": "select",
    "Session": "lm.session",
    "evaluate": "evaluate",
    "finetune": "finetune",
    "read_features": "features",
    "read_pool": "pool",
    "read_recipe": "recipe",
    "run": "run",
    "score": "score",
    "select": "select",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'edjax' has no attribute {name!r}")
    value = getattr(import_module(f"edjax.{_HOME[name]}"), name)
    globals()[name] = value
    return value


class _Package(ModuleType):
    """Importing the module edjax.score does not put it in the place of the function edjax.score."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __dir__() -> list[str]:
    return [*globals(), *_HOME]
