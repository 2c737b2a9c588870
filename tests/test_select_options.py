"""What can be asked of a selection beside strategy and budget: second rounds, weights, groups, tokens, duplicates."""

import numpy as np
import pytest
import select_cases
from select_cases import NESTED, assert_greedy, scores

from edjax.data.features import Features
from edjax.keep.errors import DataError, UsageError
from edjax.kernels import reference
from edjax.selection.choose import Chooser, select
from edjax.selection.gains import warn
from edjax.selection.groups import apportion, interleave
from edjax.selection.options import Options
from edjax.selection.prepared import prepare
from edjax.selection.quality import weights
from edjax.selection.strategies import STRATEGIES

ALONE = [name for name, method in STRATEGIES.items() if not method.needs_target]
DIVERSE = ("k_center", "d_optimal", "facility_location")


def features(n=150, d=12, seed=0, embeddings=None, facts=(), **more):
    """Random features of n rows named r0, r1, ... in groups g of unequal size, with a cost c each."""
    rng = np.random.Generator(np.random.PCG64(seed))
    x = rng.normal(size=(n, d)).astype(np.float32) + 3 if embeddings is None else np.asarray(embeddings, np.float32)
    given = scores(len(x), rng) | more
    group = np.asarray([f"g{int(i)}" for i in 5 * rng.random(len(x)) ** 2], object)
    columns = select_cases.facts(len(x)) | {"g": group, "c": rng.integers(3, 60, len(x))} | dict(facts)
    return Features(
        tuple(f"r{i}" for i in range(len(x))),
        x,
        given,
        columns,
        "digest",
        select_cases.arrays(len(x)),
        select_cases.pairs(len(x)),
    )


# A second round


@pytest.mark.parametrize("strategy", NESTED)
def test_two_rounds_of_50_are_one_of_100(strategy):
    found = features()
    options = {"seed": 2}
    whole, first = select(found, strategy, 100, **options), select(found, strategy, 50, **options)
    shuffled = tuple(np.random.default_rng(0).permutation(first.ids))
    second = select(found, strategy, 50, labelled=shuffled, **options)
    assert first.ids + second.ids == whole.ids
    if whole.gains is not None:
        np.testing.assert_allclose(second.gains, whole.gains[50:], rtol=1e-3)
    if strategy in DIVERSE:
        assert_greedy(second.indices, strategy, prepare(found.embeddings), labelled=sorted(first.indices))


@pytest.mark.parametrize("strategy", ["k_center"])
def test_two_rounds_with_weights_and_without_near_duplicates_are_one(strategy):
    x = np.repeat(features().embeddings, 2, axis=0) + np.float32(1e-3) * features(300).embeddings
    found = features(embeddings=x)
    options = {"weight_by": "mean_nll", "strength": 0.5, "near_duplicates": 0.999}
    whole = select(found, strategy, 40, **options)
    second = select(found, strategy, 30, labelled=whole.ids[:10], **options)
    assert len(whole.removed) == len(second.removed) == 150 and second.ids == whole.ids[10:]


@pytest.mark.parametrize("strategy", ["random", "mean_nll", "k_center"])
def test_labelled_rows_are_never_picked(strategy):
    found, given = features(40), ("r3", "r17", "r3", "r20")
    got = select(found, strategy, 37, labelled=given)
    assert not set(got.ids) & set(given) and len(set(got.ids)) == 37
    with pytest.raises(UsageError, match=r"larger than the 37 rows to choose from that are not labelled \(3 are\)"):
        select(found, strategy, 38, labelled=given)
    assert len(select(found, strategy, 38, labelled=given, allow_fewer=True)) == 37
    assert len(select(found, strategy, 0, labelled=given)) == 0


def test_a_labelled_row_of_another_pool():
    found = features(10)
    with pytest.raises(DataError, match=r"2 labelled rows are not of this pool \('x', \.\.\.\); .*--allow unknown"):
        select(found, "random", 3, labelled=("r1", "x", "y"))
    got = select(found, "random", 3, labelled=("r1", "x"), allow_unknown=True)
    assert got.warning == "1 labelled row is not of this pool ('x'): passed over"
    assert got.ids == select(found, "random", 3, labelled=("r1",)).ids


