"""Choose: who is a candidate, in which order they are taken, and how many of them."""

from __future__ import annotations

import difflib
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from edjax.errors import DataError, UsageError
from edjax.features import SCORES, Features
from edjax.memory import enough_memory
from edjax.select import duplicates, gains, groups, labelled, quality, tokens
from edjax.select.options import Options, whole
from edjax.select.prepared import prepare, take
from edjax.select.selection import Removed, Selection
from edjax.strategies import STRATEGIES, Order, Problem, Strategy, by_score
from edjax.stream import Spill, Stream


def select(features: Features, strategy: str, budget: int | None = None, **options: Any) -> Selection:
    """Choose `budget` rows by a strategy of `edjax.strategies.STRATEGIES`, or by a score of the features' own.

    Args:
      features: of the pool.
      strategy: its name, or that of a score in `features.scores` (the largest first).
      budget: how many rows. 0 gives an empty selection. None: as many as `budget_tokens` buys.
      seed: for "random".
      normalise: as in `prepare`.
      allow_fewer: take all rows where the budget is larger, instead of an error.
      drop_invalid: leave rows with NaN or infinite features out, instead of an error.
      labelled: ids of rows that have labels. They start the state of the diversity strategies and are never picked;
        50 rows, and then 50 more given these, are the 100 rows of one go. allow_unknown: pass over ids that are of no
        row, instead of an error.
      weight_by, strength: a score that scales the diversity strategies, see `edjax.select.quality.weights`; the others
        do not look at it.
      prefilter, prefilter_ratio: choose among the ratio x budget rows of largest such score, default 3.
      group_by: a column of `features.facts`: the strategy runs inside each group, and the order interleaves them, see
        `edjax.select.groups`. quotas: "proportional" (to the rows there are to choose from), "balanced" or
        "inverse_confidence". keep_small: take groups of at most so many rows whole. Quotas are of this call's rows;
        labelled ones do not count.
      budget_tokens, cost_by: rows are bought while they fit into so many tokens (`edjax.select.tokens.affordable`);
        what a row costs is a column of the facts, by default the prompt's tokens: how long a response will be is not
        known before it is written. With `budget` too, both limits hold.
      near_duplicates: leave rows out whose centred, normalised embedding has at least this cosine similarity to a row
        that stays; of each bunch a labelled row stays, else that of highest weight, else the first.
      bandwidth: of facility_location, default 0.25.

    Raises:
      UsageError: an unknown strategy, a budget that is negative, not whole, or beyond the pool; an option that makes no
        sense; embeddings left on disk for a strategy that needs them in memory.
      DataError: rows that are not finite; a column the features do not hold; labelled ids that no row has.
      EnvError: memory runs out.
    """
    strategy_of(strategy, features.scores)
    if budget is not None:
        budget = whole("budget", budget, "rows")
    return Chooser(features, Options(**options)).choose(strategy, [budget])[0]


class Chooser:
    """Selections of one pool with the same options; what they share is made once."""

    def __init__(self, features: Features, options: Options):
        self.features, self.options = features, options
        self._parts: dict[tuple[str, ...], _Part] = {}

    @enough_memory("selecting", "take a prefilter, or k_center or d_optimal within a smaller memory, or fewer rows")
    def choose(self, strategy: str, budgets: Sequence[int | None]) -> list[Selection]:
        """One selection a budget, each as `select` alone would make it; one order serves all where it can.

        Raises: as `select`.
        """
        o = self.options
        chosen = strategy_of(strategy, self.features.scores)
        wanted = [None if b is None else whole("budget", b, "rows") for b in budgets]
        if None in wanted and o.budget_tokens is None:
            raise UsageError("budget None: give --budget ROWS, --budget-tokens N, or both")
        if None in wanted and (o.prefilter or o.group_by):
            what = "a prefilter keeps a multiple of" if o.prefilter else "quotas are shares of"
            raise UsageError(f"{what} the budget of rows: give --budget beside --budget-tokens")
        if chosen.needs == "embeddings" and not chosen.streams and isinstance(self.features.embeddings, Stream):
            raise UsageError(f"{strategy} needs the embeddings in memory; read the features with a larger memory")
        start = time.perf_counter()
        part = self._part(chosen)
        if not o.nested:
            made = []
            for budget in wanted:
                made.append(part.selection(chosen, *part.picks(chosen, part.fitting(budget)), start))
                start = time.perf_counter()
            return made
        counts = [part.fitting(b) for b in wanted]
        picks, gain = part.picks(chosen, max(int(c) for c in counts if c is not None))
        seconds = time.perf_counter() - start
        cut = [part.selection(chosen, picks[:c], None if gain is None else gain[:c], start) for c in counts]
        return [replace(s, seconds=seconds) for s in cut]

    def _part(self, chosen: Strategy) -> _Part:
        own = () if chosen.needs in ("nothing", "embeddings") else (chosen.needs,)
        columns = tuple(dict.fromkeys((*own, *self.options.columns())))
        if columns not in self._parts:
            self._parts[columns] = _Part(self.features, self.options, columns)
        return self._parts[columns]


