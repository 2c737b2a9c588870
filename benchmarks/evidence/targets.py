"""E2's first metric: of the rows chosen for twenty prompts of a data set, how many are of that data set?

    python -m benchmarks.evidence.targets              # a quarter of an hour on two cores
    python -m benchmarks.evidence.targets --data DIR   # where pool.parquet and pool_val.parquet lie

A target is 20 of the held-out prompts of one data set, drawn with the seed; the pool is a seeded draw of all data sets'
rows, this one's too, and the target is 1 to 8 % of it. Whatever chooses 64 rows sees prompts alone. The precision is
the share of its picks that are of the target's data set: nothing is trained, so nothing but the target's draw is noise.
All data sets with 40 held-out prompts or more; 12 of them have more.

Features have a closed form, so that the pool need not pass through a model: words weighted by TF-IDF, and of these the
largest singular vectors, fitted on the pool. They are prepared as `edjax.select` does for everybody,
once with l2 and once whitened, and the methods are run by it.

Beside the methods that read a target: random, two that cover the pool, the rows nearest the target's mean, and the
oracle, random inside the data set, whose precision is 1.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import pyarrow.parquet as pq
from scipy import sparse

from benchmarks.harness import runner
from edjax.data.features import Features
from edjax.kernels import on_host
from edjax.selection import defaults
from edjax.selection.choose import Chooser
from edjax.selection.options import Options
from edjax.selection.prepared import Prepared, fitted, take

MEANT, LEAST, TARGETS, BUDGET, SEEDS, ROWS = 0.8, 40, 20, 64, 3, 10_000
DIRECTIONS, SPARE, SEEN_IN, ITERATIONS = 300, 20, 2, 4
NORMALISED = ("l2", "whiten")
NEAREST = "nearest to the target's mean"
UNTARGETED = ("random", "k_center", "facility_location without a target")
TARGETED = (
    "flqmi:eta=0.1",
    "flqmi:eta=1",
    "flmi",
    "cobra:by=task",
    "cobra:by=task:balance=0.1",
    "go:aggregate=mean",
    "go:aggregate=max",
    "rds_plus:taken=skip",
    "rds_plus:taken=forfeit",
    "rocket:chains=any",
    "rocket:chains=greedy",
    "facility_location",
)


class Rows(NamedTuple):
    """prompts, and each one's data set and task."""

    prompts: list[str]
    dataset: np.ndarray
    task: np.ndarray

    def take(self, rows: np.ndarray) -> Rows:
        return Rows([self.prompts[i] for i in rows], self.dataset[rows], self.task[rows])


def read(path: Path) -> Rows:
    table = pq.read_table(path, columns=["prompt", "dataset", "task"])
    dataset, task = (np.asarray(table[name].to_pylist(), object) for name in ("dataset", "task"))
    return Rows(table["prompt"].to_pylist(), dataset, task)


class Words:
    """TF-IDF of words, and its largest singular vectors, fitted on the pool's prompts.

    A prompt is (1 + ln count) * (1 + ln((1 + n) / (1 + rows that hold it))) over all that at least `SEEN_IN` prompts
    of the pool hold, of length 1, on the singular vectors. These by subspace iteration from a seeded start.
    """

    def __init__(self, prompts: list[str], directions: int = DIRECTIONS):
        counted = [_terms(p) for p in prompts]
        held = Counter(term for terms in counted for term in terms)
        self.place = {term: i for i, term in enumerate(sorted(t for t, n in held.items() if n >= SEEN_IN))}
        n = np.asarray([held[term] for term in self.place], float)
        self.weight = 1 + np.log((1 + len(prompts)) / (1 + n))
        x = self._weighted(counted)
        q = np.random.default_rng(0).normal(size=(len(self.place), min(directions + SPARE, *x.shape)))
        for _ in range(ITERATIONS):
            q = _orthonormal(x.T @ (x @ q))
        _, vectors = np.linalg.eigh((x @ q).T @ (x @ q))
        self.axes = q @ vectors[:, ::-1][:, :directions]

    def __call__(self, prompts: list[str]) -> np.ndarray:
        return np.asarray(self._weighted([_terms(p) for p in prompts]) @ self.axes, np.float32)

    def _weighted(self, counted: list[Counter[str]]) -> sparse.csr_matrix:
        known = [[(self.place[t], n) for t, n in terms.items() if t in self.place] for terms in counted]
        ends = np.cumsum([0, *map(len, known)])
        columns, counts = np.asarray([pair for row in known for pair in row], np.int64).reshape(-1, 2).T
        x = sparse.csr_matrix(
            ((1 + np.log(counts)) * self.weight[columns], columns, ends), (len(known), len(self.place))
        )
        norms = np.sqrt(np.asarray(x.multiply(x).sum(axis=1)).ravel())
        return sparse.csr_matrix(sparse.diags(1 / np.maximum(norms, 1e-12)) @ x)


def _orthonormal(q: np.ndarray) -> np.ndarray:
    """Columns of the same span; q has more rows than columns."""
    values, vectors = np.linalg.eigh(q.T @ q)
    kept = values > 1e-12 * values[-1]
    return q @ (vectors[:, kept] / np.sqrt(values[kept]))


def _terms(prompt: str) -> Counter[str]:
    return Counter(re.findall(r"\w+", prompt.lower()))


