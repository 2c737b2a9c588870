"""A finished run grows: what joins adds cells, what is done stays the same bytes, and what would mix is refused."""

import importlib
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from edjax.keep.errors import DataError, UsageError
from edjax.keep.verify import verify
from edjax.selection.selection import read_selection
from edjax.study.recipe import make_recipe

RUN = importlib.import_module("edjax.study.run")
SMALL = {
    "pool_rows": 24,
    "evaluation_rows": 4,
    "strategies": ["random", "k_center"],
    "budgets": [4],
    "metrics": ["response_loss", "exact_match"],
    "max_new_tokens": 2,
    "evaluation_max_new_tokens": 2,
    "score_batch_size": 8,
    "evaluation_batch_size": 4,
    "per_device_train_batch_size": 4,
    "max_length": 16,
    "save_steps": 0,
    "max_steps": 1,
}
WEIGHED = {"weighed": {"strategy": "d_optimal", "weight_by": "mean_entropy"}}


@pytest.fixture(scope="module")
def ask(shared):
    """A recipe of the small run, with other settings on top, and what it comes to in a directory."""

    def run(out, **changes):
        data = {
            name: str(shared / "data" / f"ci_{file}.jsonl.gz")
            for name, file in (("pool", "pool"), ("evaluation", "eval"))
        }
        own = {"model": str(shared / "models" / "stories260k"), "out": str(out)}
        return RUN.run(make_recipe(data | own | SMALL | changes, out), show_progress=False)

    return run


@pytest.fixture(scope="module")
def done(ask, tmp_path_factory):
    path = tmp_path_factory.mktemp("done") / "run"
    ask(path)
    return path


@pytest.fixture
def path(done, tmp_path):
    shutil.copytree(done, tmp_path / "run")
    return tmp_path / "run"


def contents(path):
    """Every file of what a stage wrote: its bytes and when it was written."""
    parts = ("features", "selections", "base", "cells")
    return {p: (p.read_bytes(), p.stat().st_mtime_ns) for d in parts for p in (path / d).rglob("*") if p.is_file()}


def cells(results):
    return {(c["strategy"], c["budget"], c["seed"]): c["scores"] for c in results["cells"]}


GROWN = {
    "a strategy": ({"strategies": ["random", "k_center", "mean_entropy"]}, 3),
    "a variant": ({"strategies": ["random", "k_center", "weighed"], "variants": WEIGHED}, 3),
    "a variant that nothing is trained on": (
        {"strategies": ["random", "k_center", "weighed"], "variants": WEIGHED, "finetune_strategies": ["random"]},
        1,
    ),
    "seeds": ({"seeds": [0, 1]}, 4),
    "seeds of random alone": ({"random_seeds": [0, 1]}, 3),
    "a budget": ({"budgets": [4, 6]}, 4),
    "a smaller budget": ({"budgets": [2, 4]}, 4),
    "all at once": (
        {
            "strategies": ["k_center", "weighed", "few", "random"],
            "variants": WEIGHED | {"few": {"strategy": "k_center", "prefilter": "mean_nll"}},
            "budgets": [4, 6],
            "random_seeds": [0, 1],
        },
        10,
    ),
}


@pytest.mark.parametrize("case", GROWN)
def test_what_joins_adds_cells(ask, done, path, case):
    changes, count = GROWN[case]
    before, first = contents(path), cells(json.loads((done / "results.json").read_text()))
    got = cells(ask(path, **changes))
    now = contents(path)
    assert {p: now[p] for p in before} == before, "what was done was done again"
    assert len(got) == count and all(got[k] == v for k, v in first.items() if k in got)
    assert not verify([path]).faults
    assert cells(ask(path, **changes)) == got and contents(path) == now


def test_larger_budgets_go_on_where_smaller_ones_ended(ask, path):
    ask(path, budgets=[4, 6])
    for name in ("random", "k_center"):
        small, large = ((path / f"selections/{name}-b{b}-s0/selected.jsonl").read_bytes() for b in (4, 6))
        assert large.startswith(small) and len(large) > len(small)


def test_an_order_that_begins_otherwise_is_refused(ask, path):
    """As another version's might: the cells of 4 labels would not be the start of those of 6."""
    file = path / "selections/k_center-b4-s0/selection.csv"
    head, one, two, *rest = file.read_text().splitlines(keepends=True)
    file.write_text("".join([head, two, one, *rest]))
    before = contents(path)
    with pytest.raises(UsageError, match="k_center: the first 4 of 6 rows are not those chosen before"):
        ask(path, budgets=[4, 6])
    assert {p: v for p, v in contents(path).items() if p in before} == before
    assert not (path / "selections/k_center-b6-s0/manifest.json").exists()


CHANGED = {
    "an option": {"strategy": "d_optimal", "weight_by": "mean_nll"},
    "a strategy": {"strategy": "k_center", "weight_by": "mean_entropy"},
    "an option more": {"strategy": "d_optimal", "weight_by": "mean_entropy", "strength": 2.0},
    "an option less": {"strategy": "d_optimal"},
}


