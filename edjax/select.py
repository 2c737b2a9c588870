"""Spend a budget: order the pool by a strategy and keep the first rows."""

from __future__ import annotations

import csv
import difflib
import io
import operator
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np

from edjax.errors import DataError, UsageError
from edjax.features import Features, Survey
from edjax.store import atomic_write, read_manifest, writing
from edjax.stream import Spill, Stream

if TYPE_CHECKING:
    from edjax.pool import Pool
    from edjax.strategies import Strategy

NORMALISE = ("l2", "centre", "none")
IN_MEMORY = 5  # times the embeddings, measured: as read, prepared, on the device, centred there, and what makes them


@dataclass(frozen=True)
class Selection:
    """Rows in the order they were taken; the first j of a larger budget's selection are the budget-j selection.

    `indices` (k,) int64 into the features, `gains` (k,) float32 or None where the strategy has none, `seconds` the
    wall time of the choice, compilation included, `warning` a sentence where the gains ran out before the budget.
    """

    strategy: str
    ids: tuple[str, ...]
    indices: np.ndarray
    gains: np.ndarray | None
    seconds: float
    warning: str | None = None

    def __len__(self) -> int:
        return len(self.ids)


@overload
def prepare(embeddings: np.ndarray, normalise: str = "l2") -> np.ndarray: ...
@overload
def prepare(embeddings: Stream, normalise: str = "l2") -> Spill: ...
@overload
def prepare(embeddings: np.ndarray | Stream, normalise: str = "l2") -> np.ndarray | Spill: ...
def prepare(embeddings: np.ndarray | Stream, normalise: str = "l2") -> np.ndarray | Spill:
    """Embeddings as the diversity strategies see them, (n, d) float32; of a stream, the same values in a file.

    "l2": centred, then each row scaled to length 1 (a row equal to the mean stays 0). "centre": centred only.
    "none": as they are. Hidden states share an offset larger than their spread and a few directions hold most of
    their variance, so without this k-center and D-optimal chase rows of large norm.
    """
    if normalise not in NORMALISE:
        raise UsageError(f"normalise {normalise!r} is not one of {', '.join(NORMALISE)}")
    if isinstance(embeddings, Stream):
        return _prepare_spilled(embeddings.spill(), normalise)
    if normalise == "none" or not len(embeddings):
        return embeddings
    x = embeddings - embeddings.mean(axis=0, dtype=np.float64).astype(np.float32)
    if normalise == "l2":
        x /= _lengths(np.linalg.norm(x, axis=1))[:, None]
    return x


def _prepare_spilled(x: Spill, normalise: str) -> Spill:
    """`prepare` in place, a slice at a time: a pass for the mean, one for the norms, one to write."""
    if normalise == "none" or not len(x):
        return x
    mean = (sum(x[part].sum(axis=0, dtype=np.float64) for part in x.slices()) / len(x)).astype(np.float32)
    length = np.ones(len(x), np.float32)
    if normalise == "l2":
        length = _lengths(np.concatenate([np.linalg.norm(x[part] - mean, axis=1) for part in x.slices()]))
    for part in x.slices():
        x[part] = (x[part] - mean) / length[part, None]
    return x


def _lengths(norms: np.ndarray) -> np.ndarray:
    """What to divide each row by: its norm, or infinity where the row is rounding noise about the mean."""
    return np.where(norms > 1e-6 * max(float(norms.max(initial=0.0)), 1e-30), norms, np.float32(np.inf))


