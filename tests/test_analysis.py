"""Curves, differences and savings on cases whose answer is known, and the sentence that is made of them."""

import numpy as np
import pytest
from scipy import stats

from edjax.study.analysis import Cell, Score, analyse, compare, restated, verdict

ROWS = 200
GRID = {16: -3.096, 32: -2.551, 64: -2.121, 128: -1.899}


def loss_rows(mean, seed=0, noise=0.3):
    """A loss a row around `mean`; the same rows are hard for every model, as they are in life."""
    shared = np.random.Generator(np.random.PCG64(1)).normal(size=ROWS)
    own = np.random.Generator(np.random.PCG64(100 + seed)).normal(size=ROWS)
    return mean + 2 * (shared - shared.mean()) + noise * (own - own.mean())


def cells(curves, seeds=3, scatter=0.0):
    """Cells of {strategy: {budget: mean}}; the seeds of one budget lie `scatter` apart, around the mean."""
    made = []
    for s, curve in curves.items():
        for b, mean in curve.items():
            for seed in range(seeds):
                off = scatter * (seed - (seeds - 1) / 2)
                made.append(Cell(s, b, seed, loss_rows(mean + off, seed=len(made))))
    return made


def found(curves, seeds=3, base=3.5, scatter=0.02, **kw):
    return analyse(cells(curves, seeds, scatter), loss_rows(base, 99), higher_is_better=False, **kw)


HALF = {  # the curve of random, one doubling to the left
    "random": {25: 3.2, 50: 3.0, 100: 2.5},
    "k_center": {25: 3.0, 50: 2.5, 100: 2.0},
}


# Savings


def test_a_planted_saving_is_found():
    (saving,) = found(HALF)["savings"]
    assert saving["strategy"] == "k_center"
    assert saving["budget_needed"] == pytest.approx(50, abs=0.1)
    assert saving["share_saved"] == pytest.approx(0.5, abs=1e-3)
    assert 0.4 < saving["low"] < 0.5 < saving["high"] < 0.6
    assert (saving["seeds"], saving["baseline_seeds"], saving["null"]) == (3, 3, None)


def test_for_a_metric_where_more_is_better_the_sign_turns():
    curves = {s: {b: -m for b, m in c.items()} for s, c in HALF.items()}
    got = analyse(cells(curves), loss_rows(-3.5, 99), higher_is_better=True)
    assert got["savings"][0]["share_saved"] == pytest.approx(0.5, abs=1e-3)
    wrong = analyse(cells(HALF), loss_rows(3.5, 99), higher_is_better=True)
    assert wrong["savings"][0]["share_saved"] is None, "losses read as scores: nothing was gained"


def test_more_labels_than_random_are_a_negative_saving():
    curves = {"random": {25: 2.8, 50: 2.5, 100: 2.2}, "mean_nll": {25: 3.1, 50: 2.8, 100: 2.5}}
    assert found(curves)["savings"][0]["share_saved"] == pytest.approx(-1, abs=1e-2)


LOSSES = {  # of random, by labels
    "falls": (3.0, 2.6, 2.3, 2.2),
    "turns at the end": (3.0, 2.6, 2.3, 2.4),
    "turns in the middle": (3.0, 2.4, 2.6, 2.2),
    "turns at the start": (2.8, 3.0, 2.6, 2.2),
    "stands still": (3.0, 2.6, 2.6, 2.2),
}


@pytest.mark.parametrize("seeds", [1, 4])
@pytest.mark.parametrize("shape", LOSSES)
def test_a_strategy_equal_to_random_in_every_cell_saves_nothing(shape, seeds):
    curve = dict(zip((16, 32, 64, 128), LOSSES[shape], strict=True))
    scores = [
        Score(s, b, seed, m + 0.03 * seed, 10 * b)
        for s in ("random", "twin")
        for b, m in curve.items()
        for seed in range(seeds)
    ]
    got = compare(scores, 3.5, higher_is_better=False)
    for (saving,) in (got["savings"], got["token_savings"]):
        assert saving["share_saved"] == 0
        if seeds > 2:
            assert (saving["low"] is None or saving["low"] < 0) and (saving["high"] is None or saving["high"] > 0)
            assert saving["null"]["low"] <= 0 <= saving["null"]["high"]


