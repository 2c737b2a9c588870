"""The arithmetic of savings on cases whose answer is known, and the sentence that is made of it."""

import math

import numpy as np
import pytest

from edjax.analysis import Cell, analyse, labels_needed, verdict

NEEDED = {
    "an exact hit": ([0, 10, 20], [0, 1, 2], 1, 10),
    "half-way": ([0, 10, 20], [0, 1, 2], 1.5, 15),
    "a quarter of the first step": ([0, 20], [0, 4], 1, 5),
    "at the largest": ([0, 10, 20], [0, 1, 2], 2, 20),
    "never": ([0, 10, 20], [0, 1, 2], 2.0001, None),
    "at base already": ([0, 10, 20], [3, 1, 2], 3, 0),
    "beyond base": ([0, 10, 20], [3, 1, 2], 2, 0),
    "a dip is passed over": ([0, 10, 20, 30], [0, 2, 1, 4], 3, 25),
    "the first of two crossings": ([0, 10, 20, 30], [0, 2, 1, 2], 1, 5),
    "a plateau is reached at its start": ([0, 10, 20], [0, 1, 1], 1, 10),
    "below zero, as a negated loss": ([0, 10, 20], [-4, -3, -1], -2, 15),
}


@pytest.mark.parametrize("case", NEEDED)
def test_labels_needed(case):
    budgets, quality, target, answer = NEEDED[case]
    assert labels_needed(budgets, quality, target) == answer


ROWS = 200


def loss_rows(mean, shift_of=0, noise=0.3):
    """A loss a row around `mean`; the same rows are hard for every model, as they are in life."""
    shared = np.random.Generator(np.random.PCG64(1)).normal(size=ROWS)
    own = np.random.Generator(np.random.PCG64(100 + shift_of)).normal(size=ROWS)
    return mean + 2 * (shared - shared.mean()) + noise * (own - own.mean())


def cells(curves, seeds=(0,), rows=loss_rows):
    """Cells of {strategy: {budget: mean}}."""
    made = []
    for s, curve in curves.items():
        for b, mean in curve.items():
            for seed in seeds:
                made.append(Cell(s, b, seed, rows(mean, shift_of=len(made))))
    return made


HALF = {"random": {50: 3.0, 100: 2.5}, "k_center": {50: 2.5, 100: 2.0}}  # base 3.5: half of the labels do


def test_a_planted_saving_is_found():
    got = analyse(cells(HALF), loss_rows(3.5, 99), higher_is_better=False)
    (saving,) = got["savings"]
    assert saving["strategy"] == "k_center"
    assert saving["budget_needed"] == pytest.approx(50, abs=0.01)
    assert saving["share_saved"] == pytest.approx(0.5, abs=1e-4)
    assert 0.35 < saving["low"] < 0.5 < saving["high"] < 0.65


def test_for_a_metric_where_more_is_better_the_sign_turns():
    curves = {s: {b: -m for b, m in c.items()} for s, c in HALF.items()}
    got = analyse(cells(curves), loss_rows(-3.5, 99), higher_is_better=True)
    assert got["savings"][0]["share_saved"] == pytest.approx(0.5, abs=1e-4)
    wrong = analyse(cells(HALF), loss_rows(3.5, 99), higher_is_better=True)
    assert wrong["savings"][0]["share_saved"] is None, "losses read as scores: nothing was gained"


def test_a_constant_shift_is_seen_through_noise_that_both_share():
    """Rows differ by 2 nats, the strategies by 0.2: only a paired comparison sees it."""
    got = analyse(
        cells({"random": {100: 2.5}, "k_center": {100: 2.3}}, rows=lambda m, **k: loss_rows(m, noise=0.1, **k)),
        loss_rows(3.5, 99),
        higher_is_better=False,
    )
    (d,) = got["differences"]
    assert (d["strategy"], d["budget"]) == ("k_center", 100)
    assert d["mean"] == pytest.approx(-0.2, abs=1e-6)
    assert -0.25 < d["low"] < -0.2 < d["high"] < -0.15
    point = got["curves"]["random"][0]
    assert point["high"] - point["low"] > 0.4, "unpaired, the interval is wider than the shift"


def test_exactly_the_same_rows_differ_by_exactly_nothing():
    values = loss_rows(2.5)
    got = analyse(
        [Cell("random", 10, 0, values), Cell("d_optimal", 10, 0, values)], loss_rows(3, 9), higher_is_better=False
    )
    assert got["differences"] == [{"strategy": "d_optimal", "budget": 10, "mean": 0, "low": 0, "high": 0}]
    assert got["savings"][0]["share_saved"] == pytest.approx(0)


def test_the_interval_is_that_of_the_mean():
    values = loss_rows(2.5)
    got = analyse([Cell("random", 10, 0, values)], values, higher_is_better=False)
    point = got["curves"]["random"][0]
    half = 1.96 * values.std() / math.sqrt(ROWS)
    assert point["mean"] == pytest.approx(values.mean())
    assert point["low"] == pytest.approx(values.mean() - half, rel=0.03)
    assert point["high"] == pytest.approx(values.mean() + half, rel=0.03)


def test_seeds_are_averaged_before_rows_are_drawn():
    got = analyse(cells(HALF, seeds=(0, 1, 2)), loss_rows(3.5, 99), higher_is_better=False)
    assert {p["n"] for c in got["curves"].values() for p in c} == {3}
    assert got["savings"][0]["share_saved"] == pytest.approx(0.5, abs=1e-4)
    twice = analyse(cells(HALF) * 2, loss_rows(3.5, 99), higher_is_better=False)
    once = analyse(cells(HALF), loss_rows(3.5, 99), higher_is_better=False)
    for s, points in once["curves"].items():
        for a, b in zip(points, twice["curves"][s], strict=True):
            assert (a["mean"], a["low"], a["high"]) == pytest.approx((b["mean"], b["low"], b["high"]))


