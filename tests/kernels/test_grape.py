"""GRAPE: the worked example, chance problems by definition, and responses that must not win."""

from dataclasses import replace

import numpy as np
import pytest

from edjax.kernels import METHODS, Ground, select
from edjax.kernels.contract import check_method

N = 61
GRAPE = METHODS["grape"]
EXAMPLE = Ground(
    {
        "prompt_id": np.array([0, 0, 0, 1, 1, 2]),
        "response_nll": np.array([12.0, 9, 20, 4, 4, 7]),
        "n_response_tokens": np.array([6, 3, 10, 2, 2, 7]),
    }
)


def problem(seed, **more):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, 9, N)
    columns = {"prompt_id": rng.integers(0, 25, N), "n_response_tokens": tokens}
    return Ground(columns | {"response_nll": (tokens * rng.uniform(0.2, 3, N)).astype(np.float32)}, **more)


def test_the_worked_example():
    """SYSTEMS 1.1: scores -2, -3, -2, -2, -2, -1."""
    got = select(GRAPE, EXAMPLE, 3)
    assert sorted(got.indices.tolist()) == [0, 3, 5]
    assert got.indices.tolist() == [5, 0, 3] and got.gains.tolist() == [-1, -2, -2]
    assert sorted(select(replace(GRAPE, normalise="sum"), EXAMPLE, 3).indices.tolist()) == [1, 3, 5]


def test_keep_is_the_first_r_of_each_prompt():
    picks = select(replace(GRAPE, keep=2), EXAMPLE, 5).indices.tolist()
    assert sorted(picks) == [0, 2, 3, 4, 5]
    assert select(GRAPE, EXAMPLE, 5).indices.tolist() == [5, 0, 3, -1, -1], "a prompt has one answer"


def test_a_given_response_is_its_prompt_s():
    got = select(GRAPE, EXAMPLE._replace(given=np.array([1])), 2)
    assert got.indices.tolist() == [5, 3]
    assert select(replace(GRAPE, keep=2), EXAMPLE._replace(given=np.array([1])), 4).indices.tolist() == [5, 0, 3, 4]


@pytest.mark.parametrize(
    ("knobs", "budget"), [({}, 12), ({"keep": 2, "normalise": "sum"}, 20), ({"min_tokens": 3, "max_tokens": 6}, 10)]
)
def test_it_keeps_the_laws(knobs, budget):
    check_method(replace(GRAPE, **knobs), problem(0, given=np.array([3, 50]), valid=np.arange(N) % 5 > 0), budget)


def test_it_is_the_argmax_of_each_prompt():
    """50 chance problems against a loop over prompts, budgets as large as there are prompts with a response."""
    for seed in range(50):
        there = problem(seed)
        nll, tokens, prompt = (np.asarray(there.columns[n], np.float64) for n in GRAPE.needs)
        best = []
        for p in np.unique(prompt):
            own = [i for i in range(N) if prompt[i] == p and tokens[i] > 0]
            best += [min(own, key=lambda i: (nll[i] / tokens[i], i))] if own else []
        picks = np.asarray(select(GRAPE, there, 25).indices)
        assert sorted(picks[picks >= 0].tolist()) == sorted(best), seed


def test_responses_without_a_token_never_win():
    columns = {**EXAMPLE.columns, "response_nll": np.array([12.0, 0, 20, 4, 4, 7])}
    columns["n_response_tokens"] = np.array([6, 0, 10, 2, 2, 7])
    assert sorted(select(GRAPE, Ground(columns), 3).indices.tolist()) == [0, 3, 5]
    long = replace(GRAPE, min_tokens=7)
    assert select(long, EXAMPLE, 4).indices.tolist() == [5, 2, -1, -1]


def test_what_makes_no_sense_is_named():
    for knobs, said in [
        ({"normalise": "median"}, "normalise must be 'mean' or 'sum'"),
        ({"keep": 0}, "keep must be at least 1, got 0"),
        ({"min_tokens": 0}, "min_tokens must be at least 1"),
        ({"by": "who"}, "grape needs the column 'who'"),
    ]:
        with pytest.raises(ValueError, match=said):
            select(replace(GRAPE, **knobs), EXAMPLE, 2)
