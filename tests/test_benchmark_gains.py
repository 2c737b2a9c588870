"""The comparison with submodlib: held to the definitions by a stand-in, and to the package where it is installed."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))  # benchmarks/ is run from a checkout, not installed
from benchmarks.harness import runner
from benchmarks.selectors import gains


class Function:
    """A set function of lists, and greedy on it, in the package's manner: of equal gains the last wins."""

    def __init__(self, n, value):
        self.n, self.value = n, value

    def marginalGain(self, chosen, j):
        return self.value([*chosen, j]) - self.value(list(chosen))

    def maximize(self, budget, optimizer, show_progress):
        chosen = []
        for _ in range(budget):
            left = [j for j in range(self.n) if j not in [i for i, _ in chosen]]
            each = [self.marginalGain([i for i, _ in chosen], j) for j in left]
            best = len(each) - 1 - int(np.argmax(each[::-1]))
            chosen.append((left[best], each[best]))
        return chosen


def flqmi(n, num_queries, query_sijs, queryDiversityEta):
    def value(a):
        s = query_sijs[a]
        return s.max(0, initial=0).sum() + queryDiversityEta * s.max(1).sum() if a else 0.0

    return Function(n, value)


def flmi(n, num_queries, data_sijs, query_sijs, magnificationEta):
    cap = magnificationEta * query_sijs.max(1)
    return Function(n, lambda a: float(np.minimum(data_sijs[:, a].max(1, initial=0), cap).sum()))


def flcg(n, num_privates, data_sijs, private_sijs, privacyHardness):
    held = privacyHardness * private_sijs.max(1)
    return Function(n, lambda a: float(np.maximum(data_sijs[:, a].max(1, initial=0) - held, 0).sum()))


PACKAGE = SimpleNamespace(
    FacilityLocationVariantMutualInformationFunction=flqmi,
    FacilityLocationMutualInformationFunction=flmi,
    FacilityLocationConditionalGainFunction=flcg,
)


@pytest.mark.parametrize("name", ["flqmi, eta 0.1", "flmi, eta 1", "flcg, nu 0.5"])
def test_gains_are_those_of_the_definitions(name, monkeypatch):
    monkeypatch.setattr(gains, "SHAPES", ((24, 4, 3),))
    row = gains.row_of(name, PACKAGE, problems=4)
    assert row["agree"] and row["picks"] == 4 * 8 > row["same_place"] > 0


def test_other_gains_do_not_agree(monkeypatch):
    monkeypatch.setattr(gains, "SHAPES", ((24, 4, 3),))
    case = gains.CASES["flqmi, eta 1"]
    monkeypatch.setitem(gains.CASES, "flqmi, eta 1", case._replace(method=gains.FLQMI(eta=1.001)))
    row = gains.row_of("flqmi, eta 1", PACKAGE, problems=1)
    assert not row["agree"] and row["weighed"] > gains.WITHIN < row["said"]


@pytest.mark.long  # its package is one of `bench`, which the ordinary suite does without
@pytest.mark.parametrize("name", ["flqmi, eta 0.1", "flmi, eta 1", "flcg, nu 0.5"])
def test_submodlib_s_are_the_same_where_it_is_installed(name, monkeypatch):
    package = pytest.importorskip("submodlib")
    monkeypatch.setattr(gains, "SHAPES", ((24, 4, 3),))
    assert gains.row_of(name, package, problems=4)["agree"]


def test_what_is_committed_agrees():
    result = json.loads((runner.RESULTS / "gains.json").read_text())
    assert {row["job"] for row in result["rows"]} == set(gains.CASES)
    assert all(row["agree"] and row["problems"] == gains.PROBLEMS for row in result["rows"])