class _Part:
    """The rows that count: finite, and without near-duplicates; their numbers are those among themselves."""

    def __init__(self, features: Features, o: Options, columns: tuple[str, ...]):
        self.o = o
        self.removed: tuple[Removed, ...] = ()
        given, unknown = labelled.find(o.labelled, features, o.allow_unknown)
        self.keep, dropped = _valid(features, columns, o.drop_invalid)
        self.features, self.given = take(features, self.keep), _among(given, self.keep)
        self.notes = [n for n in (unknown, dropped) if n]
        self._x: np.ndarray | Spill | None = None
        if o.near_duplicates is not None and len(self.keep):
            self._remove_duplicates(o.near_duplicates)
        if o.budget_tokens is not None:
            self.price = tokens.costs(self.features, o.cost_by)
        if o.group_by is not None:
            self.group = groups.labels(self.features, o.group_by)[0]
        free = np.ones(len(self.keep), bool)
        free[self.given] = False
        self.free = np.flatnonzero(free)

    def _remove_duplicates(self, threshold: float) -> None:
        x = prepare(self.features.embeddings)
        found = duplicates.find(x, threshold, self.given, self.weights)
        names = self.features.ids
        self.removed = tuple(
            Removed(names[i], names[j], float(s))
            for i, j, s in zip(found.gone, found.keeper, found.similarity, strict=True)
        )
        if not len(found.gone):
            self._x = x if self.o.normalise == "l2" else None
            return
        said = "near-duplicate was" if len(found.gone) == 1 else "near-duplicates were"
        self.notes.append(f"{len(found.gone)} {said} left out, {len(found.keep)} rows stay")
        self.features, self.keep = take(self.features, found.keep), self.keep[found.keep]
        self.given = np.searchsorted(found.keep, self.given)
        self.__dict__.pop("weights", None)

    @cached_property
    def weights(self) -> np.ndarray | None:
        o = self.o
        return None if o.weight_by is None else quality.weights(self.features.scores[o.weight_by], o.strength)

    def prepared(self) -> np.ndarray | Spill:
        if self._x is None:
            self._x = prepare(self.features.embeddings, self.o.normalise)
        return self._x

    def fitting(self, budget: int | None) -> int | None:
        """The budget, or all rows there are where it is larger and that is allowed."""
        if budget is None or budget <= len(self.free):
            return budget
        if not self.o.allow_fewer:
            without = f" that are not labelled ({len(self.given)} are)" if len(self.given) else ""
            raise UsageError(
                f"budget {budget} is larger than the {len(self.free)} rows to choose from{without}; lower it or "
                "--allow-fewer"
            )
        return len(self.free)

    def picks(self, chosen: Strategy, budget: int | None) -> Order:
        """Rows in the order taken, and their gains."""
        o, candidates = self.o, self.free
        if budget == 0 or o.budget_tokens == 0:
            return np.zeros(0, np.int64), None
        if o.prefilter is not None and budget is not None:
            candidates = quality.prefilter(self.features.scores[o.prefilter], candidates, budget, o.prefilter_ratio)
        weights = self.weights if chosen.needs == "embeddings" else None
        x: Any = self.prepared() if chosen.needs == "embeddings" else self.features.embeddings
        problem = Problem(self.features, x, candidates, 0, o.seed, self.given, weights, o.bandwidth)

        def order(k: int) -> Order:
            if o.group_by is None:
                return chosen.order(problem._replace(budget=k))
            sizes = np.bincount(self.group[candidates], minlength=self.group.max() + 1)
            share = groups.shares(self.features, self.group, candidates, o.quotas)
            quota = groups.apportion(sizes, share, k, o.keep_small)

            def inside(rows: np.ndarray, given: np.ndarray, q: int) -> Order:
                return chosen.order(problem._replace(candidates=rows, labelled=given, budget=q, alike=True))

            return groups.order(self.group, quota, candidates, self.given, inside)

        if o.budget_tokens is None:
            assert budget is not None
            return order(budget)
        most = len(candidates) if budget is None else budget
        if o.group_by is None:
            return tokens.affordable(order, self.price, candidates, o.budget_tokens, most)
        rows, gain = order(most)  # quotas of fewer rows are other ones, so this order is all there is
        return tokens.affordable(
            lambda k: (rows[:k], None if gain is None else gain[:k]), self.price, np.sort(rows), o.budget_tokens, most
        )

    def selection(self, chosen: Strategy, picks: np.ndarray, gain: np.ndarray | None, start: float) -> Selection:
        o, notes = self.o, list(self.notes)
        name, diverse = strategy_name(chosen), chosen.needs == "embeddings"
        if o.weight_by is not None and not diverse:
            notes.append(f"{name} is not weighted by {o.weight_by}: only the diversity strategies are")
        cost = None if o.budget_tokens is None else float(self.price[picks].sum())
        if o.budget_tokens and not len(picks) and len(self.free):
            notes.append(f"no row costs {o.budget_tokens} or less: nothing is chosen")
        if diverse and (said := gains.warn(name, gain, grouped=o.group_by is not None)):
            notes.append(said)
        indices = self.keep[picks]
        ids = tuple(self.features.ids[i] for i in picks)
        seconds = time.perf_counter() - start
        return Selection(name, ids, indices, gain, seconds, "; ".join(notes) or None, cost, self.removed)


