"""The trials: a setting walked on a tiny model, and gone on with; what is drawn; committed cells give the tables."""

import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent.parent))  # benchmarks/ is run from a checkout, not installed
from benchmarks.evidence import trials, trials_settings
from benchmarks.harness.runner import RESULTS
from benchmarks.pages import trials_table
from edjax.data.pool import read_pool

SMALL = [
    "budgets=[3, 6]",
    "seeds=[0]",
    "random_seeds=[0, 1]",
    "strategies=[random, task_quotas, facility_location_whitened]",
    "pool_rows=40",
    "evaluation_rows=8",
    "max_steps=1",
    "score_batch_size=8",
    "evaluation_batch_size=8",
    "max_length=24",
]


@pytest.fixture(scope="module")
def walk(shared, tmp_path_factory):
    where = tmp_path_factory.mktemp("trials")

    def walk(*overrides):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(trials.runner, "RESULTS", where)
            own = [f"model={shared / 'models' / 'stories260k'}", *SMALL, *overrides, "--out", str(where / "cells")]
            done = CliRunner().invoke(trials.main, ["long_tail", *own], catch_exceptions=False)
            assert done.exit_code == 0, done.output
        return json.loads((where / "trials-long_tail.json").read_text()), where / "cells" / "long_tail"

    return walk


def test_a_setting_is_walked_and_goes_on(walk):
    first, home = walk("budgets=[6]")
    before = {p: p.read_bytes() for p in (home / "run" / "cells").rglob("*") if p.is_file()}
    found, _ = walk()
    assert {p: p.read_bytes() for p in before} == before, "what was done is not done again"
    assert [c["job"] for c in found["rows"] if c["budget"] == 6] == [c["job"] for c in first["rows"]]
    assert len(found["rows"]) == 8 and {c["strategy"] for c in found["rows"]} == set(found["recipe"]["strategies"])
    text = trials_table.one(found)
    assert "| `task_quotas` |" in text and "8 cells" in text and "random` against itself" in text
    file = home.parent.parent / "trials-long_tail.json"
    assert not trials.again(file)
    file.write_text(json.dumps(found | {"results": {}}))
    assert trials.again(file) and json.loads(file.read_text())["results"] == found["results"]


def test_a_setting_walked_in_parts_is_the_whole(walk):
    whole, home = walk()
    file = home.parent.parent / "trials-long_tail.json"
    file.unlink()
    for part in ("strategies=[task_quotas]", "strategies=[random]", "strategies=[facility_location_whitened]"):
        joined, _ = walk(part)
    same = ("rows", "results", "base", "pool", "evaluation")
    order = [(c["strategy"], c["budget"], c["seed"]) for c in joined["rows"]]
    assert sorted(order) == sorted((c["strategy"], c["budget"], c["seed"]) for c in whole["rows"])
    assert (
        joined["results"]["macro"]["response_loss"]["savings"] == whole["results"]["macro"]["response_loss"]["savings"]
    )
    assert {k: joined[k] for k in same[2:]} == {k: whole[k] for k in same[2:]}
    assert set(joined["recipe"]["strategies"]) == set(whole["recipe"]["strategies"])
    with pytest.raises(trials.click.ClickException, match="finetune"):
        trials.joined(joined | {"recipe": joined["recipe"] | {"finetune": {}}}, whole)


def test_every_task_counts_alike_in_macro_and_every_row_in_scores(walk):
    found, home = walk()
    tasks = read_pool(str(home / "evaluation.jsonl")).column("task")
    rows = [json.loads(line) for line in (home / "run" / "base" / "evaluation" / "rows.jsonl").read_text().splitlines()]
    place = dict(zip(read_pool(str(home / "evaluation.jsonl")).ids, tasks, strict=True))
    losses: dict[str, list[float]] = {}
    for row in rows:
        losses.setdefault(place[row["id"]], []).append(row["response_loss"])
    assert found["base"]["macro"]["response_loss"] == pytest.approx(np.mean([np.mean(v) for v in losses.values()]))
    assert found["base"]["scores"]["response_loss"] == pytest.approx(np.mean([x for v in losses.values() for x in v]))


