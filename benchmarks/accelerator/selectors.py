"""The selectors at the size of the paper, beside the plain jitted loop and torch's on the same card."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import plain, runner
from benchmarks.accelerator.stage import Stage
from benchmarks.roofline import useful
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
FIRST = ("k_center", "d_optimal", "facility_location resident")
PLANNED = {
    "facility_location resident": {"form": "resident"},
    "facility_location bfloat16": {"form": "resident", "similarity_dtype": "bfloat16"},
    "facility_location tiled": {"form": "tiled"},
}
BARS = {"k_center": 2.0, "d_optimal": 2.0, "facility_location": 4.0}  # seconds at the largest budget


@partial(jax.jit, static_argnums=(0, 1))
def made(n: int, d: int) -> jax.Array:
    """(n, d) float32 rows around Gaussian centres, drawn on the device; as `benchmarks.data.mixture` in kind."""
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

    whole = selectors(FIRST)
    for name in ("k_center", "d_optimal", "facility_location"):
        for who in ("plain jitted loop", "torch"):
            if name == "facility_location" and who != "torch":
                continue
            k = stage.sizes.looped[name == "facility_location"]
            of_ours = [r for r in stage.done().values() if r.get("method", "").startswith(name) and "first" in r]
            loop = partial(looped, name, who, x, k, max(stage.sizes.budgets), of_ours[0]["first"] if of_ours else [])
            whole &= stage.job(f"{name}, {who}: {n} x {d}, {k}", loop)
    return selectors([name for name in FORMS if name not in FIRST]) and whole


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
        "device_peak_bytes": runner.device_peak(),
        **({"bar_s": BARS[method], "met": timed["median_s"] <= BARS[method]} if k == 50_000 else {}),
    }


def looped(name: str, who: str, x: jax.Array, k: int, largest: int, ours: list[int]) -> dict[str, Any]:
    """A loop of `k` picks, beside the first of `ours`; what `largest` would take at its time a pick is an
    extrapolation, and says so."""
    square = float(jnp.sum(jnp.square(x - x.mean(0))) / len(x))
    if who == "torch":
        try:
            from benchmarks.accelerator import loops
        except ImportError as e:
            return {"skipped": str(e)}
        rows = loops.on(x)
        asked = {"k_center": (), "d_optimal": (0.1 * square,), "facility_location": (0.25 * 2 * square,)}[name]
        loop = partial(getattr(loops, name), rows, k, *asked)
    elif name == "k_center":
        loop = partial(plain.k_center, x, budget=k)
    else:
        loop = partial(plain.d_optimal, x, jnp.float32(0.1 * square), budget=k)
    timed = runner.side_by_side({who: loop}, 1)[who]
    theirs = np.asarray(timed.pop("result"))
    return {
        "method": name,
        "peer": who,
        "n": x.shape[0],
        "d": x.shape[1],
        "budget": k,
        **timed,
        "same_picks": len(set(ours[:k]) & set(theirs.tolist())),
        "per_pick_s": timed["median_s"] / k,
        "extrapolated": {"budget": largest, "seconds": timed["median_s"] / k * largest},
    }