def test_a_labelled_row_that_is_not_finite_conditions_nothing():
    found = features(20)
    found.embeddings[[2, 5], 0] = np.nan
    with pytest.raises(DataError, match="2 rows have NaN"):
        select(found, "random", 3, labelled=("r2",))
    got = select(found, "random", 17, labelled=("r2", "r3"), drop_invalid=True)
    assert not {"r2", "r3", "r5"} & set(got.ids)


# Quality times diversity


def test_weights_are_powers_of_ranks():
    score = np.float32([0.3, -1, 7, 0.3, 1e9])
    np.testing.assert_allclose(weights(score, 1), [0.5, 0.2, 0.8, 0.5, 1.0])
    np.testing.assert_allclose(weights(score, 2), np.square([0.5, 0.2, 0.8, 0.5, 1.0]))
    assert (weights(score, 0) == 1).all() and weights(score, 1).dtype == np.float32


@pytest.mark.parametrize("strategy", DIVERSE)
def test_the_kernels_see_the_weights(strategy):
    found = features()
    q = weights(found.scores["mean_nll"], 2.0)
    option = {"quality": q} if strategy == "facility_location" else {"weights": q}
    got = select(found, strategy, 40, weight_by="mean_nll", strength=2.0)
    assert_greedy(got.indices, strategy, prepare(found.embeddings), **option)
    assert got.warning is None
    plain = select(found, strategy, 40)
    same = select(found, strategy, 40, weight_by="mean_nll", strength=0).ids == plain.ids
    assert (same or strategy == "d_optimal") and plain.ids != got.ids  # its first gains are all alike but for rounding
    mean = found.scores["mean_nll"]
    assert mean[got.indices[1:20]].mean() > mean[plain.indices[1:20]].mean() + 0.1


def test_strategies_without_weights_say_so():
    got = select(features(), "random", 5, weight_by="mean_nll")
    assert got.ids == select(features(), "random", 5).ids
    assert got.warning == "random is not weighted by mean_nll: it goes by values of the rows themselves"


@pytest.mark.parametrize("strategy", ["random", "max_entropy", "k_center"])
def test_a_prefilter_keeps_the_top_of_a_score(strategy):
    found = features(90)
    top = np.argsort(-found.scores["mean_nll"], kind="stable")[:25]
    got = select(found, strategy, 10, prefilter="mean_nll", prefilter_ratio=2.5)
    assert set(got.indices) <= set(top) and len(got) == 10
    if strategy == "k_center":
        part = np.sort(top)
        twin = reference.k_center(prepare(found.embeddings)[part], 10)
        assert got.indices.tolist() == part[twin.indices].tolist()
    if strategy == "max_entropy":
        given = [f"r{i}" for i in top[:3]]
        again = select(found, strategy, 22, prefilter="mean_nll", prefilter_ratio=1, labelled=given)
        assert set(again.indices) == set(top[3:25]), "labelled rows do not use up the prefilter"


# Groups


@pytest.mark.parametrize(
    ("sizes", "share", "budget", "small", "quota"),
    [
        ([50, 30, 20], [50, 30, 20], 10, 0, [5, 3, 2]),
        ([50, 30, 20], [50, 30, 20], 11, 0, [6, 3, 2]),
        ([5, 5, 5], [1, 1, 1], 4, 0, [2, 1, 1]),
        ([100, 3, 2], [1, 1, 1], 30, 0, [25, 3, 2]),
        ([100, 3, 2], [100, 3, 2], 30, 3, [25, 3, 2]),
        ([4, 0, 4], [1, 0, 1], 8, 0, [4, 0, 4]),
        ([4, 4], [1, 1], 20, 0, [4, 4]),
        ([10, 10], [3, 1], 8, 0, [6, 2]),
        ([2, 10, 10], [9, 1, 1], 12, 0, [2, 5, 5]),
    ],
)
def test_quotas(sizes, share, budget, small, quota):
    assert apportion(np.array(sizes), np.array(share, float), budget, small).tolist() == quota


def test_quotas_of_random_groups():
    rng = np.random.default_rng(0)
    for _ in range(300):
        g = rng.integers(1, 12)
        sizes, small = rng.integers(0, 40, g), int(rng.integers(0, 4))
        share = np.where(sizes > 0, rng.uniform(0.1, 3, g), 0)
        least = sizes[sizes <= small].sum()
        budget = int(rng.integers(least, sizes.sum() + 5))
        quota = apportion(sizes, share, budget, small)
        assert quota.sum() == min(budget, sizes.sum()) and (quota >= 0).all() and (quota <= sizes).all()
        assert (quota[sizes <= small] == sizes[sizes <= small]).all()
        free = (sizes > small) & (quota < sizes)
        if free.any():  # those that are not full are in proportion, within the rounding to whole rows
            per = quota[free].sum() / share[free].sum()
            assert (np.abs(quota[free] - per * share[free]) < 1 + 1e-9).all()


