"""`edjax select`."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import click

from edjax.cli import carried, options
from edjax.cli.grouped import Grouped, from_settings, option
from edjax.cli.values import Money, Rows, Several, Strategies
from edjax.selection import defaults
from edjax.selection.options import BESIDE, BUDGET, LEFT_OUT, ROUND, Options

_PATH = click.Path(path_type=Path)
CARRIED: dict[str, Any] = {  # what may follow a value after a colon; see what settings are `within`
    "weight_by": carried.number("strength", float),
    "prefilter": carried.number("prefilter_ratio", float),
    "normalise": carried.number("whiten_dims", int, of="whiten"),
    "group_by": carried.knobs(quotas=str, keep_small=int),
    "budget_tokens": carried.tokens,
    "budget_cost": carried.money,
    "features": carried.column,
    "embeddings": carried.column,
    "allow": carried.allowed,
}
TYPES = {"budget_tokens": carried.Tokens(), "budget_cost": Money()}


@click.command(cls=Grouped)
@click.argument("features", type=_PATH, required=False)
@option(
    "--strategy",
    type=Strategies(),
    default=defaults.STRATEGY,
    show_default=True,
    help="One, or several: facility_location,random. Knobs after colons: facility_location:bandwidth=0.5.",
    section=BUDGET,
)
@option(
    "--budget",
    type=Several(Rows(), "rows"),
    help="Rows to choose, or a share of those that may be chosen: 10%; 50,100 for several budgets.",
    section=BUDGET,
)
@option("--out", type=_PATH, help="Directory to write; with several, a directory each below it.", section=BUDGET)
@option(
    "--labelled",
    type=_PATH,
    multiple=True,
    help="Rows that have labels: ids, rows or an earlier OUT.",
    section=ROUND,
)
@option(
    "--target",
    type=_PATH,
    help="Features of prompts to choose for, of `edjax score`; `edjax strategies` says who reads them.",
    section=BUDGET,
)
@option("--existing", type=_PATH, help="Features of rows you have that are not of the pool.", section=ROUND)
@from_settings(Options, skip=("labelled", *BESIDE), switches=False, types=TYPES)
@option(
    "--allow",
    type=carried.Allowed(),
    help="Pass over, in place of an error: fewer (rows than the budget), unknown (labelled ids), invalid (rows that "
    "hold NaN), bad-lines (of the pool); commas between.",
    section=LEFT_OUT,
)
@option(
    "--pool",
    multiple=True,
    callback=options.one_or_more,
    help="The pool that was scored; taken from FEATURES where it is not given and they say it.",
    section=options.READING,
)
@option(
    "--embeddings",
    type=_PATH,
    help="In place of FEATURES: .npy, .npz, .safetensors, .parquet or .parquet:COLUMN.",
    section=options.READING,
)
@option(
    "--ids", type=_PATH, help="Ids of an array's rows: .txt, .npy or a file with an id column.", section=options.READING
)
@option(
    "--embedding-column",
    default="embedding",
    show_default=True,
    help="Of a Parquet file of your own.",
    section=options.READING,
    hidden=True,
)
@option("--scores", type=_PATH, help="Further score columns, joined by id: .parquet or .csv.", section=options.READING)
@partial(options.pool_options, hidden=("skip_bad_lines", "revision", *options.COLUMNS))
@option(
    "--memory",
    type=options.Bytes(),
    default="4GiB",
    show_default=True,
    help="Where k_center and d_optimal would take more, they read the embeddings from disk.",
)
@option("--dry-run", is_flag=True, help="Say what it would cost, and write nothing.")
@options.OVERWRITE
@options.JSON
def select(out: Path | None, dry_run: bool, overwrite: bool, **settings: Any) -> None:
    """Choose the rows worth labelling.

    \b
    Reads   FEATURES: a directory of `edjax score`, or with --embeddings your own; and the pool, if there is one
    Writes  OUT/selected.jsonl: the chosen rows of the pool untouched, in the order taken
            OUT/selection.csv: order, id, row, gain and every score
            OUT/gains.svg, OUT/near_duplicates.csv: where there are such
            OUT/STRATEGY-BUDGET/: the same of each, where several are given
    A second round: --labelled answered.jsonl. Quality times diversity: --weight-by mean_entropy.
    For a task: --target FEATURES, of `edjax score` of some of its prompts.
    Tokens are by default those of the prompt: how long a response will be is not known before it is written.
    """
    carried.unfold(click.get_current_context(), settings, CARRIED)
    del settings["allow"]
    source = _Source(settings)
    strategies, budgets = settings.pop("strategy"), settings.pop("budget") or (None,)
    if budgets == (None,) and settings["budget_tokens"] is None and settings["budget_cost"] is None:
        raise click.UsageError(
            "Missing option '--budget' (rows) or '--budget-tokens' or '--budget-cost'.", click.get_current_context()
        )
    if dry_run:
        _foretell(source, strategies, budgets, settings)
        return
    if out is None:
        raise click.UsageError("Missing option '--out'.", click.get_current_context())
    source.read(strategies, settings, scratch=out.parent)
    _choose(source, strategies, budgets, settings, out, overwrite)


class _Source:
    """What is chosen from: the features, the pool they are of, and the ids that are labelled."""

    def __init__(self, settings: dict[str, Any]):
        names = ("features", "embeddings", "ids", "pool", "scores", "embedding_column", "memory", "labelled", *BESIDE)
        self.given = {name: settings.pop(name) for name in names}
        reading: dict[str, Any] = settings.pop("reading")
        if (self.given["features"] is None) == (self.given["embeddings"] is None):
            raise click.UsageError(
                "give either FEATURES, a directory of `edjax score`, or --embeddings FILE.", click.get_current_context()
            )
        self.path: Path = self.given["features"] or self.given["embeddings"]
        self.manifest = self._manifest()
        self.reading = reading | {"id_column": reading["id_column"] or self._remembered().get("id_column", "id")}
        self.columns = {"id_column": self.reading["id_column"], "embedding_column": self.given["embedding_column"]}

    def _manifest(self) -> dict[str, Any]:
        """What `edjax score` says of the features; nothing where they are somebody's own."""
        from edjax.keep.store import read_manifest

        return read_manifest(self.path, "features") if self.path.is_dir() else {}

    def _remembered(self) -> dict[str, Any]:
        """How the pool was read when it was scored."""
        return dict(self.manifest.get("reading") or {})

    def labelled(self) -> tuple[str, ...]:
        from edjax.selection.labelled import read_labelled

        return read_labelled(self.given["labelled"], self.reading["id_column"])

    def beside(self) -> dict[str, Any]:
        """The features of rows beside the pool, as `Options` takes them."""
        from edjax.selection.beside import read_beside

        named = {name: self.given[name] for name in BESIDE if self.given[name] is not None}
        return {name: read_beside(path, pool=self.path, **self.columns) for name, path in named.items()}

    def read(self, strategies: tuple[str, ...], settings: dict[str, Any], scratch: Path) -> None:
        from edjax.data.features import is_array, join_columns, read_features
        from edjax.data.ids import as_known, read_ids
        from edjax.keep.errors import UsageError
        from edjax.selection.cost import stream_above
        from edjax.selection.responses import SOURCES
        from edjax.selection.selection import with_pool_column
        from edjax.selection.strategies import recorded

        limits = [stream_above(s, self.given["memory"], self.given["existing"] is not None) for s in strategies]
        limit = None if None in limits else min(n for n in limits if n is not None)
        self.pool = self._pool()
        ids = self.pool.ids if self.pool and is_array(self.path) else None
        if self.given["ids"] is not None:
            known = self.pool.index_of if self.pool else ()
            ids = tuple(as_known(i, known) or i for i in read_ids(self.given["ids"], self.reading["id_column"]))
        self.features = read_features(self.path, memory=limit, scratch=scratch, ids=ids, **self.columns)
        scored = self.manifest.get("inputs", {}).get("pool")
        if self.pool and scored not in (None, self.pool.digest) and self.features.ids == self.pool.ids:
            options.note(
                f"the rows of {self.pool.source}, or how they are read, changed after {self.path} was scored; score "
                "again if their prompts are other ones now"
            )
        if self.given["scores"] is not None:
            self.features = join_columns(self.features, self.given["scores"], self.reading["id_column"])
        asked = Options(**settings)
        column = asked.group_column
        wanted = [column, *asked.cost_columns]
        wanted += [name for method in map(recorded, strategies) if method for name in method.groups]
        if self.pool is not None and any(s.split(":")[0] == "grape" for s in strategies):
            wanted += SOURCES
        for name in filter(None, dict.fromkeys(wanted)):
            if self.pool is None:
                if name not in self.features.facts and name not in self.features.columns:
                    raise UsageError(f"{self.path} has no column {name!r}; name the pool that has it with --pool")
            elif name == column or any(name in record for record in self.pool.records):
                self.features = with_pool_column(self.features, self.pool, name)

    def pool_name(self) -> str | list[str] | None:
        """The pool that was named, else the one that was scored, unless that is gone since it came through a pipe."""
        from edjax.data.names import piped

        scored = self.manifest.get("pool")
        return self.given["pool"] or (None if piped(scored) else scored)

    def _pool(self) -> Any:
        """The pool; None where none is named, and then the rows are known by their ids alone."""
        from edjax.data.names import piped

        name = self.pool_name()
        if name is None and piped(self.manifest.get("pool")):
            options.note(
                f"{self.path} was scored from standard input, so the rows themselves are not at hand: ids alone are "
                "written; name a file of the same rows with --pool"
            )
        return None if name is None else options.read(name, self.reading, self._remembered())


