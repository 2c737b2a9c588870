"""What a value carries after a colon is what a flag of its own says, and both say one thing."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from edjax.keep.store import read_json

N = 30
X = np.random.default_rng(0).normal(size=(N, 5)).astype(np.float32)


@pytest.fixture
def given(tmp_path):
    """A pool with a task a row and a bad line, and features of it, one of them NaN."""
    rows = [{"id": f"r{i}", "prompt": f"Question {i}?", "task": f"t{i % 3}"} for i in range(N)]
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (tmp_path / "bad.jsonl").write_text((tmp_path / "pool.jsonl").read_text() + "{\n")
    table = {"id": [r["id"] for r in rows], "worry": X[:, 0].astype(float), "price": [4.0 + i % 3 for i in range(N)]}
    table |= {"n_prompt_tokens": [4] * N, "a:1": X[:, 1].astype(float)}
    pq.write_table(pa.table({**table, "embedding": X.tolist()}), tmp_path / "f.parquet")
    pq.write_table(pa.table({**table, "vector": X.tolist()}), tmp_path / "v.parquet")
    broken = X.copy()
    broken[3] = np.nan
    pq.write_table(pa.table({**table, "embedding": broken.tolist()}), tmp_path / "nan.parquet")
    return tmp_path


def command(given, *options, features="f.parquet", pool="pool.jsonl", out="out", budget=6):
    to = ["--strategy", "random", *(["--budget", budget] if budget else []), "--out", given / out]
    return ["select", given / features, "--pool", given / pool, *to, *options]


SAME = [
    (["--weight-by", "worry:2"], ["--weight-by", "worry", "--strength", "2"]),
    (["--prefilter", "worry:1.5"], ["--prefilter", "worry", "--prefilter-ratio", "1.5"]),
    (["--normalise", "whiten:3"], ["--whiten-dims", "3"]),
    (["--group-by", "task:quotas=balanced"], ["--group-by", "task", "--quotas", "balanced"]),
    (
        ["--group-by", "cluster:3:keep_small=2:quotas=balanced"],
        ["--group-by", "cluster:3", "--quotas", "balanced", "--keep-small", "2"],
    ),
    (["--budget-tokens", "20:price"], ["--budget-tokens", "20", "--cost-by", "price"]),
    (["--budget-cost", "30.5:price"], ["--budget-cost", "30.5", "--price-by", "price"]),
    (
        ["--budget-cost", "9:per_row=0.5:per_token=0.25"],
        ["--budget-cost", "9", "--cost-per-row", "0.5", "--cost-per-token", "0.25"],
    ),
    (["--allow", "fewer"], ["--allow-fewer"]),
    (["--allow", "unknown, invalid"], ["--allow-unknown", "--drop-invalid"]),
]


@pytest.mark.parametrize(("short", "long"), SAME, ids=lambda o: " ".join(o))
def test_the_short_form_is_the_long_one(edjax_, given, short, long):
    """The same settings in the manifest: the second command finds all done."""
    assert edjax_(*command(given, *short))[0] == 0
    config = read_json(given / "out" / "manifest.json")["config"]
    before = (given / "out" / "manifest.json").stat().st_mtime_ns
    code, _, err = edjax_(*command(given, *long))
    assert code == 0, err
    assert (given / "out" / "manifest.json").stat().st_mtime_ns == before
    assert edjax_(*command(given, *long, out="long"))[0] == 0
    assert read_json(given / "long" / "manifest.json")["config"] == config


def test_a_column_with_a_colon_and_a_number_is_named_with_the_power_behind_it(edjax_, given):
    assert edjax_(*command(given, "--weight-by", "a:1:0.5"))[0] == 0
    config = read_json(given / "out" / "manifest.json")["config"]
    assert (config["weight_by"], config["strength"]) == ("a:1", 0.5)


TWICE = [
    (["--weight-by", "worry:2", "--strength", "2"], "--weight-by worry:2 says strength, and --strength says it too"),
    (["--prefilter", "worry:3", "--prefilter-ratio", "3"], "says prefilter_ratio, and --prefilter-ratio says it too"),
    (["--normalise", "whiten:3", "--whiten-dims", "3"], "says whiten_dims, and --whiten-dims says it too"),
    (["--group-by", "task:quotas=balanced", "--quotas", "balanced"], "says quotas, and --quotas says it too"),
    (["--group-by", "task:quotas=balanced:quotas=balanced"], "says quotas twice"),
    (["--budget-tokens", "20:price", "--cost-by", "price"], "says cost_by, and --cost-by says it too"),
    (["--budget-cost", "9:per_row=1", "--cost-per-row", "1"], "says cost_per_row, and --cost-per-row says it too"),
    (["--allow", "fewer,bad-lines", "--skip-bad-lines"], "--allow fewer,bad-lines says skip_bad_lines, and --skip-bad"),
]


@pytest.mark.parametrize(("options", "said"), TWICE, ids=lambda o: " ".join(o) if isinstance(o, list) else "")
def test_said_twice_is_refused(fails, given, options, said):
    assert said in fails(2, *command(given, *options))


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--weight-by", "worry:much"], 3, "no score 'worry:much'"),
        (["--weight-by", "worry:-1"], 2, "strength -1.0"),
        (["--prefilter", "worry:0.5"], 2, "prefilter_ratio 0.5"),
        (["--normalise", "l2:3"], 2, "normalise 'l2:3' is not one of"),
        (["--group-by", "task:quotas=fair"], 2, "quotas 'fair' is not one of"),
        (["--group-by", "task:keep_small=x"], 2, "keep_small=x is not a whole number"),
        (["--budget-tokens", "many"], 2, "'many' is not N or N:COLUMN"),
        (["--budget", "ten%"], 2, "'ten%' is neither a whole number of rows nor a share such as 10%"),
        (["--budget", "120%"], 2, "budget '120%' is not a share above 0, at most 100%"),
        (["--budget-cost", "much"], 2, "'much' begins with no number"),
        (["--budget-cost", "9:per_row=x"], 2, "per_row=x is not a number"),
        (["--budget-cost", "9"], 2, "budget_cost does not say what a row costs"),
        (["--budget-cost", "nan:per_row=1"], 2, "budget_cost nan is not a number of 0 or more"),
        (["--allow", "all"], 2, "'all' is not one of fewer, unknown, invalid, bad-lines"),
    ],
)
def test_what_makes_no_sense_is_said(fails, given, options, code, said):
    assert said in fails(code, *command(given, *options))


def test_what_is_passed_over(edjax_, fails, given):
    assert "r3" in fails(3, *command(given, features="nan.parquet"))
    assert edjax_(*command(given, "--allow", "invalid", features="nan.parquet"))[0] == 0
    assert "bad.jsonl" in fails(3, *command(given, pool="bad.jsonl", out="b"))
    assert edjax_(*command(given, "--allow", "bad-lines", pool="bad.jsonl", out="b"))[0] == 0
    assert "budget 40 is larger" in fails(2, *command(given, budget=40, out="c"))
    assert edjax_(*command(given, "--allow", "fewer", budget=40, out="c"))[0] == 0
    (given / "ids.txt").write_text("r1\nx\n")
    labelled = ["--labelled", given / "ids.txt"]
    assert "'x'" in fails(3, *command(given, *labelled, out="d"))
    assert edjax_(*command(given, *labelled, "--allow", "unknown", out="d"))[0] == 0


def test_the_column_of_a_parquet_file(edjax_, fails, given):
    assert "no column ['embedding']" in fails(3, *command(given, features="v.parquet"))
    assert edjax_(*command(given, features="v.parquet:vector"))[0] == 0
    assert "FEATURES" in fails(2, *command(given, "--embedding-column", "vector", features="v.parquet:vector"))
    named = ["select", "--embeddings", f"{given / 'v.parquet'}:vector", "--budget", 6, "--out", given / "e"]
    assert edjax_(*named, "--strategy", "random")[0] == 0
    assert (given / "e" / "selection.csv").exists()
