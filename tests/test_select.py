"""Spending a budget: every odd budget, every damaged row, every tie, and what is written of it."""

import csv
import json

import numpy as np
import pytest
from select_cases import NESTED, SERVING, arrays, assert_greedy, facts, pairs, scores

from edjax.data.features import SCORES, Features
from edjax.data.pool import read_pool
from edjax.keep.errors import DataError, UsageError
from edjax.keep.store import read_json
from edjax.selection.choose import select
from edjax.selection.prepared import prepare
from edjax.selection.selection import pool_rows, read_selection, write_selection
from edjax.selection.strategies import STRATEGIES

ALONE = [name for name, method in STRATEGIES.items() if not method.needs_target]
DIVERSE = ("k_center", "d_optimal", "facility_location")


def features(n=30, d=6, seed=0, embeddings=None, **more):
    """Random features of n rows named r0, r1, ..."""
    rng = np.random.Generator(np.random.PCG64(seed))
    x = rng.normal(size=(n, d)).astype(np.float32) + 3 if embeddings is None else np.asarray(embeddings, np.float32)
    given = scores(len(x), rng) | more
    return Features(
        tuple(f"r{i}" for i in range(len(x))), x, given, facts(len(x)), "digest", arrays(len(x)), pairs(len(x))
    )


def copies(groups=10, each=20, d=16):
    """`groups` distinct rows in general position, `each` copies of every one, shuffled; and the group of a row."""
    rng = np.random.Generator(np.random.PCG64(1))
    group = rng.permutation(np.repeat(np.arange(groups), each))
    return features(embeddings=rng.normal(size=(groups, d))[group]), group


# Budgets


@pytest.mark.parametrize("strategy", SERVING)
def test_zero_gives_an_empty_selection(strategy):
    got = select(features(), strategy, 0)
    assert len(got) == 0 and got.ids == () and got.indices.shape == (0,) and got.warning is None


@pytest.mark.parametrize("strategy", SERVING)
def test_all_of_the_pool_is_a_permutation(strategy):
    got = select(features(12), strategy, 12)
    assert sorted(got.indices) == list(range(12))
    assert got.ids == tuple(f"r{i}" for i in got.indices)


@pytest.mark.parametrize("strategy", SERVING)
def test_more_than_the_pool_is_refused_or_allowed(strategy):
    with pytest.raises(UsageError, match=r"budget 13 is larger than the 12 rows .* or --allow fewer"):
        select(features(12), strategy, 13)
    assert len(select(features(12), strategy, 13, allow_fewer=True)) == 12
    assert len(select(features(12), strategy, 5, allow_fewer=True)) == 5


@pytest.mark.parametrize(
    ("budget", "said"),
    [(-1, "budget -1 is negative"), (2.5, "budget 2.5 is not a whole"), ("3", "budget '3' is neither"), (None, "None")],
)
def test_a_budget_that_is_no_number_of_rows_is_named(budget, said):
    for strategy in ("random", "mean_nll", "k_center"):
        with pytest.raises(UsageError, match=said):
            select(features(), strategy, budget)


def test_numpy_integers_are_budgets():
    assert len(select(features(), "random", np.int32(4))) == 4


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("strategy", SERVING)
def test_tiny_pools(strategy, n):
    assert sorted(select(features(n), strategy, n).indices) == list(range(n))


def test_a_negative_seed_is_refused():
    with pytest.raises(UsageError, match="seed -1 is negative"):
        select(features(), "random", 3, seed=-1)


# Damaged rows


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("share", ["one", "half", "all"])
@pytest.mark.parametrize("strategy", SERVING)
def test_rows_that_are_not_finite_are_refused_or_left_out(strategy, share, value):
    found = features(10)
    bad = {"one": [4], "half": [1, 3, 5, 7, 9], "all": list(range(10))}[share]
    found.embeddings[bad, 2] = value
    with pytest.raises(DataError) as e:
        select(found, strategy, 3)
    assert str(e.value).startswith(f"{len(bad)} row") and "--allow invalid" in str(e.value)
    for i in bad[:5]:
        assert f"r{i}" in str(e.value)
    good = sorted(set(range(10)) - set(bad))
    got = select(found, strategy, 10, drop_invalid=True, allow_fewer=True)
    assert sorted(got.indices) == good
    assert got.ids == tuple(f"r{i}" for i in got.indices)
    assert f"r{bad[0]}" in got.warning and "left out" in got.warning
    if good:
        with pytest.raises(UsageError, match=f"larger than the {len(good)} rows"):
            select(found, strategy, len(good) + 1, drop_invalid=True)