def _choose(
    source: _Source,
    strategies: tuple[str, ...],
    budgets: tuple[int | str | None, ...],
    settings: dict[str, Any],
    out: Path,
    overwrite: bool,
) -> None:
    from edjax.keep.errors import UsageError
    from edjax.keep.store import sha256_json
    from edjax.selection.beside import refuse_unread
    from edjax.selection.choose import Chooser, method_of, usable
    from edjax.selection.cost import streams
    from edjax.selection.labelled import chosen_otherwise
    from edjax.selection.responses import told
    from edjax.selection.selection import write_selection
    from edjax.selection.strategies import directory, reads_embeddings, recorded, uses

    several = len(strategies) * len(budgets) > 1
    written = "selected.jsonl" if source.pool is not None else "selection.csv"
    if several and (out / "plan.json").exists():
        raise UsageError(f"{out} holds a single selection; choose another --out for a directory of several")
    ids = source.labelled()
    asked = Options(**settings, labelled=ids, **source.beside())
    refuse_unread([method_of(s, source.features) for s in strategies], asked)
    compared = usable(source.features, [(s, asked) for s in strategies]) if len(strategies) > 1 else None
    chooser = Chooser(source.features, asked, compared)
    if any((method := recorded(s)) and reads_embeddings(method) for s in strategies) and (
        note := chosen_otherwise(source.given["labelled"], asked.normalise)
    ):
        options.note(note)
    named = [str(p) for p in source.given["labelled"]]
    inputs = {"labelled": sha256_json(sorted(ids))} if named else {}
    made = []
    for strategy in strategies:
        if streams(source.features, strategy):
            size = f"{source.features.embeddings.nbytes / 1e9:.1f} GB"
            options.note(
                f"too large for --memory: {strategy} reads the embeddings from a scratch file of {size} beside {out}"
            )
        for budget, chosen in zip(budgets, chooser.choose(strategy, budgets), strict=True):
            spent = str(budget) if budget is not None else _spent(asked)
            made.append((out / f"{directory(strategy)}-{spent}" if several else out, budget, chosen))
    for place, budget, chosen in made:
        method = method_of(chosen.strategy, source.features)
        left_out = chooser.left_out(chosen.strategy)
        own = asked.record()
        beside = {n: source.given[n] for n in BESIDE if source.given[n] is not None and uses(method, n)}
        read = inputs | ({"left_out": sha256_json(left_out)} if left_out else {})
        read |= {name: getattr(asked, name).digest for name in beside}
        kept = {k: v for k, v in settings.items() if k in own}
        config = {"strategy": chosen.strategy, "budget": budget, **kept, "labelled": named, **source.columns}
        config |= {name: str(path) for name, path in beside.items()}
        write_selection(chosen, source.features, source.pool, place, config=config, inputs=read, overwrite=overwrite)
    if source.pool is None:
        options.note("no pool was named: the ids are chosen, and there are no rows to copy (--pool copies them)")
    _note_once([(place.name, chosen.warning) for place, _, chosen in made])
    among = [(f"{place.name}: " if several else "", chosen.responses) for place, _, chosen in made if chosen.responses]
    more = [name + line for name, found in among for line in told(found)]
    firsts = [chosen for _, _, chosen in made[: len(budgets)]] * len(strategies)
    records = [_record(*one, first) for one, first in zip(made, firsts, strict=True)]
    if not several:
        chosen = made[0][2]
        cost = "" if chosen.cost is None else f", {_paid(chosen.cost, asked)}"
        said = f"{len(chosen)} of {len(source.features)} rows by {chosen.strategy} in {chosen.seconds:.2f} s{cost}"
        options.tell(records[0], said, *more, f"{out}/{written}")
        return
    options.tell({"out": os.fspath(out), "selections": records}, *_table(records), *more, f"{out}/*/{written}")


