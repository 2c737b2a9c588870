"""Whether two versions of edjax choose the same rows: run by the Python of each, then compared.

    OLD/bin/python benchmarks/selectors/same_picks.py old.json
    NEW/bin/python benchmarks/selectors/same_picks.py new.json --against old.json

It imports nothing of this repository but what is installed as `edjax`, and calls only what both versions have: the
selectors of `edjax.kernels` on random pools of ten shapes (ids and gains, bit for bit), and `edjax.select` with every
strategy and every kind of option (ids, gains, what is warned of).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import edjax
from edjax import Features, kernels, select

SHAPES = ((37, 2, 20, 1), (64, 16, 33, 7), (120, 24, 50, 256), (150, 8, 40, 150), (90, 5, 30, 7), (80, 20, 25, 80))
SELECTORS = ("k_center", "d_optimal", "facility_location")
UNCERTAINTIES = ("mean_entropy", "max_entropy", "least_confidence", "mean_nll", "mean_margin", "min_margin")
POOLS = 3


def mixture(seed: int, n: int, d: int) -> np.ndarray:
    """Rows of eight clusters of unequal spread, (n, d) float32."""
    rng = np.random.default_rng(seed)
    centres = 2 * rng.normal(size=(8, d))
    spread = rng.uniform(0.3, 1.5, (n, 1))
    return (centres[rng.integers(0, 8, n)] + spread * rng.normal(size=(n, d))).astype(np.float32)


def of_kernels() -> Iterator[tuple[str, Any]]:
    """(problem, what was picked) by the selectors themselves."""
    for name in SELECTORS:
        chooser = getattr(kernels, name)
        for seed in range(60):
            n, d, budget, block = SHAPES[seed % len(SHAPES)]
            rng = np.random.default_rng([seed, 7])
            options: dict[str, Any] = {}
            if seed % 4 == 1:
                options["labelled"] = rng.choice(n, 5, replace=False).tolist()
            if seed % 4 == 2:
                options["weights"] = rng.uniform(0.2, 2.0, n).astype(np.float32)
            yield f"{name} {seed}", picked(chooser(mixture(seed, n, d), budget, block=block, **options))
        yield f"{name} large", picked(chooser(mixture(3, 6000, 16), 200))
    x = mixture(3, 2000, 16)
    yield "tiles", picked(kernels.facility_location(x, 50, form="tiled"))
    yield "cosine", picked(kernels.facility_location(x, 50, similarity="cosine"))
    yield (
        "covered",
        picked(kernels.facility_location(x[:800], 50, represented=x[800:], quality=np.linspace(0.5, 1, 800))),
    )
    yield "ridge", picked(kernels.d_optimal(x, 50, ridge=2.5, centre=True))
    yield "streamed k_center", picked(kernels.k_center_streamed(x, 50))
    yield "streamed d_optimal", picked(kernels.d_optimal_streamed(x, 50))


def picked(got: Any) -> list[Any]:
    return [got.indices.tolist(), np.asarray(got.gains).tobytes().hex()]


def of_verbs() -> Iterator[tuple[str, Any]]:
    """(problem, what was chosen) by `edjax.select`."""
    for seed in range(POOLS):
        found, labelled = pool(seed)
        asked: list[dict[str, Any]] = [
            {},
            {"normalise": "l2"},
            {"labelled": labelled},
            {"weight_by": "mean_entropy", "labelled": labelled},
            {"group_by": "task", "quotas": "balanced"},
            {"group_by": "cluster:4", "labelled": labelled},
            {"group_by": "task", "weight_by": "mean_margin", "keep_small": 10, "allow_fewer": True},
            {"prefilter": "mean_nll"},
            {"budget_tokens": 300},
            {"near_duplicates": 0.9},
            {"seed": 3},
            {"bandwidth": 0.6},
        ]
        for strategy in ("random", *UNCERTAINTIES, *SELECTORS, "mine"):
            for options in asked:
                got = select(found, strategy, None if "budget_tokens" in options else 30, **options)
                gains = None if got.gains is None else np.asarray(got.gains, np.float64).tolist()
                names = ", ".join(f"{k}={v if k != 'labelled' else '...'}" for k, v in options.items())
                yield f"select {seed} {strategy} {names}", [list(got.ids), gains, got.warning]


def pool(seed: int) -> tuple[Features, tuple[str, ...]]:
    """Features with a common offset, copies and scores, and the ids of some rows."""
    rng = np.random.default_rng(seed)
    n, d = int(rng.integers(60, 300)), int(rng.integers(4, 40))
    x = (rng.normal(size=(n, d)) * rng.uniform(0.3, 3, d) + 4).astype(np.float32)
    x[5:9] = x[1]
    scores = {s: rng.uniform(0, 2, n).astype(np.float32) for s in UNCERTAINTIES}
    scores["mine"] = np.round(rng.normal(size=n), 1).astype(np.float32)
    tasks = np.array([f"t{v}" for v in rng.integers(0, 5, n)], object)
    facts = {"task": tasks, "n_prompt_tokens": rng.integers(3, 40, n)}
    ids = tuple(f"r{i}" for i in range(n))
    return Features(ids, x, scores, facts, "digest"), tuple(ids[i] for i in rng.choice(n, 6, replace=False))


def main() -> None:
    parser = argparse.ArgumentParser(description="Write what this version chooses; compare it with another's.")
    parser.add_argument("out", type=Path, nargs="?", default=Path("picks.json"))
    parser.add_argument("--against", type=Path)
    asked = parser.parse_args()
    made = dict([*of_kernels(), *of_verbs()])
    asked.out.write_text(json.dumps(made))
    print(f"{len(made)} choices by {Path(edjax.__file__).parent} in {asked.out}")
    if asked.against is not None:
        other = json.loads(asked.against.read_text())
        differ = [
            name for name in made.keys() | other.keys() if json.loads(json.dumps(made.get(name))) != other.get(name)
        ]
        print(
            f"{len(made) - len(differ)} of {len(made)} are the same" + "".join(f"\n  {name}" for name in sorted(differ))
        )
        raise SystemExit(bool(differ))


if __name__ == "__main__":
    main()