def strategy_name(chosen: Strategy) -> str:
    """The name it goes by: that of the table, or of the score it sorts by."""
    return next((name for name, s in STRATEGIES.items() if s is chosen), chosen.needs)


def strategy_of(name: str, scores: Collection[str]) -> Strategy:
    """The strategy of this name, or the one that sorts by the score of this name.

    Raises:
      UsageError: neither; the nearest name is given.
    """
    if name in STRATEGIES:
        return STRATEGIES[name]
    if name in scores:
        return Strategy(name, f"largest {name}", by_score(name))
    known = list(dict.fromkeys([*STRATEGIES, *scores]))
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise UsageError(f"unknown strategy {name!r}; {hint}strategies: {', '.join(known)}")


def _among(rows: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Where those of `rows` that are kept lie among the kept; both ascending."""
    at = np.searchsorted(keep, rows)
    there = at < len(keep)
    there[there] = keep[at[there]] == rows[there]
    return at[there]


def _valid(features: Features, columns: Sequence[str], drop_invalid: bool) -> tuple[np.ndarray, str | None]:
    """Rows with a finite embedding and finite scores where some are read; and a note on the others.

    Random is held to it too: strategies are compared on the same candidates.
    """
    x = features.embeddings
    finite = x.finite.copy() if isinstance(x, Stream) else np.isfinite(x).all(axis=1)
    for name in columns:
        if name not in features.scores:
            found = ", ".join(features.scores) or "none"
            remedy = "score with --max-new-tokens above 0" if name in SCORES else "join it with --scores FILE"
            raise DataError(f"the features hold no score {name!r} (found: {found}); {remedy}")
        finite &= np.isfinite(features.scores[name])
    bad = np.flatnonzero(~finite)
    if not len(bad):
        return np.arange(len(features)), None
    first = ", ".join(features.ids[i] for i in bad[:5]) + (", ..." if len(bad) > 5 else "")
    said = f"{len(bad)} {'row has' if len(bad) == 1 else 'rows have'} NaN or infinite features ({first})"
    if not drop_invalid:
        raise DataError(f"{said}; mend them, or --drop-invalid to leave them out")
    return np.flatnonzero(finite), f"{said}: left out"