@pytest.mark.parametrize("strategy", SCORES)
def test_a_score_that_is_not_finite_is_refused_or_left_out(strategy):
    found = features(6)
    found.scores[strategy][[0, 3]] = [np.nan, np.inf]
    with pytest.raises(DataError, match=r"^2 rows have NaN or infinite features \(r0, r3\)"):
        select(found, strategy, 2)
    assert sorted(select(found, strategy, 4, drop_invalid=True).indices) == [1, 2, 4, 5]
    assert len(select(found, "k_center", 6)) == 6, "k_center does not read that score"


def test_gains_belong_to_the_rows_that_remain():
    found = features(8)
    found.scores["mean_nll"][:] = [np.nan, 1, 5, 3, np.nan, 4, 2, 0]
    got = select(found, "mean_nll", 4, drop_invalid=True)
    assert got.ids == ("r2", "r5", "r3", "r6") and got.gains.tolist() == [5, 4, 3, 2]


# Names


@pytest.mark.parametrize(("name", "near"), [("kcenter", "k_center"), ("d_optmal", "d_optimal"), ("Random", "random")])
def test_an_unknown_strategy_names_the_nearest(name, near):
    with pytest.raises(UsageError, match=f"unknown strategy '{name}'; did you mean {near}\\? strategies: random,"):
        select(features(), name, 3)


def test_a_name_near_nothing_lists_all():
    with pytest.raises(UsageError) as e:
        select(features(), "zzz", 3)
    assert all(name in str(e.value) for name in STRATEGIES) and "did you mean" not in str(e.value)


def test_a_score_of_the_user_s_own_is_a_strategy():
    got = select(features(5, worry=np.float32([1, 9, 3, 9, 2])), "worry", 3)
    assert got.ids == ("r1", "r3", "r2") and got.strategy == "worry"


def test_a_score_that_was_not_computed_says_how_to_get_it():
    found = features()
    del found.scores["mean_nll"]
    with pytest.raises(DataError, match=r"hold no score 'mean_nll'.*--max-new-tokens above 0"):
        select(found, "mean_nll", 3)


# Embeddings as the diversity strategies see them


def test_prepare_centres_and_scales():
    x = features(50).embeddings
    l2 = prepare(x, "l2")
    assert l2.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(l2, axis=1), 1, atol=1e-6)
    centred = x - x.mean(0)
    np.testing.assert_allclose(l2, centred / np.linalg.norm(centred, axis=1, keepdims=True), atol=1e-5)
    np.testing.assert_allclose(prepare(x, "centre"), centred, atol=1e-5)
    assert prepare(x, "none") is x
    np.testing.assert_allclose(prepare(x + 1000, "l2"), l2, atol=1e-3, err_msg="an offset changes nothing")
    np.testing.assert_allclose(prepare(x * 1e-6, "l2"), l2, atol=1e-4, err_msg="a scale changes nothing")


def test_a_row_at_the_mean_stays_zero():
    x = np.float32([[1, 0], [-1, 0], [0, 2], [0, -2], [0, 0]])
    assert prepare(x, "l2").tolist() == [[1, 0], [-1, 0], [0, 1], [0, -1], [0, 0]]
    assert not prepare(x)[4].any()
    for normalise in ("l2", "whiten"):
        assert not prepare(np.full((4, 3), 7.0, np.float32), normalise).any()


def test_an_unknown_normalisation_is_refused():
    with pytest.raises(UsageError, match="normalise 'L2' is not one of l2, whiten, centre, none"):
        select(features(), "k_center", 3, normalise="L2")


