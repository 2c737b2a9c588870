"""Whether submodlib, given the same similarities, says the gains that FLQMI, FLMI and FLCG say here.

    python -m benchmarks.selectors.gains             # seconds; into benchmarks/results/gains.json
    python -m benchmarks.selectors.gains --check     # exit 1 where they differ; writes nothing

On 20 random problems of each function, with cosines that are cut at 0, as float32 here and as float64 there:

- picked here, weighed there: what submodlib says each of our picks adds to those before it, beside our gain;
- picked there, weighed here: submodlib's greedy goes through a set without order, so that of equal gains any may win.
  Its picks are replayed by our definition in float64: each must be worth what submodlib says, and no other more.

Differences are shares of the problem's largest gain.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any, NamedTuple

import click
import numpy as np

from benchmarks.harness import runner
from benchmarks.selectors import peers
from edjax.kernels import FLCG, FLMI, FLQMI, Ground, Method, select
from edjax.kernels.reference import greedy

PROBLEMS, WITHIN = 20, 1e-5
SHAPES = ((60, 4, 3), (90, 12, 8), (75, 7, 5))


class Case(NamedTuple):
    """method: with its weight. theirs: submodlib's function of similarities among rows (n, n), and to others (n, m)."""

    method: Method
    theirs: Callable[[Any, np.ndarray, np.ndarray], Any]


def _flqmi(eta: float) -> Case:
    def theirs(package: Any, own: np.ndarray, to: np.ndarray) -> Any:
        made = package.FacilityLocationVariantMutualInformationFunction
        return made(n=len(own), num_queries=to.shape[1], query_sijs=to, queryDiversityEta=eta)

    return Case(FLQMI(eta=eta), theirs)


def _flmi(eta: float) -> Case:
    def theirs(package: Any, own: np.ndarray, to: np.ndarray) -> Any:
        made = package.FacilityLocationMutualInformationFunction
        return made(n=len(own), num_queries=to.shape[1], data_sijs=own, query_sijs=to, magnificationEta=eta)

    return Case(FLMI(eta=eta), theirs)


def _flcg(nu: float) -> Case:
    def theirs(package: Any, own: np.ndarray, to: np.ndarray) -> Any:
        made = package.FacilityLocationConditionalGainFunction
        return made(n=len(own), num_privates=to.shape[1], data_sijs=own, private_sijs=to, privacyHardness=nu)

    return Case(FLCG(nu=nu), theirs)


CASES: dict[str, Case] = {
    "flqmi, eta 0.1": _flqmi(0.1),
    "flqmi, eta 1": _flqmi(1.0),
    "flmi, eta 0.5": _flmi(0.5),
    "flmi, eta 1": _flmi(1.0),
    "flcg, nu 0.5": _flcg(0.5),
    "flcg, nu 1": _flcg(1.0),
}


def problem(seed: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Similarities among n rows and to m others, (n, n) and (n, m) float64 of float32 numbers; a budget."""
    rng = np.random.default_rng([seed, 11])
    n, m, d = SHAPES[seed % len(SHAPES)]
    rows = rng.normal(size=(n + m, d)) + rng.normal(size=d)
    if seed % 4 == 3:  # rows that are equal, so that gains are
        rows[1:n:3] = rows[0 : n - 1 : 3]
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    own, to = (np.maximum(unit[:n] @ others.T, 0).astype(np.float32) for others in (unit[:n], unit[n:]))
    return own.astype(np.float64), to.astype(np.float64), n // 3


def compared(case: Case, package: Any, seed: int) -> dict[str, Any]:
    own, to, budget = problem(seed)
    columns = {} if isinstance(case.method, FLQMI) else {"similarity": own.astype(np.float32)}
    there = Ground(columns or {"row": np.arange(len(own))}, target={"similarity": to.T.astype(np.float32)})
    ours = select(case.method, there, budget)
    mine, gains = [int(j) for j in ours.indices], np.asarray(ours.gains, np.float64)
    function = case.theirs(package, own, to)
    weighed = np.array([function.marginalGain(set(mine[:t]), j) for t, j in enumerate(mine)])
    found = function.maximize(budget=budget, optimizer="NaiveGreedy", show_progress=False)
    theirs, said = [int(j) for j, _ in found], np.array([gain for _, gain in found])
    replayed = greedy(case.method, there, len(theirs), follow=theirs)
    most = max(float(gains.max()), 1e-30)
    return {
        "weighed": float(np.abs(weighed - gains).max()) / most,
        "said": float(np.abs(said - replayed.gains).max()) / most,
        "short": float((replayed.best - replayed.gains).max()) / most,
        "picks": budget,
        "same_place": sum(a == b for a, b in zip(mine, theirs, strict=True)),
    }


def row_of(name: str, package: Any, problems: int = PROBLEMS) -> dict[str, Any]:
    """The largest differences over all problems, and how many picks stand at the same place."""
    each = [compared(CASES[name], package, seed) for seed in range(problems)]
    worst = {key: max(one[key] for one in each) for key in ("weighed", "said", "short")}
    counts = {key: sum(one[key] for one in each) for key in ("picks", "same_place")}
    return {"job": name, "problems": problems, **worst, **counts, "agree": max(worst.values()) <= WITHIN}


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; exit 1 where gains differ.")
@click.option("--name", default="gains", show_default=True, help="Of the results file.")
def main(check: bool, name: str) -> None:
    """Compare, and write benchmarks/results/NAME.json."""
    on = runner.machine()
    try:
        import submodlib
    except ImportError as e:
        raise click.ClickException(f'submodlib is not here ({peers.reason(e)}): pip install -e ".[bench]"') from e
    rows = []
    for each in CASES:
        rows.append(row_of(each, submodlib))
        said = ", ".join(f"{key} {rows[-1][key]:.1e}" for key in ("weighed", "said", "short"))
        same = f"{rows[-1]['same_place']} of {rows[-1]['picks']} picks in the same place"
        click.echo(f"{each}: {said}; {same}: {'agree' if rows[-1]['agree'] else 'DIFFER'}")
    if not check:
        packages = {"submodlib-py": version("submodlib-py")}
        click.echo(runner.write(name, rows, machine=on, within=WITHIN, packages=packages))
    raise SystemExit(not all(row["agree"] for row in rows))


if __name__ == "__main__":
    main()