def test_it_is_the_same_every_time():
    a, b = (analyse(cells(HALF), loss_rows(3.5, 99), higher_is_better=False) for _ in range(2))
    assert a == b
    assert a != analyse(cells(HALF), loss_rows(3.5, 99), higher_is_better=False, seed=1)


def test_rows_without_a_value_are_left_out_everywhere():
    full = cells(HALF)
    base = loss_rows(3.5, 99)
    some = [c._replace(values=c.values.copy()) for c in full]
    some[0].values[3] = np.nan
    some[2].values[7] = np.inf
    half = base.copy()
    half[11] = np.nan
    keep = np.setdiff1d(np.arange(ROWS), [3, 7, 11])
    got = analyse(some, half, higher_is_better=False)
    expected = analyse([c._replace(values=c.values[keep]) for c in full], base[keep], higher_is_better=False)
    assert got == expected


def test_no_row_with_a_value_everywhere_gives_nothing():
    nothing = np.full(ROWS, np.nan)
    got = analyse([Cell("random", 10, 0, nothing)], loss_rows(3), higher_is_better=False)
    assert got == {"curves": {}, "differences": [], "savings": []}


def test_a_strategy_that_never_gets_there_has_no_saving():
    curves = {"random": {50: 3.0, 100: 2.0}, "mean_nll": {50: 3.2, 100: 3.0}}
    (saving,) = analyse(cells(curves), loss_rows(3.5, 99), higher_is_better=False)["savings"]
    assert saving["budget_needed"] is saving["share_saved"] is saving["low"] is None
    assert saving["note"] == "did not reach random's score at 100 labels within its budgets"


def test_where_random_labels_did_harm_there_is_nothing_to_save():
    """The model before finetuning has what 100 random labels reach: 0 labels are needed, and that is no merit."""
    curves = {"random": {50: 3.8, 100: 3.9}, "k_center": {50: 3.7, 100: 3.6}}
    got = analyse(cells(curves), loss_rows(3.5, 99), higher_is_better=False)
    assert got["savings"][0]["share_saved"] is None and "nothing to save" in got["savings"][0]["note"]
    said = verdict(got["savings"], got["differences"], got["curves"], "response_loss", False)
    assert said.startswith("Finetuning on 100 random labels did not improve response loss") and "%" not in said


# The sentence


def say(curves, base=3.5, rows=loss_rows, **kw):
    got = analyse(cells(curves, rows=rows), loss_rows(base, 99), higher_is_better=False, **kw)
    return verdict(got["savings"], got["differences"], got["curves"], "response_loss", False)


def test_a_clear_saving_is_said_with_its_interval():
    said = say(HALF)
    assert said.startswith(
        "k_center reached random's response loss at 100 labels with about 50 labels: 50% saved (95 %"
    )
    assert "includes no saving" not in said and "best of" not in said


def test_the_best_of_several_is_called_that():
    said = say(HALF | {"d_optimal": {50: 2.9, 100: 2.4}})
    assert said.startswith("k_center reached") and said.endswith(", the best of 2 strategies).")


def test_no_saving_is_said_plainly_with_the_nearest():
    said = say({"random": {50: 3.0, 100: 2.0}, "mean_nll": {50: 3.2, 100: 3.0}, "k_center": {50: 3.2, 100: 2.5}})
    assert said.startswith(
        "No strategy reached random's response loss at 100 labels with fewer labels; nearest came k_cen"
    )
    assert "+0.500 from it" in said and said.endswith("choosing did not save labels.")


def test_an_interval_that_includes_nothing_is_said_so():
    said = say(
        {"random": {50: 3.0, 100: 2.5}, "k_center": {50: 2.99, 100: 2.47}},
        rows=lambda m, **k: loss_rows(m, noise=2, **k),
    )
    assert said.startswith("k_center reached") and "though the 95 % interval includes no saving at all" in said


def test_random_alone_says_nothing():
    assert say({"random": {50: 3.0}}) == "Only random was run, so nothing can be said about saving labels."


def test_without_random_there_is_nothing_to_compare_with():
    assert say({"k_center": {50: 3.0}}) == "No cell of random was run, so there is nothing to compare with."


def test_seeds_that_differ_widen_the_interval():
    """Two seeds, 1 apart: a draw has the one, the other or both, so that their spread is in the interval."""
    same = [Cell("random", 10, seed, loss_rows(3.0, 5)) for seed in (0, 1)]
    apart = [Cell("random", 10, seed, loss_rows(2.5 + seed, 5)) for seed in (0, 1)]
    (a,), (b,) = (analyse(c, loss_rows(4.0, 9), higher_is_better=False)["curves"]["random"] for c in (same, apart))
    assert a["mean"] == pytest.approx(b["mean"])
    assert b["high"] - b["low"] > 1.0 > a["high"] - a["low"]


def test_savings_are_counted_in_response_tokens_too():
    """Half of the labels do, but they are twice as long: no token is saved."""
    made = [
        c._replace(response_tokens=c.budget * (2 if c.strategy == "k_center" else 1)) for c in cells(HALF, seeds=(0, 1))
    ]
    got = analyse(made, loss_rows(3.5, 99), higher_is_better=False)
    assert got["savings"][0]["share_saved"] == pytest.approx(0.5, abs=1e-4)
    assert got["token_savings"][0]["share_saved"] == pytest.approx(0.0, abs=1e-4)
    assert got["token_savings"][0]["budget_needed"] == pytest.approx(100, abs=0.02)
    unknown = [made[0]._replace(response_tokens=None), *made[1:]]
    assert "token_savings" not in analyse(unknown, loss_rows(3.5, 99), higher_is_better=False)