@pytest.fixture(scope="module")
def with_variant(ask, done, tmp_path_factory):
    path = tmp_path_factory.mktemp("variant") / "run"
    shutil.copytree(done, path)
    ask(path, strategies=["random", "weighed"], variants=WEIGHED)
    return path


@pytest.mark.parametrize("case", CHANGED)
def test_a_variant_changed_under_its_name_is_refused(ask, with_variant, tmp_path, case):
    path = tmp_path / "run"
    shutil.copytree(with_variant, path)
    before = {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}
    with pytest.raises(
        UsageError, match=r"^weighed was chosen with other options in .*weighed-b4-s0 \(.* there, .* now"
    ) as e:
        ask(path, strategies=["random", "weighed"], variants={"weighed": CHANGED[case]})
    assert "name of its own" in str(e.value)
    assert {p: p.read_bytes() for p in path.rglob("*") if p.is_file()} == before, "the finished run was touched"
    if case == "an option":
        both = WEIGHED | {"other": CHANGED[case]}
        assert len(cells(ask(path, strategies=["random", "weighed", "other"], variants=both))) == 3


def test_parts_dropped_from_a_variant_are_another_choice(ask, tmp_path):
    """And a directory that was named when colons alone were replaced is found."""
    asked, path = {"strategy": "k_center", "partitions": 2}, tmp_path / "run"
    ask(path, strategies=["in parts"], variants={"in parts": asked})
    for part in ("selections", "cells"):
        (path / part / "in_parts-b4-s0").rename(path / part / "in parts-b4-s0")
    before = contents(path)
    got = ask(path, strategies=["in parts", "random"], variants={"in parts": asked})
    assert len(cells(got)) == 2 and {p: v for p, v in contents(path).items() if p in before} == before
    assert not list(path.glob("*/in_parts-*"))
    with pytest.raises(UsageError, match=r"in parts was chosen with other options .*partitions: 2 there, 1 now"):
        ask(path, strategies=["in parts"], variants={"in parts": {"strategy": "k_center"}})


def test_a_variant_that_is_not_used_may_change(ask, with_variant, tmp_path):
    shutil.copytree(with_variant, tmp_path / "run")
    ask(tmp_path / "run", variants={"weighed": CHANGED["an option"]})


def test_another_primary_metric_reads_the_cells_anew(ask, path):
    before = contents(path)
    got = ask(path, metric="exact_match")
    assert got["metric"]["name"] == "exact_match" and contents(path) == before


def test_a_run_of_an_older_version_grows(ask, path):
    """Its plan holds variants and the metric; both are no part of a plan any more."""
    plan = json.loads((path / "plan.json").read_text())
    plan["config"] |= {"variants": {"gone": {"strategy": "k_center"}}, "metric": "response_loss"}
    (path / "plan.json").write_text(json.dumps(plan))
    assert len(cells(ask(path, strategies=["random", "k_center", "weighed"], variants=WEIGHED))) == 3
    assert not verify([path]).faults


def test_what_decides_every_cell_stays_fixed(ask, path):
    for key, value in {"learning_rate": 0.1, "pool_rows": 20, "normalise": "centre", "max_new_tokens": 3}.items():
        with pytest.raises(UsageError, match=f"other settings.*{key}|budget|pool: "):
            ask(path, **{key: value})


def test_scores_that_were_never_made(ask, tmp_path):
    ask(tmp_path, max_new_tokens=0, finetune_strategies=["random"])
    with pytest.raises(UsageError, match=r"^mean_entropy needs decoded tokens: set max_new_tokens to 1 .* another out"):
        ask(tmp_path, max_new_tokens=0, strategies=["random", "mean_entropy"])


# The same candidates for all


@pytest.fixture
def holes(monkeypatch):
    """Scores with NaN where a model failed: two rows have no mean_entropy."""
    real, gone = RUN.score, []

    def score(pool, *args, **settings):
        found = real(pool, *args, **settings)
        values = found.scores["mean_entropy"].copy()
        values[[1, 7]] = np.nan
        gone[:] = [found.ids[1], found.ids[7]]
        return replace(found, scores=found.scores | {"mean_entropy": values})

    monkeypatch.setattr(RUN, "score", score)
    return gone


ENTROPY = {"entropy": {"strategy": "mean_entropy", "drop_invalid": True}}
ALL = {"budgets": [22], "variants": ENTROPY, "finetune_strategies": ["random"]}


def picked(results):
    return {s["strategy"]: set(s["ids"]) for s in results["selections"]}


def test_rows_that_one_cannot_use_are_candidates_of_none(ask, tmp_path, holes, capsys):
    got = picked(ask(tmp_path, strategies=["random", "k_center", "entropy"], **ALL))
    assert got["random"] == got["k_center"] == got["entropy"] and len(got["random"]) == 22
    assert not got["random"] & set(holes)
    said = json.loads((tmp_path / "selections/k_center-b22-s0/manifest.json").read_text())["warning"]
    assert f"2 rows that another strategy of this comparison cannot use ({', '.join(holes)}): left out for all" in said
    with pytest.raises(UsageError, match=r"^random was chosen among fewer rows.*finetune_strategies may leave it out"):
        ask(tmp_path, strategies=["random", "k_center"], **ALL)


