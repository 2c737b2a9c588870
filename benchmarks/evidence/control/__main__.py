"""E0, the control: do the selectors save labels for a learner that is fixed and has a closed form?

    python -m benchmarks.evidence.control              # scores 11,000 prompts and 9,000 answers once, 20 splits a set
    python -m benchmarks.evidence.control --data DIR   # where pool.parquet lies
    python -m benchmarks.evidence.control --only blimp   # this set anew, the others as they are

Five sets of the pool's rows: the intents of CLINC150 (150) and BANKING77 (77), which of BLiMP's 67 paradigms a pair of
sentences is of, which choice answers a question of ARC or OpenBookQA, and a sentence to be written about a word
(Winogrande). A split holds a third of each label's or task's rows out; the strategies choose among the rest without
labels, a learner with a closed form (benchmarks.evidence.control.learners) learns from what each chose, and how well it
does on the rows held out is its score. The learner is the same for all, so that what differs is the choice.

The saving at B labels is horizontal: of random's mean score at B, where the strategy's curve (made monotone, linear
in log2 of the labels) reaches it, by `edjax.study.analysis.shift` with its interval over splits. Beside it stands the
null: random against itself, the splits cut in two in a seeded thousand ways. Where random at the largest budget is not
above chance there is nothing to save, and none is given. A learner's features and ridge were chosen on splits of their
own, by random's score alone (`--tune` prints it).

A saving here is not a saving of finetuning: the probe knows nothing of a label before it has seen it, a language model
half knows what it says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.evidence.control import sets
from benchmarks.evidence.control.learners import Choices, Labels, Learner, Retrieval, learned
from benchmarks.evidence.control.splits import BUDGETS, gathered, split
from benchmarks.harness import runner
from edjax.data.features import Features
from edjax.data.pool import read_pool
from edjax.selection.choose import Chooser
from edjax.selection.options import Options
from edjax.selection.prepared import take
from edjax.study.analysis.seeds import interval_of_mean

SETS: dict[str, tuple[str, float]] = {  # by name the learner's features and its ridge
    "clinc150": ("l2", 0.1),
    "banking77": ("l2", 0.1),
    "blimp": ("l2", 0.1),
    "choice": ("l2", 0.1),
    "winogrande": ("l2", 0.1),
}
STRATEGIES = ("k_center", "d_optimal", "facility_location")
NORMALISED = ("l2", "whiten")
SPLITS = 20
RIDGES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)


def arms() -> Iterator[tuple[str, str, str]]:
    """(name, strategy, features)."""
    yield "random", "random", "l2"
    for how in NORMALISED:
        for strategy in STRATEGIES:
            yield f"{strategy}, {how}", strategy, how


def learner_of(name: str, rows: sets.Rows, out: Path) -> Learner:
    """The learner of a set; the answers that it needs are scored into `out`."""
    if name not in ("choice", "winogrande"):
        return Labels(np.unique(rows.labels, return_inverse=True)[1])
    written = [str(r) for r in rows.pool.responses]
    choices = rows.pool.column("choices") if name == "choice" else [[r] for r in written]
    answers = sets.texts(c for of_row in choices for c in of_row)
    number, x = answers.index_of, np.asarray(sets.scored(answers, out).embeddings)
    truth = np.asarray([number[r] for r in written])
    if name == "winogrande":
        return Retrieval(x, truth)
    options = np.full((len(truth), max(map(len, choices))), -1)
    for i, of_row in enumerate(choices):
        options[i, : len(of_row)] = [number[c] for c in of_row]
    return Choices(x, truth, options=options)


def one_split(
    features: Features,
    labels: np.ndarray,
    learner: Learner,
    by: tuple[str, float],
    seed: int,
    budgets: tuple[int, ...],
    run: Iterable[tuple[str, str, str]],
) -> dict[str, list[float]]:
    """The score of the arms to `run` at every budget; by: the learner's features and ridge."""
    candidates, held = split(labels, seed)
    chosen_from = take(features, candidates)
    how, ridge = by
    x = learned(features, candidates, how)
    choosers = {n: Chooser(chosen_from, Options(seed=seed, normalise=n)) for n in NORMALISED}
    found = {}
    for name, strategy, normalise in run:
        order = choosers[normalise].choose(strategy, [max(budgets)])[0].indices
        found[name] = [learner.score(x, candidates[order[:b]], held, ridge, how) for b in budgets]
    return found


