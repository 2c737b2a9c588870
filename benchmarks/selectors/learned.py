"""How much of facility location's value a learned function's picks reach, beside feature-based ones and random.

    python -m benchmarks.selectors.learned --pool POOL --model DIR      # DIR: a model to embed the prompts with

2,000 prompts of the pool, drawn with seed 0, embedded and whitened as `edjax select` does it. A row is a strategy at a
budget: `share` is F of its picks over F of facility location's greedy ones, F(A) = sum_i max_{j in A} s_ij with the
default kernel, in float64; random and dspn, which draw, with five and three seeds, as mean, least and most.
`select_s` is one selection's time, programs compiled.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.harness import runner

ROWS, BUDGETS, SEEDS = 2000, (20, 50, 100, 200), {"random": 5, "dspn": 3}
COMMAND = "python -m benchmarks.selectors.learned --pool POOL --model DIR"  # and no folders of a machine


def shares(x: np.ndarray, orders: dict[str, list[np.ndarray]]) -> list[dict[str, Any]]:
    """A row a strategy and budget, of prepared embeddings x (n, q) and orders that are as long as the largest budget;
    those of facility_location are what the others are measured by."""
    import jax.numpy as jnp

    from edjax.kernels import measure

    s = np.asarray(measure.rbf_similarity(jnp.asarray(x), jnp.asarray(x)), np.float64)

    def value(order: np.ndarray, budget: int) -> float:
        return float(s[:, order[:budget]].max(axis=1).sum())

    best = {b: value(orders["facility_location"][0], b) for b in BUDGETS}
    rows = []
    for name, of in orders.items():
        for b in BUDGETS:
            got = [value(order, b) / best[b] for order in of]
            of_all = {"share": round(float(np.mean(got)), 4), "least": round(min(got), 4), "most": round(max(got), 4)}
            rows.append({"job": f"{name} {b}", "strategy": name, "budget": b, "seeds": len(of), **of_all})
    return rows


@click.command()
@click.option("--pool", required=True, help="Rows with prompts.")
@click.option("--model", required=True, help="What embeds them.")
@click.option("--out", type=click.Path(path_type=Path), help="In place of benchmarks/results/learned-DEVICE.json.")
def main(pool: str, model: str, out: Path | None) -> None:
    """Embed, select, and compare."""
    import edjax
    from edjax.data.pool import read_pool
    from edjax.selection.prepared import prepare

    machine, every = runner.machine(), read_pool(pool)
    drawn = np.sort(np.random.default_rng(0).choice(len(every), ROWS, replace=False)).tolist()
    session = edjax.Session(model, template="plain", max_length=256)
    features = edjax.score(every.take(drawn), session, max_new_tokens=0, show_progress=False)
    orders: dict[str, list[np.ndarray]] = {}
    seconds: dict[str, float] = {}
    for name in ("facility_location", "feature_based", "dspn", "random"):
        orders[name] = []
        for seed in range(SEEDS.get(name, 1)):
            start = time.perf_counter()
            asked = f"{name}:seed={seed}" if name == "dspn" else name
            chosen = edjax.select(features, asked, max(BUDGETS), seed=seed)
            seconds[name] = time.perf_counter() - start  # of the last, whose programs are there
            orders[name].append(chosen.indices)
        if len(orders[name]) == 1:
            start = time.perf_counter()
            edjax.select(features, name, max(BUDGETS))
            seconds[name] = time.perf_counter() - start
    rows = shares(prepare(np.asarray(features.embeddings)), orders)
    rows = [{**row, "select_s": round(seconds[row["strategy"]], 3)} for row in rows]
    facts: dict[str, Any] = {"machine": machine, "command": COMMAND, "seed": 0, "n": ROWS}
    facts |= {"d": features.embeddings.shape[1], "pool": Path(pool).name, "model": Path(model).name}
    click.echo(runner.write(f"learned-{runner.device_name()}", rows, out=out, **facts))


if __name__ == "__main__":
    main()