def test_every_beginning_is_balanced():
    rng = np.random.default_rng(1)
    for _ in range(200):
        quota = rng.integers(0, 30, rng.integers(1, 9))
        order = interleave(quota)
        k, g = len(order), np.count_nonzero(quota)
        assert np.bincount(order, minlength=len(quota)).tolist() == quota.tolist()
        for m in range(1, k + 1):
            off = np.abs(np.bincount(order[:m], minlength=len(quota)) - m * quota / k)
            assert (off <= 1 + g * quota / (2 * k) + 1e-9).all()


@pytest.mark.parametrize(
    ("strategy", "quotas"),
    [(s, "proportional") for s in DIVERSE]
    + [(s, q) for s in ("random", "mean_nll") for q in ("proportional", "balanced", "inverse_confidence")],
)
def test_a_strategy_runs_inside_its_groups(strategy, quotas):
    three = np.asarray((["a"] * 6 + ["b"] * 5 + ["c"] * 4) * 10, object)[np.random.default_rng(3).permutation(150)]
    three[:3] = ["a", "b", "c"]
    found = features(facts={"g": three} if strategy in DIVERSE else {})  # a few shapes to compile
    group = found.facts["g"]
    options = {"group_by": "g", "quotas": quotas, "seed": 1}
    got = select(found, strategy, 40, labelled=("r0", "r1", "r2"), **options)
    assert len(set(got.ids)) == 40 and not {"r0", "r1", "r2"} & set(got.ids)
    assert got.ids == select(found, strategy, 40, labelled=("r0", "r1", "r2"), **options).ids
    names = list(dict.fromkeys(group))
    free = np.arange(150) >= 3
    sizes = np.array([np.count_nonzero((group == g) & free) for g in names])
    share = {
        "proportional": sizes,
        "balanced": np.ones(len(names)),
        "inverse_confidence": np.array(
            [1 / np.exp(-found.scores["mean_nll"].astype(float))[(group == g) & free].mean() for g in names]
        ),
    }[quotas]
    quota = apportion(sizes, share.astype(float), 40)
    assert [np.count_nonzero(group[got.indices] == g) for g in names] == quota.tolist()
    x = prepare(found.embeddings)
    for g, q in zip(names, quota, strict=True):
        mine = got.indices[group[got.indices] == g]
        rows = np.flatnonzero(group == g)
        given = [int(np.flatnonzero(rows == i)[0]) for i in range(3) if group[i] == g]
        if strategy in DIVERSE:
            assert_greedy(np.searchsorted(rows, mine), strategy, x[rows], labelled=given)  # padding changes nothing
        elif strategy == "random":
            order = select(found, "random", 147, seed=1, labelled=("r0", "r1", "r2")).indices
            assert mine.tolist() == [i for i in order if group[i] == g][:q]