@pytest.mark.parametrize("seeds", [1, 3, 5])
def test_where_random_gets_worse_with_labels_no_saving_is_said(seeds):
    """The losses that an earlier statistic gave "82 % saved (95 % interval 82 to 83)"."""
    curve = {16: 1.0, 32: 1.2, 64: 1.3}
    got = found({"random": curve, "twin": curve}, seeds, base=2.0)
    assert got["savings"][0]["share_saved"] is None and got["savings"][0]["reason"] == "flat"
    said = verdict(got, "response_loss", False)
    assert said.startswith("More labels of random did not improve response loss from 16 to 64") and "%" not in said


def test_where_random_labels_did_harm_there_is_nothing_to_save():
    """The model before finetuning has what 100 random labels reach: 0 labels are needed, and that is no merit."""
    curves = {"random": {50: 3.9, 100: 3.8}, "k_center": {50: 3.7, 100: 3.6}}
    got = found(curves)
    assert got["savings"][0]["share_saved"] is None and got["savings"][0]["reason"] == "base"
    assert got["savings"][0]["note"] == "100 labels of random did no better than the model before finetuning"
    said = verdict(got, "response_loss", False)
    assert said.startswith("Finetuning on 100 random labels did not improve response loss") and "%" not in said


def test_a_level_curve_within_its_noise_bounds_no_saving():
    rng = np.random.Generator(np.random.PCG64(3))
    scores = [Score(s, b, i, 2 + 0.1 * rng.normal()) for s in "ar" for b in (16, 32, 64) for i in range(5)]
    scores += [Score("r", 128, i, 1.97 + 0.1 * rng.normal()) for i in range(5)]
    (saving,) = compare(scores, 3.0, higher_is_better=False, baseline="r")["savings"]
    assert saving["share_saved"] is None and saving["reason"] in ("noise", "flat")


def test_beyond_what_random_s_budgets_measure_only_that_is_said():
    for drop, reason, word in ((-2.0, "beyond", "saves more than"), (2.0, "reach", "takes over")):
        curves = {"random": {25: 3.4, 50: 3.3, 100: 3.2}, "far": {25: 3.4 + drop, 50: 3.3 + drop, 100: 3.2 + drop}}
        (saving,) = found(curves, base=4)["savings"]
        assert saving["share_saved"] is None and saving["reason"] == reason and saving["note"].startswith(word)


def scores_of(curves, seeds=5, scatter=0.02):
    return [
        Score(s, b, seed, m + scatter * (seed - (seeds - 1) / 2))
        for s, curve in curves.items()
        for b, m in curve.items()
        for seed in range(seeds)
    ]


def test_who_saves_more_than_can_be_measured_is_named_first():
    curves = {"random": {100: 3.0, 200: 2.8}, "A": {100: 2.2, 200: 2.0}, "B": {100: 3.05, 200: 2.85}}
    got = compare(scores_of(curves), 4.0, higher_is_better=False)
    said = verdict(got, "response_loss", False)
    assert said.startswith("A saves more than 65 %: more than the budgets of random measure. No other strategy saved")
    assert "the best that was measured of 2 strategies" in said
    del curves["B"]
    said = verdict(compare(scores_of(curves), 4.0, higher_is_better=False), "response_loss", False)
    assert said == "In response loss: A saves more than 65 %: more than the budgets of random measure."


@pytest.mark.parametrize("value", [0.1, 0.15, 0.35, 0.7])
@pytest.mark.parametrize("budgets", [(16, 32, 64), (16, 32, 64, 128)])
def test_a_level_curve_is_level_whatever_its_value_rounds_to(value, budgets):
    curves = {"random": dict.fromkeys(budgets, value), "x": dict.fromkeys(budgets, value + 0.05)}
    for seeds in (1, 5):
        got = compare(scores_of(curves, seeds, 0.0), 0.05, higher_is_better=True)
        assert got["savings"][0]["reason"] == "flat" and got["savings"][0]["null"] is None


