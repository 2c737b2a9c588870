"""How much of the device the selectors use: their FLOP/s and bytes/s against a matmul and a copy measured beside them.

    python -m benchmarks.selectors.roofline            # 20k x 384, 1000 picks; an accelerator: 100k x 4096, 20000
    python -m benchmarks.selectors.roofline --quick    # 5k x 128, 200 picks

FLOPs are those of the matrix products the call executed, 2 m n k each, and bytes what products read and write and what
reductions read: both counted by running the call once more with a counter at each (`count`), since how often a pass
over the pool is taken depends on the data. Neither facility location's exp and sums nor the choice of candidates count
as FLOPs. "Useful" is 2 n d k, the products of the textbook algorithm, one pass a pick; n^2 d for facility location,
each similarity once. The update alone is a pass over the pool: c picks against all rows, and what they leave of the
bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import click
import jax
import jax.numpy as jnp

from benchmarks.harness import count, runner
from benchmarks.harness.data import mixture
from edjax.kernels import d_optimal, distances, facility_location, geometry, k_center, plan
from edjax.kernels.geometry import matmul

SEED = 0
QUICK = (5_000, 128, 200)
CPU = (20_000, 384, 1_000)
ACCELERATOR = (100_000, 4_096, 20_000)
WIDTHS = (16, 64, 256, 1024)

SELECTORS: dict[str, Callable[..., Any]] = {
    "k_center": k_center,
    "d_optimal": d_optimal,
    "facility_location resident": partial(facility_location, form="resident"),
    "facility_location tiled": partial(facility_location, form="tiled"),
}


def useful(method: str, n: int, d: int, k: int) -> float:
    """2 n d k, the products of one pass a pick; for facility location n^2 d, each similarity once."""
    return n * n * d if method.startswith("facility_location") else 2 * n * d * k


def best(f: Callable[[], Any], repeats: int) -> float:
    """Least seconds of `repeats` calls, after one that compiles."""
    runner.timed(f)
    return min(runner.timed(f)[0] for _ in range(repeats))


def matmul_rates(dtype: str, sizes: tuple[int, ...], precision: str | None, repeats: int) -> dict[str, Any]:
    """FLOP/s of square products, and the best of them."""
    multiply = jax.jit(partial(jnp.matmul, precision=precision))
    rates = {}
    for size in sizes:
        a = jax.random.normal(jax.random.key(SEED), (size, size), jnp.dtype(dtype))
        rates[str(size)] = 2 * size**3 / best(lambda a=a: multiply(a, a), repeats)
    return {"best": max(rates.values()), "by_size": rates}


def copy_rate(dtype: str, count: int, repeats: int) -> float:
    """Bytes read and written a second by y = -x over `count` elements, in place."""
    negate = jax.jit(jnp.negative, donate_argnums=0)
    held = [jnp.ones(count, dtype)]

    def once() -> jax.Array:
        held[0] = negate(held[0])
        return held[0]

    return 2 * held[0].nbytes / best(once, repeats)


def ceilings(sizes: tuple[int, ...], copied: int, repeats: int) -> dict[str, Any]:
    """What the device gives: matmul FLOP/s and copy bytes/s. `float32` is the full precision selectors ask for."""
    kinds = {"float32": ("float32", "highest"), "bfloat16": ("bfloat16", None)}
    if jax.default_backend() != "cpu":
        kinds["float32 fast"] = ("float32", "default")
    return {
        "matmul_flops_s": {name: matmul_rates(t, sizes, p, repeats) for name, (t, p) in kinds.items()},
        "copy_bytes_s": {t: copy_rate(t, copied // jnp.dtype(t).itemsize, repeats) for t in ("float32", "bfloat16")},
    }


def updates(x: jax.Array, widths: tuple[int, ...], repeats: int) -> Iterator[dict[str, Any]]:
    """The update step alone, at each width c: time and FLOP/s (2 n d c), as k_center and as d_optimal do it."""
    norms = jnp.sum(x * x, axis=1)
    frame = geometry.unmoved(x.shape[1])

    def rows(x, norms):
        return geometry.Points(x, norms, norms < jnp.inf, x, geometry.every(x), frame)

    @jax.jit
    def nearest(x, norms, bounds, some, some_norms):
        return jnp.minimum(bounds, distances.nearest(rows(x, norms), bounds, rows(some, some_norms), some.shape[0]))

    @jax.jit
    def leverage(x, norms, bounds, some, some_norms):
        return jnp.maximum(bounds - jnp.sum(jnp.square(matmul(x, some)), axis=1), 0)

    for width in widths:
        for method, step in (("k_center", nearest), ("d_optimal", leverage)):
            seconds = best(lambda step=step, c=width: step(x, norms, norms, x[:c], norms[:c]), repeats)
            yield {"method": method, "width": width, "seconds": seconds, "flops_s": 2 * x.size * width / seconds}


def reason_to_skip(method: str, n: int, d: int, k: int, memory: float) -> dict[str, Any] | None:
    """The row of a call that would need more than `memory` bytes, or None."""
    kernel, _, form = method.partition(" ")
    need = plan(kernel, n, d, k, form=form or "auto").bytes
    if need <= memory:
        return None
    return {"job": f"{method}: {n} x {d}, {k}", "method": method, "skipped": f"plan: {need / 1e9:.1f} GB"}


def measured(method: str, x: jax.Array, k: int, repeats: int, peak: dict[str, Any]) -> dict[str, Any]:
    """One selector: its time, and its FLOP/s and bytes/s as shares of what the device gives."""
    timed = runner.side_by_side({method: lambda: SELECTORS[method](x, k)}, repeats)[method]
    rounds = int(timed.pop("result").refreshes)
    n, d = x.shape
    peak_bytes, seconds = runner.device_peak(), timed["median_s"]
    done = count.work(partial(SELECTORS[method], budget=k, shards=1), x)
    return {
        "job": f"{method}: {n} x {d}, {k}",
        "method": method,
        "n": n,
        "d": d,
        "budget": k,
        "refreshes": rounds,
        **timed,
        "flops": done.flops,
        "bytes": done.bytes,
        "useful_flops": useful(method, n, d, k),
        "products": [{"result": shape, "contracted": length, "times": t} for shape, length, t in done.products],
        "flops_s": done.flops / seconds,
        "bytes_s": done.bytes / seconds,
        "share_of_matmul": done.flops / seconds / peak["matmul_flops_s"]["float32"]["best"],
        "share_of_copy": done.bytes / seconds / peak["copy_bytes_s"]["float32"],
        "device_peak_bytes": peak_bytes,
    }


def settings(quick: bool) -> tuple[tuple[int, int, int], tuple[int, ...], int]:
    """The pool's shape and budget, the sides of the matmuls, and the bytes to copy."""
    if jax.default_backend() == "cpu":
        return (QUICK, (512, 1024), 1 << 27) if quick else (CPU, (1024, 2048, 4096), 1 << 29)
    return (QUICK if quick else ACCELERATOR), (4096, 8192, 16384), 1 << 32