def select(
    features: Features,
    strategy: str,
    budget: int,
    *,
    seed: int = 0,
    normalise: str = "l2",
    allow_fewer: bool = False,
    drop_invalid: bool = False,
) -> Selection:
    """Choose `budget` rows by a strategy of `edjax.strategies.STRATEGIES`, or by a score of the features' own.

    Args:
      features: of the pool.
      strategy: its name, or that of a score in `features.scores` (the largest first).
      budget: how many rows. 0 gives an empty selection.
      seed: for "random".
      normalise: as in `prepare`.
      allow_fewer: take all rows where the budget is larger, instead of an error.
      drop_invalid: leave rows with NaN or infinite features out, instead of an error.

    Raises:
      UsageError: an unknown strategy, a budget that is negative, not whole, or beyond the pool; embeddings left on
        disk for a strategy that needs them in memory.
      DataError: rows that are not finite; a score the features do not hold.
    """
    chosen = _strategy(strategy, features.scores)
    try:
        budget = operator.index(budget)
    except TypeError:
        raise UsageError(f"budget {budget!r} is not a whole number of rows") from None
    if budget < 0:
        raise UsageError(f"budget {budget} is negative; it is a number of rows, 0 or more")
    if seed < 0:
        raise UsageError(f"seed {seed} is negative; it is 0 or more")
    if chosen.needs == "embeddings" and not chosen.streams and isinstance(features.embeddings, Stream):
        raise UsageError(f"{strategy} needs the embeddings in memory; read the features with a larger memory")
    keep, dropped = _valid(features, chosen.needs, drop_invalid)
    if budget > len(keep):
        if not allow_fewer:
            raise UsageError(
                f"budget {budget} is larger than the {len(keep)} rows to choose from; lower it or --allow-fewer"
            )
        budget = len(keep)
    part = features if len(keep) == len(features) else _take(features, keep)
    start = time.perf_counter()
    x = prepare(part.embeddings, normalise) if chosen.needs == "embeddings" else part.embeddings
    picks, gains = chosen.order(part, x, budget, seed) if budget else (np.zeros(0, np.int64), None)
    seconds = time.perf_counter() - start
    indices = keep[np.asarray(picks, np.int64)]
    warning = "; ".join(filter(None, (dropped, _exhausted(gains) if chosen.needs == "embeddings" else None))) or None
    return Selection(strategy, tuple(features.ids[i] for i in indices), indices, gains, seconds, warning)


def stream_above(strategy: str, memory: int) -> int | None:
    """Bytes of embeddings up to which this strategy selects within `memory` bytes, for `read_features`; beyond them it
    reads them from disk. None for a strategy that cannot."""
    from edjax.strategies import STRATEGIES

    known = STRATEGIES.get(strategy)
    return None if known and known.needs == "embeddings" and not known.streams else memory // IN_MEMORY


def streams(features: Features, strategy: str) -> bool:
    """Whether this strategy will read embeddings that were left on disk."""
    from edjax.strategies import STRATEGIES

    return isinstance(features.embeddings, Stream) and strategy in STRATEGIES and STRATEGIES[strategy].streams


def forecast(found: Survey, strategy: str, budget: int, memory: int) -> str:
    """What a selection will cost, in a sentence, from the shapes alone.

    Raises:
      UsageError: an unknown strategy, or a budget beyond the pool.
    """
    from edjax import kernels

    needs = _strategy(strategy, found.scores).needs
    if not 0 <= budget <= found.n:
        raise UsageError(f"budget {budget} is not between 0 and the pool's {found.n} rows")
    if needs != "embeddings":
        return f"{strategy} of {budget:,} rows from {found.n:,}: no kernel runs; the embeddings are read once"
    limit, size = stream_above(strategy, memory), 4 * found.n * found.d
    streamed = limit is not None and size > limit
    says = kernels.plan(strategy, found.n, found.d, budget, form="streamed" if streamed else "auto").says
    return says + (f"; {size / 1e9:.1f} GB of disk" if streamed else f"; {2 * size / 1e9:.1f} GB more to prepare them")


def _strategy(name: str, scores: Collection[str]) -> Strategy:
    from edjax.strategies import STRATEGIES, Strategy, by_score

    if name in STRATEGIES:
        return STRATEGIES[name]
    if name in scores:
        return Strategy(name, f"largest {name}", by_score(name))
    known = list(dict.fromkeys([*STRATEGIES, *scores]))
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise UsageError(f"unknown strategy {name!r}; {hint}strategies: {', '.join(known)}")


def _take(features: Features, rows: np.ndarray) -> Features:
    return Features(
        tuple(features.ids[i] for i in rows),
        features.embeddings.take(rows) if isinstance(features.embeddings, Stream) else features.embeddings[rows],
        {k: v[rows] for k, v in features.scores.items()},
        {k: v[rows] for k, v in features.facts.items()},
        features.digest,
    )


