"""A recipe: one YAML file that says what `edjax run` does; its sections are those of `edjax.study.sections`."""

from __future__ import annotations

import dataclasses
import difflib
import glob
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edjax.data.features import SCORES
from edjax.data.names import is_pattern
from edjax.evaluation.config import EvaluateConfig
from edjax.evaluation.result import METRICS
from edjax.finetuning import FinetuneConfig
from edjax.keep.errors import DataError, EnvError, UsageError
from edjax.lm.session import Session
from edjax.scoring.config import ScoreConfig
from edjax.selection import defaults
from edjax.selection.budgets import Budget, budget_of, rows_of
from edjax.selection.options import BESIDE, MONEY, Options
from edjax.selection.strategies import BROKEN, STRATEGIES, directory, knobs, of_table, runnable, spelled, strategy_name
from edjax.settings import check, same_as, setting, typed
from edjax.study.sections import FINETUNE, flat, written_flat

_LISTS = {
    "strategies": str,
    "finetune_strategies": str,
    "metrics": str,
    "seeds": int,
    "random_seeds": int,
}
FILES, ROWS, GRID = "What is read and written", "Which rows", "The grid"


@dataclass(frozen=True)
class Recipe:
    """The settings of a run. Paths are relative to the recipe's directory, `out` to the working directory.

    Every field of `edjax.finetuning.FinetuneConfig` but its seed and quantize may stand in the file: template and dtype
    at the top, the others below `finetune`.
    """

    pool: str = setting(dataclasses.MISSING, "Rows with responses: labels are bought of them.", section=FILES, kind=str)
    evaluation: str = setting(dataclasses.MISSING, "Rows that every cell is evaluated on.", section=FILES, kind=str)
    out: str = setting(dataclasses.MISSING, "Directory to write.", section=FILES, kind=str)
    title: str = setting("", "Of the page.", section=FILES)
    model: str = setting(Session.name, "As --model.", section=FILES)
    pool_split: str | None = setting(None, "Of a datasets directory or hub data set.", section=FILES, kind=str)
    evaluation_split: str | None = setting(None, "Likewise.", section=FILES, kind=str)
    pool_rows: int | None = setting(
        None, "A random slice of so many rows, drawn with slice_seed.", section=ROWS, kind=int, least=1
    )
    evaluation_rows: int | None = setting(None, "Likewise.", section=ROWS, kind=int, least=1)
    max_prompt_characters: int | None = setting(
        None, "Longer prompts are left out of both before a slice is drawn.", section=ROWS, kind=int, least=1
    )
    slice_seed: int = setting(0, "Of the slices and of the warm start.", section=ROWS, least=0)
    warm_start: int | None = setting(
        None, "So many rows are trained on in every cell and never chosen.", section=ROWS, kind=int, least=1
    )
    strategies: tuple[str, ...] = ("random", defaults.STRATEGY)  # also {NAME: {a knob, or an option of select}}
    finetune_strategies: tuple[str, ...] | None = None  # those that are also trained; None: all
    budgets: tuple[Budget, ...] = (100,)  # rows, or a share of the pool less its warm start: "10%"
    target: str | None = setting(
        None,
        "Features of prompts to choose for, of `edjax score`; for strategies that read one.",
        section=GRID,
        kind=str,
    )
    seeds: tuple[int, ...] = (0,)
    random_seeds: tuple[int, ...] | None = None  # seeds of the strategy random; None: seeds
    metric: str = setting("response_loss", "The one that verdict and savings are of.", section=GRID)
    evaluation_group_by: str | None = same_as(EvaluateConfig, "group_by")
    metrics: tuple[str, ...] = METRICS
    template: str = same_as(Session, "template")
    dtype: str = same_as(Session, "dtype")
    layer: int = same_as(ScoreConfig, "layer")
    pooling: str = same_as(ScoreConfig, "pooling")
    normalise: str = same_as(Options, "normalise", help="whiten, l2, centre or none: what strategies see.")
    whiten_dims: int = same_as(Options, "whiten_dims")
    max_new_tokens: int = same_as(ScoreConfig, "max_new_tokens")
    score_batch_size: int = same_as(ScoreConfig, "batch_size")
    evaluation_batch_size: int = same_as(EvaluateConfig, "batch_size")
    evaluation_max_new_tokens: int = same_as(EvaluateConfig, "max_new_tokens")
    cells_at_once: int = setting(
        0, "Adapters trained and evaluated together; 0: as many as fit, 1 on a CPU.", section=GRID, least=0
    )
    variants: dict[str, dict[str, Any]] = field(default_factory=dict)  # names for a strategy with options of select
    finetune: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        _check_variants(self.variants)
        object.__setattr__(self, "variants", dict(self.variants))
        for name in ("strategies", "finetune_strategies"):
            entries = getattr(self, name)
            if isinstance(entries, dict):
                raise UsageError(f"{name} holds {entries!r}, which is not text; write a list: [random, {{...}}]")
            if isinstance(entries, str) and entries != "all":
                entries = [entries]
            if isinstance(entries, (list, tuple)):
                object.__setattr__(self, name, tuple(_entry(e, self.variants) for e in entries))
        _check_variants(self.variants)  # again: entries of strategies may have joined
        for name, kind in _LISTS.items():
            value = getattr(self, name)
            if value is not None:
                items = runnable(SCORES) if name == "strategies" and value == "all" else value
                if not isinstance(items, (list, tuple)):
                    items = (items,)
                for item in items:
                    typed(name, item, kind)
                object.__setattr__(self, name, tuple(dict.fromkeys(items)))
        object.__setattr__(self, "budgets", _budgets(self.budgets))
        self._check()

    def _check(self) -> None:
        check(self)
        strategies = [*STRATEGIES, *self.variants]
        for name in (*self.strategies, *(self.finetune_strategies or ())):
            if name not in self.variants and name.split(":")[0] in BROKEN:
                raise EnvError(BROKEN[name.split(":")[0]])
            if name not in self.variants and of_table(name) is None:
                raise UsageError(
                    f"unknown strategy {name!r}{_nearest(name, strategies)}; known: {', '.join(strategies)}"
                )
        places = [directory(name) for name in self.strategies]
        if twice := [name for name in self.strategies if places.count(directory(name)) > 1]:
            raise UsageError(f"strategies {', '.join(twice)} would be written to one directory; give one another name")
        if extra := set(self.finetune_strategies or ()) - set(self.strategies):
            raise UsageError(f"finetune_strategies {sorted(extra)} are not among strategies {list(self.strategies)}")
        if not self.strategies or not self.budgets or not self.seeds:
            raise UsageError("strategies, budgets and seeds each need at least one entry")
        for seed in (*self.seeds, *(self.random_seeds or ())):
            if seed < 0:
                raise UsageError(f"seed {seed} is negative; it is 0 or more")
        for metric in self.metrics:
            if metric not in METRICS:
                raise UsageError(f"unknown metric {metric!r}{_nearest(metric, METRICS)}; known: {', '.join(METRICS)}")
        if self.metric not in self.metrics:
            raise UsageError(f"metric {self.metric!r} is not among metrics {list(self.metrics)}")
        self.finetune_config(0)

    def finetune_config(self, seed: int) -> FinetuneConfig:
        """The hyper-parameters of a cell."""
        return FinetuneConfig(**self.finetune, template=self.template, dtype=self.dtype, seed=seed)

    def choice(self, name: str, seed: int = 0) -> tuple[str, Options]:
        """The strategy behind a name of `strategies`, and what is asked of it."""
        asked: dict[str, Any] = {"seed": seed, "normalise": self.normalise, "whiten_dims": self.whiten_dims}
        asked |= self.variants.get(name, {})
        return asked.pop("strategy", name), Options(**asked)

    def counted(self, pool: int) -> Recipe:
        """The recipe with its budgets in rows of a pool of so many, of which the warm start's are not chosen from."""
        free = max(0, pool - (self.warm_start or 0))
        return dataclasses.replace(self, budgets=tuple(rows_of(b, free) for b in self.budgets))

    @property
    def rows(self) -> tuple[int, ...]:
        """The budgets of a recipe that is `counted`, or has no shares."""
        if shares := [b for b in self.budgets if isinstance(b, str)]:
            raise UsageError(f"budget {shares[0]} is a share: of how many rows, Recipe.counted says")
        return tuple(b for b in self.budgets if isinstance(b, int))

    def nested(self, name: str) -> bool:
        """Whether a smaller budget's rows of this strategy are the first of a larger one's."""
        strategy, options = self.choice(name)
        method = of_table(strategy)
        return options.nested and (method is None or method.nested)

    @property
    def trained(self) -> tuple[str, ...]:
        """The strategies whose selections are finetuned on."""
        return self.strategies if self.finetune_strategies is None else self.finetune_strategies

    def seeds_of(self, strategy: str) -> tuple[int, ...]:
        """The training seeds of a strategy; for one that draws, as random does, also the seeds of its choice."""
        return self.random_seeds if strategy == "random" and self.random_seeds else self.seeds

    def choice_seed(self, strategy: str, seed: int) -> int:
        """The seed of the choice that a cell of this training seed is made of: 0 for a strategy that does not draw."""
        method = of_table(self.choice(strategy)[0])
        return seed if method is not None and method.drawn else 0


