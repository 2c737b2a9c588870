"""Choose which prompts are worth annotating before anyone annotates them, then finetune on them.

    pool = edjax.read_pool("prompts.jsonl")
    features = edjax.score(pool, model="smollm2")
    selection = edjax.select(features, budget=100)

Names are imported when they are first used: `import edjax` costs neither JAX nor transformers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edjax.data.features import Features as Features
    from edjax.data.features import read_features as read_features
    from edjax.data.pool import Pool as Pool
    from edjax.data.pool import read_pool as read_pool
    from edjax.evaluation import evaluate as evaluate
    from edjax.evaluation.candidates import generate as generate
    from edjax.finetuning import FinetuneConfig as FinetuneConfig
    from edjax.finetuning import finetune as finetune
    from edjax.keep.errors import EdjaxError as EdjaxError
    from edjax.lm.session import Session as Session
    from edjax.scoring import score as score
    from edjax.selection.choose import select as select
    from edjax.selection.selection import Selection as Selection
    from edjax.selection.strategies import STRATEGIES as STRATEGIES
    from edjax.study.recipe import read_recipe as read_recipe
    from edjax.study.run import run as run

_HOME = {
    "EdjaxError": "keep.errors",
    "Features": "data.features",
    "FinetuneConfig": "finetuning",
    "Pool": "data.pool",
    "STRATEGIES": "selection.strategies",
    "Selection": "selection.selection",
    "Session": "lm.session",
    "evaluate": "evaluation",
    "finetune": "finetuning",
    "generate": "evaluation.candidates",
    "read_features": "data.features",
    "read_pool": "data.pool",
    "read_recipe": "study.recipe",
    "run": "study.run",
    "score": "scoring",
    "select": "selection.choose",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'edjax' has no attribute {name!r}")
    value = getattr(import_module(f"edjax.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *_HOME]
