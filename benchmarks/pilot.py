"""E4: can a saving be foretold, from the pool without labels and 150 that were drawn at random?

    python -m benchmarks.pilot            # after benchmarks.control and benchmarks.twin, whose features and results it reads

The pilot: a ridge probe learns from the 150 labels (the teacher) and guesses one for every row. With its guesses as the
truth the experiment is made that one would like to make: rows held out, the strategies choose, the probe learns from
what each chose, savings by the same statistic. Everything is closed form: seconds a setting.

It is held against what was measured with the true labels, over all settings of the control and the twin (set, imbalance),
features and budgets: Spearman's rank correlation, its interval from settings drawn again (a setting whole, since its
figures belong together). The rule was fixed before: the pilot ships as a verb if that interval is above 0 and it foretells
nothing where nothing was saved.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np

from benchmarks import runner, twin
from benchmarks.control import sets
from benchmarks.control.learners import accuracy, learned, linear
from benchmarks.control.splits import AT, gathered, split
from edjax.features import Features
from edjax.pool import read_pool
from edjax.select import Chooser, Options
from edjax.select.prepared import take

KNOWN, DRAWS, HELD = 150, 5, 6
BUDGETS = (50, 100, 200, 400, 800)
ARMS = (
    ("facility_location, whiten", "facility_location", "whiten"),
    ("facility_location, l2", "facility_location", "l2"),
    ("k_center, whiten", "k_center", "whiten"),
    ("d_optimal, whiten", "d_optimal", "whiten"),
)
RIDGE = 0.1
SAMPLES = 2000


class Setting(NamedTuple):
    """features, y: of the pool a strategy chooses from; measured: by arm and budget what it saved there."""

    name: str
    features: Features
    y: np.ndarray
    measured: dict[str, dict[str, float | None]]


def teacher(x: np.ndarray, y: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(n,) a label of every row, guessed by the probe from the true ones of `known`."""
    seen, mine = np.unique(y[known], return_inverse=True)
    onehot = (mine[:, None] == np.arange(len(seen))).astype(np.float64)
    guessed = linear(x, onehot, known, np.arange(len(x)), RIDGE).argmax(1)
    guessed[known] = mine
    return guessed


