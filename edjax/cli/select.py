"""`edjax select` and `edjax strategies`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edjax.cli import options


@click.command()
@click.argument("features", type=click.Path(path_type=Path))
@click.option("--pool", help="The pool that was scored; taken from FEATURES where it is not given.")
@click.option("--strategy", required=True, help="random, mean_entropy, k_center, ...; `edjax strategies` lists them.")
@click.option("--budget", type=int, required=True, help="How many rows to choose.")
@click.option("--out", type=click.Path(path_type=Path), help="Directory to write.")
@click.option("--seed", default=0, show_default=True, help="For the strategy random.")
@click.option("--normalise", default="l2", show_default=True, help="l2 (centred, length 1), centre or none.")
@click.option("--allow-fewer", is_flag=True, help="Take all rows where the budget is larger than the pool.")
@click.option("--drop-invalid", is_flag=True, help="Leave rows with NaN or infinite features out.")
@click.option(
    "--memory",
    type=options.Bytes(),
    default="4GiB",
    show_default=True,
    help="Where k_center and d_optimal would take more, they read the embeddings from disk.",
)
@click.option("--dry-run", is_flag=True, help="Say what it would cost, and write nothing.")
@options.OVERWRITE
@options.pool_options
def select(
    features: Path,
    pool: str | None,
    out: Path | None,
    memory: int,
    dry_run: bool,
    overwrite: bool,
    text_column: str | None,
    id_column: str,
    skip_bad_lines: bool,
    **settings: Any,
) -> None:
    """Choose the rows worth labelling.

    \b
    Reads   FEATURES: a directory of `edjax score`, or a Parquet file with id and embedding; and the pool
    Writes  OUT/selected.jsonl: the chosen rows untouched, in the order taken
            OUT/selection.csv: order, id, row, gain and every score
    """
    from edjax.errors import UsageError
    from edjax.features import read_features, survey
    from edjax.select import forecast, stream_above, streams, write_selection
    from edjax.select import select as run_select
    from edjax.store import read_manifest

    strategy = settings["strategy"]
    if dry_run:
        click.echo(forecast(survey(features), strategy, settings["budget"], memory))
        return
    if out is None:
        raise click.UsageError("Missing option '--out'.", click.get_current_context())
    found = read_features(features, memory=stream_above(strategy, memory), scratch=out.parent)
    if pool is None:
        pool = read_manifest(features, "features").get("pool") if features.is_dir() else None
        if pool is None:
            raise UsageError(f"{features} does not say which pool it is of; name it with --pool")
    rows = options.read(pool, text_column, id_column, skip_bad_lines)
    if streams(found, strategy):
        size = f"{found.embeddings.nbytes / 1e9:.1f} GB"
        options.note(
            f"too large for --memory: {strategy} reads the embeddings from a scratch file of {size} beside {out}"
        )
    chosen = run_select(found, **settings)
    write_selection(chosen, found, rows, out, config=settings, overwrite=overwrite)
    if chosen.warning:
        options.note(chosen.warning)
    click.echo(f"{len(chosen)} of {len(found)} rows by {chosen.strategy} in {chosen.seconds:.2f} s")
    click.echo(f"{out}/selected.jsonl")


@click.command()
def strategies() -> None:
    """List the strategies: name, what it needs, what it does."""
    from edjax.strategies import STRATEGIES

    for name, s in STRATEGIES.items():
        needs = s.needs if s.needs in ("nothing", "embeddings") else "decoded tokens"
        click.echo(f"{name:20} needs {needs:16} {s.summary}")