def _spent(asked: Options) -> str:
    """A budget without rows as a part of a directory's name."""
    return f"{asked.budget_tokens}t" if asked.budget_cost is None else f"{asked.budget_cost:g}c"


def _paid(cost: float, asked: Options) -> str:
    if asked.budget_cost is None:
        return f"{cost:,.0f} of {asked.budget_tokens:,} tokens"
    return f"{cost:,.10g} of {asked.budget_cost:,.10g} spent"


def _note_once(warnings: list[tuple[str, str | None]]) -> None:
    """Each part of a warning once, with the names of those it is of where it is not of all."""
    of: dict[str, list[str]] = {}
    for name, warning in warnings:
        for part in (warning or "").split("; "):
            of.setdefault(part, []).append(name)
    for part, names in of.items():
        if part:
            options.note(part if len(names) == len(warnings) else f"{', '.join(names)}: {part}")


def _record(place: Path, budget: int | str | None, chosen: Any, first: Any) -> dict[str, Any]:
    """One selection as a record; `first`: that of the first strategy with this budget."""
    shared = len(set(chosen.ids) & set(first.ids)) / max(len(chosen), 1)
    return {
        "strategy": chosen.strategy,
        "budget": budget,
        "rows": len(chosen),
        "cost": chosen.cost,
        "seconds": round(chosen.seconds, 4),
        "overlap_with_first": round(shared, 4),
        "near_duplicates": len(chosen.removed),
        "warning": chosen.warning,
        "out": os.fspath(place),
        **({"responses": chosen.responses} if chosen.responses else {}),
    }