def test_a_saving_stands_on_budgets_near_those_of_random():
    random = {16: 3.1, 32: 2.5, 64: 2.1, 128: 1.9}
    got = {
        name: compare(scores_of({"random": random, "x": curve}), 4.0, higher_is_better=False)["savings"][0]
        for name, curve in {"low": {128: 1.3}, "high": {512: 1.55}, "near": {128: 1.85}}.items()
    }
    assert got["low"]["reason"] == "beyond" and got["low"]["note"].startswith("saves more than 29 %")
    assert got["high"]["reason"] == "budgets" and "too far from those of random" in got["high"]["note"]
    assert got["high"]["null"] is None
    assert 0 < got["near"]["share_saved"] < 0.29


def test_the_mean_over_rows_is_of_the_strategy_that_the_claim_is_of():
    curves = {"random": {25: 3.2, 50: 3.0, 100: 2.5}, "wide": {25: 3.0, 50: 2.5, 100: 2.0}}
    scores = scores_of(curves | {"sure": {25: 3.13, 50: 2.9, 100: 2.4}})
    noisy = [s._replace(value=s.value + 0.9 * (s.seed - 2)) if s.strategy == "wide" else s for s in scores]
    got = dict(compare(noisy, 4.0, higher_is_better=False))
    got["by_rows"] = {"savings": got["savings"]}
    said = verdict(got, "response_loss", False, group_by="task")
    assert said.startswith("sure reached") and "By the mean over rows: sure" in said


def test_one_budget_is_no_curve():
    got = found({"random": {100: 2.5}, "k_center": {100: 2.3}})
    assert got["savings"][0]["reason"] == "budgets"
    said = verdict(got, "response_loss", False)
    assert said.startswith("With 100 labels k_center is better than random (-0.200, 95 % interval")
    assert said.endswith("One budget is no curve: a saving takes two or more.")


def test_a_strategy_may_have_budgets_of_its_own_and_seeds_missing():
    curves = {"random": {25: 3.2, 50: 3.0, 100: 2.5}, "k_center": {40: 2.66}}
    (saving,) = found(curves, seeds=5)["savings"]
    assert saving["share_saved"] == pytest.approx(1 - 40 / 80, abs=0.02), "between 50 and 100 along log2"
    some = [c for c in cells(HALF, 5) if not (c.strategy == "random" and c.budget == 50 and c.seed > 2)]
    (saving,) = analyse(some, loss_rows(3.5, 9), higher_is_better=False)["savings"]
    assert saving["baseline_seeds"] == 3 and saving["share_saved"] == pytest.approx(0.5, abs=1e-3)


def test_below_three_seeds_there_is_no_interval_and_that_is_said():
    (saving,) = found(HALF, seeds=2)["savings"]
    assert saving["share_saved"] == pytest.approx(0.5, abs=1e-3)
    assert saving["low"] is saving["high"] is None and "no interval below 3 seeds" in saving["note"]
    got = found(HALF, seeds=2)
    assert all(p["low"] is None for c in got["curves"].values() for p in c)
    assert all(d["low"] is None for d in got["differences"])
    assert "few seeds" in found(HALF, seeds=4)["savings"][0]["note"]
    assert found(HALF, seeds=5)["savings"][0]["note"] == ""


def test_the_null_takes_four_seeds_of_random():
    nulls = [found(HALF, seeds=n)["savings"][0]["null"] for n in (1, 3, 4, 5, 14)]
    assert nulls[:2] == [None, None]
    assert [(n["seeds"], n["splits"]) for n in nulls[2:]] == [(4, 6), (5, 20), (14, 2000)]
    assert all(n["low"] < 0 < n["high"] for n in nulls[2:])
    assert nulls[2:] == [found(HALF, seeds=n)["savings"][0]["null"] for n in (4, 5, 14)], "the same every time"


def test_savings_are_counted_in_response_tokens_too():
    """Half of the labels do, but they are twice as long: no token is saved."""
    made = [c._replace(response_tokens=c.budget * (2 if c.strategy == "k_center" else 1)) for c in cells(HALF)]
    got = analyse(made, loss_rows(3.5, 99), higher_is_better=False)
    assert got["savings"][0]["share_saved"] == pytest.approx(0.5, abs=1e-3)
    assert got["token_savings"][0]["share_saved"] == pytest.approx(0.0, abs=1e-3)
    assert got["token_savings"][0]["budget_needed"] == pytest.approx(100, abs=0.1)
    unknown = [made[0]._replace(response_tokens=None), *made[1:]]
    assert "token_savings" not in analyse(unknown, loss_rows(3.5, 99), higher_is_better=False)


