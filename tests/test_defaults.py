"""What chooses where nothing is said is one thing everywhere, and what an earlier default began is kept apart."""

import inspect
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import edjax
from edjax.cli import cli
from edjax.data.features import Survey
from edjax.demo import recipe as demo
from edjax.keep.errors import UsageError
from edjax.keep.store import read_json
from edjax.kernels import plan
from edjax.kernels.measure import dimensions
from edjax.kernels.on_host import fit_bytes
from edjax.selection import defaults
from edjax.selection.choose import select
from edjax.selection.cost import forecast
from edjax.selection.options import Options
from edjax.selection.prepared import prepare
from edjax.selection.selection import read_selection
from edjax.study.analysis.seeds import FEWEST, NULL_FROM
from edjax.study.recipe import Recipe, make_recipe
from edjax.study.run import run

N, D = 40, 6
X = (np.random.default_rng(0).normal(size=(N, D)) * [20, 8, 1, 1, 1, 1] + 5).astype(np.float32)


@pytest.fixture
def vectors(tmp_path):
    table = {"id": [f"r{i}" for i in range(N)], "embedding": X.tolist(), "worry": X[:, 2].astype(float)}
    pq.write_table(pa.table(table), tmp_path / "f.parquet")
    return tmp_path / "f.parquet"


def test_every_door_has_the_same_default():
    options = {p.name: p.default for p in cli.commands["select"].params}
    recipe = Recipe(pool="p", evaluation="e", out="o")
    normalise = [Options().normalise, recipe.normalise, options["normalise"]]
    normalise.append(inspect.signature(prepare).parameters["normalise"].default)
    assert normalise == ["whiten"] * 4
    assert [Options().whiten_dims, recipe.whiten_dims, options["whiten_dims"]] == [defaults.WHITEN_DIMS] * 3
    assert options["strategy"] == inspect.signature(select).parameters["strategy"].default == "facility_location"
    assert recipe.strategies == ("random", "facility_location")
    np.testing.assert_array_equal(prepare(X), prepare(X, "whiten", defaults.WHITEN_DIMS))


def test_select_without_a_strategy(edjax_, vectors, tmp_path):
    code, out, _ = edjax_("select", vectors, "--budget", 5, "--out", tmp_path / "a")
    assert code == 0 and out.startswith(f"5 of {N} rows by facility_location")
    config = read_json(tmp_path / "a" / "manifest.json")["config"]
    assert (config["strategy"], config["normalise"], config["whiten_dims"]) == ("facility_location", "whiten", 200)
    features = edjax.read_features(vectors)
    assert read_selection(tmp_path / "a").ids == edjax.select(features, budget=5).ids
    assert edjax.select(features, budget=5).ids != edjax.select(features, budget=5, normalise="l2").ids


def test_near_duplicates_are_those_of_rows_of_length_one(vectors):
    """A threshold means the same whatever the strategies see."""
    features = edjax.read_features(vectors)
    found = [select(features, "random", 5, near_duplicates=0.9, normalise=n).removed for n in ("whiten", "l2", "none")]
    x = X - X.mean(0)
    x /= np.linalg.norm(x, axis=1)[:, None]
    assert found[0] and found[0] == found[1] == found[2]
    for gone, kept, similarity in found[0]:
        assert similarity == pytest.approx(x[int(gone[1:])] @ x[int(kept[1:])], abs=1e-5)


# What an earlier version began


def test_a_selection_of_the_earlier_default_is_refused_with_what_to_do(edjax_, fails, vectors, tmp_path):
    again = ["select", vectors, "--strategy", "k_center", "--budget", 5, "--out", tmp_path / "a"]
    assert edjax_(*again, "--normalise", "l2")[0] == 0
    line = fails(2, *again)
    assert 'normalise: "l2" there, "whiten" now' in line
    assert "to go on there, give it normalise: l2, without whiten_dims" in line
    assert edjax_(*again, "--normalise", "l2")[0] == 0


