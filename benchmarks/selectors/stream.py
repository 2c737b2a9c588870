"""One selection by the command line from embeddings that do not fit: wall time and peak memory of its process.

    python -m benchmarks.selectors.stream --dir DIR             # 1,000,000 x 768 in Parquet (3 GB in DIR)
    python -m benchmarks.selectors.stream --dir DIR --rows 50000 --memory 100MB --name stream-small

The features are a seeded Gaussian mixture in shards, the pool as many one-line prompts. The command is run as a child
process; its peak is the kernel's VmHWM of it, read until it ends. `estimate_bytes` is what --dry-run said before.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.harness import runner

SEED, CLUSTERS, SHARD = 0, 64, 50_000
RUN = [sys.executable, "-c", "from edjax.cli import main; main()"]


def generate(folder: Path, rows: int, features: int) -> tuple[Path, Path]:
    """(directory of features as `edjax score` leaves them, pool) of a mixture of `CLUSTERS` Gaussians."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from edjax.keep.store import atomic_write, writing

    rng = np.random.default_rng(SEED)
    centres = 2 * rng.standard_normal((CLUSTERS, features), np.float32)
    pool = folder / "pool.jsonl"
    with open(pool, "w") as f:
        f.writelines(f'{{"id":"r{i:07d}","prompt":"Question number {i}?"}}\n' for i in range(rows))
    with writing(folder / "features", kind="features", config={}, inputs={}) as artifact:
        for start in range(0, rows, SHARD):
            n = min(SHARD, rows - start)
            spread = rng.uniform(0.3, 1.5, (n, 1)).astype(np.float32)
            x = centres[rng.integers(0, CLUSTERS, n)] + spread * rng.standard_normal((n, features), np.float32)
            table = pa.table(
                {
                    "id": [f"r{i:07d}" for i in range(start, start + n)],
                    "row": np.arange(start, start + n),
                    "embedding": pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), features),
                }
            )
            with atomic_write(folder / "features" / f"shard-{start // SHARD:05d}.parquet") as f:
                pq.write_table(table, f, compression="none", use_dictionary=["id"])
        artifact.finish(pool=str(pool))
    return folder / "features", pool


def watched(command: list[str]) -> tuple[str, float, int]:
    """(stdout, wall seconds, peak resident bytes) of a child process.

    Raises:
        RuntimeError: it failed.
    """
    start, peak = time.perf_counter(), 0
    child = subprocess.Popen(command, cwd=runner.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    status = Path(f"/proc/{child.pid}/status")
    while child.poll() is None:
        if found := re.search(r"VmHWM:\s+(\d+) kB", status.read_text()):
            peak = max(peak, int(found[1]) * 1024)
        time.sleep(0.02)
    out, err = child.communicate()
    if child.returncode:
        raise RuntimeError(f"{' '.join(command[:4])} ... ended with {child.returncode}:\n{err[-2000:]}")
    return out, time.perf_counter() - start, peak


def measure(folder: Path, rows: int, features: int, budget: int, strategy: str, memory: str) -> dict[str, Any]:
    """Generate, foretell, select: one row."""
    start = time.perf_counter()
    where, pool = generate(folder, rows, features)
    made_s = time.perf_counter() - start
    options = ["select", str(where), "--strategy", strategy, "--budget", str(budget), "--memory", memory, "--json"]
    foretold = json.loads(watched([*RUN, *options, "--pool", str(pool), "--dry-run"])[0])
    out, wall_s, peak = watched([*RUN, *options, "--out", str(folder / "out")])
    got = json.loads(out)
    estimate = foretold["bytes"][0]
    return {
        "job": f"select {strategy} {rows:,} x {features}, {budget:,} from Parquet",
        "strategy": strategy,
        "n": rows,
        "d": features,
        "budget": budget,
        "memory": memory,
        "generate_s": made_s,
        "wall_s": wall_s,
        "select_s": got["seconds"],
        "rows": got["rows"],
        "peak_rss_bytes": peak,
        "estimate_bytes": estimate,
        "estimate_off": estimate / peak - 1,
        "embeddings_bytes": 4 * rows * features,
        "forecast": foretold["forecast"][0],
    }


@click.command()
@click.option("--dir", "folder", type=click.Path(path_type=Path), required=True, help="Scratch directory.")
@click.option("--rows", default=1_000_000, show_default=True)
@click.option("--features", default=768, show_default=True)
@click.option("--budget", default=1000, show_default=True)
@click.option("--strategy", default="k_center", show_default=True)
@click.option("--memory", default="4GiB", show_default=True, help="As for `edjax select`.")
@click.option("--name", default="stream", show_default=True, help="Of the results file.")
def main(folder: Path, rows: int, features: int, budget: int, strategy: str, memory: str, name: str) -> None:
    """Measure and write benchmarks/results/NAME.json."""
    on, scratch = runner.machine(), folder / "edjax-stream"
    scratch.mkdir(parents=True)
    try:
        row = measure(scratch, rows, features, budget, strategy, memory)
    finally:
        shutil.rmtree(scratch)
    click.echo(
        f"{row['job']}: {row['wall_s']:.0f} s, peak {row['peak_rss_bytes'] / 1e9:.2f} GB, "
        f"estimate {row['estimate_bytes'] / 1e9:.2f} GB ({row['estimate_off']:+.0%})"
    )
    click.echo(runner.write(name, [row], machine=on, seed=SEED))


if __name__ == "__main__":
    main()