def test_normalisation_changes_what_is_chosen():
    x = features(60).embeddings * np.linspace(0.01, 10, 60, dtype=np.float32)[:, None]
    found = features(embeddings=x)
    raw, l2 = (select(found, "k_center", 10, normalise=n).indices for n in ("centre", "l2"))
    assert np.mean(raw) > np.mean(l2) + 5, "without it, rows of large norm are chased"


# Orders


@pytest.mark.parametrize("strategy", NESTED)
def test_a_smaller_budget_is_the_beginning_of_a_larger(strategy):
    found = features(80, 5)
    whole = select(found, strategy, 40, seed=3)
    for k in (1, 7, 20):
        part = select(found, strategy, k, seed=3)
        assert part.ids == whole.ids[:k]
    assert len(set(whole.ids)) == 40


def test_random_depends_on_its_seed_alone():
    found = features(40)
    assert select(found, "random", 20, seed=5).ids == select(features(40, seed=9), "random", 20, seed=5).ids
    drawn = {select(found, "random", 20, seed=s).ids for s in range(5)}
    assert len(drawn) == 5
    assert select(found, "random", 3).gains is None


def test_random_is_uniform():
    counts = np.zeros(10)
    for seed in range(600):
        counts[select(features(10), "random", 3, seed=seed).indices] += 1
    assert (np.abs(counts - 180) < 5 * np.sqrt(180 * 0.7)).all(), counts


@pytest.mark.parametrize("strategy", SCORES)
def test_scores_go_from_large_to_small_and_ties_to_the_lower_row(strategy):
    rng = np.random.Generator(np.random.PCG64(2))
    values = rng.integers(0, 6, 50).astype(np.float32)
    got = select(features(50, **{strategy: values}), strategy, 50)
    expected = sorted(range(50), key=lambda i: (-values[i], i))
    assert got.indices.tolist() == expected
    assert got.gains.tolist() == values[expected].tolist()
    assert got.warning is None, "scores are no gains that run out"


@pytest.mark.parametrize("strategy", DIVERSE)
def test_the_kernels_see_the_prepared_rows(strategy):
    found = features(40)
    got = select(found, strategy, 12, normalise="centre")
    assert_greedy(got.indices, strategy, prepare(found.embeddings, "centre"))


# Rows alike


@pytest.mark.parametrize("strategy", SERVING)
def test_identical_rows_never_repeat_a_pick(strategy):
    got = select(features(embeddings=np.full((20, 4), 0.1)), strategy, 20)
    assert sorted(got.indices) == list(range(20))
    if strategy in DIVERSE:
        assert "the gains ran out after" in got.warning and "of 20 picks" in got.warning


@pytest.mark.parametrize("strategy", DIVERSE)
def test_ten_rows_in_twenty_copies_are_all_covered_by_ten_picks(strategy):
    found, group = copies()
    got = select(found, strategy, 10)
    assert len({group[i] for i in got.indices}) == 10
    assert got.warning is None


@pytest.mark.parametrize("strategy", ["k_center", "facility_location"])
def test_gains_that_run_out_are_reported(strategy):
    got = select(copies()[0], strategy, 30)
    assert len(set(got.ids)) == 30
    assert got.warning.startswith("the gains ran out after 10 of 30 picks")


def test_a_copy_is_worth_less_than_a_new_row_to_d_optimal():
    """Its gain is never 0 (a second measurement of the same direction still helps), so nothing runs out."""
    got = select(copies()[0], "d_optimal", 30)
    assert got.gains[9] > got.gains[10] > 0 and got.warning is None


# On disk


def write_pool(path, n=12):
    """Rows with bytes that no serialiser would write again: odd spaces, escapes, order of keys."""
    lines = [
        f'{{"task":"t{i}",  "prompt" : "caf\\u00e9 é 😀\u2028 {i}","x":1.0e{i}, "id":"r{i}" }}'.encode()
        for i in range(n)
    ]
    path.write_bytes(b"\n".join(lines))
    return lines, read_pool(path)