def _budgets(given: Any) -> tuple[Budget, ...]:
    """Numbers of rows above 0, and shares, each once; one alone stands for a list of it."""
    found = []
    for item in given if isinstance(given, (list, tuple)) else (given,):
        if not (isinstance(item, str) and item.rstrip().endswith("%")):
            typed("budgets", item, int)
            if item < 1:
                raise UsageError(f"budget {item!r} is not a whole number of rows above 0")
        found.append(budget_of(item))
    return tuple(dict.fromkeys(found))


def _entry(entry: Any, variants: dict[str, dict[str, Any]]) -> Any:
    """The name of an entry of `strategies`; what it asks of select beside its knobs joins the variants.

    {facility_location: {bandwidth: 0.5}} is "facility_location:bandwidth=0.5"; {NAME: {strategy: random, ...}} is a
    variant of that name.
    """
    if isinstance(entry, dict):
        if len(entry) != 1 or not isinstance(asked := next(iter(entry.values())) or {}, dict):
            raise UsageError(f"strategies holds {entry!r}, which is not of the form {{name: {{knob: value}}}}")
        name = str(next(iter(entry)))
        if "strategy" in asked:
            if variants.setdefault(name, asked) != asked:
                raise UsageError(f"the name {name!r} stands for two things among strategies and variants")
            return name
        if (method := of_table(name)) is None:
            if name in variants and asked:
                raise UsageError(f"{name!r} is a name of this recipe, and has its options where it is given them")
            return name
        asked = {k: v for k, v in asked.items() if v is not None}
        own = {k: v for k, v in asked.items() if k in knobs(method)}
        entry = spelled(name, own)
        if len(own) < len(asked):
            rest = {k: asked[k] for k in sorted(asked) if k not in own}
            variants[spelled(entry, rest)] = {"strategy": entry, **rest}
            return spelled(entry, rest)
    if isinstance(entry, str) and ":" in entry and entry not in variants and (method := of_table(entry)) is not None:
        return strategy_name(method)
    return entry