@pytest.mark.parametrize(("name", "first", "last"), [("long_tail", 700, 11), ("all_alike", 54, 54)])
def test_tasks_fall_off_as_asked(shared, tmp_path, name, first, last):
    made = trials_settings.SETTINGS[name].build(shared / "data", tmp_path)
    pool, held = (read_pool(str(tmp_path / made[k])) for k in ("pool", "evaluation"))
    counts = [n for _, n in Counter(pool.column("task")).most_common()]
    assert (len(counts), counts[0], counts[-1]) == (60, first, last)
    assert set(held.column("task")) == set(pool.column("task")) and not set(held.ids) & set(pool.ids)
    assert max(Counter(held.column("task")).values()) <= 6
    assert max(len(t) for t in map(pool.prompt_text, range(len(pool)))) <= 250


def test_intents_hold_two_rows_of_each_out(shared, tmp_path):
    made = trials_settings.SETTINGS["intents"].build(shared / "data", tmp_path)
    pool, held = (read_pool(str(tmp_path / made[k])) for k in ("pool", "evaluation"))
    assert (len(pool), len(held)) == (2340, 300) and set(Counter(held.responses).values()) == {2}
    assert not set(pool.ids) & set(held.ids)


@pytest.fixture(scope="module")
def everything(shared):
    return tuple(trials_settings.whole(shared / "data" / f"{name}.parquet") for name in ("pool", "pool_val"))


@pytest.mark.parametrize(("name", "first", "last"), [("dose_s00", 22, 9), ("dose_s10", 972, 3), ("dose_s15", 2409, 1)])
def test_a_dose_is_of_every_task_that_is_evaluated(everything, name, first, last):
    pool, held = trials_settings.SETTINGS[name].draw(*everything)
    counts = [n for _, n in Counter(pool.column("task")).most_common()]
    assert (len(counts), counts[0], counts[-1]) == (268, first, last)
    assert 5_800 <= len(pool) <= 6_000 and len(held) == 1673, "all that is held out evaluates"
    recipe = trials_settings.SETTINGS[name].recipe
    assert min(recipe["budgets"]) == 268 and len(recipe["seeds"]) == len(recipe["random_seeds"]) == 6


def test_the_whole_pool_leaves_out_what_nothing_evaluates(everything):
    pool, held = trials_settings.SETTINGS["flan_whole"].draw(*everything)
    assert (len(pool), len(held)) == (88_746, 1673)
    assert set(held.column("task")) == set(pool.column("task"))
    recipe = trials_settings.SETTINGS["flan_whole"].recipe
    assert set(recipe["strategies"]) == {"random", *recipe["variants"]}


def test_a_budget_where_random_lacks_seeds_does_not_count_for_savings():
    found = json.loads((RESULTS / "trials-long_tail.json").read_text())
    loss = found["results"]["macro"]["response_loss"]
    few = {b for b in found["recipe"]["budgets"] if b not in loss["whole"]}
    rows = [c for c in found["rows"] if c["budget"] not in few]
    alone = trials.results_of(rows, found["base"])["macro"]["response_loss"]
    assert alone["savings"] == loss["savings"] and alone["whole"] == loss["whole"]
    last = [c for c in rows if not (c["strategy"] == "random" and c["budget"] == max(loss["whole"]) and c["seed"] == 0)]
    assert trials.results_of(last, found["base"])["macro"]["response_loss"]["whole"] == loss["whole"][:-1]
    assert all("null" in s for s in loss["savings"])


@pytest.mark.parametrize("path", sorted(RESULTS.glob("trials-*.json")), ids=lambda p: p.stem)
def test_committed_results_are_those_of_their_cells(path):
    found = json.loads(path.read_text())
    assert trials.results_of(found["rows"], found["base"]) == found["results"]
    assert found["recipe"]["strategies"][0] == "random" and "-dirty" not in found["commit"]