def test_draws_that_cost_more_tokens_widen_the_interval_of_tokens():
    def got(costs):
        scores = [
            Score(s, b, i, GRID[b] + 0.02 * (i - 2), round(10 * b * costs[i]))
            for s in ("random", "k_center")
            for b in GRID
            for i in range(5)
        ]
        (saving,) = compare(scores, -9, higher_is_better=True)["token_savings"]
        return saving["high"] - saving["low"]

    assert got([0.6, 1.4, 0.8, 1.2, 1.0]) > 2 * got([1.0] * 5)


# Differences and curves


def test_a_constant_shift_is_seen_through_noise_that_all_rows_share():
    """Rows differ by 2 nats, the strategies by 0.2: on the same rows that cancels."""
    got = found({"random": {100: 2.5}, "k_center": {100: 2.3}}, seeds=5)
    (d,) = got["differences"]
    assert (d["strategy"], d["budget"], d["seeds"], d["baseline_seeds"]) == ("k_center", 100, 5, 5)
    assert d["mean"] == pytest.approx(-0.2, abs=1e-6)
    assert -0.3 < d["low"] < -0.2 < d["high"] < -0.1


def test_intervals_are_student_s_and_welch_s():
    rng = np.random.Generator(np.random.PCG64(0))
    a, b = rng.normal(2, 0.1, 4), rng.normal(2.2, 0.3, 6)
    scores = [Score("random", 10, i, v) for i, v in enumerate(a)] + [Score("x", 10, i, v) for i, v in enumerate(b)]
    got = compare(scores, 3.0, higher_is_better=False)
    for name, v in (("random", a), ("x", b)):
        low, high = stats.t.interval(0.95, len(v) - 1, v.mean(), stats.sem(v))
        (point,) = got["curves"][name]
        assert (point["mean"], point["low"], point["high"]) == pytest.approx((v.mean(), low, high))
        assert point["n"] == len(v)
    low, high = stats.ttest_ind(b, a, equal_var=False).confidence_interval(0.95)
    assert (got["differences"][0]["low"], got["differences"][0]["high"]) == pytest.approx((low, high))


def test_exactly_the_same_rows_differ_by_exactly_nothing():
    values = loss_rows(2.5)
    same = [Cell(s, 10, i, values) for s in ("random", "d_optimal") for i in range(3)]
    (d,) = analyse(same, loss_rows(3, 9), higher_is_better=False)["differences"]
    assert (d["mean"], d["low"], d["high"]) == (0, 0, 0)


def test_rows_without_a_value_are_left_out_everywhere():
    full = cells(HALF, scatter=0.02)
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


def test_groups_count_alike_and_the_rows_stand_beside():
    """Nine rows of one task where the strategy is worse, one of another where it is better."""
    groups = ["big"] * 9 + ["small"]

    def rows(big, small):
        return np.asarray([big] * 9 + [small])

    curves = {"random": {10: (3, 3), 20: (2, 2)}, "x": {10: (3.1, 2.5), 20: (2.1, 1.5)}}
    made = [Cell(s, b, i, rows(*v) + 0.01 * i) for s, c in curves.items() for b, v in c.items() for i in range(3)]
    got = analyse(made, rows(4, 4), higher_is_better=False, groups=groups)
    assert got["curves"]["x"][0]["mean"] == pytest.approx((3.1 + 2.5) / 2 + 0.01)
    assert got["by_rows"]["curves"]["x"][0]["mean"] == pytest.approx((9 * 3.1 + 2.5) / 10 + 0.01)
    assert got["savings"][0]["share_saved"] == pytest.approx(1 - 2**-0.2, abs=1e-6)
    assert got["by_rows"]["savings"][0]["share_saved"] == pytest.approx(1 - 2**0.04, abs=1e-6)
    assert got["by_rows"] == analyse(made, rows(4, 4), higher_is_better=False)
    said = verdict(got, "response_loss", False, group_by="task")
    assert "response loss (mean over task)" in said and "By the mean over rows: x -3 % (95 % interval" in said


