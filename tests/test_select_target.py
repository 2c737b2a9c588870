"""Choosing for a target, and beside rows that one has already: the plumbing, whatever method reads them."""

import dataclasses
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import edjax
from edjax.data.features import Features
from edjax.keep.errors import DataError, UsageError
from edjax.keep.store import read_json, writing
from edjax.kernels import COBRA, METHODS, FacilityLocation, Ground, KCenter, measure
from edjax.kernels import select as of_arrays
from edjax.selection.beside import refuse_missing
from edjax.selection.options import Options
from edjax.selection.prepared import prepare
from edjax.study.beforehand import _check_target
from edjax.study.recipe import make_recipe

N, M, D = 48, 7, 6
RNG = np.random.default_rng(0)
X = (RNG.normal(size=(N, D)) * [20, 8, 1, 1, 1, 1] + 5).astype(np.float32)
Z = (X[:M] + RNG.normal(size=(M, D)) * 0.1).astype(np.float32)  # prompts like the pool's first


def features(x, name="r", **scores):
    columns = {k: np.asarray(v, np.float32) for k, v in scores.items()}
    return Features(tuple(f"{name}{i}" for i in range(len(x))), x, columns, {}, f"digest of {name}")


def written(path, x, name="r", **columns):
    ids = [f"{name}{i}" for i in range(len(x))]
    pq.write_table(pa.table({"id": ids, "embedding": x.tolist(), **columns}), path)
    return path


@pytest.fixture
def given(tmp_path):
    written(tmp_path / "f.parquet", X, worry=X[:, 2].astype(float))
    written(tmp_path / "t.parquet", Z, "t")
    np.save(tmp_path / "t.npy", Z)
    return tmp_path


# What is chosen


@pytest.mark.parametrize("normalise", ["whiten", "l2", "none"])
def test_a_target_is_covered_as_the_kernel_covers_it_prepared_as_the_pool_is(normalise):
    got = edjax.select(features(X), budget=6, target=features(Z, "t"), normalise=normalise)
    by = measure.fit(X, normalise)
    twin = of_arrays(
        FacilityLocation(),
        Ground({"embedding": measure.apply(by, X)}, target={"embedding": measure.apply(by, Z)}),
        6,
    )
    assert got.indices.tolist() == twin.indices.tolist()
    np.testing.assert_allclose(got.gains, twin.gains, rtol=1e-3, atol=1e-4)
    assert got.ids != edjax.select(features(X), budget=6, normalise=normalise).ids


def test_a_pool_that_is_its_own_target_is_covered_as_ever():
    got = edjax.select(features(X), budget=8, target=features(X, "t"))
    assert got.ids == edjax.select(features(X), budget=8).ids


@pytest.mark.parametrize("strategy", ["facility_location", "k_center", "d_optimal"])
def test_existing_rows_start_the_state_and_are_no_rows_of_the_pool(strategy):
    got = edjax.select(features(X[9:]), strategy, 8, existing=features(X[:9], "e"), normalise="none")
    twin = edjax.select(features(X), strategy, 8, labelled=[f"r{i}" for i in range(9)], normalise="none")
    assert (got.indices + 9).tolist() == twin.indices.tolist()
    assert got.ids != edjax.select(features(X[9:]), strategy, 8, normalise="none").ids


def test_what_is_beyond_its_target_has_existing_rows_for_it():
    got = edjax.select(features(X), "flcg", 5, existing=features(Z, "e"), normalise="none")
    twin = of_arrays(METHODS["flcg"], Ground({"embedding": X}, target={"embedding": Z}), 5)
    assert got.indices.tolist() == twin.indices.tolist()


def test_groups_of_cobra_are_a_column_of_the_facts():
    kinds = np.asarray(["ab"[int(i % 5 == 0)] for i in range(N)], object)
    pool = Features(features(X).ids, X, {}, {"task": kinds}, "digest")
    got = edjax.select(pool, "cobra:by=task:balance=20", 8, target=features(Z, "t"), normalise="none")
    twin = of_arrays(
        COBRA(balance=20.0),
        Ground({"embedding": X, "group": (kinds == "b").astype(np.int32)}, target={"embedding": Z}),
        8,
    )
    assert got.indices.tolist() == twin.indices.tolist()
    assert sorted(kinds[got.indices].tolist()) == ["a"] * 4 + ["b"] * 4