def _check_variants(variants: Any) -> None:
    """Options of rows that are not of the pool, as labelled ones, and budgets in tokens or money are no matter of a
    recipe."""
    if not isinstance(variants, dict) or not all(isinstance(v, dict) for v in variants.values()):
        raise UsageError("variants is not of the form {name: {strategy: k_center, prefilter: mean_entropy}, ...}")
    known = {f.name for f in dataclasses.fields(Options)} - {
        "seed",
        "labelled",
        *BESIDE,
        *MONEY,
        "budget_tokens",
        "cost_by",
    }
    for name, asked in variants.items():
        if name in STRATEGIES:
            raise UsageError(f"variant {name!r} has the name of a strategy; give it one of its own")
        if of_table(str(asked.get("strategy"))) is None:
            raise UsageError(f"variant {name!r}: its strategy is none of {', '.join(STRATEGIES)}")
        for option in asked:
            if option != "strategy" and option not in known:
                raise UsageError(f"variant {name!r}: unknown option {option!r}{_nearest(str(option), known)}")
        Options(**{k: v for k, v in asked.items() if k != "strategy"})
        for column in (asked.get("weight_by"), asked.get("prefilter")):
            if column is not None and column not in SCORES:
                raise UsageError(f"variant {name!r}: {column!r} is not a score; known: {', '.join(SCORES)}")