def test_the_worked_example_of_task_diversity():
    """SYSTEMS 1.10: confidences .9, .6, .3 and 60 rows: 10.91, 16.36, 32.73; and as many of each without weights."""
    task = np.repeat(["sure", "so-so", "unsure"], 50).astype(object)
    confidence = np.repeat([0.9, 0.6, 0.3], 50)
    found = features(150, facts={"g": task}, mean_nll=-np.log(confidence).astype(np.float32))
    for quotas, each in (("inverse_confidence", [11, 16, 33]), ("balanced", [20, 20, 20])):
        got = select(found, "random", 60, group_by="g", quotas=quotas)
        assert np.bincount(got.indices // 50).tolist() == each
    turns = select(found, "random", 60, group_by="g", quotas="balanced").indices // 50
    assert turns.tolist() == [0, 1, 2] * 20, "task after task"


def test_small_groups_are_kept_whole():
    group = np.asarray(["big"] * 90 + ["one"] + ["few"] * 4 + [None] * 5, object)
    found = features(100, facts={"g": group})
    got = select(found, "random", 20, group_by="g", keep_small=4)
    assert set(range(90, 95)) < set(got.indices)
    with pytest.raises(UsageError, match="the 3 groups of at most 5 rows hold 10 rows, more than the budget 9"):
        select(found, "random", 9, group_by="g", keep_small=5)


def test_a_prefilter_and_groups_together():
    found = features(200)
    got = select(found, "random", 20, group_by="g", prefilter="mean_nll", prefilter_ratio=3)
    assert len(got) == 20 and set(got.indices) <= set(np.argsort(-found.scores["mean_nll"])[:60])


def test_a_column_that_is_not_there():
    with pytest.raises(DataError, match="have a column 'task' to group by"):
        select(features(), "random", 3, group_by="task")
    with pytest.raises(DataError, match="no column 'n_prompt_tokens' with the cost of a row"):
        select(features(), "random", budget_tokens=9)
    with pytest.raises(DataError, match=r"hold no score 'worry'.*join it with --scores FILE"):
        select(features(), "k_center", 3, weight_by="worry")


# Budgets of tokens


@pytest.mark.parametrize("strategy", ["random", "mean_nll", "k_center"])
@pytest.mark.parametrize("tokens", [0, 2, 3, 100, 1000, 10**6])
def test_tokens_are_never_exceeded(strategy, tokens):
    found = features(50)
    got = select(found, strategy, budget_tokens=tokens, cost_by="c")
    cost = found.facts["c"][got.indices]
    assert got.cost == cost.sum() <= tokens and len(set(got.ids)) == len(got)
    order = select(found, strategy, 50)
    left, walk = tokens, []
    for i in order.indices:  # first fit, as far as the docstring says
        if cost_fits(found, i, left):
            walk.append(int(i))
            left -= int(found.facts["c"][i])
    assert got.indices.tolist() == walk[: len(got)]
    if tokens == 10**6:
        assert len(got) == 50
    if tokens == 2:
        assert "no row costs 2 or less: nothing is chosen" in got.warning


def cost_fits(found, i, left):
    return found.facts["c"][i] <= left


def test_the_last_tokens_are_not_wasted():
    """The first that does not fit is passed over; the walk ends at twice its place plus 16."""
    cost = np.full(200, 50)
    cost[0], cost[20], cost[150] = 90, 10, 10
    score = np.arange(200, 0, -1).astype(np.float32)
    found = features(200, facts={"c": cost}, s=score)
    got = select(found, "s", budget_tokens=110, cost_by="c")
    assert got.indices.tolist() == [0, 20] or got.indices.tolist() == [0]
    assert got.indices.tolist() == ([0, 20] if 20 < 2 * 2 + 16 else [0])
    cost[19] = 10
    assert select(found, "s", budget_tokens=110, cost_by="c").indices.tolist() == [0, 19]


def test_both_budgets_hold():
    found = features(80)
    rows = select(found, "random", 10, budget_tokens=10**6, cost_by="c")
    assert rows.ids == select(found, "random", 10).ids
    both = select(found, "random", 10, budget_tokens=120, cost_by="c")
    assert len(both) < 10 and both.cost <= 120
    mixed = select(found, "random", 10, budget_tokens=200, cost_by="c", group_by="g")
    assert mixed.cost <= 200
    for option in ({"group_by": "g"}, {"prefilter": "mean_nll"}):
        with pytest.raises(UsageError, match="give --budget beside --budget-tokens"):
            select(found, "k_center", budget_tokens=120, cost_by="c", **option)


@pytest.mark.parametrize(("value", "said"), [(-1.0, "costs -1"), (np.nan, "costs nan"), ("x", "is a number")])
def test_costs_that_are_none(value, said):
    cost = np.asarray([1.0] * 9 + [value], object)
    with pytest.raises(DataError, match=said):
        select(features(10, facts={"c": cost}), "random", budget_tokens=3, cost_by="c")


# Near-duplicates


def test_near_duplicates_are_no_candidates():
    base = np.random.default_rng(0).normal(size=(40, 8))
    noise = 0.02 * np.random.default_rng(1).normal(size=(40, 8))
    found = features(embeddings=np.concatenate([base, base + noise, base[:5]]))
    got = select(found, "random", 40, near_duplicates=0.99)
    assert sorted(got.indices) == list(range(40)) and "45 near-duplicates were left out, 40 rows stay" in got.warning
    assert [(r.id, r.kept) for r in got.removed[:2]] == [("r40", "r0"), ("r41", "r1")]
    assert all(r.similarity > 0.99 for r in got.removed)
    assert len(select(found, "random", 80, near_duplicates=1).removed) == 5, "copies alone"
    given = select(found, "random", 38, near_duplicates=0.99, labelled=("r83", "r43"))
    assert not {"r3", "r83", "r43"} & set(given.ids), "a row like a labelled one is left out; labelled ones stay"
    best = select(found, "max_entropy", 40, near_duplicates=0.99, weight_by="mean_nll")
    score, bunch = found.scores["mean_nll"], [[i for i in (j, j + 40, j + 80) if i < 85] for j in range(40)]
    assert sorted(best.indices) == sorted(max(rows, key=lambda i: score[i]) for rows in bunch)


# What makes no sense


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"strength": -1}, "strength -1"),
        ({"strength": float("nan")}, "strength nan"),
        ({"prefilter_ratio": 0.5}, "prefilter_ratio 0.5"),
        ({"quotas": "equal"}, "quotas 'equal' is not one of proportional, balanced"),
        ({"keep_small": -1}, "keep_small -1 is negative"),
        ({"keep_small": 2}, "keep_small needs group_by"),
        ({"near_duplicates": 0}, "near_duplicates 0"),
        ({"near_duplicates": 1.01}, "near_duplicates 1.01"),
        ({"bandwidth": 0.0}, "bandwidth 0.0"),
        ({"bandwidth": float("inf")}, "bandwidth inf"),
        ({"labelled": "r1"}, "labelled 'r1' is one text"),
        ({"budget_tokens": -5}, "budget_tokens -5 is negative"),
        ({"budget_tokens": 2.5}, "budget_tokens 2.5 is not a whole number of tokens"),
    ],
)
def test_options_that_make_no_sense_are_named(options, said):
    with pytest.raises(UsageError, match=said):
        select(features(10), "k_center", 3, **options)