def foretold(features: Features, y: np.ndarray, seed: int, draws: int = DRAWS) -> dict[str, Any]:
    """What the pilot gives for one draw of the known labels: as `gathered` of the control."""
    n = len(features)
    known = np.random.Generator(np.random.PCG64([seed, 4])).permutation(n)[:KNOWN]
    x = learned(features, np.arange(n), "l2")
    guessed = np.unique(teacher(x, y, known), return_inverse=True)[1]
    budgets = tuple(b for b in BUDGETS if b <= n // 2)
    found = []
    for draw in range(draws):
        candidates, held = split(guessed, 100 * seed + draw, HELD)
        some = take(features, candidates)
        arms: dict[str, list[float]] = {}
        for name, strategy, normalise in (("random", "random", "l2"), *ARMS):
            chosen = Chooser(some, Options(seed=draw, normalise=normalise)).choose(strategy, [max(budgets)])[0].indices
            arms[name] = [accuracy(x, guessed, candidates[chosen[:b]], held, RIDGE) for b in budgets]
        found.append(arms)
    return gathered(found, budgets)


def settings(data: Path, out: Path) -> Iterator[Setting]:
    """Those of the control whose learner guesses labels, and the twin's, one draw of each power."""
    control, pool = _rows("control"), read_pool(str(data / "pool.parquet"))
    for name, row in control.items():
        if row.get("metric", "macro accuracy") != "macro accuracy":
            continue
        some = sets.rows_of(pool, name)
        features, y = sets.scored(some.pool, out / name), np.unique(some.labels, return_inverse=True)[1]
        candidates, _ = split(y, 0)
        yield Setting(name, take(features, candidates), y[candidates], _shares(row["savings"]))
    features, y = twin.together(data, out)
    for name, row in _rows("twin").items():
        candidates, _ = twin.drawn(y, row["power"], row["candidates"], 0)
        yield Setting(f"twin, {name}", take(features, candidates), y[candidates], _shares(row["macro"]["savings"]))


def _rows(name: str) -> dict[str, dict[str, Any]]:
    path = runner.RESULTS / f"{name}.json"
    return {row["job"]: row for row in json.loads(path.read_text())["rows"]} if path.exists() else {}


def _shares(savings: dict[str, Any]) -> dict[str, dict[str, float | None]]:
    return {arm: {at: s["share_saved"] for at, s in of.items()} for arm, of in savings.items()}


def ranks(values: np.ndarray) -> np.ndarray:
    """From 0, ties sharing the mean of theirs."""
    from scipy.stats import rankdata

    return rankdata(values) - 1


def spearman(pairs: np.ndarray) -> float:
    """Of pairs (m, 2); NaN where one side does not vary."""
    a, b = ranks(pairs[:, 0]), ranks(pairs[:, 1])
    return float(np.corrcoef(a, b)[0, 1]) if len(np.unique(a)) > 1 and len(np.unique(b)) > 1 else float("nan")


def agreement(rows: list[dict[str, Any]], arms: tuple[str, ...]) -> dict[str, Any]:
    """Spearman over all pairs of (foretold, measured) of these arms, and its interval over settings drawn again."""
    of_setting = [
        np.asarray([p for arm in arms for p in row["pairs"].get(arm, {}).values() if None not in p], float).reshape(
            -1, 2
        )
        for row in rows
    ]
    of_setting = [p for p in of_setting if len(p)]
    rng = np.random.Generator(np.random.PCG64(0))
    found = [
        spearman(np.concatenate([of_setting[i] for i in rng.integers(0, len(of_setting), len(of_setting))]))
        for _ in range(SAMPLES)
    ]
    low, high = np.nanquantile(found, [0.025, 0.975])
    whole = np.concatenate(of_setting)
    return {
        "spearman": spearman(whole),
        "low": float(low),
        "high": float(high),
        "pairs": len(whole),
        "settings": len(of_setting),
    }


@click.command()
@click.option("--data", type=Path, default=runner.ROOT.parent / "shared" / "data", help="Where pool.parquet lies.")
@click.option("--out", type=Path, default=Path("out/control"), show_default=True, help="Where the features are kept.")
@click.option("--seeds", default=3, show_default=True, help="Draws of the known labels.")
@click.option("--name", default="pilot", show_default=True, help="Of the results file.")
def main(data: Path, out: Path, seeds: int, name: str) -> None:
    """Foretell every setting, compare with what was measured, and write benchmarks/results/NAME.json."""
    on, rows = runner.machine(), []
    for setting in settings(data, out):
        made = [foretold(setting.features, setting.y, seed) for seed in range(seeds)]
        pairs: dict[str, dict[str, tuple[float | None, float | None]]] = {}
        for arm, *_ in ARMS:
            for at in map(str, AT):
                told = [m["savings"][arm][at]["share_saved"] for m in made if at in m["savings"][arm]]
                told = [t for t in told if t is not None]
                measured = setting.measured.get(arm, {}).get(at)
                pairs.setdefault(arm, {})[at] = (float(np.mean(told)) if told else None, measured)
        nulls = {at: [m["null"][at] for m in made if at in m["null"]] for at in map(str, AT)}
        rows.append({"job": setting.name, "pairs": pairs, "null": nulls, "foretold": [m["savings"] for m in made]})
        click.echo(f"{setting.name}: " + "; ".join(f"{arm}: {of}" for arm, of in pairs.items()))
    agreed = {
        "all": agreement(rows, tuple(arm for arm, *_ in ARMS)),
        **{arm: agreement(rows, (arm,)) for arm, *_ in ARMS},
    }
    for which, found in agreed.items():
        click.echo(f"{which}: {found}")
    click.echo(runner.write(name, rows, machine=on, agreement=agreed, known=KNOWN, seeds=seeds))


if __name__ == "__main__":
    main()