@pytest.mark.parametrize("strategy", ["random", "mean_nll", "k_center"])
def test_what_is_written_is_what_was_chosen(tmp_path, strategy):
    lines, pool = write_pool(tmp_path / "pool.jsonl")
    found = features(12)
    chosen = select(found, strategy, 7, seed=1)
    out = write_selection(chosen, found, pool, tmp_path / "out", config={"strategy": strategy, "budget": 7})
    assert (out / "selected.jsonl").read_bytes() == b"".join(lines[i] + b"\n" for i in chosen.indices)
    back = read_selection(out)
    assert back.ids == chosen.ids and back.indices.tolist() == chosen.indices.tolist()
    assert (back.strategy, back.warning) == (strategy, None)
    assert back.gains is None if strategy == "random" else back.gains.tolist() == chosen.gains.tolist()
    with open(out / "selection.csv", newline="", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    assert list(rows[0]) == ["order", "id", "row", "gain", *found.scores]
    assert [int(r["order"]) for r in rows] == list(range(7))
    assert [np.float32(r["mean_nll"]) for r in rows] == [found.scores["mean_nll"][i] for i in chosen.indices]
    manifest = read_json(out / "manifest.json")
    assert manifest["inputs"] == {"features": "digest", "pool": pool.digest}
    curve = ["gains.svg"] if strategy == "k_center" else []
    assert sorted(manifest["files"]) == [*curve, "selected.jsonl", "selection.csv"]


def test_an_infinite_gain_survives_the_file(tmp_path):
    _, pool = write_pool(tmp_path / "pool.jsonl")
    found = features(12)
    chosen = select(found, "k_center", 3)
    assert np.isinf(chosen.gains[0])
    write_selection(chosen, found, pool, tmp_path / "out", config={"strategy": "k_center"})
    assert read_selection(tmp_path / "out").gains.tolist() == chosen.gains.tolist()


def test_an_empty_selection_is_written_and_read(tmp_path):
    _, pool = write_pool(tmp_path / "pool.jsonl")
    found = features(12)
    write_selection(select(found, "k_center", 0), found, pool, tmp_path / "out", config={"strategy": "k_center"})
    assert (tmp_path / "out" / "selected.jsonl").read_bytes() == b""
    back = read_selection(tmp_path / "out")
    assert len(back) == 0 and back.gains is None


HOSTILE = ["=cmd|' /C calc'!A0", "+1", "-1", "@x", "'quoted", "\ttab", "\rreturn", 'a,"b"\nc', "plain"]


def test_ids_that_a_spreadsheet_would_run_are_neutralised_and_come_back(tmp_path):
    rows = [{"id": name, "prompt": f"p{i}"} for i, name in enumerate(HOSTILE)]
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    pool = read_pool(tmp_path / "pool.jsonl")
    found = Features(pool.ids, features(len(rows)).embeddings, {}, {}, "digest")
    chosen = select(found, "random", len(rows))
    write_selection(chosen, found, pool, tmp_path / "out", config={"strategy": "random"})
    with open(tmp_path / "out" / "selection.csv", newline="", encoding="utf-8") as f:
        cells = [r["id"] for r in csv.DictReader(f)]
    assert not [c for c in cells if c[0] in "=+-@\t\r"]
    assert read_selection(tmp_path / "out").ids == chosen.ids


def test_features_of_another_pool_are_refused_and_nothing_is_written(tmp_path):
    _, pool = write_pool(tmp_path / "pool.jsonl")
    found = features(14)
    with pytest.raises(DataError, match=r"no row with id 'r1[23]' \(2 such\); these features are of another pool"):
        write_selection(select(found, "random", 14), found, pool, tmp_path / "out", config={})
    assert not (tmp_path / "out").exists()


def test_rows_are_found_by_id_not_by_place(tmp_path):
    _, pool = write_pool(tmp_path / "pool.jsonl")
    shuffled = pool.take([5, 3, 11, 0, 1, 2, 4, 6, 7, 8, 9, 10])
    chosen = select(features(12), "mean_nll", 4)
    assert [shuffled.ids[i] for i in pool_rows(chosen, shuffled)] == list(chosen.ids)
