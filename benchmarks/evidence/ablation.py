"""Which embeddings, which scaling of them and which kernel settings choose best: why the defaults are what they are.

    python -m benchmarks.evidence.ablation                  # after, or beside, benchmarks.evidence.label_efficiency
    python -m benchmarks.evidence.ablation --parts coverage # a few minutes: no model is finetuned

One thing is changed at a time from layer -1, the mean, l2 and the kernels' own settings (the defaults until
2026-11-27, which had l2 for whiten), but layer, pooling and scaling, which are crossed. Coverage is that of
tasks and data sets, which no selector is told. Losses are on rows of pool_val that the grid's figures do not use.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np

from benchmarks.evidence.chosen import describe
from benchmarks.evidence.label_efficiency import GRIDS, RECIPES, Cells, compared
from benchmarks.harness import runner
from edjax.data.features import Features, read_features
from edjax.data.pool import Pool, read_pool
from edjax.evaluation import evaluate
from edjax.finetuning import finetune
from edjax.scoring import score
from edjax.selection.prepared import prepare
from edjax.study.analysis import STATISTIC
from edjax.study.recipe import Recipe, read_recipe
from edjax.study.slices import slice_of

KERNELS = ("k_center", "facility_location", "d_optimal")
BANDWIDTHS = (0.03, 0.1, 0.25, 0.5, 1.0, 3.0)
RIDGES = (0.001, 0.01, 0.1, 1.0, 10.0)  # times the mean squared norm
METRIC = "response_loss"


class Knobs(NamedTuple):
    """A way to select; None: the kernel's default."""

    strategy: str
    layer: int = -1
    pooling: str = "mean"
    scaling: str = "l2"
    bandwidth: float | None = None
    ridge: float | None = None

    @property
    def name(self) -> str:
        """What differs from the fields' defaults, as "k_center layer=-2 scaling=none"."""
        changed = [f"{k}={v}" for k, v in self._asdict().items() if k != "strategy" and v != self._field_defaults[k]]
        return " ".join([self.strategy, *changed])

    @property
    def folder(self) -> str:
        """Every knob, so that another default later finds the same cell."""
        return "_".join(str(v) for v in self)


def whitened(x: np.ndarray) -> np.ndarray:
    """Centred, and with the covariance 1 where the pool varies at all; then each row of length 1."""
    x = x.astype(np.float64) - x.mean(0, dtype=np.float64)
    values, vectors = np.linalg.eigh(x.T @ x / len(x))
    keep = values > 1e-6 * values.max()
    return _unit(x @ (vectors[:, keep] / np.sqrt(values[keep])))


def standardised(x: np.ndarray) -> np.ndarray:
    """Every feature centred and divided by its standard deviation; then each row of length 1."""
    x = x.astype(np.float64) - x.mean(0, dtype=np.float64)
    return _unit(x / np.maximum(x.std(0), 1e-12))


def _unit(x: np.ndarray) -> np.ndarray:
    return (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)).astype(np.float32)


SCALINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "none": lambda x: prepare(x, "none"),
    "centre": lambda x: prepare(x, "centre"),
    "l2": lambda x: prepare(x, "l2"),
    "standardised": standardised,
    "whitened": whitened,
}


def covering(middle: int) -> Iterator[Knobs]:
    """Every way whose coverage is looked at."""
    for strategy, layer, pooling, scaling in itertools.product(KERNELS, (-1, -2, middle), ("mean", "last"), SCALINGS):
        yield Knobs(strategy, layer, pooling, scaling)
    for bandwidth in BANDWIDTHS:
        yield Knobs("facility_location", bandwidth=bandwidth)
    for ridge in RIDGES:
        yield Knobs("d_optimal", ridge=ridge)


def trained(middle: int) -> Iterator[Knobs]:
    """Those that models are also finetuned on."""
    for strategy in KERNELS:
        yield Knobs(strategy, pooling="mean")
        for layer in (-1, -2, middle):
            yield Knobs(strategy, layer=layer, pooling="last")