OPTIONS = {
    "labelled": {"labelled": ("r7",)},
    "weights": {"weight_by": "mean_nll"},
    "prefilter": {"prefilter": "mean_nll"},
    "groups": {"group_by": "g", "quotas": "inverse_confidence"},
    "tokens": {"budget_tokens": 10**6, "cost_by": "c"},
    "duplicates": {"near_duplicates": 0.9999},
}


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["embeddings", "mean_nll"])
def test_rows_that_are_not_finite_are_refused_or_left_out(option, value, where):
    """RELIABILITY I1 for every option: the score it reads counts too."""
    found, given = features(30), OPTIONS[option]
    bad = [4, 11]
    (found.embeddings if where == "embeddings" else found.scores["mean_nll"])[bad] = value
    reads = where == "embeddings" or option in ("weights", "prefilter", "groups")
    for strategy in ("random", "max_entropy"):
        if reads:
            with pytest.raises(DataError, match=r"^2 rows have NaN or infinite features \(r4, r11\)"):
                select(found, strategy, 5, **given)
        got = select(found, strategy, 30, drop_invalid=True, allow_fewer=True, **given)
        assert bool({"r4", "r11"} & set(got.ids)) != reads
        assert len(got) == 30 - 2 * reads - (option == "labelled")


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("strategy", ["random", "mean_entropy"])
def test_budgets_at_the_edges(option, strategy):
    """RELIABILITY I2 for every option."""
    found, given = features(20), OPTIONS[option]
    n = 20 - (option == "labelled")
    assert len(select(found, strategy, 0, **given)) == 0
    assert len(set(select(found, strategy, n, **given).ids)) == n
    with pytest.raises(UsageError, match=f"budget {n + 1} is larger than the {n} rows"):
        select(found, strategy, n + 1, **given)
    assert len(select(found, strategy, n + 1, allow_fewer=True, **given)) == n
    for budget, said in ((-1, "budget -1 is negative"), (2.5, "budget 2.5 is not a whole"), (None, "budget")):
        if budget is not None or option != "tokens":
            with pytest.raises(UsageError, match=said):
                select(found, strategy, budget, **given)


# RELIABILITY I5, through the whole of select


def objective(strategy, x, picks):
    """The covering radius (smaller is better, so its inverse), log det or coverage in float64."""
    found = getattr(reference, strategy)(x, len(picks), follow=picks).gains
    if strategy == "k_center":
        d = np.linalg.norm(x[:, None].astype(np.float64) - x[picks].astype(np.float64), axis=-1)
        return 1 / d.min(axis=1).max()
    return found.sum()


