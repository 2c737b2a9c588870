"""How fast two installed versions of edjax select, side by side in one run.

    python -m benchmarks.selectors.two_versions OLD/bin/python NEW/bin/python [--repeats 7] [--jobs k_center-20k,...]

Each version sits compiled and warm in a process of its own; the two take turns call by call and never run together,
so that both see the same machine. A job's figure is the ratio new / old of the least seconds, beside that of the
medians. The jobs are those of `benchmarks.selectors.selection`, and what both versions can do besides. Results, as soon
as a job is done: benchmarks/results/two_versions.json. Picks are compared by `same_picks.py`, not here.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click

JOBS: dict[str, tuple[str, int, int, int, dict[str, Any]]] = {
    "k_center-20k": ("k_center", 20_000, 384, 1000, {}),
    "d_optimal-20k": ("d_optimal", 20_000, 384, 1000, {}),
    "facility_location-20k": ("facility_location", 20_000, 384, 500, {}),
    "facility_location-20k tiled": ("facility_location", 20_000, 384, 100, {"form": "tiled"}),
    "facility_location-20k cosine": ("facility_location", 20_000, 384, 500, {"similarity": "cosine"}),
    "k_center-100k": ("k_center", 100_000, 768, 2000, {}),
    "d_optimal-50k": ("d_optimal", 50_000, 768, 2000, {}),
    "k_center-stack": ("k_center", 2_000, 384, 100, {"stack": 32}),
    "d_optimal-stack": ("d_optimal", 2_000, 384, 100, {"stack": 32}),
}


def serve() -> None:
    """Answer each job's name on a line of its own with the seconds of one call, compiled before; runs in a version."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from edjax import kernels

    ready: dict[str, Any] = {}
    for line in sys.stdin:
        name = line.strip()
        if name not in ready:
            ready.clear()
            method, n, d, budget, options = JOBS[name]
            options = dict(options)
            stack = options.pop("stack", 0)
            rng = np.random.default_rng(0)
            centres = rng.standard_normal((100, d), np.float32)
            shape = (stack, n) if stack else (n,)
            x = jnp.asarray(centres[rng.integers(0, 100, shape)] + rng.standard_normal((*shape, d), np.float32))
            chooser = getattr(kernels, method)

            def call(x: Any = x, chooser: Any = chooser, budget: int = budget, options: Any = options) -> Any:
                return chooser(x, budget, **options).indices

            ready[name] = jax.jit(jax.vmap(call)) if stack else call
            ready["x"] = x
            jax.block_until_ready(ready[name](x))
        start = time.perf_counter()
        jax.block_until_ready(ready[name](ready["x"]))
        print(time.perf_counter() - start, flush=True)


class Version:
    """A Python that has edjax, waiting for jobs."""

    def __init__(self, python: str) -> None:
        apart = {**os.environ, "PYTHONSAFEPATH": "1"}  # not the edjax of the directory this runs in
        where = "import edjax; print(edjax.__file__)"
        found = subprocess.run([python, "-c", where], capture_output=True, text=True, check=True, env=apart).stdout
        self.at = Path(found.strip()).parent
        git = ["git", "-C", str(self.at), "rev-parse", "--short", "HEAD"]
        self.commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
        self.process = subprocess.Popen(
            [python, str(Path(__file__)), "--serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=apart,
        )

    def seconds(self, job: str) -> float:
        assert self.process.stdin is not None and self.process.stdout is not None
        print(job, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise click.ClickException(f"{job}: the version at {self.at} has ended; its error is above")
        return float(answer)


@click.command()
@click.argument("old")
@click.argument("new")
@click.option("--jobs", default=",".join(JOBS), show_default=True)
@click.option("--repeats", default=7, show_default=True)
def main(old: str, new: str, jobs: str, repeats: int) -> None:
    """Time the version of each Python and print new / old."""
    from benchmarks.harness import runner

    machine = runner.machine()
    sides = [Version(old), Version(new)]
    for job in jobs.split(","):
        for side in sides:
            side.seconds(job)
        runs = [[side.seconds(job) for side in sides] for _ in range(repeats)]
        before, after = zip(*runs, strict=True)
        row = {
            "job": job,
            "old_s": min(before),
            "new_s": min(after),
            "ratio_least": min(after) / min(before),
            "ratio_median": statistics.median(after) / statistics.median(before),
            "repeats": repeats,
        }
        click.echo(
            f"{job:30} {sides[0].commit} {row['old_s']:.3f} s  {sides[1].commit} {row['new_s']:.3f} s"
            f"  new / old {row['ratio_least']:.3f} (medians {row['ratio_median']:.3f})"
        )
        runner.write(
            "two_versions",
            [row],
            merge=True,
            machine=machine,
            old=sides[0].commit,
            new=sides[1].commit,
            command="python -m benchmarks.selectors.two_versions OLD/bin/python NEW/bin/python",
        )


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["--serve"] else main()
