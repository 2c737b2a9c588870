"""`edjax run`, `edjax demo` and `edjax report`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from edjax.cli import options


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1)
@click.option("--out", type=click.Path(path_type=Path), help="Directory to write, in place of the recipe's.")
@options.OVERWRITE
@options.JSON
def run(recipe: Path, overrides: tuple[str, ...], out: Path | None, overwrite: bool) -> None:
    """Run RECIPE: strategies x budgets x seeds over one scored pool.

    \b
    Reads   RECIPE: flat YAML; OVERRIDES are key=value pairs on top of it
    Writes  OUT/results.json, OUT/report.html, and below OUT every stage's own artefact
    Cells that are done are not done again: stopped at any point, the same command finishes the rest.
    """
    from edjax.recipe import read_recipe

    _run(read_recipe(recipe, overrides), out, overwrite)


def _run(recipe: Any, out: Path | None, overwrite: bool) -> None:
    from edjax.run import run as run_recipe
    from edjax.table import results_table

    options.use_compilation_cache()
    out = out or Path(recipe.out)
    results = run_recipe(recipe, out=out, command=shlex.join(["edjax", *sys.argv[1:]]), overwrite=overwrite)
    page = (out / "report.html").resolve()
    if not options.wants_json():
        results_table(results)
    options.tell(
        {k: results[k] for k in ("verdict", "savings", "differences", "stages", "overhead")} | {"page": page},
        f"\n{results['verdict']}",
        f"page: {page}",
    )


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("edjax-demo"), show_default=True)
@click.option("--seed", default=0, show_default=True, help="Seed of the generated pool.")
@options.OVERWRITE
@options.JSON
def demo(out: Path, seed: int, overwrite: bool) -> None:
    """Walk the whole road on a pool edjax makes itself: about five minutes on two CPU cores.

    \b
    Writes  OUT/data (pool.jsonl, eval.jsonl) and OUT/run (results.json, report.html, every artefact)
    """
    from edjax.demo import recipe

    _run(recipe(out, seed), out / "run", overwrite)


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
def report(directory: Path) -> None:
    """Draw the page of a finished run again: DIRECTORY/results.json -> DIRECTORY/report.html."""
    from edjax import report as page
    from edjax.errors import DataError
    from edjax.store import read_json

    if not (directory / "results.json").exists():
        raise DataError(f"{directory} holds no results.json; `edjax run RECIPE --out {directory}` makes it")
    click.echo(page.write(read_json(directory / "results.json"), directory / "report.html"))
