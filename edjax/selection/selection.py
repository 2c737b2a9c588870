"""A selection, and the directory it is written to."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from edjax.charts.plot import Plot
from edjax.data.features import Features
from edjax.keep import notebook
from edjax.keep.errors import DataError, UsageError
from edjax.keep.store import atomic_write, read_manifest, writing
from edjax.selection.gains import picture

if TYPE_CHECKING:
    from edjax.data.pool import Pool


class Removed(NamedTuple):
    """A near-duplicate that was left out: its id, the id of the row that stands for it, and their similarity."""

    id: str
    kept: str
    similarity: float


@dataclass(frozen=True)
class Selection:
    """Rows in the order they were taken; the first j of a larger budget's selection are the budget-j selection, unless
    the strategy is not nested, or groups, a prefilter, partitions or a budget of tokens were asked for.

    `indices` (k,) int64 into the features, `gains` (k,) float32 or None where the strategy has none, `seconds` the
    wall time of the choice, compilation included, `warning` what there is to note, `cost` what the rows cost where a
    budget of tokens was given, `removed` the near-duplicates that were no candidates, `responses` what a choice among
    several of each prompt came to (`edjax.selection.responses.report`).
    """

    strategy: str
    ids: tuple[str, ...]
    indices: np.ndarray
    gains: np.ndarray | None
    seconds: float
    warning: str | None = None
    cost: float | None = None
    removed: tuple[Removed, ...] = ()
    responses: dict[str, Any] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def to_pandas(self) -> Any:
        """A pandas DataFrame, a row a pick in the order taken: id, row (of the features) and gain, NaN without gains.

        Raises:
          EnvError: pandas is not installed.
        """
        gain = np.full(len(self), np.nan, np.float32) if self.gains is None else self.gains
        return notebook.pandas().DataFrame({"id": list(self.ids), "row": self.indices, "gain": gain})

    def plot(self) -> Plot:
        """The gains of the picks as shares of the largest, from the second on, as gains.svg has them.

        Raises:
          UsageError: the strategy gives no gains, or there are fewer than two picks.
        """
        drawn = picture(self.strategy, self.gains)
        if drawn is None:
            raise UsageError(f"these {len(self)} picks of {self.strategy} have no gains to draw")
        return Plot(drawn, f"gain of each of {len(self)} picks of {self.strategy}")

    def _repr_html_(self) -> str:
        cost = "" if self.cost is None else f", cost {self.cost:,.10g}"
        said = f"Selection of {len(self):,} rows by {self.strategy}, {self.seconds:.2f} s{cost}"
        gain = [None] * len(self) if self.gains is None else self.gains
        rows = [(self.ids[i], self.indices[i], gain[i]) for i in range(min(len(self), notebook.ROWS))]
        return notebook.table(said, ("id", "row", "gain"), rows, len(self), self.warning or "")


def write_selection(
    selection: Selection,
    features: Features,
    pool: Pool | None,
    out: str | Path,
    *,
    config: dict[str, Any],
    inputs: dict[str, str] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write selected.jsonl (the chosen rows untouched, in order) and selection.csv (order, id, row, gain, scores);
    where there are such, near_duplicates.csv and, where gains run out, gains.svg. Without a pool there are no rows
    to copy, and no selected.jsonl.

    inputs: the sha256 of what was read beside features and pool.

    Raises:
      DataError: a chosen id that the pool does not have.
    """
    out = Path(out)
    rows = [] if pool is None else pool_rows(selection, pool)
    of = {} if pool is None else {"pool": pool.digest}
    read = {"features": features.digest, **of, **(inputs or {})}
    with writing(out, kind="selection", config=config, inputs=read, overwrite=overwrite) as artifact:
        if not artifact.complete:
            from edjax.data.pool import write_rows
            from edjax.selection.strategies import recorded

            if pool is not None:
                write_rows(out / "selected.jsonl", pool, rows)
            files = {"selection.csv": _side_file(selection, features)}
            if selection.removed:
                files["near_duplicates.csv"] = _removed_file(selection)
            method = recorded(selection.strategy)
            if method and not method.valued and (drawn := picture(selection.strategy, selection.gains)):
                files["gains.svg"] = drawn
            for name, text in files.items():
                with atomic_write(out / name, "w") as f:
                    f.write(text)
            facts: dict[str, Any] = {} if selection.cost is None else {"cost": selection.cost}
            if selection.responses is not None:
                facts["responses"] = selection.responses
            if pool is not None:
                facts["reading"] = pool.reading.record()
            artifact.finish(seconds=round(selection.seconds, 4), warning=selection.warning, **facts)
    return out


