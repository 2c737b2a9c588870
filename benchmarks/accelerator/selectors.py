"""The selectors at the size of the paper, beside the plain jitted loop and torch's on the same card."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.accelerator.stage import Stage
from benchmarks.harness import runner
from benchmarks.selectors import plain
from benchmarks.selectors.roofline import useful
from edjax.kernels import d_optimal, facility_location, k_center, plan

SEED = 0
CENTRES = 100
SLOW_S = 4.0
ROOM = 0.9  # of the device's memory
FORMS: dict[str, tuple[str, Callable[..., Any]]] = {
    "k_center": ("k_center", k_center),
    "d_optimal": ("d_optimal", d_optimal),
    "facility_location resident": ("facility_location", partial(facility_location, form="resident")),
    "facility_location bfloat16": (
        "facility_location",
        partial(facility_location, form="resident", similarity_dtype="bfloat16"),
    ),
    "facility_location tiled": ("facility_location", partial(facility_location, form="tiled")),
}
PLANNED = {
    "facility_location resident": {"form": "resident"},
    "facility_location bfloat16": {"form": "resident", "similarity_dtype": "bfloat16"},
    "facility_location tiled": {"form": "tiled"},
}
BARS = {"k_center": 2.0, "d_optimal": 2.0, "facility_location": 4.0}  # seconds at the largest budget


@partial(jax.jit, static_argnums=(0, 1))
def made(n: int, d: int) -> jax.Array:
    """(n, d) float32 rows around Gaussian centres, drawn on the device; as `benchmarks.harness.data.mixture` in
    kind."""
    a, b, c = jax.random.split(jax.random.key(SEED), 3)
    middle = jax.random.normal(a, (CENTRES, d))
    return middle[jax.random.randint(b, (n,), 0, CENTRES)] + jax.random.normal(c, (n, d))


def run(stage: Stage) -> bool:
    n, d = stage.sizes.pool
    x = jax.block_until_ready(made(n, d))

    def selectors(names: Sequence[str]) -> bool:
        plan = [(name, k) for k in sorted(stage.sizes.budgets, reverse=True) for name in names]
        jobs = {f"{m}: {n} x {d}, {k}": partial(measured, m, x, k, stage.sizes.repeats) for m, k in plan}
        return stage.jobs(jobs)

    def loops(names: Sequence[str], who: str) -> bool:
        few = {name: stage.sizes.looped[name == "facility_location"] for name in names}
        largest = max(stage.sizes.budgets)
        return stage.jobs(
            {f"{m}, {who}: {n} x {d}, {k}": partial(looped, m, who, x, k, largest) for m, k in few.items()}
        )

    # What torch takes comes before the similarities: jax does not hand memory back.
    quick = ("k_center", "d_optimal")
    parts = [selectors(quick), loops(quick, "plain jitted loop"), loops((*quick, "facility_location"), "torch")]
    parts.append(selectors([name for name in FORMS if name not in quick]))
    return all(parts)


def measured(name: str, x: jax.Array, k: int, repeats: int) -> dict[str, Any]:
    """Seconds of one selector, what it is worth in useful FLOP/s, and how much memory the device had in use."""
    method, select = FORMS[name]
    n, d = x.shape
    need = plan(method, n, d, k, **PLANNED.get(name, {})).bytes  # type: ignore[arg-type]
    limit = (jax.devices()[0].memory_stats() or {}).get("bytes_limit")
    facts = {"method": name, "n": n, "d": d, "budget": k, "planned_bytes": need}
    if limit and need > ROOM * limit:
        return {**facts, "skipped": f"plan: {need / 1e9:.1f} GB of {limit / 1e9:.1f}"}
    timed = runner.side_by_side({name: lambda: select(x, k)}, repeats, SLOW_S)[name]
    found = timed.pop("result")
    flops = useful(method, n, d, k)
    return {
        **facts,
        **timed,
        "refreshes": int(found.refreshes),
        "first": np.asarray(found.indices[:1000]).tolist(),
        "useful_flops_s": flops / timed["median_s"],
        **({"bar_s": BARS[method], "met": timed["median_s"] <= BARS[method]} if k == 50_000 else {}),
    }


def looped(name: str, who: str, x: jax.Array, k: int, largest: int) -> dict[str, Any]:
    """Loops of `k` picks and of a fifth; a pick's time is the slope between them, and what `largest` would take is an
    extrapolation and says so."""
    few = max(1, k // 5)
    facts = {"method": name, "peer": who, "n": x.shape[0], "d": x.shape[1], "budget": k}
    try:
        loop = _loop(name, who, x)
    except ImportError as e:
        return {**facts, "skipped": str(e)}
    timed = {}
    with jax.default_matmul_precision("highest"):
        for budget in (few, k):
            timed[budget] = runner.side_by_side({who: partial(loop, budget)}, 1)[who]
    picks = np.asarray(timed[k].pop("result"))
    slope = (timed[k]["median_s"] - timed[few]["median_s"]) / (k - few)
    if who == "torch":
        import torch

        torch.cuda.empty_cache()
    return {
        **facts,
        **timed[k],
        "first": picks.tolist(),
        "per_pick_s": slope,
        "extrapolated": {"budget": largest, "seconds": timed[k]["median_s"] + slope * (largest - k)},
    }


def _loop(name: str, who: str, x: jax.Array) -> Callable[[int], Any]:
    square = float(jnp.sum(jnp.square(x - x.mean(0))) / len(x))
    if who == "torch":
        from benchmarks.accelerator import loops

        rows = loops.on(x)
        asked = {"k_center": (), "d_optimal": (0.1 * square,), "facility_location": (0.25 * 2 * square,)}[name]
        return lambda budget: getattr(loops, name)(rows, budget, *asked)
    if name == "k_center":
        return lambda budget: plain.k_center(x, budget=budget)
    return lambda budget: plain.d_optimal(x, jnp.float32(0.1 * square), budget=budget)