def measured(
    features: Features,
    labels: list[str],
    learner: Learner,
    by: tuple[str, float],
    seeds: range,
    budgets: tuple[int, ...] = BUDGETS,
) -> dict[str, Any]:
    """All splits of one set; of random alone where it learns nothing."""
    y = np.unique(labels, return_inverse=True)[1]
    random, *others = arms()

    def split_by_split(run: Iterable[tuple[str, str, str]]) -> list[dict[str, list[float]]]:
        return [one_split(features, y, learner, by, seed, budgets, run) for seed in seeds]

    found = split_by_split([random])
    learns = signal(np.asarray([s["random"] for s in found]), learner.chance())
    if learns:
        found = [mine | more for mine, more in zip(found, split_by_split(others), strict=True)]
    facts = {
        "rows": len(y),
        "labels": int(y.max() + 1),
        "metric": learner.metric,
        "chance": learner.chance(),
        "learner": {"features": by[0], "ridge": by[1]},
        "signal": learns,
    }
    return facts | gathered(found, budgets)


def signal(random: np.ndarray, chance: float) -> bool:
    """Whether random (splits, budgets) at its largest budget is above chance, its interval with it."""
    low = interval_of_mean(random[:, -1])["low"]
    return low is not None and low > chance


def tune(features: Features, labels: list[str], learner: Learner) -> Iterator[str]:
    """Random's score at 200 labels by the learner's settings, on splits that nothing else uses."""
    y = np.unique(labels, return_inverse=True)[1]
    for how in NORMALISED:
        for ridge in RIDGES:
            found = []
            for seed in range(1000, 1004):
                candidates, held = split(y, seed)
                rows = np.random.Generator(np.random.PCG64(seed)).permutation(candidates)[:200]
                found.append(learner.score(learned(features, candidates, how), rows, held, ridge, how))
            yield f"{how}, ridge {ridge}: {np.mean(found):.4f}, chance {learner.chance():.4f}"


@click.command()
@click.option("--data", type=Path, default=runner.ROOT.parent / "shared" / "data", help="Where pool.parquet lies.")
@click.option("--out", type=Path, default=Path("out/control"), show_default=True, help="Where the features are kept.")
@click.option("--splits", default=SPLITS, show_default=True)
@click.option("--only", type=click.Choice(list(SETS)), multiple=True, help="These sets; the others stay as they are.")
@click.option("--name", default="control", show_default=True, help="Of the results file.")
@click.option("--tune", "tuning", is_flag=True, help="Print how the learners were chosen, and stop.")
def main(data: Path, out: Path, splits: int, only: tuple[str, ...], name: str, tuning: bool) -> None:
    """Measure, and write benchmarks/results/NAME.json."""
    on, pool, rows = runner.machine(), read_pool(str(data / "pool.parquet")), []
    for each in only or SETS:
        some = sets.rows_of(pool, each)
        features, learner = sets.scored(some.pool, out / each), learner_of(each, some, out / f"{each}-answers")
        if tuning:
            for said in tune(features, some.labels, learner):
                click.echo(f"{each}: {said}")
            continue
        rows.append({"job": each, **measured(features, some.labels, learner, SETS[each], range(splits))})
        for arm, found in rows[-1]["savings"].items():
            click.echo(f"{each}: {arm}: " + ", ".join(f"{at}: {s['share_saved']}" for at, s in found.items()))
    if not tuning:
        settings = {"model": sets.MODEL, "layer": sets.LAYER, "pooling": sets.POOLING, "template": sets.TEMPLATE}
        facts = {"machine": on, "settings": settings, "splits": splits}
        click.echo(runner.write(name, rows, merge=bool(only), **facts))


if __name__ == "__main__":
    main()
