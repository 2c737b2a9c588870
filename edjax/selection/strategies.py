"""What a strategy is called, and which method of `edjax.kernels` that is.

A name may carry knobs, `facility_location:bandwidth=0.5:similarity=cosine`; every score the features hold is a name
too. Methods of other packages join by an entry point of the group `edjax.methods`.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Collection, Mapping
from importlib.metadata import entry_points
from typing import Any

from edjax.keep.errors import EnvError, UsageError
from edjax.kernels import METHODS, Method, score_of
from edjax.selection.learned import Dspn

GROUP = "edjax.methods"


def _installed() -> tuple[dict[str, Method], dict[str, str]]:
    """The methods of this package and of those installed beside it, by name; and what is wrong with the others."""
    own: dict[str, Method] = {made.name: made for made in (Dspn(),)}  # what learns with Flax, which kernels go without
    found, broken = METHODS | own, {}
    for point in sorted(entry_points(group=GROUP), key=lambda p: p.name):
        whose = f"strategy {point.name!r} of the package {point.dist.name if point.dist else point.value}"
        try:
            loaded = point.load()
            made = loaded() if isinstance(loaded, type) else loaded
            if not isinstance(made, Method):
                raise TypeError(f"{point.value} is no edjax.kernels.Method")
            if made.name != point.name:
                raise ValueError(f"its entry point is called {point.name!r}, and the method {made.name!r}")
            if point.name in found:
                raise ValueError("the name is taken")
            if set(point.name) & set(":, \t\n"):
                raise ValueError("a name holds no colon, comma or space")
            described(made)
            found[point.name] = made
        except Exception as e:  # a package that is broken must not take the others with it
            broken[point.name] = f"{whose} cannot be used: {type(e).__name__}: {e}"
    return found, broken


def of_table(name: str) -> Method | None:
    """The method behind a name of the table, knobs and all; None for one that is not of the table.

    Raises:
      UsageError: a knob that there is not, or a value that makes no sense.
    """
    base, *knobs = name.split(":")
    if base not in STRATEGIES:
        return None
    return dataclasses.replace(STRATEGIES[base], **_values(base, knobs)) if knobs else STRATEGIES[base]


def recorded(name: str) -> Method | None:
    """The method behind a name that was written down, as in a manifest; None for a score, or for knobs that make no
    sense now."""
    try:
        return of_table(name)
    except UsageError:
        return None


def strategy_of(name: str, scores: Collection[str]) -> Method:
    """The method of this name, or the one that sorts by the score of this name.

    Raises:
      UsageError: neither; the nearest name is given. Or as `of_table`.
      EnvError: its package is broken.
    """
    name = str(name)
    if name in scores and name not in STRATEGIES:
        return score_of(name)
    if (method := of_table(name)) is not None:
        return method
    if name.split(":")[0] in BROKEN:
        raise EnvError(BROKEN[name.split(":")[0]])
    names = list(dict.fromkeys([*STRATEGIES, *scores]))
    near = difflib.get_close_matches(str(name), names, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise UsageError(f"unknown strategy {name!r}; {hint}strategies: {', '.join(names)}")


def strategy_name(method: Method) -> str:
    """The name it goes by, with the knobs that are not as in the table.

    >>> strategy_name(of_table("facility_location:bandwidth=.5"))
    'facility_location:bandwidth=0.5'
    """
    table = STRATEGIES.get(method.name, method)
    own = {k: getattr(method, k) for k in knobs(method)}
    return ":".join([method.name, *(f"{k}={v}" for k, v in own.items() if v != getattr(table, k))])


def directory(name: str) -> str:
    """A name as part of that of a directory.

    >>> directory("facility_location:bandwidth=0.5")
    'facility_location_bandwidth=0.5'
    """
    return re.sub(r"[^\w.=-]", "_", name)  # a score may have any name


def spelled(name: str, asked: Mapping[str, Any]) -> str:
    """A name with knobs, as `of_table` reads it."""
    return ":".join([name, *(f"{k}={v}" for k, v in asked.items())])


def reads_embeddings(method: Method) -> bool:
    """Whether it reads the embeddings."""
    return "embedding" in method.needs


def uses(method: Method, beside: str) -> bool:
    """Whether it makes use of rows beside the pool: a "target", or "existing" rows.

    Existing rows start the state of every method that reads embeddings, as labelled rows do; one that goes `beyond` its
    target takes them for it.
    """
    if beside == "existing":
        return reads_embeddings(method)
    return method.targets and not method.beyond


def scores_of(method: Method) -> tuple[str, ...]:
    """The columns that it needs beside the embeddings: scores, and arrays where its `dims` say so."""
    return tuple(name for name in method.needs if name != "embedding")


def runnable(scored: Collection[str]) -> tuple[str, ...]:
    """The strategies of the table that need no target and no other scores than these, and spend any budget."""

    def can(method: Method) -> bool:
        return set(scores_of(method)) <= set(scored) and not method.needs_target and not method.fewer

    return tuple(name for name, method in STRATEGIES.items() if can(method))


def reads(method: Method, held: Collection[str]) -> tuple[str, ...]:
    """The columns of features that it is given: those it needs, and what it takes of those that are `held`."""
    own = ("draw", "group", "quality", "similarity", "weight")  # mean something of their own to a method
    taken = [name for name in method.takes if name in held and name not in own]
    return tuple(dict.fromkeys((*scores_of(method), *taken)))


def described(method: Method) -> dict[str, Any]:
    """What `edjax strategies --json` says of it."""
    columns = [*(["embeddings"] if reads_embeddings(method) else []), *scores_of(method)]
    target = ("needed" if method.needs_target else "taken") if uses(method, "target") else "none"
    own = [{"name": k, "default": f.default, "help": f.metadata["help"]} for k, f in knobs(method).items()]
    needs = ", ".join(columns) or "nothing"
    return {"needs": needs, "target": target, "summary": method.summary, "paper": method.paper, "knobs": own}


def knobs(method: Method) -> dict[str, dataclasses.Field]:
    """What can be asked of a method by name, beside its columns; see `edjax.kernels.option`."""
    fields = dataclasses.fields(method)
    return {f.name: f for f in fields if "engine" in f.metadata and not f.metadata["engine"]}


def _values(base: str, asked: list[str]) -> dict[str, Any]:
    there, values = knobs(STRATEGIES[base]), {}
    for text in asked:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"{base}:{text} is not of the form {base}:knob=value")
        if name not in there:
            near = difflib.get_close_matches(name, there, n=1)
            has = f"it has {', '.join(there)}" if there else "it has none"
            raise UsageError(f"{base} has no knob {name!r}{f'; did you mean {near[0]}?' if near else ''} ({has})")
        if name in values:
            raise UsageError(f"{base} is given {name!r} twice")
        values[name] = _value(f"{base}:{name}", value, there[name])
    return values


def _value(name: str, text: str, field: dataclasses.Field) -> Any:
    bounds, default = field.metadata, field.default
    if bounds["choices"]:
        if text not in map(str, bounds["choices"]):
            raise UsageError(f"{name}={text} is not one of {', '.join(map(str, bounds['choices']))}")
        return next(c for c in bounds["choices"] if str(c) == text)
    if isinstance(default, bool):
        if text.lower() not in ("true", "false"):
            raise UsageError(f"{name}={text} is not true or false")
        return text.lower() == "true"
    if isinstance(default, str):
        return text
    whole = isinstance(default, int)
    try:
        number = int(text) if whole else float(text)
    except ValueError:
        number = math.nan
    above, least, below = bounds["above"], bounds["least"], bounds["below"]
    limits = ((above, "above {:g}"), (least, "of {:g} or more"), (below, "below {:g}"))
    limit = " and ".join(said.format(bound) for bound, said in limits if bound is not None)
    limit = f" {limit}" if limit else ""
    outside = (above is not None and not number > above) or (least is not None and not number >= least)
    if not math.isfinite(number) or outside or (below is not None and not number < below):
        raise UsageError(f"{name}={text} is not a {'whole ' if whole else ''}number{limit}")
    return number


STRATEGIES, BROKEN = _installed()