def test_a_strategy_that_cannot_use_all_candidates_joins_no_run(ask, path, holes):
    before = {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}
    with pytest.raises(UsageError, match=r"^entropy cannot use 2 of the rows that random was chosen among .*") as e:
        ask(path, strategies=["random", "k_center", "entropy"], variants=ENTROPY)
    assert holes[0] in str(e.value) and "another out" in str(e.value)
    assert {p: p.read_bytes() for p in path.rglob("*") if p.is_file()} == before


def test_without_leave_to_drop_rows_the_run_stops(ask, tmp_path, holes):
    with pytest.raises(DataError, match=r"2 rows have NaN or infinite features.*drop_invalid in a variant"):
        ask(tmp_path, strategies=["random", "k_center", "mean_entropy"], finetune_strategies=["random"])


def test_cells_trained_together_are_those_trained_one_by_one(ask, tmp_path):
    more = {"budgets": [4, 8], "seeds": [0, 1], "max_steps": 3}
    one = ask(tmp_path / "one", cells_at_once=1, **more)
    both = ask(tmp_path / "both", cells_at_once=3, **more)
    assert [(c["strategy"], c["budget"], c["seed"]) for c in both["cells"]] == [
        (s, b, seed) for b in (4, 8) for s in ("random", "k_center") for seed in (0, 1)
    ]
    for a, b in zip(one["cells"], both["cells"], strict=True):
        assert {k: a[k] for k in ("strategy", "budget", "seed")} == {k: b[k] for k in ("strategy", "budget", "seed")}
        assert b["train_loss"] == pytest.approx(a["train_loss"], rel=1e-5)
        assert b["scores"]["response_loss"] == pytest.approx(a["scores"]["response_loss"], rel=1e-5)
        assert b["scores"]["exact_match"] == a["scores"]["exact_match"]
    before = contents(tmp_path / "both")
    ask(tmp_path / "both", cells_at_once=1, **more)
    assert contents(tmp_path / "both") == before, "how many at once is no other run"


def test_a_variant_that_whitens_beside_others_that_do_not(ask, tmp_path):
    white = {"strategies": ["random", "white"], "variants": {"white": {"strategy": "k_center", "normalise": "whiten"}}}
    white["normalise"] = "l2"
    ask(tmp_path / "run", normalise="l2")
    ask(tmp_path / "run", **white, whiten_dims=3)
    assert len(ask(tmp_path / "run", **white, whiten_dims=3, seeds=[0, 1])["cells"]) == 4
    with pytest.raises(UsageError, match="whiten_dims"):
        ask(tmp_path / "run", **white, whiten_dims=2)


def test_a_variant_of_random_draws_anew_with_every_seed(ask, tmp_path):
    quotas = {"even": {"strategy": "random", "group_by": "dataset", "quotas": "balanced"}}
    ask(tmp_path, strategies=["random", "even"], variants=quotas, seeds=[0, 1], budgets=[2, 4])
    drawn = [read_selection(tmp_path / "selections" / f"even-b{b}-s{s}").ids for s in (0, 1) for b in (2, 4)]
    assert [len(ids) for ids in drawn] == [2, 4, 2, 4]
    assert set(drawn[1]) != set(drawn[3])


def test_a_warm_start_is_trained_on_and_never_chosen(ask, tmp_path):
    cold = ask(tmp_path / "cold", budgets=[4, 8])
    warm = ask(tmp_path / "warm", budgets=[4], warm_start=6)
    grown = ask(tmp_path / "warm", budgets=[4, 8], warm_start=6)
    assert [c["scores"] for c in grown["cells"] if c["budget"] == 4] == [c["scores"] for c in warm["cells"]]
    rows, orders = {}, {}
    for strategy in ("random", "k_center"):
        adapter = json.loads((tmp_path / f"warm/cells/{strategy}-b8-s0/adapter/manifest.json").read_text())
        orders[strategy] = read_selection(tmp_path / f"warm/selections/{strategy}-b8-s0").ids
        rows[strategy] = adapter["steps"], adapter["response_tokens"]
    plan = json.loads((tmp_path / "warm/selections/k_center-b8-s0/plan.json").read_text())
    labelled = plan["config"]["labelled"]
    assert len(labelled) == 6 and not {*labelled} & {*orders["random"], *orders["k_center"]}
    assert orders["k_center"] != read_selection(tmp_path / "cold/selections/k_center-b8-s0").ids
    tokens = {c["strategy"]: c["response_tokens"] for c in grown["cells"] if c["budget"] == 8}
    before = {s: taught - tokens[s] for s, (_, taught) in rows.items()}
    assert before["random"] == before["k_center"] > 0, "the warm start's tokens are nobody's own"
    assert len(cold["cells"]) == len(grown["cells"])
    with pytest.raises(UsageError, match="warm_start"):
        ask(tmp_path / "warm", budgets=[4], warm_start=5)
    with pytest.raises(UsageError, match="budget 20 beside a warm start of 6 is larger than the pool"):
        ask(tmp_path / "more", budgets=[20], warm_start=6)