def _nearest(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def read_recipe(
    path: str | Path, overrides: Sequence[str] = (), log: Callable[[str], None] = lambda text: None
) -> Recipe:
    """Read a YAML recipe and apply `key=value` or `section.key=value` overrides, whose values are YAML too.

    Args:
      log: is told how a recipe that is written without sections reads now.

    Raises:
      DataError: no such file, not YAML, not a mapping.
      UsageError: an unknown key (the nearest is named), a value that makes no sense.
    """
    import yaml

    path = Path(path)
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"recipe {path} does not exist") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as e:
        mark = getattr(e, "problem_mark", None)
        where = f":{mark.line + 1}" if mark else ""
        raise DataError(f"{path}{where}: not valid YAML ({getattr(e, 'problem', None) or e})") from None
    if not isinstance(raw, dict):
        raise DataError(f"{path}: a recipe is a list of `key: value` lines")
    if said := written_flat(raw):
        log(f"{path}: {said}")
    base, over = _named(flat(raw, str(path))), _named(flat(read_overrides(overrides), "overrides"))
    names = {**(base.get("variants") or {}), **(over.get("variants") or {})}
    return make_recipe(base | over | ({"variants": names} if names else {}), path.parent, str(path))


def _named(raw: dict[str, Any]) -> dict[str, Any]:
    """The keys with entries of strategies that have a name of their own among the variants: an override names them."""
    variants, entries = raw.get("variants"), raw.get("strategies")
    if not isinstance(entries, list) or not isinstance(variants, dict | None):
        return raw
    own = dict(variants or {})
    names = [_entry(entry, own) for entry in entries]
    return raw | {"strategies": names} | ({"variants": own} if own else {})


def read_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """`key=value` pairs, whose values are YAML, as a mapping.

    Raises:
      UsageError: one is not of that form.
    """
    import yaml

    found = {}
    for item in overrides:
        key, eq, value = item.partition("=")
        if not eq:
            raise UsageError(f"{item!r} is not of the form key=value")
        try:
            found[key] = yaml.safe_load(value)
        except yaml.YAMLError as e:
            raise UsageError(f"{item!r}: the value is not valid YAML ({getattr(e, 'problem', None) or e})") from None
    return found


def make_recipe(raw: dict[str, Any], base: Path, where: str = "recipe") -> Recipe:
    """A recipe from its keys, in sections or flat; relative input paths are taken from `base`."""
    raw = flat(raw, where)
    known = {f.name for f in dataclasses.fields(Recipe)} - {"finetune"}
    for key in raw:
        if key not in known and key not in FINETUNE:
            raise UsageError(f"{where}: unknown key {key!r}{_nearest(str(key), [*known, *FINETUNE])}")
    for key in ("pool", "evaluation", "out"):
        if not raw.get(key):
            raise UsageError(f"{where}: the key {key!r} is missing")
    own = {k: v for k, v in raw.items() if k in known}
    for key in ("pool", "evaluation", "target"):
        name = own.get(key)
        if name and isinstance(name, str) and (base / name).exists():
            own[key] = os.path.normpath(base / name)
        elif isinstance(name, str) and is_pattern(name):  # the brackets of a recipe's own directory are no pattern
            own[key] = os.path.normpath(Path(glob.escape(str(base))) / name)
    if (base / str(own.get("model", ""))).is_dir() and own.get("model"):
        own["model"] = os.path.normpath(base / own["model"])
    return Recipe(**own, finetune={k: v for k, v in raw.items() if k in FINETUNE})