# The sentence


def say(curves, **kw):
    return verdict(found(curves, **kw), "response_loss", False)


def test_a_clear_saving_is_said_with_interval_seeds_and_null():
    said = say(HALF, seeds=5)
    assert said.startswith(
        "k_center reached random's response loss at 100 labels with about 50: 50 % saved (95 % interval"
    )
    assert "over seeds, 5 against 5; random against itself -" in said
    assert "holds zero" not in said and "best of" not in said and "lead" not in said
    assert "over few seeds, 3 against 3; random against itself not known, it takes 4 seeds" in say(HALF)


def test_the_best_of_several_is_called_that():
    said = say(HALF | {"d_optimal": {25: 3.15, 50: 2.9, 100: 2.4}})
    assert said.startswith("k_center reached") and said.endswith(", the best of 2 strategies.")


def test_no_saving_is_said_plainly_with_the_nearest():
    said = say(HALF | {"mean_nll": {25: 3.4, 50: 3.2, 100: 3.0}, "k_center": {25: 3.3, 50: 3.1, 100: 2.7}})
    assert said.startswith("No strategy saved labels in response loss: k_center, the best of 2 strategies, -")


def test_an_interval_that_holds_zero_is_said_so():
    curves = {"random": HALF["random"], "k_center": {25: 3.19, 50: 2.97, 100: 2.46}}
    said = say(curves, scatter=0.15)
    assert said.startswith("No saving of labels was shown in response loss, since the interval holds zero: k_center, ")


def test_without_an_interval_nothing_is_claimed():
    said = say(HALF, seeds=1)
    assert said.startswith("A lead, not a result") and "k_center, 50 %" in said
    assert "no interval from 1 seed against 1, it takes 3 each; random against itself not known" in said


def test_what_random_reaches_against_itself_is_a_lead():
    got = found(HALF, seeds=5)
    got["savings"][0]["null"]["high"] = 0.6
    assert verdict(got, "response_loss", False).endswith("Random against itself reaches as much: a lead, not a result.")


def test_random_alone_says_nothing():
    assert say({"random": {50: 3.0}}) == "Only random was run, so nothing can be said about saving labels."


def test_without_random_there_is_nothing_to_compare_with():
    assert say({"k_center": {50: 3.0}}) == "No cell of random was run, so there is nothing to compare with."


# Results of earlier versions


def earlier():
    """results.json as 0.1.0 wrote it of a strategy equal to random in every cell."""
    losses = {16: 1.0, 32: 1.2, 64: 1.3}
    return {
        "verdict": "twin reached random's response loss at 64 labels with about 12 labels: 82% saved.",
        "metric": {"name": "response_loss", "higher_is_better": False, "interval": "95 % bootstrap"},
        "base": {"scores": {"response_loss": 2.0}},
        "cells": [
            {"strategy": s, "budget": b, "seed": i, "scores": {"response_loss": m + 0.01 * i}, "response_tokens": b}
            for s in ("random", "twin")
            for b, m in losses.items()
            for i in range(3)
        ],
        "curves": {},
        "differences": [],
        "savings": [
            {"strategy": "twin", "budget_needed": 12, "share_saved": 0.82, "low": 0.82, "high": 0.83, "note": ""}
        ],
    }


def test_savings_of_an_earlier_version_are_worked_out_anew_from_its_cells():
    got = restated(earlier())
    assert (
        got["restated"] and got["savings"][0]["reason"] == "flat" and got["verdict"].startswith("More labels of random")
    )
    assert [p["n"] for p in got["curves"]["twin"]] == [3, 3, 3]
    assert restated(got) is got


@pytest.mark.parametrize("broken", ["base", "cells", "metric"])
def test_where_the_cells_do_not_give_them_no_saving_is_left(broken):
    results = earlier()
    del results[broken]
    got = restated(results)
    assert "savings" not in got and got["verdict"].startswith("Written by an earlier version of edjax")