def report(peak: dict[str, Any], rows: list[dict[str, Any]], update: list[dict[str, Any]]) -> Iterator[str]:
    """What was measured, a line each."""
    yield ", ".join(f"{t} matmul {v['best'] / 1e9:.0f} GFLOP/s" for t, v in peak["matmul_flops_s"].items())
    yield ", ".join(f"{t} copy {v / 1e9:.1f} GB/s" for t, v in peak["copy_bytes_s"].items())
    for row in rows:
        if "skipped" in row:
            yield f"{row['job']}: {row['skipped']}"
        else:
            yield (
                f"{row['job']}: {row['median_s']:.3f} s, {row['flops_s'] / 1e9:.0f} GFLOP/s "
                f"({row['share_of_matmul']:.0%} of the matmul), {row['bytes_s'] / 1e9:.1f} GB/s "
                f"({row['share_of_copy']:.0%} of the copy)"
            )
    for row in update:
        yield f"update of {row['method']}, {row['width']} wide: {row['flops_s'] / 1e9:.0f} GFLOP/s"


@click.command()
@click.option("--quick", is_flag=True, help="A small pool and small matmuls, seconds.")
@click.option("--size", nargs=3, type=int, default=None, help="Rows, features and budget, if not the device's default.")
@click.option("--methods", default=",".join(SELECTORS), show_default=True)
@click.option("--repeats", default=5, show_default=True)
@click.option("--memory-gb", default=None, type=float, help="What a call may need by plan: 6, on an accelerator 120.")
@click.option("--name", default=None, help="Of the results file; default roofline-DEVICE.")
def main(quick, size, methods, repeats, memory_gb, name) -> None:
    """Measure and write benchmarks/results/NAME.json."""
    on = runner.machine()
    default, sides, copied = settings(quick)
    n, d, k = size or default
    memory = 1e9 * (memory_gb or (6 if on["backend"] == "cpu" else 120))
    peak = ceilings(sides, copied, repeats)
    x = jnp.asarray(mixture(n, d, SEED))
    rows = [reason_to_skip(m, n, d, k, memory) or measured(m, x, k, repeats, peak) for m in methods.split(",")]
    update = list(updates(x, tuple(w for w in WIDTHS if w <= n), repeats))
    for line in report(peak, rows, update):
        click.echo(line)
    name = name or f"roofline-{runner.device_name()}"
    click.echo(runner.write(name, rows, machine=on, seed=SEED, quick=quick, ceilings=peak, updates=update))


if __name__ == "__main__":
    main()
