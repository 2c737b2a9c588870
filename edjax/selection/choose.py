"""Choose: who is a candidate, in which order they are taken, and how many of them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from edjax.data.columns import unfit
from edjax.data.features import Features
from edjax.data.stream import Stream
from edjax.keep.errors import UsageError
from edjax.keep.memory import enough_memory
from edjax.kernels import Method, streams
from edjax.selection import (
    clusters,
    defaults,
    duplicates,
    gains,
    groups,
    labelled,
    partitions,
    quality,
    responses,
    tokens,
)
from edjax.selection.beside import Beside, refuse_missing, refuse_unread, seen
from edjax.selection.budgets import Budget, budget_of, rows_of
from edjax.selection.candidates import columns_of, finite, valid
from edjax.selection.options import BESIDE, Options
from edjax.selection.order import Order, Problem, powers_of_2
from edjax.selection.order import order as in_order
from edjax.selection.prepared import Prepared, fitted, take
from edjax.selection.selection import Removed, Selection
from edjax.selection.strategies import STRATEGIES, knobs, reads_embeddings, strategy_name, strategy_of, uses


def select(
    features: Features, strategy: str = defaults.STRATEGY, budget: int | str | None = None, **options: Any
) -> Selection:
    """Choose `budget` rows by a strategy of `edjax.selection.strategies.STRATEGIES`, or by a score of the features'
    own.

    Args:
      features: of the pool.
      strategy: its name, or that of a score in `features.scores` (the largest first). Knobs of its own follow it:
        "facility_location:bandwidth=0.5", see `edjax strategies`.
      budget: how many rows, or the share "10%" of those that may be chosen, rounded down and at least 1. 0 gives an
        empty selection. None: as many as `budget_tokens` or `budget_cost` buys.
      seed: for "random".
      normalise, whiten_dims: as in `prepare`; whitening is fitted on all rows that are looked at, labelled ones too.
      allow_fewer: take all rows there are, or that the strategy may pick, where the budget is larger, instead of an
        error.
      drop_invalid: leave rows with NaN or infinite features out, instead of an error.
      labelled: ids of rows that have labels. They start the state of the diversity strategies and are never picked;
        50 rows, and then 50 more given these, are the 100 rows of one go. allow_unknown: pass over ids that are of no
        row, instead of an error.
      target: features of rows to choose for, made as the pool's were (`edjax.read_features`); for methods that read
        one, see `edjax strategies`. They are prepared by what is fitted on the pool, and are never picked.
      existing: features of rows that one has already and that are not of the pool: they start the state of the
        diversity strategies as labelled rows do.
      weight_by, strength: a score that scales gains that shrink as rows are chosen, see
        `edjax.selection.quality.weights`; the others do not look at it.
      prefilter, prefilter_ratio: choose among the ratio x budget rows of largest such score, default 3.
      group_by: a column of `features.facts`, or "cluster:N" for N clusters of the prepared embeddings
        (`edjax.kernels.kmeans`): the strategy runs inside each group, and the order interleaves them, see
        `edjax.selection.groups`. quotas: "proportional" (to the rows there are to choose from), "balanced" or
        "inverse_confidence". keep_small: take groups of at most so many rows whole. Quotas are of this call's rows;
        labelled ones do not count.
      partitions: choose inside each of so many random parts of the candidates, and then among what those chose, see
        `edjax.selection.partitions`: facility_location of pools whose n^2 similarities would take too long.
      budget_tokens, cost_by: rows are bought while they fit into so many tokens (`edjax.selection.tokens.affordable`);
        what a row costs is a column of the facts, by default the prompt's tokens: how long a response will be is not
        known before it is written. With `budget` too, both limits hold.
      budget_cost, cost_per_row, cost_per_token, price_by: the same with money: a row costs cost_per_row +
        cost_per_token x tokens of the column `cost_by`, or what the column `price_by` says.
      near_duplicates: leave rows out whose centred, normalised embedding has at least this cosine similarity to a row
        that stays; of each bunch a labelled row stays, else that of highest weight, else the first.
      bandwidth: of facility_location, as "facility_location:bandwidth=0.5" says it.

    Raises:
      UsageError: an unknown strategy, a budget that is negative, not whole, or beyond the pool; an option that makes no
        sense; embeddings left on disk for a strategy that needs them in memory; a target that the strategy does not
        read, or needs and is not given.
      DataError: rows that are not finite; a column the features do not hold; labelled ids that no row has; a target
        whose embeddings are not of the pool's length.
      EnvError: memory runs out.
    """
    chosen, asked = method_of(strategy, features), Options(**options)
    refuse_unread([chosen], asked)
    return Chooser(features, asked).choose(strategy, [budget])[0]


def usable(features: Features, compared: Iterable[tuple[str, Options]]) -> np.ndarray:
    """The rows that each of these strategies can use with its options, (n,) bool: the candidates of all of them.

    Raises:
      UsageError: an unknown strategy.
      DataError: a score that the features do not hold.
    """
    read = (columns_of(features, method_of(name, features), options) for name, options in compared)
    return finite(features, tuple(dict.fromkeys(column for columns in read for column in columns)))


class Chooser:
    """Selections of one pool with the same options; what they share is made once.

    candidates: (n,) bool, as `usable` gives them for all the strategies of a comparison: no other row is chosen. None:
    each strategy chooses among the rows that it can use.
    """

    def __init__(self, features: Features, options: Options, candidates: np.ndarray | None = None):
        self.features, self.options, self.candidates = features, options, candidates
        self._parts: dict[tuple[str, ...], _Part] = {}

    @enough_memory("selecting", "take a prefilter, or k_center or d_optimal within a smaller memory, or fewer rows")
    def choose(self, strategy: str, budgets: Sequence[Budget | None]) -> list[Selection]:
        """One selection a budget, each as `select` alone would make it; one order serves all where it can.

        Raises: as `select`.
        """
        o = self.options
        chosen = method_of(strategy, self.features)
        wanted = [None if b is None else budget_of(b) for b in budgets]
        if None in wanted and o.spends is None:
            raise UsageError("budget None: give --budget ROWS, --budget-tokens N, --budget-cost AMOUNT, or two of them")
        if None in wanted and (o.prefilter or o.group_by):
            what = "a prefilter keeps a multiple of" if o.prefilter else "quotas are shares of"
            raise UsageError(f"{what} the budget of rows: give --budget beside {_spending(o)}")
        if o.bandwidth is not None and "bandwidth=" in strategy:
            raise UsageError(f"{strategy} says its bandwidth, and the option bandwidth says {o.bandwidth}; give one")
        refuse_missing(chosen, o)
        beside = o.existing is not None or (o.target is not None and uses(chosen, "target"))
        on_disk = isinstance(self.features.embeddings, Stream)
        if on_disk and reads_embeddings(chosen) and (beside or not streams(chosen)):
            raise UsageError(f"{strategy} needs the embeddings in memory; read the features with a larger memory")
        if chosen.fewer and (o.group_by or o.spends):
            what = "--group-by" if o.group_by else _spending(o)
            raise UsageError(f"{strategy} may leave a part of its budget, which {what} cannot pass on; drop {what}")
        if o.partitions > 1:
            partitions.refuse(chosen)
        start = time.perf_counter()
        part = self._part(chosen)
        if not (o.nested and chosen.nested):
            made = []
            for budget in wanted:
                made.append(part.selection(chosen, *part.picks(chosen, part.fitting(budget)), start, budget))
                start = time.perf_counter()
            return made
        counts = [part.fitting(b) for b in wanted]
        picks, gain = part.picks(chosen, max(int(c) for c in counts if c is not None))
        seconds = time.perf_counter() - start
        cut = [
            part.selection(chosen, picks[:c], None if gain is None else gain[:c], start, b)
            for b, c in zip(wanted, counts, strict=True)
        ]
        return [dataclasses.replace(s, seconds=seconds) for s in cut]

    def left_out(self, strategy: str) -> list[str]:
        """Ids of the rows that this strategy could use and others of the comparison cannot."""
        if self.candidates is None or self.candidates.all():
            return []
        own = finite(self.features, columns_of(self.features, method_of(strategy, self.features), self.options))
        return [self.features.ids[i] for i in np.flatnonzero(own & ~self.candidates)]

    def _part(self, chosen: Method) -> _Part:
        columns = columns_of(self.features, chosen, self.options)
        if columns not in self._parts:
            self._parts[columns] = _Part(self.features, self.options, columns, self.candidates)
        return self._parts[columns]


class _Part:
    """The rows that count: finite, and without near-duplicates; their numbers are those among themselves."""

    def __init__(self, features: Features, o: Options, columns: tuple[str, ...], candidates: np.ndarray | None):
        self.o = o
        self.removed: tuple[Removed, ...] = ()
        given, unknown = labelled.find(o.labelled, features, o.allow_unknown)
        self.whole, self.labelled = features, given
        self.keep, dropped = valid(features, columns, o.drop_invalid, given, candidates)
        self.features, self.given = take(features, self.keep), _among(given, self.keep)
        self.notes = [n for n in (unknown, *dropped) if n]
        self._prepared: Prepared | None = None
        self.targets = 0
        if o.near_duplicates is not None and len(self.keep):
            self._remove_duplicates(o.near_duplicates)
        if o.spends is not None:
            self.price = tokens.prices(self.features, o)
        free = np.ones(len(self.keep), bool)
        free[self.given] = False
        self.free = np.flatnonzero(free)
        if (n := clusters.wanted(o.group_by)) is not None:
            self.group = clusters.labels(self.prepared().rows, n)
        elif o.group_by is not None:
            self.group = groups.labels(self.features, o.group_by)[0]

    def _remove_duplicates(self, threshold: float) -> None:
        l2 = fitted(self.features.embeddings, "l2", self.o.whiten_dims)
        found = duplicates.find(l2.rows, threshold, self.given, self.weights)
        names = self.features.ids
        self.removed = tuple(
            Removed(names[i], names[j], float(s))
            for i, j, s in zip(found.gone, found.keeper, found.similarity, strict=True)
        )
        if not len(found.gone):
            self._prepared = l2 if self.o.normalise == "l2" else None
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

    def prepared(self) -> Prepared:
        if self._prepared is None:
            o = self.o
            self._prepared = fitted(self.features.embeddings, o.normalise, o.whiten_dims)
        return self._prepared

    def beside(self, chosen: Method) -> dict[str, Any]:
        """The rows beside the pool that a method reads, as `Problem` takes them."""
        found: dict[str, Beside] = {}
        for name in BESIDE:
            given = getattr(self.o, name)
            if given is None or not uses(chosen, name):
                continue
            d = self.features.embeddings.shape[1]
            rows, note = seen(given, name, chosen, self.prepared().by, d, self.o.drop_invalid)
            self.notes += [note] if note and note not in self.notes else []
            found["target" if chosen.beyond else name] = rows
        self.targets = len(target.x) if (target := found.get("target")) else 0
        return found

    def fitting(self, asked: Budget | None) -> int | None:
        """The budget in rows, or all rows there are where it is larger and that is allowed."""
        budget = None if asked is None else rows_of(asked, len(self.free))
        if budget is None or budget <= len(self.free):
            return budget
        if not self.o.allow_fewer:
            without = f" that are not labelled ({len(self.given)} are)" if len(self.given) else ""
            raise UsageError(
                f"budget {budget} is larger than the {len(self.free)} rows to choose from{without}; lower it or "
                "--allow fewer"
            )
        return len(self.free)

    def picks(self, chosen: Method, budget: int | None) -> Order:
        """Rows in the order taken, and their gains."""
        o, candidates = self.o, self.free
        if budget == 0 or o.spends == 0:
            return np.zeros(0, np.int64), None
        if o.prefilter is not None and budget is not None:
            candidates = quality.prefilter(self.features.scores[o.prefilter], candidates, budget, o.prefilter_ratio)
        weights = None if chosen.valued else self.weights
        x: Any = self.prepared().rows if reads_embeddings(chosen) else self.features.embeddings
        fewer = o.allow_fewer or o.spends is not None  # what a budget of tokens looks at is no number of rows asked for
        problem = Problem(self.features, x, candidates, 0, o.seed, self.given, weights, fewer=fewer)
        problem = problem._replace(**self.beside(chosen))
        if o.bandwidth is not None and "bandwidth" in knobs(chosen):
            chosen = dataclasses.replace(chosen, bandwidth=o.bandwidth)  # type: ignore[call-arg]

        def in_parts(p: Problem) -> Order:
            return in_order(chosen, p) if o.partitions == 1 else partitions.order(chosen, p, o.partitions, in_order)

        def order(k: int) -> Order:
            if o.group_by is None:
                return in_parts(problem._replace(budget=k))
            sizes = np.bincount(self.group[candidates], minlength=self.group.max() + 1)
            share = groups.shares(self.features, self.group, candidates, o.quotas)
            quota = groups.apportion(sizes, share, k, o.keep_small)

            def inside(rows: np.ndarray, given: np.ndarray, q: int) -> Order:
                alike = powers_of_2(len(rows) + len(given), q)
                return in_parts(problem._replace(candidates=rows, labelled=given, budget=q, alike=alike))

            return groups.order(self.group, quota, candidates, self.given, inside)

        if o.spends is None:
            assert budget is not None
            return order(budget)
        most = len(candidates) if budget is None else budget
        if o.group_by is None:
            return tokens.affordable(order, self.price, candidates, o.spends, most)
        rows, gain = order(most)  # quotas of fewer rows are other ones, so this order is all there is
        return tokens.affordable(
            lambda k: (rows[:k], None if gain is None else gain[:k]), self.price, np.sort(rows), o.spends, most
        )

    def selection(
        self, chosen: Method, picks: np.ndarray, gain: np.ndarray | None, start: float, asked: Budget | None
    ) -> Selection:
        o, notes = self.o, list(self.notes)
        if isinstance(asked, str):
            notes.append(f"{asked} of {len(self.free)} rows that may be chosen: {rows_of(asked, len(self.free))}")
        name = strategy_name(chosen)
        if o.weight_by is not None and chosen.valued:
            notes.append(f"{name} is not weighted by {o.weight_by}: it goes by values of the rows themselves")
        cost = None if o.spends is None else tokens.spent(self.price[picks])
        if o.spends and not len(picks) and len(self.free) and asked != 0:
            none = self.price[self.free].min() > o.spends
            why = f"no row costs {o.spends} or less" if none else f"none of the rows looked at fits into {o.spends}"
            notes.append(f"{why}: nothing is chosen")
        grouped = o.group_by is not None
        if not chosen.valued and (said := gains.warn(chosen, gain, grouped=grouped, targets=self.targets)):
            notes.append(said)
        indices = self.keep[picks]
        ids = tuple(self.features.ids[i] for i in picks)
        seconds = time.perf_counter() - start
        said_of = responses.report(chosen, self.whole, self.keep[self.free], self.labelled, indices)
        return Selection(name, ids, indices, gain, seconds, "; ".join(notes) or None, cost, self.removed, said_of)


def method_of(name: str, features: Features) -> Method:
    """The method of this name, as `strategy_of`; a column of this name that holds no single number a row is refused."""
    known = name in STRATEGIES or name in features.scores
    if not known and (wrong := unfit(features, name)):
        raise wrong
    return strategy_of(name, features.scores)


def _spending(o: Options) -> str:
    return "--budget-tokens" if o.budget_tokens is not None else "--budget-cost"


def _among(rows: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Where those of `rows` that are kept lie among the kept; both ascending."""
    at = np.searchsorted(keep, rows)
    there = at < len(keep)
    there[there] = keep[at[there]] == rows[there]
    return at[there]