def test_every_method_for_a_target_runs_from_the_command_line(edjax_, given):
    names = [n for n, m in METHODS.items() if m.needs_target]
    assert {"flqmi", "flmi", "cobra", "go", "sal", "rds_plus", "rocket"} <= set(names)
    where = ["--target", str(given / "t.parquet"), "--normalise", "none", "--budget", "4", "--out", str(given / "o")]
    code, _, err = edjax_("select", str(given / "f.parquet"), "--strategy", ",".join(names), *where)
    assert code == 0, err
    for name in names:
        twin = of_arrays(METHODS[name], Ground({"embedding": X}, target={"embedding": Z}), 4)
        picked = [int(j) for j in twin.indices if j >= 0]
        rows = (given / "o" / f"{name}-4" / "selection.csv").read_text().splitlines()[1:]
        assert [row.split(",")[1].strip("'\"") for row in rows] == [f"r{j}" for j in picked], name


def test_existing_rows_beside_labelled_ones_groups_weights_and_a_target():
    pool = dataclasses.replace(features(X, worry=X[:, 2]), facts={"task": np.arange(N) % 3})
    more = {"existing": features(Z, "e"), "labelled": ("r40", "r41"), "normalise": "whiten"}
    for asked in ({}, {"group_by": "task"}, {"weight_by": "worry"}, {"prefilter": "worry"}, {"near_duplicates": 0.999}):
        for strategy in ("k_center", "facility_location"):
            got = edjax.select(pool, strategy, 6, **more, **asked)
            assert len(set(got.ids)) == 6 and not {"r40", "r41"} & set(got.ids)
    both = edjax.select(pool, "facility_location", 6, target=features(Z, "t"), group_by="task", quotas="balanced")
    assert np.bincount(both.indices % 3).tolist() == [2, 2, 2]
    x = prepare(X)
    twin = of_arrays(KCenter(), Ground({"embedding": np.concatenate([x, x[:2]])}, given=np.array([N, N + 1])), 5)
    assert edjax.select(pool, "k_center", 5, existing=features(X[:2], "e")).indices.tolist() == twin.indices.tolist()


# What is refused


@pytest.mark.parametrize(
    ("strategy", "more", "error", "said"),
    [
        ("k_center", {"target": features(Z)}, UsageError, r"k_center reads no target; these do: .*facility_location"),
        ("random", {"target": features(Z)}, UsageError, "random reads no target"),
        ("random", {"existing": features(Z)}, UsageError, "random reads no existing rows; these do: k_center"),
        ("facility_location", {"target": "features"}, UsageError, r"target 'features' is no features; edjax.read_feat"),
        ("facility_location", {"target": features(Z[:, :4])}, DataError, "embeddings of 4 numbers, and the pool of 6"),
        ("k_center", {"existing": features(Z[:, :4])}, DataError, "the existing has embeddings of 4 numbers"),
        ("facility_location", {"target": features(Z[:0])}, DataError, "the target has no row"),
    ],
)
def test_what_makes_no_sense_is_refused(strategy, more, error, said):
    with pytest.raises(error, match=said):
        edjax.select(features(X), strategy, 4, **more)


def test_rows_of_a_target_that_are_not_finite():
    spoilt = Z.copy()
    spoilt[2, 1] = np.nan
    with pytest.raises(
        DataError, match=r"1 row of the target with NaN or infinite features \(t2\); mend them, or --allow invalid"
    ):
        edjax.select(features(X), budget=4, target=features(spoilt, "t"))
    got = edjax.select(features(X), budget=4, target=features(spoilt, "t"), drop_invalid=True)
    assert got.ids == edjax.select(features(X), budget=4, target=features(np.delete(Z, 2, axis=0), "t")).ids
    assert got.warning.startswith("1 row of the target with NaN or infinite features (t2): left out")
    with pytest.raises(DataError, match="the target has no row that is finite"):
        edjax.select(features(X), budget=4, target=features(Z * np.nan, "t"), drop_invalid=True)


class Aimed(KCenter):
    """As a method says it that cannot do without a target."""

    name, targets, needs_target = "aimed", True, True


def test_a_method_that_needs_a_target_says_what_to_give(monkeypatch, tmp_path):
    with pytest.raises(
        UsageError, match=r"aimed needs rows to choose for: give --target FEATURES \(`edjax score` makes"
    ):
        refuse_missing(Aimed(), Options())
    refuse_missing(Aimed(), Options(target=features(Z)))
    monkeypatch.setitem(edjax.selection.strategies.STRATEGIES, "aimed", Aimed())
    keys = {"pool": "p", "evaluation": "e", "out": "o", "select": {"strategies": ["random", "aimed"]}}
    with pytest.raises(UsageError, match="aimed needs rows to choose for: name their features with target"):
        _check_target(make_recipe(keys, tmp_path))