def _table(records: list[dict[str, Any]]) -> list[str]:
    first = records[0]["strategy"]
    wide = max(len("strategy"), *(len(r["strategy"]) for r in records))
    lines = [f"{'strategy':{wide}}  {'budget':>7}  {'rows':>6}  {'seconds':>8}  shared with {first}"]
    for r in records:
        budget = "" if r["budget"] is None else r["budget"] if isinstance(r["budget"], str) else f"{r['budget']:,}"
        lines.append(
            f"{r['strategy']:{wide}}  {budget:>7}  {r['rows']:>6,}  {r['seconds']:>8.2f}  {r['overlap_with_first']:.0%}"
        )
    return lines


def _foretell(
    source: _Source, strategies: tuple[str, ...], budgets: tuple[int | str | None, ...], settings: dict[str, Any]
) -> None:
    """What it would take, in a line a strategy: the largest budget's order serves the others."""
    from edjax.data.features import joined_columns, survey, widths
    from edjax.selection.budgets import rows_of
    from edjax.selection.cost import forecast
    from edjax.selection.tokens import at_most

    ids = source.labelled()
    asked = Options(**settings, labelled=ids, **source.beside())
    found = survey(source.path, **source.columns)
    if (scores := source.given["scores"]) is not None:
        found = found._replace(scores=(*found.scores, *joined_columns(scores, source.reading["id_column"])))
    free = found.n - len(ids)
    rows = [rows_of(b, free) for b in budgets if b is not None]
    largest = max(rows, default=free)
    if asked.budget_cost is not None:
        largest = min(largest, at_most(asked, free))
    more: dict[str, Any] = {"pool": source.pool_name(), "widths": widths(source.path, **source.columns)}
    foretold = [forecast(found, s, largest, source.given["memory"], asked, **more) for s in strategies]
    beyond = "" if rows else f" (if the {'tokens buy' if asked.budget_cost is None else 'money buys'} {largest:,} rows)"
    lines = [f.says + beyond for f in foretold]
    lines += [
        f"{b} of {free:,} rows: {rows_of(b, free):,}, before any are left out" for b in budgets if isinstance(b, str)
    ]
    sizes = {"bytes": [f.bytes for f in foretold], "disk": [f.disk for f in foretold]}
    options.tell({"rows": found.n, "features": found.d, "forecast": lines, **sizes}, *lines)