def selection_of(path: Path) -> Path:
    """A path, or the directory of a selection whose selected.jsonl it is, which knows the ids of rows without one."""
    ours = path.name == "selected.jsonl" and (path.parent / "selection.csv").is_file()
    return path.parent if ours and (path.parent / "manifest.json").is_file() else path


def read_selection(path: str | Path) -> Selection:
    """What an earlier `write_selection` wrote."""
    path = Path(path)
    manifest = read_manifest(path, "selection")
    with open(path / "selection.csv", encoding="utf-8", newline="") as f:
        rows = list(csv.DictReader(f))
    gains = (
        None if not rows or any(r["gain"] == "" for r in rows) else np.asarray([r["gain"] for r in rows], np.float32)
    )
    removed: list[Removed] = []
    if (path / "near_duplicates.csv").exists():
        with open(path / "near_duplicates.csv", encoding="utf-8", newline="") as f:
            removed = [Removed(_name(r["id"]), _name(r["kept"]), float(r["similarity"])) for r in csv.DictReader(f)]
    return Selection(
        manifest["config"]["strategy"],
        tuple(_name(r["id"]) for r in rows),
        np.asarray([r["row"] for r in rows], np.int64),
        gains,
        manifest["seconds"],
        manifest["warning"],
        manifest.get("cost"),
        tuple(removed),
        manifest.get("responses"),
    )


def pool_rows(selection: Selection, pool: Pool) -> list[int]:
    """Rows of the pool that the selection's ids name."""
    return _rows(selection.ids, pool)


def with_pool_column(features: Features, pool: Pool, name: str) -> Features:
    """The features with a column of the pool among their facts, unless they have one of that name.

    Raises:
      DataError: a column that no row of the pool has, or an id that the pool does not have.
    """
    if name in features.facts or name in features.columns:
        return features
    column = pool.column(name)
    values = np.empty(len(features), object)
    values[:] = [column[i] for i in _rows(features.ids, pool)]
    return replace(features, facts=features.facts | {name: values})


def _rows(ids: tuple[str, ...], pool: Pool) -> list[int]:
    missing = [i for i in ids if i not in pool.index_of]
    if missing:
        raise DataError(
            f"{pool.source} has no row with id {missing[0]!r} ({len(missing)} such); these features are of another pool"
        )
    return [pool.index_of[i] for i in ids]


def _side_file(selection: Selection, features: Features) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)  # an id may hold a line end
    table.writerow(["order", "id", "row", "gain", *features.scores])
    for order, (row, name) in enumerate(zip(selection.indices, selection.ids, strict=True)):
        gain = "" if selection.gains is None else float(selection.gains[order])
        values = [float(v[row]) for v in features.scores.values()]
        table.writerow([order, _cell(name), int(row), gain, *values])
    return text.getvalue()


def _removed_file(selection: Selection) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    table.writerow(["id", "kept", "similarity"])
    table.writerows((_cell(r.id), _cell(r.kept), round(r.similarity, 6)) for r in selection.removed)
    return text.getvalue()


def _cell(name: str) -> str:
    """An id that no spreadsheet takes for a formula; `_name` takes the mark off again."""
    return f"'{name}" if name[:1] in ("=", "+", "-", "@", "\t", "\r", "'") else name


def _name(cell: str) -> str:
    return cell.removeprefix("'")