# The command line and recipes


def test_select_for_a_target(edjax_, fails, given):
    base = ["select", given / "f.parquet", "--budget", 5, "--normalise", "l2"]
    assert edjax_(*base, "--target", given / "t.parquet", "--out", given / "a")[0] == 0
    manifest = read_json(given / "a" / "manifest.json")
    assert manifest["config"]["target"] == str(given / "t.parquet")
    assert manifest["inputs"]["target"] == edjax.read_features(given / "t.parquet").digest
    assert edjax_(*base, "--target", given / "t.npy", "--out", given / "b")[0] == 0
    assert (given / "a" / "selection.csv").read_bytes() == (given / "b" / "selection.csv").read_bytes()
    # Without one a directory is what it was before there were targets, and other targets are other settings.
    assert edjax_(*base, "--out", given / "c")[0] == 0
    assert not {"target", "existing"} & set(read_json(given / "c" / "manifest.json")["config"])
    assert "target" in fails(2, *base, "--target", given / "t.npy", "--out", given / "a")
    assert "k_center reads no target" in fails(
        2, *base, "--strategy", "k_center", "--target", given / "t.npy", "--out", given / "d"
    )
    assert not (given / "d").exists()
    code, out, _ = edjax_(*base, "--target", given / "t.npy", "--dry-run")
    assert code == 0 and out.startswith(f"facility_location (resident) of 5 rows from {N} x {D}")


def test_strategies_side_by_side_of_which_one_reads_the_target(edjax_, given):
    base = ["select", given / "f.parquet", "--strategy", "facility_location,random", "--budget", 5]
    more = ["--target", given / "t.parquet", "--existing", given / "t.npy", "--out", given / "s"]
    assert edjax_(*base, *more)[0] == 0
    of = {n: read_json(given / "s" / f"{n}-5" / "manifest.json") for n in ("facility_location", "random")}
    assert {"target", "existing"} <= set(of["facility_location"]["config"])
    assert not {"target", "existing"} & {*of["random"]["config"], *of["random"]["inputs"]}
    alone = edjax.select(edjax.read_features(given / "f.parquet"), "random", 5)
    assert json.loads(edjax_(*base, *more, "--json")[1])["selections"][1]["rows"] == len(alone)


def scored(path, x, **config):
    """A directory as `edjax score` leaves it."""
    made = {"model": "smollm2", "layer": -1, "pooling": "mean"} | config
    with writing(path, kind="features", config=made, inputs={"model": f"weights of {made['model']}"}) as artifact:
        written(path / "shard-00000.parquet", x)
        artifact.finish()
    return path


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"layer": 3}, "was scored with layer 3, and"),
        ({"pooling": "last"}, "was scored with pooling last, and"),
        ({"model": "other"}, "was scored with model other, and"),
    ],
)
def test_features_of_another_making_are_refused(edjax_, fails, tmp_path, config, said):
    ours, alike = scored(tmp_path / "f", X), scored(tmp_path / "same", Z)
    base = ["select", ours, "--budget", 4, "--out", tmp_path / "out"]
    assert said in fails(2, *base, "--target", scored(tmp_path / "t", Z, **config))
    assert edjax_(*base, "--target", alike)[0] == 0


def test_strategies_say_who_reads_a_target(edjax_):
    lines = {line.split()[0]: line for line in edjax_("strategies")[1].splitlines()}
    assert "needs embeddings [--target]" in lines["facility_location"] and "--target" not in lines["k_center"]
    said = json.loads(edjax_("strategies", "--json")[1])
    assert said["facility_location"]["target"] == "taken" and said["random"]["target"] == "none"


def test_a_recipe_names_a_target(given):
    keys = {"pool": "p", "evaluation": "e", "out": "o"}
    recipe = make_recipe(keys | {"select": {"target": "t.parquet", "strategies": ["facility_location"]}}, given)
    assert recipe.target == str(given / "t.parquet")
    _check_target(recipe)
    with pytest.raises(UsageError, match="target: none of random, k_center reads one"):
        _check_target(
            make_recipe(keys | {"select": {"target": "t.parquet", "strategies": ["random", "k_center"]}}, given)
        )