def _valid(features: Features, needs: str, drop_invalid: bool) -> tuple[np.ndarray, str | None]:
    """Rows with a finite embedding and, where the strategy reads one, a finite score; and a note on the others.

    Random is held to it too: strategies are compared on the same candidates.
    """
    x = features.embeddings
    finite = x.finite.copy() if isinstance(x, Stream) else np.isfinite(x).all(axis=1)
    if needs in features.scores:
        finite &= np.isfinite(features.scores[needs])
    elif needs not in ("nothing", "embeddings"):
        found = ", ".join(features.scores) or "none"
        raise DataError(f"the features hold no score {needs!r} (found: {found}); score with --max-new-tokens above 0")
    bad = np.flatnonzero(~finite)
    if not len(bad):
        return np.arange(len(features)), None
    first = ", ".join(features.ids[i] for i in bad[:5]) + (", ..." if len(bad) > 5 else "")
    said = f"{len(bad)} {'row has' if len(bad) == 1 else 'rows have'} NaN or infinite features ({first})"
    if not drop_invalid:
        raise DataError(f"{said}; mend them, or --drop-invalid to leave them out")
    return np.flatnonzero(finite), f"{said}: left out"


def _exhausted(gains: np.ndarray | None) -> str | None:
    if gains is None or not len(gains):
        return None
    largest = float(np.max(gains, where=np.isfinite(gains), initial=0.0))  # the first k-center gain is infinite
    alive = int(np.count_nonzero(gains > 1e-6 * largest))
    if alive == len(gains):
        return None
    return f"the gains ran out after {alive} of {len(gains)} picks: later picks add nothing this strategy can see"


def write_selection(
    selection: Selection, features: Features, pool: Pool, out: str | Path, *, config: dict, overwrite: bool = False
) -> Path:
    """Write selected.jsonl (the chosen rows untouched, in order) and selection.csv (order, id, row, gain, scores).

    Raises:
      DataError: a chosen id that the pool does not have.
    """
    out = Path(out)
    rows = pool_rows(selection, pool)
    inputs = {"features": features.digest, "pool": pool.digest}
    with writing(out, kind="selection", config=config, inputs=inputs, overwrite=overwrite) as artifact:
        if not artifact.complete:
            from edjax.pool import write_rows

            write_rows(out / "selected.jsonl", pool, rows)
            with atomic_write(out / "selection.csv", "w") as f:
                f.write(_side_file(selection, features))
            artifact.finish(seconds=round(selection.seconds, 4), warning=selection.warning)
    return out


def read_selection(path: str | Path) -> Selection:
    """What an earlier `write_selection` wrote."""
    path = Path(path)
    manifest = read_manifest(path, "selection")
    with open(path / "selection.csv", encoding="utf-8", newline="") as f:
        rows = list(csv.DictReader(f))
    gains = (
        None if not rows or any(r["gain"] == "" for r in rows) else np.asarray([r["gain"] for r in rows], np.float32)
    )
    return Selection(
        manifest["config"]["strategy"],
        tuple(r["id"].removeprefix("'") for r in rows),
        np.asarray([r["row"] for r in rows], np.int64),
        gains,
        manifest["seconds"],
        manifest["warning"],
    )


def pool_rows(selection: Selection, pool: Pool) -> list[int]:
    """Rows of the pool that the selection's ids name."""
    missing = [i for i in selection.ids if i not in pool.index_of]
    if missing:
        raise DataError(
            f"{pool.source} has no row with id {missing[0]!r} ({len(missing)} such); these features are of another pool"
        )
    return [pool.index_of[i] for i in selection.ids]


def _side_file(selection: Selection, features: Features) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)  # an id may hold a line end
    table.writerow(["order", "id", "row", "gain", *features.scores])
    for order, (row, name) in enumerate(zip(selection.indices, selection.ids, strict=True)):
        gain = "" if selection.gains is None else float(selection.gains[order])
        values = [float(v[row]) for v in features.scores.values()]
        table.writerow([order, _cell(name), int(row), gain, *values])
    return text.getvalue()


def _cell(name: str) -> str:
    """An id that no spreadsheet takes for a formula; `read_selection` takes the mark off again."""
    return f"'{name}" if name[:1] in ("=", "+", "-", "@", "\t", "\r", "'") else name