def test_a_run_of_the_earlier_default_is_refused_with_what_to_do(shared, tmp_path):
    data = {k: str(shared / "data" / f"ci_{v}.jsonl.gz") for k, v in (("pool", "pool"), ("evaluation", "eval"))}
    asked = data | {"model": str(shared / "models" / "stories260k"), "out": str(tmp_path / "run"), "pool_rows": 12}
    asked |= {"evaluation_rows": 2, "strategies": ["k_center"], "budgets": [2], "metrics": ["response_loss"]}
    asked |= {"max_new_tokens": 0, "max_length": 16, "max_steps": 1, "save_steps": 0, "per_device_train_batch_size": 2}
    first = run(make_recipe(asked | {"normalise": "l2"}, tmp_path), show_progress=False)
    said = 'normalise: "l2" there, "whiten" now.*; to go on there, give it normalise: l2$'
    with pytest.raises(UsageError, match=said):
        run(make_recipe(asked, tmp_path), show_progress=False)
    (tmp_path / "run" / "manifest.json").unlink()  # stopped half-way
    with pytest.raises(UsageError, match=said):
        run(make_recipe(asked, tmp_path), show_progress=False)
    again = run(make_recipe(asked | {"normalise": "l2"}, tmp_path), show_progress=False)
    assert [c["scores"] for c in again["cells"]] == [c["scores"] for c in first["cells"]]


@pytest.mark.parametrize("strategy", ["facility_location", "random", "worry"])
def test_a_second_round_on_other_features_says_so(edjax_, vectors, tmp_path, strategy):
    """Once the first round was a design: what random chose is labelled, and nothing more."""
    base = ["select", vectors, "--budget", 5]
    assert edjax_(*base, "--strategy", strategy, "--normalise", "l2", "--out", tmp_path / "a")[0] == 0
    code, _, err = edjax_(*base, "--labelled", tmp_path / "a", "--out", tmp_path / "b")
    said = f"{tmp_path / 'a'} was chosen with --normalise l2 and this round with whiten"
    assert code == 0 and (said in err) == (strategy == "facility_location")
    assert not set(read_selection(tmp_path / "a").ids) & set(read_selection(tmp_path / "b").ids)
    for more in (["--normalise", "l2"], ["--strategy", "random"]):
        code, _, err = edjax_(*base, "--labelled", tmp_path / "a", *more, "--out", tmp_path / more[-1])
        assert code == 0 and "this round" not in err


# What it costs


def test_a_forecast_counts_whitened_rows_and_whitening():
    found = Survey(100_000, 768, ())
    l2, whitened = (forecast(found, "facility_location", 1000, 4 << 30, Options(normalise=n)) for n in ("l2", "whiten"))
    assert "from 100,000 x 768: " in l2.says and "from 100,000 x 200: " in whitened.says
    assert "whitened from 768 to 200 dimensions first, 153 GFLOP" in whitened.says and "whitened" not in l2.says
    narrow, size = plan("facility_location", 100_000, 200, 1000), 4 * 100_000 * 768
    assert whitened.bytes - (l2.bytes - 2 * size - plan("facility_location", 100_000, 768, 1000).bytes) == size + max(
        narrow.bytes + 4 * 100_000 * 200, size + 4 * 100_000 * 200, fit_bytes(8192, 768)
    )


def test_a_forecast_of_rows_on_disk_counts_both_files():
    found = Survey(100_000, 768, ())
    l2, whitened = (forecast(found, "k_center", 100, 1 << 20, Options(normalise=n)) for n in ("l2", "whiten"))
    assert (l2.disk, whitened.disk) == (4 * 100_000 * 768, 4 * 100_000 * (768 + 200))
    assert "k_center (streamed) of 100 rows from 100,000 x 200" in whitened.says


def test_clusters_are_made_of_prepared_rows_whoever_chooses():
    found = Survey(5000, 64, ())
    plain, grouped = (forecast(found, "random", 9, 1 << 30, Options(group_by=g)) for g in ("task", "cluster:5"))
    assert "whitened from 64 to 64 dimensions first" in grouped.says and "whitened" not in plain.says


def test_a_dry_run_takes_what_was_asked(edjax_, vectors):
    base = ["select", vectors, "--budget", 5, "--dry-run"]
    assert edjax_(*base)[1].startswith(f"facility_location (resident) of 5 rows from {N} x {dimensions(N, D, 200)}: ")
    assert f"rows from {N} x 3: " in edjax_(*base, "--whiten-dims", 3)[1]
    assert f"rows from {N} x {D}: " in edjax_(*base, "--normalise", "none", "--json")[1]


# The demo


def test_the_demo_has_seeds_enough_for_an_interval_and_a_null(tmp_path):
    got = demo(tmp_path)
    assert got.strategies == ("random", defaults.STRATEGY) and got.normalise == defaults.NORMALISE
    assert len(got.seeds_of(defaults.STRATEGY)) >= FEWEST and len(got.seeds_of("random")) >= NULL_FROM
    assert len(got.budgets) >= 2, "one budget is no curve"
    assert json.loads((tmp_path / "data" / "pool.jsonl").read_text().splitlines()[0])["id"] == "demo-00000"