class Ablation:
    """The pool of a recipe, embedded in several ways, and what was chosen by them."""

    def __init__(self, recipe: Recipe, tuning_rows: int, show: bool = True):
        from edjax.lm.load import load

        self.recipe, self.out, self.show = recipe, Path(recipe.out), show
        self.pool = slice_of(read_pool(recipe.pool), recipe.pool_rows, recipe)
        self.tuning = other_rows(recipe, tuning_rows)
        self.loaded = load(recipe.model, recipe.dtype)
        self.prepared: dict[tuple[int, str, str], np.ndarray] = {}

    @property
    def middle(self) -> int:
        """The layer half-way up, counted from the top as `edjax.score` does."""
        return -1 - self.loaded.model.config.num_layers // 2

    def features(self, layer: int, pooling: str) -> Features:
        if (layer, pooling) == (self.recipe.layer, self.recipe.pooling) and (self.out / "features").exists():
            return read_features(self.out / "features")
        return score(
            self.pool,
            self.recipe.model,
            out=self.out / "ablation" / f"features{layer}-{pooling}",
            layer=layer,
            pooling=pooling,
            max_new_tokens=0,
            template=self.recipe.template,
            max_length=self.recipe.finetune_config(0).max_length,
            batch_size=self.recipe.score_batch_size,
            dtype=self.recipe.dtype,
            loaded=self.loaded,
            show_progress=self.show,
        )

    def embeddings(self, layer: int, pooling: str, scaling: str) -> np.ndarray:
        key = (layer, pooling, scaling)
        if key not in self.prepared:
            self.prepared[key] = SCALINGS[scaling](np.asarray(self.features(layer, pooling).embeddings))
        return self.prepared[key]

    def picks(self, how: Knobs, budget: int) -> np.ndarray:
        from edjax import kernels

        x = self.embeddings(how.layer, how.pooling, how.scaling)
        options: dict[str, Any] = {}
        if how.bandwidth is not None:
            options["bandwidth"] = how.bandwidth
        if how.ridge is not None:
            options["ridge"] = how.ridge * float((x.astype(np.float64) ** 2).sum(1).mean())
        return np.asarray(getattr(kernels, how.strategy)(x, budget, **options).indices)

    def coverage(self, budget: int) -> list[dict[str, Any]]:
        """What every way of `covering` chooses, and random by five seeds."""
        shipped, base = self.embeddings(-1, "mean", "l2"), self.features(self.recipe.layer, self.recipe.pooling)
        ways = {f"random seed={s}": self.random(s)[:budget] for s in range(5)}
        ways |= {how.name: self.picks(how, budget) for how in covering(self.middle)}
        return [
            {"job": f"coverage {name}", "budget": budget, **describe(rows, self.pool, base, shipped)}
            for name, rows in ways.items()
        ]

    def random(self, seed: int) -> np.ndarray:
        return np.random.Generator(np.random.PCG64(seed)).permutation(len(self.pool))

    def losses(self, budget: int, seeds: Sequence[int]) -> list[dict[str, Any]]:
        """The loss after finetuning on what the ways of `trained` choose, less random's; rows as in the table."""
        base = self.evaluated(self.out / "ablation" / "base", None)
        cells: Cells = {}
        for seed in range(len(seeds) + 1):
            cells["random", budget, seed, None] = self.cell("random", "random", self.random(seed)[:budget], seed)
        for how in trained(self.middle):
            rows = self.picks(how, budget)
            for seed in seeds:
                cells[how.name, budget, seed, None] = self.cell(how.name, how.folder, rows, seed)
        found = compared(cells, base, [METRIC])[METRIC]
        means = {s: points[0] for s, points in found["curves"].items()}
        against = {d["strategy"]: d for d in found["differences"]}
        facts = {"metric": METRIC, "budget": budget, "rows": found["rows"], "base": found["base"]}
        return [
            {"job": f"loss {name}", **facts, "score": point, "against_random": against.get(name)}
            for name, point in means.items()
        ]

    def cell(self, name: str, place: str, rows: np.ndarray, seed: int):
        folder = self.out / "ablation" / f"{place}-b{len(rows)}-s{seed}"
        finetune(
            self.pool.take(int(i) for i in rows),
            self.recipe.model,
            out=folder / "adapter",
            config=self.recipe.finetune_config(seed),
            loaded=self.loaded,
            show_progress=self.show,
        )
        done = self.evaluated(folder / "evaluation", folder / "adapter")
        if self.show:
            click.echo(f"{name}, seed {seed}: {METRIC} {done.scores[METRIC]:.4f}", err=True)
        return done

    def evaluated(self, out: Path, adapter: Path | None):
        return evaluate(
            self.tuning,
            self.recipe.model,
            adapter=adapter,
            out=out,
            metrics=[METRIC],
            template=self.recipe.template,
            max_length=self.recipe.finetune_config(0).max_length,
            batch_size=self.recipe.evaluation_batch_size,
            dtype=self.recipe.dtype,
            loaded=self.loaded,
            show_progress=self.show,
        )


def other_rows(recipe: Recipe, count: int) -> Pool:
    """Rows of the recipe's evaluation file that are short enough and not in its slice, at most `count` of them."""
    everything = slice_of(read_pool(recipe.evaluation), None, recipe)
    used = set(slice_of(read_pool(recipe.evaluation), recipe.evaluation_rows, recipe).ids)
    rest = [i for i, name in enumerate(everything.ids) if name not in used]
    order = np.random.Generator(np.random.PCG64(recipe.slice_seed + 1)).permutation(len(rest))[:count]
    return everything.take(sorted(rest[int(i)] for i in order))


@click.command()
@click.option("--grid", type=click.Choice(list(GRIDS)), default="cpu", show_default=True)
@click.option("--parts", default="coverage,loss", show_default=True, help="coverage, loss, or both with a comma.")
@click.option("--budget", default=64, show_default=True, help="Labels a model is finetuned on.")
@click.option("--seeds", default=2, show_default=True, help="Of the finetuning; random has one more.")
@click.option("--rows", default=200, show_default=True, help="Evaluation rows.")
@click.option("--out", type=Path, help="The results file, else one in benchmarks/results named by the device.")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
def main(grid: str, parts: str, budget: int, seeds: int, rows: int, out: Path | None, overrides: tuple[str, ...]):
    """Look at the knobs; what was done before is read. KEY=VALUE changes the grid's recipe."""
    machine = runner.machine()
    study = Ablation(read_recipe(RECIPES / GRIDS[grid].recipe, overrides), rows)
    made = []
    if "coverage" in parts:
        made += study.coverage(max(study.recipe.budgets))
    if "loss" in parts:
        made += study.losses(budget, range(seeds))
    facts = {"machine": machine, "grid": grid, "statistic": STATISTIC}
    path = runner.write(f"ablation-{runner.device_name()}", made, out=out, merge=True, **facts)
    click.echo(f"wrote {path}")


if __name__ == "__main__":
    main()
