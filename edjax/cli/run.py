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
    Reads   RECIPE: YAML; OVERRIDES are key=value pairs on top of it: select.budgets=[50,100]
    Writes  OUT/results.json, OUT/report.html, and below OUT every stage's own artefact
    Cells that are done are not done again: stopped at any point, the same command finishes the rest.
    """
    from edjax.study.recipe import read_recipe

    _run(read_recipe(recipe, overrides, log=options.note), out, overwrite)


def _run(recipe: Any, out: Path | None, overwrite: bool) -> None:
    from edjax.study.run import run as run_recipe
    from edjax.study.table import results_table

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
@click.argument("overrides", nargs=-1)
@click.option("--out", type=click.Path(path_type=Path), default=Path("edjax-demo"), show_default=True)
@click.option("--seed", default=0, show_default=True, help="Seed of the generated pool.")
@options.OVERWRITE
@options.JSON
def demo(overrides: tuple[str, ...], out: Path, seed: int, overwrite: bool) -> None:
    """Walk the whole road on a pool edjax makes itself: about ten minutes on two CPU cores.

    \b
    Reads   OVERRIDES: key=value pairs on top of its recipe, as of `edjax run`; budgets=[20,40] for example
    Writes  OUT/data (pool.jsonl, eval.jsonl) and OUT/run (results.json, report.html, every artefact)
    """
    from edjax.demo import recipe

    _run(recipe(out, seed, overrides), None, overwrite)


@click.command()
@click.argument("directories", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), help="File to write, default report.html in DIRECTORY, or beside it."
)
@click.option(
    "--pool",
    multiple=True,
    callback=options.one_or_more,
    help="The pool, where the features do not say which.",
)
@options.pool_options
@options.JSON
def report(
    directories: tuple[Path, ...], out: Path | None, pool: str | list[str] | None, reading: dict[str, Any]
) -> None:
    """Draw the page of a run, or of what the verbs wrote one by one.

    \b
    Reads   DIRECTORIES: that of a run, with results.json; or any with features, selections, adapters, evaluations
    Writes  the page, one file to open in a browser or to send
    """
    from edjax.keep.store import read_json
    from edjax.study import report as page
    from edjax.study.analysis import restated
    from edjax.study.gather import gather

    first = directories[0]
    run = len(directories) == 1 and (first / "results.json").exists()
    if run:
        results = restated(read_json(first / "results.json"))
        if results.get("restated"):
            known = (results.get("metric") or {}).get("statistic")
            said = "were worked out anew" if known else "are left out, since its cells do not give them anew"
            options.note(f"{first / 'results.json'} is of an earlier version: its savings {said}")
    else:
        results, notes = gather(directories, pool=pool, reading=reading, command=shlex.join(["edjax", *sys.argv[1:]]))
        for text in notes:
            options.note(text)
    beside = first.parent if (first / "manifest.json").exists() and not run else first
    path = page.write(results, out or beside / "report.html")
    options.tell({"page": path, "verdict": results.get("verdict")}, str(results.get("verdict")), f"page: {path}")
