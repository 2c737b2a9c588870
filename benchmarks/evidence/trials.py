"""Does finetuning save labels where one would expect it? Settings of two CPU cores, cell by cell.

    python -m benchmarks.evidence.trials long_tail            # walks or goes on with it; hours, stopped at any point
    python -m benchmarks.evidence.trials long_tail out=out/x  # KEY=VALUE changes its recipe
    python -m benchmarks.evidence.trials --again              # the statistic anew, from the committed cells

Every setting is a pool and an evaluation drawn from the FLAN-like data and a recipe:
`benchmarks/evidence/trials_settings.py`. A strategy sees prompts alone. What is committed holds every cell with its
macro score (every task counts alike) and its mean over rows; savings are shifts of random's curve
(`edjax.study.analysis.savings`) with intervals over seeds, and the null of random against itself.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import click

from benchmarks.evidence.label_efficiency import name_of
from benchmarks.evidence.trials_settings import SETTINGS, Setting
from benchmarks.harness import runner
from edjax.evaluation import HIGHER_IS_BETTER
from edjax.study.analysis import INTERVAL, STATISTIC, Score, compare
from edjax.study.recipe import make_recipe, read_overrides

METRIC = "response_loss"
SAVED = ("savings", "token_savings")
GROWS = ("strategies", "variants", "budgets", "seeds", "random_seeds", "out", "finetune_strategies", "cells_at_once")
WEIGHINGS = ("macro", "scores")  # every task alike; every row alike


def results_of(rows: list[dict[str, Any]], base: dict[str, dict[str, float]]) -> dict[str, Any]:
    """By weighing and metric, what `edjax.study.analysis.compare` makes of the cells; savings of the loss alone.

    A budget counts for savings once random has all the seeds there that it has anywhere: a curve that ends in fewer
    would end by luck, and take interval and null with it. `whole`: those that count.
    """
    made: dict[str, Any] = {}
    drawn = Counter(c["budget"] for c in rows if c["strategy"] == "random")
    whole = sorted(b for b, n in drawn.items() if n == max(drawn.values(), default=0))
    for weighing in WEIGHINGS:
        for metric, before in base[weighing].items():
            scores = [
                Score(c["strategy"], c["budget"], c["seed"], c[weighing][metric], c["response_tokens"])
                for c in rows
                if metric in c[weighing]
            ]
            found = compare(scores, before, higher_is_better=HIGHER_IS_BETTER[metric])
            kept = {k: found[k] for k in ("curves", "differences") if k in found}
            if metric == METRIC:
                counted = [s for s in scores if s.budget in whole]
                over = compare(counted, before, higher_is_better=HIGHER_IS_BETTER[metric])
                kept |= {k: over[k] for k in SAVED if k in over} | {"whole": whole}
            made.setdefault(weighing, {})[metric] = kept
    return made


def filed(
    setting: Setting, recipe: dict[str, Any], base: dict[str, Any], rows: list[dict[str, Any]], **facts: Any
) -> dict[str, Any]:
    """What a results file holds beside the machine.

    Args:
      base, rows: the model before finetuning and every cell, each with its means by weighing.
      facts: the pool, the evaluation, the stages' seconds.
    """
    rows = [c | {"job": name_of(c["strategy"], c["budget"], c["seed"])} for c in rows]
    base = {k: base[k] for k in WEIGHINGS}
    return {
        "setting": setting.name,
        "said": setting.said,
        "recipe": recipe | {k: Path(recipe[k]).name for k in ("pool", "evaluation", "out")},
        **facts,
        "base": base,
        "interval": INTERVAL,
        "statistic": STATISTIC,
        "results": results_of(rows, base),
        "rows": rows,
    }


def walk(setting: Setting, data: Path, out: Path, overrides: dict[str, Any]) -> dict[str, Any]:
    """Every cell of a setting, as `filed`."""
    from edjax.study.run import run

    made = setting.build(data, out)
    raw = setting.recipe | made | {"out": str(out / "run")} | overrides
    recipe = make_recipe(raw, out, setting.name)
    found = run(recipe, command=f"python -m benchmarks.evidence.trials {setting.name}")
    return filed(
        setting,
        found["recipe"],
        found["base"],
        found["cells"],
        pool={k: found["pool"][k] for k in ("rows", "digest")},
        evaluation={k: found["evaluation"][k] for k in ("rows", "digest")} | {"groups": found["metric"]["groups"]},
        stages=found["stages"],
    )


def joined(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """`filed` results with the cells of an earlier file that are not among them; those of another draw are refused.

    So a setting may be walked in parts, on several machines or without what was kept of the earlier ones.
    """
    of = {k: (old[k]["digest"], new[k]["digest"]) for k in ("pool", "evaluation")}
    fixed = {k: v for k, v in new["recipe"].items() if k not in GROWS and old["recipe"].get(k) != v}
    if fixed or any(a != b for a, b in of.values()):
        raise click.ClickException(f"the cells that are committed are of another draw or recipe ({[*fixed, *of]})")
    own = {c["job"] for c in new["rows"]}
    rows = [c for c in old["rows"] if c["job"] not in own] + new["rows"]
    both: dict[str, Any] = {k: sorted({*old["recipe"][k], *new["recipe"][k]}) for k in ("budgets", "seeds")}
    both["random_seeds"] = sorted({c["seed"] for c in rows if c["strategy"] == "random"})
    both["variants"] = old["recipe"]["variants"] | new["recipe"]["variants"]
    order = both["strategies"] = list(dict.fromkeys([*old["recipe"]["strategies"], *new["recipe"]["strategies"]]))
    rows.sort(key=lambda c: (c["budget"], order.index(c["strategy"]), c["seed"]))
    return new | {"recipe": new["recipe"] | both, "rows": rows, "results": results_of(rows, new["base"])}


def again(path: Path) -> bool:
    """Work a results file out anew from its cells; whether it changed."""
    old = json.loads(path.read_text())
    new = old | {"interval": INTERVAL, "statistic": STATISTIC, "results": results_of(old["rows"], old["base"])}
    if new == old:
        return False
    path.write_text(json.dumps(new, indent=1) + "\n")
    return True


@click.command()
@click.argument("name", required=False, type=click.Choice(list(SETTINGS)))
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--data", type=Path, default=runner.ROOT.parent / "shared" / "data", help="Where the pool lies.")
@click.option("--out", type=Path, default=Path("out/trials"), show_default=True, help="Where the cells are kept.")
@click.option("--again", "anew", is_flag=True, help="Only work the committed results out anew.")
def main(name: str | None, overrides: tuple[str, ...], data: Path, out: Path, anew: bool) -> None:
    """Walk a setting, and write benchmarks/results/trials-NAME.json."""
    if anew:
        for path in sorted(runner.RESULTS.glob("trials-*.json")):
            click.echo(f"{'wrote' if again(path) else 'as it was:'} {path}")
        return
    if name is None:
        raise click.UsageError(f"which setting? {', '.join(SETTINGS)}")
    on = runner.machine()
    found = walk(SETTINGS[name], data, out / name, read_overrides(overrides))
    file = runner.RESULTS / f"trials-{name}.json"
    if file.exists():
        found = joined(json.loads(file.read_text()), found)
    click.echo(runner.write(f"trials-{name}", found.pop("rows"), machine=on, **found))


if __name__ == "__main__":
    main()
