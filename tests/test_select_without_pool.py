"""Embeddings of one's own and no pool: ids are chosen, no rows are copied, and every verb after says what it needs."""

import csv
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from edjax.handoff import read_chosen
from edjax.keep.store import read_json
from edjax.selection.selection import read_selection

N = 20
X = np.random.default_rng(0).normal(size=(N, 5)).astype(np.float32)


@pytest.fixture
def given(tmp_path):
    rows = [{"id": f"r{i}", "prompt": f"Question {i}?", "task": f"t{i % 3}"} for i in range(N)]
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    table = {"id": [r["id"] for r in rows], "embedding": X.tolist(), "worry": X[:, 0].astype(float)}
    pq.write_table(pa.table({**table, "kind": [f"k{i % 2}" for i in range(N)]}), tmp_path / "f.parquet")
    np.save(tmp_path / "x.npy", X)
    (tmp_path / "ids.txt").write_text("".join(f"r{i}\n" for i in range(N)))
    return tmp_path


def command(given, *options, out="out", budget=6, strategy="k_center"):
    return ["select", given / "f.parquet", "--strategy", strategy, "--budget", budget, "--out", given / out, *options]


NOTE = "edjax: note: no pool was named: the ids are chosen, and there are no rows to copy (--pool copies them)\n"


@pytest.mark.parametrize("own", ["parquet", "array"])
def test_ids_order_and_gains_without_a_pool(edjax_, given, own):
    pool = ["--pool", given / "pool.jsonl"]
    source = {
        "parquet": ["--embeddings", given / "f.parquet"],
        "array": ["--embeddings", given / "x.npy", "--ids", given / "ids.txt"],
    }[own]
    base = ["select", *source, "--strategy", "k_center", "--budget", 6, "--out"]
    code, out, err = edjax_(*base, given / "bare")
    assert (code, err) == (0, NOTE) and out.endswith(f"{given}/bare/selection.csv\n")
    assert edjax_(*base, given / "whole", *pool)[0] == 0
    bare, whole = read_selection(given / "bare"), read_selection(given / "whole")
    assert bare.ids == whole.ids and bare.indices.tolist() == whole.indices.tolist()
    np.testing.assert_array_equal(bare.gains, whole.gains)
    assert (given / "bare" / "selection.csv").read_bytes() == (given / "whole" / "selection.csv").read_bytes()
    assert {p.name for p in (given / "whole").iterdir()} - {p.name for p in (given / "bare").iterdir()} == {
        "selected.jsonl"
    }
    assert "pool" not in read_json(given / "bare" / "manifest.json")["inputs"]


def test_the_other_strategies_and_options(edjax_, fails, given):
    code, out, err = edjax_(*command(given, strategy="random,worry", budget="3,6", out="all"))
    assert (code, err) == (0, NOTE) and out.endswith(f"{given}/all/*/selection.csv\n")
    line = fails(2, "export", given / "all", "--pool", given / "pool.jsonl", "--to", "csv", "--out", given / "a.csv")
    assert f"holds several selections; name one: {given}/all/random-3, {given}/all/random-6" in line
    assert edjax_(*command(given, "--group-by", "kind", out="g", strategy="random"))[0] == 0
    line = fails(2, *command(given, "--group-by", "task", out="h"))
    assert "f.parquet has no column 'task'; name the pool that has it with --pool" in line
    budget = ["--budget-tokens", 30, "--cost-by", "length"]
    assert "no column 'length'; name the pool that has it" in fails(2, *command(given, *budget, out="h"))
    assert edjax_(*command(given, "--dry-run"))[0] == 0
    bare = ["select", "--embeddings", given / "x.npy", *command(given)[2:]]
    assert "does not name its rows: give their ids with --ids FILE" in fails(2, *bare)
    assert not (given / "h").exists() and not (given / "out").exists()


def test_a_pool_that_is_named_later_is_another_selection(edjax_, fails, given):
    assert edjax_(*command(given))[0] == 0
    assert edjax_(*command(given))[0] == 0
    line = fails(2, *command(given, "--pool", given / "pool.jsonl"))
    assert "pool: null there, " in line and "--overwrite" in line
    assert edjax_(*command(given, "--pool", given / "pool.jsonl", "--overwrite"))[0] == 0
    assert (given / "out" / "selected.jsonl").exists()


def test_what_comes_after(edjax_, fails, given):
    """export and import-labels ask for the pool; verify, report and a second round work without."""
    assert edjax_(*command(given, budget=4))[0] == 0
    chosen, pool = given / "out", given / "pool.jsonl"
    said = f"{chosen} was selected without a pool and holds ids alone; name the pool of its rows with --pool"
    export = ["export", chosen, "--to", "csv", "--out", given / "a.csv"]
    assert said in fails(2, *export)
    assert said in fails(2, "import-labels", chosen, given / "a.csv", "--out", given / "o.jsonl")
    code, out, _ = edjax_(*export, "--pool", pool)
    assert code == 0 and f"import-labels {chosen} ANSWERS --out answered.jsonl --pool {pool}" in out
    ids = read_selection(chosen).ids
    with open(given / "a.csv", encoding="utf-8-sig", newline="") as f:
        rows = list(csv.DictReader(f))
    assert [(r["id"], r["prompt"]) for r in rows] == [(i, f"Question {i[1:]}?") for i in ids]
    (given / "answers.csv").write_text("id,response\n" + "".join(f"{i},to {i}\n" for i in ids))
    argv = ["import-labels", chosen, given / "answers.csv", "--out", given / "o.jsonl"]
    assert edjax_(*argv, "--pool", pool)[0] == 0
    answered = [json.loads(line) for line in (given / "o.jsonl").read_text().splitlines()]
    assert [(r["id"], r["response"]) for r in answered] == [(i, f"to {i}") for i in ids]
    assert "1 artefact sound" in edjax_("verify", chosen)[1]
    assert edjax_("report", chosen, "--out", given / "page.html")[0] == 0
    assert edjax_(*command(given, "--labelled", chosen, out="second", budget=4))[0] == 0
    assert edjax_(*command(given, out="both", budget=8))[0] == 0
    assert ids + read_selection(given / "second").ids == read_selection(given / "both").ids


def test_a_pool_beside_what_has_its_rows(edjax_, fails, given):
    pool = given / "pool.jsonl"
    assert edjax_(*command(given, "--pool", pool))[0] == 0
    to = ["--to", "csv", "--out", given / "a.csv", "--pool", pool]
    assert f"{given}/out holds its rows; leave out --pool {pool}" in fails(2, "export", given / "out", *to)
    assert "is for a selection that was made without a pool" in fails(2, "export", pool, *to)
    assert edjax_(*command(given, out="bare"))[0] == 0
    (given / "other.jsonl").write_text('{"id": "x", "prompt": "q"}\n')
    line = fails(3, "export", given / "bare", *to[:-1], given / "other.jsonl")
    assert "other.jsonl has no row with id 'r" in line and "these features are of another pool" in line


def test_rows_of_a_pool_by_other_names(edjax_, given):
    text = (given / "pool.jsonl").read_text().replace('"id"', '"uid"').replace('"prompt"', '"question"')
    (given / "other.jsonl").write_text(text)
    assert edjax_(*command(given, budget=3))[0] == 0
    chosen = read_chosen(given / "out", pool=given / "other.jsonl", id_column="uid", text_column="question")
    assert chosen.pool.ids == read_selection(given / "out").ids
    assert [chosen.prompt(i) for i in range(3)] == [f"Question {i[1:]}?" for i in chosen.pool.ids]
    assert chosen.facts[1]["order"] == 1 and chosen.facts[1]["gain"] > 0
