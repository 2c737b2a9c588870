"""Strategies that are compared choose among the same rows, also where a score holds NaN."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from edjax.data.features import Features
from edjax.selection.choose import Chooser, usable
from edjax.selection.options import Options
from edjax.selection.selection import read_selection

N = 12
X = np.random.default_rng(0).normal(size=(N, 3)).astype(np.float32)
WORRY = np.where(np.isin(np.arange(N), (2, 9)), np.nan, np.arange(N)).astype(np.float32)


def features(x=X):
    return Features(
        tuple(f"r{i}" for i in range(N)), x, {"worry": WORRY, "calm": -np.arange(N, dtype=np.float32)}, {}, "d"
    )


@pytest.fixture
def given(tmp_path):
    (tmp_path / "pool.jsonl").write_text(
        "".join(json.dumps({"id": f"r{i}", "prompt": f"q{i}"}) + "\n" for i in range(N))
    )
    table = {"id": [f"r{i}" for i in range(N)], "embedding": X.tolist(), "worry": WORRY.astype(float)}
    pq.write_table(pa.table(table), tmp_path / "f.parquet")
    return tmp_path


def command(given, strategies, *more, out="out"):
    return [
        "select",
        given / "f.parquet",
        "--pool",
        given / "pool.jsonl",
        "--strategy",
        strategies,
        "--out",
        given / out,
        *more,
    ]


def test_all_choose_among_what_each_can_use():
    asked = Options(drop_invalid=True)
    names = ("random", "k_center", "d_optimal", "worry", "calm")
    chooser = Chooser(features(), asked, usable(features(), [(name, asked) for name in names]))
    for name in names:
        (got,) = chooser.choose(name, [N - 2])
        assert set(got.ids) == {f"r{i}" for i in range(N) if i not in (2, 9)}, name
        assert got.warning.startswith("2 rows ") and "(r2, r9)" in got.warning
        assert chooser.left_out(name) == ([] if name == "worry" else ["r2", "r9"])
    assert len(Chooser(features(), asked).choose("k_center", [N])[0]) == N, "alone it may choose any row"


def test_options_that_read_a_score_count_too():
    plain, weighed = Options(), Options(weight_by="worry", drop_invalid=True)
    candidates = usable(features(), [("random", plain), ("k_center", weighed)])
    assert np.flatnonzero(~candidates).tolist() == [2, 9]
    (got,) = Chooser(features(), plain, candidates).choose("random", [N - 2])
    assert not {"r2", "r9"} & set(got.ids)


def test_a_labelled_row_without_the_score_is_still_known():
    """It is no candidate anyhow, and k-center stays away from what has a label."""
    x = X.copy()
    x[2] = x[5] + 1e-3
    asked = Options(drop_invalid=True, labelled=("r2",), normalise="none")
    candidates = usable(features(x), [("k_center", asked), ("worry", asked)])
    (got,) = Chooser(features(x), asked, candidates).choose("k_center", [10])
    (alone,) = Chooser(features(x), asked).choose("k_center", [11])
    assert got.ids[-1] == alone.ids[-1] == "r5" and "r2" not in got.ids


def test_the_command_with_several_strategies(given, edjax_, fails):
    line = fails(3, *command(given, "k_center,worry", "--budget", 6))
    assert "2 rows have NaN or infinite features (r2, r9)" in line and not (given / "out").exists()
    code, _, err = edjax_(*command(given, "k_center,random,worry", "--budget", 10, "--drop-invalid"))
    assert code == 0
    assert "note: k_center-10, random-10: 2 rows that another strategy of this comparison cannot use (r2, r9)" in err
    made = [set(read_selection(given / "out" / f"{s}-10").ids) for s in ("k_center", "random", "worry")]
    assert made[0] == made[1] == made[2]


def test_a_strategy_that_joins_a_directory_later(given, edjax_, fails):
    """Its rows would be others' candidates no more: what is there was chosen among more."""
    assert edjax_(*command(given, "k_center,random", "--budget", 6, "--drop-invalid"))[0] == 0
    assert "left_out: null there" in fails(2, *command(given, "k_center,random,worry", "--budget", 6, "--drop-invalid"))


def test_nothing_is_said_where_all_can_use_all(given, edjax_):
    pq.write_table(pq.read_table(given / "f.parquet").set_column(2, "worry", [list(range(N))]), given / "f.parquet")
    code, _, err = edjax_(*command(given, "k_center,random", "--budget", 6))
    assert (code, err) == (0, "")
    inputs = json.loads((given / "out" / "random-6" / "manifest.json").read_text())["inputs"]
    assert "left_out" not in inputs
    assert edjax_(*command(given, "random", "--budget", 6, out="alone"))[0] == 0
    assert read_selection(given / "alone").ids == read_selection(given / "out" / "random-6").ids
