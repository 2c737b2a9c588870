"""A run that grows: what a recipe may add to one that is done, and what would make its cells incomparable."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edjax.data.features import Features
from edjax.keep.errors import UsageError
from edjax.keep.store import read_json, sha256_json
from edjax.selection.choose import Chooser, usable
from edjax.selection.options import Options
from edjax.selection.selection import Selection, read_selection
from edjax.selection.strategies import directory
from edjax.study.recipe import Recipe

ELSEWHERE = "choose another out for a run of all of them"


def refuse_changes(
    home: Path, recipe: Recipe, features: Features, candidates: np.ndarray, labelled: tuple[str, ...] = ()
) -> None:
    """Hold what was chosen before under the names of this recipe against what the recipe asks now.

    Args:
      home: the directory of the run's selections.
      candidates: (n,) bool, the rows that every strategy of the recipe can use.
      labelled: the ids of the warm start.

    Raises:
      UsageError: a variant that keeps its name and not its options; a strategy that joins and cannot use rows that
        others were chosen among, or one that has left for which rows were left out.
    """
    for name in recipe.strategies:
        for path, seed in _chosen(home, name):
            plan = read_json(path / "plan.json")
            strategy, options = recipe.choice(name, seed)
            options = replace(options, labelled=labelled)
            now = json.loads(json.dumps({"strategy": strategy, "partitions": options.partitions} | options.record()))
            silent = Options(normalise="l2")  # what a plan that does not say it was made with
            was: dict[str, Any] = json.loads(json.dumps(vars(silent))) | plan["config"]
            if differs := [f"{k}: {was.get(k)!r} there, {v!r} now" for k, v in now.items() if was.get(k) != v]:
                raise UsageError(
                    f"{name} was chosen with other options in {path} ({'; '.join(differs)}), and its cells are of that "
                    "choice; give what you ask now a name of its own among strategies"
                )
            left_out = Chooser(features, options, candidates).left_out(strategy)
            if plan["inputs"].get("left_out") != (sha256_json(left_out) if left_out else None):
                if left_out and plan["inputs"].get("left_out"):
                    raise UsageError(
                        f"{name} was chosen among other rows: those that some strategy of this run cannot use were not "
                        f"the same. Give back the strategies that it had, or {ELSEWHERE}"
                    )
                raise UsageError(_said(name, left_out, recipe, features))


def _said(name: str, left_out: list[str], recipe: Recipe, features: Features) -> str:
    """Which strategy the candidates of a finished choice have changed by."""
    if not left_out:
        return (
            f"{name} was chosen among fewer rows: those that another strategy of this run cannot use were left out for "
            f"all. Keep that one among strategies (finetune_strategies may leave it out), or {ELSEWHERE}"
        )
    rows = [features.ids.index(i) for i in left_out]
    cannot = [s for s in recipe.strategies if not usable(features, [recipe.choice(s)])[rows].all()]
    few = ", ".join(left_out[:5]) + (", ..." if len(left_out) > 5 else "")
    return (
        f"{', '.join(cannot)} cannot use {len(left_out)} of the rows that {name} was chosen among ({few}: not finite), "
        f"and strategies are compared on the same candidates; {ELSEWHERE}"
    )


def place(home: Path, name: str, tail: str) -> Path:
    """The directory of what is called `name` below `home`, where it was once written, or else where it is now.

    tail: of its own name, "-b100-s0". Colons alone were replaced at first.
    """
    old = home / (_old(name) + tail)
    return old if "/" not in name and old.exists() else home / (directory(name) + tail)


def _old(name: str) -> str:
    return name.replace(":", "_")


def refuse_another_order(path: Path, name: str, chosen: Selection) -> None:
    """A choice of another budget begins as those before it do, or the cells of smaller budgets would not be its start.

    Raises:
      UsageError: another version of edjax, or another machine, breaks ties in another way.
    """
    seed = int(path.name.rpartition("-s")[2])
    for other, of in _chosen(path.parent, name):
        if of != seed or other == path or not (other / "manifest.json").exists():
            continue
        before = read_selection(other).ids
        common = min(len(before), len(chosen))
        if before[:common] != chosen.ids[:common]:
            made = read_json(other / "manifest.json").get("versions", {})
            raise UsageError(
                f"{name}: the first {common} of {len(chosen)} rows are not those chosen before in {other} (edjax "
                f"{made.get('edjax')}, jax {made.get('jax')}), and a small budget must be the start of a larger one; "
                f"use those versions, or {ELSEWHERE}"
            )


def _chosen(home: Path, name: str) -> list[tuple[Path, int]]:
    """What was chosen under a name, finished or not: the directories, and the seed of each."""
    named = re.compile(rf"(?:{re.escape(directory(name))}|{re.escape(_old(name))})-b\d+-s(\d+)")
    found = [(p, named.fullmatch(p.name)) for p in sorted(home.glob("*-b*-s*"))]
    return [(p, int(m[1])) for p, m in found if m and (p / "plan.json").exists()]
