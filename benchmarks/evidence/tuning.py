"""Which settings of facility location save most in the control? Tried on splits that nothing else uses.

    python -m benchmarks.evidence.tuning            # whitening's dimensions, kernel width: minutes on two cores
    python -m benchmarks.evidence.tuning --layers   # also layer and pooling of the features, on CLINC150 alone

Everything else is that of `benchmarks.evidence.control`: the learner sees the same features whatever the choice is made
by. A setting is changed only where its accuracies are better than the default's by more than the interval over splits
(paired, the same rows held out).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.evidence.control import sets, splits
from benchmarks.evidence.control.learners import accuracy, learned
from benchmarks.harness import runner
from benchmarks.pages.evidence import halves
from benchmarks.pages.words import table
from edjax.data.features import Features
from edjax.data.pool import Pool, read_pool
from edjax.selection.choose import select
from edjax.selection.prepared import take
from edjax.study.analysis import shares
from edjax.study.analysis.seeds import interval_of_mean

SETS = (*sets.INTENTS, "blimp")
LEARNER, RIDGE = "l2", 0.1  # the control's
SEEDS = range(1000, 1008)
EVERY = 1_000_000  # more dimensions than there are: all of them
OPTIONS: dict[str, dict[str, Any]] = {
    "the default": {},
    "whiten_dims 50": {"whiten_dims": 50},
    "whiten_dims 100": {"whiten_dims": 100},
    "whiten_dims 400": {"whiten_dims": 400},
    "whiten_dims all": {"whiten_dims": EVERY},
    "l2": {"normalise": "l2"},
    "bandwidth 0.06": {"bandwidth": 0.06},
    "bandwidth 0.12": {"bandwidth": 0.12},
    "bandwidth 0.5": {"bandwidth": 0.5},
    "bandwidth 1": {"bandwidth": 1.0},
    "bandwidth 2": {"bandwidth": 2.0},
}
LAYERS = tuple((layer, pooling) for layer in (-1, -2, -16) for pooling in ("mean", "last"))
KEPT = (sets.LAYER, sets.POOLING)  # what the learner sees, and the default


def curves(learner: Features, chosen_by: Features, y: np.ndarray, strategy: str, options: dict[str, Any]) -> np.ndarray:
    """(splits, budgets) macro accuracy of the control's probe on what a strategy chose with these options."""
    budgets, found = splits.BUDGETS, []
    for seed in SEEDS:
        candidates, held = splits.split(y, seed)
        x = learned(learner, candidates, LEARNER)
        order = select(take(chosen_by, candidates), strategy, max(budgets), seed=seed, **options).indices
        found.append([accuracy(x, y, candidates[order[:b]], held, RIDGE) for b in budgets])
    return np.asarray(found)


def lines(values: dict[str, np.ndarray]) -> Iterator[list[str]]:
    """A line a setting: accuracies, what they are beyond the default's, labels saved; the null last."""
    default = values["the default"]
    for name, mine in values.items():
        if name == "random":
            continue
        cells = [name]
        for at in splits.AT:
            i = splits.BUDGETS.index(at)
            off = mine[:, i] - default[:, i]
            ends = interval_of_mean(100 * off)
            more = (
                ""
                if name == "the default"
                else f" ({100 * off.mean():+.1f}, {ends['low']:+.1f} to {ends['high']:+.1f})"
            )
            cells.append(f"{mine[:, i].mean():.3f}{more}")
        for at in splits.AT:
            saved = splits.saving(values, name, splits.BUDGETS, at)["share_saved"]
            cells.append("beyond" if saved is None else shares.percent(saved))
        yield cells
    nulls = splits.summary({"random": values["random"]}, splits.BUDGETS)["null"]
    yield ["random against itself", *("" for _ in splits.AT), *(halves(nulls[str(at)]) for at in splits.AT)]


def shown(name: str, values: dict[str, np.ndarray]) -> str:
    """One data set's table."""
    head = [
        f"{name}, {len(SEEDS)} splits",
        *(f"accuracy at {b} (points beyond the default)" for b in splits.AT),
        *(f"saved at {b}" for b in splits.AT),
    ]
    return table(head, list(lines(values)), "l" + "r" * 2 * len(splits.AT))


def scored(pool: Pool, out: Path, layer: int, pooling: str) -> Features:
    from edjax.scoring import score

    return score(
        pool,
        sets.MODEL,
        out=out,
        layer=layer,
        pooling=pooling,
        max_new_tokens=0,
        template=sets.TEMPLATE,
        show_progress=False,
    )


@click.command()
@click.option("--data", type=Path, default=runner.ROOT.parent / "shared" / "data", help="Where pool.parquet lies.")
@click.option("--out", type=Path, default=Path("out/control"), show_default=True, help="Where the features are kept.")
@click.option("--layers", is_flag=True, help="Try layers and poolings in place of dimensions and widths.")
def main(data: Path, out: Path, layers: bool) -> None:
    """Print a table a data set."""
    pool = read_pool(str(data / "pool.parquet"))
    for each in SETS[:1] if layers else SETS:
        some, labels = sets.rows_of(pool, each)
        y = np.unique(labels, return_inverse=True)[1]
        learner = sets.scored(some, out / each)
        tried: dict[str, tuple[Features, dict[str, Any]]]
        if layers:
            made = {k: scored(some, out / f"{each}{k[0]}{k[1]}", *k) if k != KEPT else learner for k in LAYERS}
            tried = {"the default" if k == KEPT else f"layer {k[0]}, {k[1]}": (f, {}) for k, f in made.items()}
        else:
            tried = {name: (learner, options) for name, options in OPTIONS.items()}
        values = {"random": curves(learner, learner, y, "random", {})}
        values |= {name: curves(learner, f, y, "facility_location", how) for name, (f, how) in tried.items()}
        click.echo(f"{shown(each, values)}\n")


if __name__ == "__main__":
    main()
