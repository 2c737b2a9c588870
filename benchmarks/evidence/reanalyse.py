"""Curves, differences and savings of committed results, worked out anew from their cells; nothing is trained.

    python -m benchmarks.evidence.reanalyse         # benchmarks/results/label_efficiency-*.json and ablation-*.json
    python -m benchmarks.pages.render            # then the tables and figures

A file holds every cell's scores, not its rows: the unit of the statistic is the seed. A set whose cells are not in the
file keeps its means, and no interval; the files committed on 2026-11-24 have one seed there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from benchmarks.harness.runner import RESULTS
from benchmarks.pages.evidence import SET
from edjax.evaluation import HIGHER_IS_BETTER
from edjax.study.analysis import INTERVAL, STATISTIC, Score, compare

KINDS = ("label_efficiency", "ablation")


def grid(result: dict[str, Any]) -> dict[str, Any]:
    """The results of a grid with everything that is computed from cells computed again."""
    rows, sets = result["rows"], {}
    for name, of in result["sets"].items():
        own = result["recipe"]["metrics"] if name == SET else ()
        sets[name] = {m: again(found, _scores(rows, None if m in own else name, m), m) for m, found in of.items()}
    return result | {"interval": INTERVAL, "statistic": STATISTIC, "sets": sets}


def _scores(rows: list[dict[str, Any]], held: str | None, metric: str) -> list[Score]:
    """The cells that have the metric on the recipe's own evaluation, or on another set."""
    scored = [(c, c["scores"] if held is None else c.get("held", {}).get(held, {})) for c in rows]
    return [
        Score(c["strategy"], c["budget"], c["seed"], values[metric], c.get("response_tokens"))
        for c, values in scored
        if metric in values
    ]


def again(found: dict[str, Any], scores: list[Score], metric: str) -> dict[str, Any]:
    """What one metric gives on one set."""
    kept = {k: found[k] for k in ("rows", "base")}
    if not scores:
        curves = {s: [without(p) for p in points] for s, points in found["curves"].items()}
        return kept | {"curves": curves, "differences": [without(d) for d in found["differences"]]}
    new = compare(scores, found["base"], higher_is_better=HIGHER_IS_BETTER[metric])
    if len({s.budget for s in scores}) < 2:
        new = {k: new[k] for k in ("curves", "differences")}
    return kept | new


def without(point: dict[str, Any]) -> dict[str, Any]:
    """A mean over fewer seeds than an interval takes."""
    if point.get("n", 1) > 2:
        raise click.ClickException(f"the cells behind {point} are not in the file, and it has an interval")
    return point | {"low": None, "high": None}


def ablation(result: dict[str, Any]) -> dict[str, Any]:
    """The losses of an ablation; of one by another statistic the file holds no cells: means without intervals."""
    if result.get("statistic") == STATISTIC:
        return result
    rows = []
    for row in result["rows"]:
        change = {}
        if "score" in row:
            against = row["against_random"]
            change["score"] = row["score"] | {"low": None, "high": None}
            change["against_random"] = against and against | {"low": None, "high": None}
        rows.append(row | change)
    return result | {"statistic": STATISTIC, "rows": rows}


def reanalysed(name: str, result: dict[str, Any]) -> dict[str, Any]:
    """A results file anew; equal to what it was where it was made by this statistic."""
    kind = name.split("-")[0]
    if kind not in KINDS:
        raise click.ClickException(f"{name} holds no cells of {' or '.join(KINDS)}, by its name")
    return grid(result) if kind == "label_efficiency" else ablation(result)


@click.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path, exists=True, dir_okay=False))
def main(files: tuple[Path, ...]) -> None:
    """Rewrite FILES, else all of benchmarks/results that hold cells."""
    for path in files or [p for k in KINDS for p in sorted(RESULTS.glob(f"{k}-*.json"))]:
        old = json.loads(path.read_text())
        new = reanalysed(path.stem, old)
        if new != old:
            path.write_text(json.dumps(new, indent=1) + "\n")
            click.echo(f"wrote {path}")


if __name__ == "__main__":
    main()