def exactly(x, normalise="l2"):
    """`prepare` in float64."""
    x = x.astype(np.float64)
    x = x - x.mean(0)
    if normalise == "whiten":
        _, s, vt = np.linalg.svd(x, full_matrices=False)
        x = x @ (vt.T / s)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize("strategy", DIVERSE)
@pytest.mark.parametrize("offset", [10, 1e3, 1e4])
@pytest.mark.parametrize("normalise", ["l2", "whiten"])
def test_an_offset_leaves_the_picks_of_the_oracle(strategy, offset, normalise):
    x = np.random.default_rng(4).normal(size=(150, 12)).astype(np.float32) + np.float32(offset)
    got = select(features(embeddings=x), strategy, 40, normalise=normalise)
    assert_greedy(got.indices, strategy, exactly(x, normalise))


@pytest.mark.parametrize("strategy", DIVERSE)
@pytest.mark.parametrize("change", [1e-6, 1e6, "one feature"])
@pytest.mark.parametrize("normalise", ["l2", "centre"])
def test_a_scale_costs_at_most_a_hundredth_of_the_objective(strategy, change, normalise):
    x = np.random.default_rng(4).normal(size=(150, 12)).astype(np.float32) + 3
    if change == "one feature":
        x[:, 3] *= 1e4
    else:
        x *= np.float32(change)
    seen = exactly(x) if normalise == "l2" else x.astype(np.float64) - x.mean(0, dtype=np.float64)
    got = select(features(embeddings=x), strategy, 40, normalise=normalise)
    assert len(set(got.ids)) == 40
    best = objective(strategy, seen, getattr(reference, strategy)(seen, 40).indices)
    if (strategy, change, normalise) == ("k_center", "one feature", "l2"):
        # Two points, +1 and -1 in that feature, with all else below what float32 tells apart (2e-3 of a row's length).
        assert objective(strategy, seen, got.indices) >= 1 / 2e-3
    else:
        assert objective(strategy, seen, got.indices) >= 0.99 * best


# Gains


def test_gains_that_end_early_or_never_begin():
    flat, falling = np.full(20, 0.5, np.float32), np.float32(0.5) ** np.arange(20)
    assert "the kernel is too narrow" in warn(STRATEGIES["facility_location"], flat)
    assert warn(STRATEGIES["d_optimal"], flat) is None and warn(STRATEGIES["k_center"], flat) is None
    assert "the last half of the budget (10 picks) brought 0.10% of the gain" in warn(STRATEGIES["d_optimal"], falling)
    assert "lower the bandwidth" in warn(STRATEGIES["facility_location"], falling)
    radius = np.concatenate([[np.inf], np.geomspace(1, 0.005, 19)]).astype(np.float32)
    assert "the last pick was at 0.5% of the distance" in warn(STRATEGIES["k_center"], radius)
    assert warn(STRATEGIES["facility_location"], flat[:5]) is None, "five picks say nothing"
    assert warn(STRATEGIES["k_center"], None) is None and warn(STRATEGIES["k_center"], flat[:0]) is None
    none_of_some = np.where(np.arange(20) % 4, flat, 0)
    assert "5 of 20 picks add nothing" in warn(STRATEGIES["k_center"], none_of_some, grouped=True)


def test_a_kernel_that_is_too_narrow_or_too_wide_is_told():
    found = features()
    assert "raise the bandwidth" in select(found, "facility_location", 40, bandwidth=1e-4).warning
    assert "lower the bandwidth" in select(found, "facility_location", 40, bandwidth=1e3).warning
    assert select(found, "facility_location", 40).warning is None


# Several at once


@pytest.mark.parametrize(
    "options",
    [{}, {"labelled": ("r5",)}, {"prefilter": "mean_nll"}, {"group_by": "g"}, {"budget_tokens": 400, "cost_by": "c"}],
)
def test_several_are_what_each_is_alone(options):
    found = features()
    chooser = Chooser(found, Options(**options))
    for strategy in ("random", "max_entropy") if options else ("random", "k_center"):
        for budget, got in zip((20, 40), chooser.choose(strategy, (20, 40)), strict=True):
            alone = select(found, strategy, budget, **options)
            assert got.ids == alone.ids and (got.strategy, got.warning, got.cost) == (
                alone.strategy,
                alone.warning,
                alone.cost,
            )
            assert (got.gains is None) == (alone.gains is None)
            assert got.gains is None or got.gains.tolist() == alone.gains.tolist()