def features_of(rows: Rows, x: np.ndarray, name: str) -> Features:
    ids = tuple(f"{name} {i}" for i in range(len(x)))
    return Features(ids, x, {}, {"task": rows.task.astype(str)}, name)


def drawn(held: Rows, dataset: str, seed: int, count: int = TARGETS) -> np.ndarray:
    """The rows of `held` that are the target."""
    rng = np.random.Generator(np.random.PCG64([seed, 3]))
    return np.sort(rng.permutation(np.flatnonzero(held.dataset == dataset))[:count])


def chosen(pool: Features, options: Options, names: tuple[str, ...], budget: int) -> dict[str, np.ndarray]:
    """What each of these picks."""
    chooser = Chooser(pool, options)
    orders = {name: chooser.choose(name.partition(" ")[0], [budget])[0].indices for name in names}
    return {name: np.asarray(order) for name, order in orders.items()}


def nearest(prepared: Prepared, target: np.ndarray, budget: int) -> np.ndarray:
    """The rows of largest product with the mean of the target, which is not scaled again."""
    return np.argsort(-(prepared.rows @ on_host.apply(prepared.by, target).mean(axis=0)), kind="stable")[:budget]


def precise(picks: np.ndarray, pool: Rows, dataset: str) -> float:
    return float((pool.dataset[picks] == dataset).mean())


def measured(
    pool: Rows, held: Rows, datasets: list[str], seeds: range, budget: int = BUDGET, count: int = TARGETS
) -> Iterator[dict[str, Any]]:
    """A row a data set: by preparation and arm the precision of each seed, and how many rows were picked."""
    words = Words(pool.prompts)
    features, asked = features_of(pool, words(pool.prompts), "pool"), features_of(held, words(held.prompts), "held")
    prepared = {how: fitted(features.embeddings, how, defaults.WHITEN_DIMS) for how in NORMALISED}
    without: dict[str, list[dict[str, np.ndarray]]] = {}
    for how in NORMALISED:
        first = chosen(features, Options(normalise=how), UNTARGETED, budget)  # of which random alone has a seed
        drawn_by = [chosen(features, Options(normalise=how, seed=seed), ("random",), budget) for seed in seeds]
        without[how] = [first | random for random in drawn_by]
    for dataset in datasets:
        found: dict[str, dict[str, list[float]]] = {how: {} for how in NORMALISED}
        picked: dict[str, dict[str, list[int]]] = {how: {} for how in NORMALISED}
        for how in NORMALISED:
            for seed, picks in zip(seeds, without[how], strict=True):
                target = take(asked, drawn(held, dataset, seed, count))
                options = Options(target=target, normalise=how, seed=seed, allow_fewer=True)
                picks = picks | {NEAREST: nearest(prepared[how], target.embeddings, budget)}
                picks |= chosen(features, options, TARGETED, budget)
                for name, rows in picks.items():
                    found[how].setdefault(name, []).append(round(precise(rows, pool, dataset), 4))
                    picked[how].setdefault(name, []).append(len(rows))
        there = int((pool.dataset == dataset).sum())
        share = there / len(pool.prompts)
        facts = {"job": dataset, "rows": there, "share": share, "held": int((held.dataset == dataset).sum())}
        yield facts | {"precision": found, "picked": picked}


def reached(rows: list[dict[str, Any]], how: str, name: str, at: float = MEANT) -> int:
    """On how many data sets the mean precision over seeds is `at` or more."""
    return sum(float(np.mean(row["precision"][how][name])) >= at for row in rows)


@click.command()
@click.option("--data", type=Path, default=runner.ROOT.parent / "shared" / "data", help="Where the Parquet files lie.")
@click.option("--rows", "most", default=ROWS, show_default=True, help="Of the pool, a seeded draw.")
@click.option("--seeds", default=SEEDS, show_default=True)
@click.option("--only", multiple=True, help="These data sets; the others stay as they are.")
@click.option("--name", default="targets", show_default=True, help="Of the results file.")
def main(data: Path, most: int, seeds: int, only: tuple[str, ...], name: str) -> None:
    """Measure, and write benchmarks/results/NAME.json, a data set after the other."""
    on, pool, held = runner.machine(), read(data / "pool.parquet"), read(data / "pool_val.parquet")
    if most < len(pool.prompts):
        pool = pool.take(np.sort(np.random.Generator(np.random.PCG64(0)).permutation(len(pool.prompts))[:most]))
    datasets = [d for d, n in Counter(held.dataset).most_common() if n >= LEAST]
    if unknown := set(only) - set(datasets):
        raise click.BadParameter(f"{sorted(unknown)[0]!r} is not one of {', '.join(datasets)}", param_hint="--only")
    rows = []
    for row in measured(pool, held, list(only) or datasets, range(seeds)):
        rows.append(row)
        best = {how: max((float(np.mean(v)), arm) for arm, v in row["precision"][how].items()) for how in NORMALISED}
        click.echo(f"{row['job']} ({row['share']:.1%} of the pool): {best}")
        settings = {"pool": len(pool.prompts), "targets": TARGETS, "budget": BUDGET, "directions": DIRECTIONS}
        out = runner.write(name, rows, merge=bool(only), machine=on, seeds=seeds, settings=settings)
    for how in NORMALISED:
        for arm in rows[0]["precision"][how]:
            click.echo(f"{how}, {arm}: {reached(rows, how, arm)} of {len(rows)} at {MEANT:g}")
    click.echo(out)


if __name__ == "__main__":
    main()
