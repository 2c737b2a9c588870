"""`edjax select` for real life, from the command line: own features, second rounds, several at once."""

import csv
import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from edjax.keep.store import read_json
from edjax.selection.selection import read_selection

N = 30
X = np.random.default_rng(0).normal(size=(N, 5)).astype(np.float32)


@pytest.fixture
def given(tmp_path):
    """A pool with a task a row, and features of it."""
    rows = [{"id": f"r{i}", "prompt": f"Question {i}?", "task": f"t{i % 3}", "price": 5 + i % 7} for i in range(N)]
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    table = {"id": [r["id"] for r in rows], "embedding": X.tolist(), "n_prompt_tokens": [4] * N}
    pq.write_table(pa.table({**table, "worry": X[:, 0].astype(float)}), tmp_path / "f.parquet")
    np.save(tmp_path / "x.npy", X)
    return tmp_path


def command(given, *options, out="out", strategy="k_center", budget=6):
    pool, found = given / "pool.jsonl", given / "f.parquet"
    return ["select", found, "--pool", pool, "--strategy", strategy, "--budget", budget, "--out", given / out, *options]


def ids(path):
    return [json.loads(line)["id"] for line in (path / "selected.jsonl").read_text().splitlines()]


# Own features


def test_an_array_with_the_pool_s_ids_or_its_own(edjax_, fails, given):
    assert edjax_(*command(given))[0] == 0
    first = (given / "out" / "selected.jsonl").read_bytes()
    (given / "ids.txt").write_text("".join(f"r{i}\n" for i in range(N)))
    base = ["select", "--embeddings", given / "x.npy", "--strategy", "k_center", "--budget", 6]
    for name, more in [("a", []), ("b", ["--ids", given / "ids.txt"]), ("c", ["--ids", given / "pool.jsonl"])]:
        code, out, err = edjax_(*base, "--pool", given / "pool.jsonl", "--out", given / name, *more)
        assert (code, err) == (0, "") and out.startswith("6 of 30 rows by k_center")
        assert (given / name / "selected.jsonl").read_bytes() == first
    assert edjax_("select", given / "x.npy", *base[3:], "--pool", given / "pool.jsonl", "--out", given / "d")[0] == 0
    assert "give their ids with --ids FILE" in fails(2, *base, "--out", given / "e")
    (given / "ids.txt").write_text("r0\nr1\n")
    line = fails(3, *base, "--ids", given / "ids.txt", "--pool", given / "pool.jsonl", "--out", given / "e")
    assert "x.npy has 30 rows and there are 2 ids" in line
    assert "give either FEATURES" in fails(2, *base, given / "f.parquet", "--out", given / "e")
    assert "give either FEATURES" in fails(2, *base[:1], *base[3:], "--out", given / "e")
    assert not (given / "e").exists()


def test_other_columns_and_joined_scores(edjax_, given):
    table = pq.read_table(given / "f.parquet").rename_columns(["uid", "vector", "n_prompt_tokens", "worry"])
    pq.write_table(table, given / "g.parquet")
    (given / "s.csv").write_text("uid,doubt\n" + "".join(f"r{i},{i}.5\n" for i in range(N)))
    pool = (given / "pool.jsonl").read_text().replace('"id"', '"uid"')
    (given / "other.jsonl").write_text(pool)
    columns = ["--id-column", "uid", "--embedding-column", "vector", "--scores", given / "s.csv"]
    base = ["select", "--embeddings", given / "g.parquet", "--pool", given / "other.jsonl", *columns, "--budget", 2]
    assert edjax_(*base, "--strategy", "doubt", "--out", given / "a")[0] == 0
    assert [json.loads(x)["uid"] for x in (given / "a" / "selected.jsonl").read_text().splitlines()] == ["r29", "r28"]
    assert edjax_(*base, "--strategy", "worry", "--out", given / "b")[0] == 0
    assert read_selection(given / "b").indices.tolist() == np.argsort(-X[:, 0])[:2].tolist()


# Rounds


@pytest.mark.parametrize("kind", ["directory", "txt", "jsonl", "csv"])
def test_a_second_round_goes_on_where_the_first_ended(edjax_, given, kind):
    for name, budget in (("whole", 12), ("first", 6)):
        assert edjax_(*command(given, out=name, budget=budget, strategy="worry"))[0] == 0
    done = ids(given / "first")
    path = {"directory": given / "first", "jsonl": given / "first" / "selected.jsonl"}.get(kind, given / f"ids.{kind}")
    if kind in ("txt", "csv"):
        path.write_text("\n".join((["id"] if kind == "csv" else []) + done[:3]) + "\n")
    both = [path, given / "first" / "selection.csv"] if kind in ("txt", "csv") else [path]
    more = [o for p in both for o in ("--labelled", p)]
    assert edjax_(*command(given, *more, out="second", strategy="worry"))[0] == 0
    assert done + ids(given / "second") == ids(given / "whole")
    manifest = read_json(given / "second" / "manifest.json")
    assert manifest["config"]["labelled"] == [str(p) for p in both] and "labelled" in manifest["inputs"]


def test_labelled_rows_of_another_pool(edjax_, fails, given):
    (given / "ids.txt").write_text("r1\nx9\n")
    line = fails(3, *command(given, "--labelled", given / "ids.txt"))
    assert "1 labelled row is not of this pool ('x9'); name the pool they were chosen from, or --allow unknown" in line
    code, _, err = edjax_(*command(given, "--labelled", given / "ids.txt", "--allow-unknown"))
    assert code == 0 and "edjax: note: 1 labelled row is not of this pool ('x9'): passed over" in err
    assert "r1" not in ids(given / "out")
    assert "is not a directory that edjax wrote" in fails(3, *command(given, "--labelled", given, out="o"))


def test_the_same_again_does_nothing_and_another_option_is_refused(edjax_, fails, given):
    options = ["--weight-by", "worry", "--group-by", "task", "--near-duplicates", "0.999"]
    assert edjax_(*command(given, *options, strategy="random"))[0] == 0
    before = {p: p.stat().st_mtime_ns for p in (given / "out").iterdir()}
    assert edjax_(*command(given, *options, strategy="random"))[0] == 0
    assert {p: p.stat().st_mtime_ns for p in (given / "out").iterdir()} == before
    for change, said in [
        (["--strength", 2], "strength: 1.0 there, 2.0 now"),
        (["--quotas", "balanced"], 'quotas: "proportional" there, "balanced" now'),
        (["--keep-small", 1], "keep_small: 0 there, 1 now"),
        (["--prefilter", "worry"], 'prefilter: null there, "worry" now'),
        (["--labelled", given / "pool.jsonl", "--allow-fewer"], "labelled"),
        (["--budget-tokens", 10**6], "budget_tokens: null there, 1000000 now"),
        (["--bandwidth", 0.5], "bandwidth: null there, 0.5 now"),
    ]:
        assert said in fails(2, *command(given, *options, *change, strategy="random"))
    config = read_json(given / "out" / "manifest.json")["config"]
    asked = "labelled weight_by strength prefilter prefilter_ratio group_by quotas keep_small budget_tokens cost_by"
    assert {*asked.split(), "near_duplicates", "bandwidth", "allow_unknown", "embedding_column"} <= set(config)


# What is written


def test_groups_of_the_pool_and_tokens(edjax_, given):
    assert edjax_(*command(given, "--group-by", "task", "--quotas", "balanced", strategy="random"))[0] == 0
    tasks = [int(i[1:]) % 3 for i in ids(given / "out")]
    assert sorted(tasks[:3]) == [0, 1, 2] and sorted(tasks) == [0, 0, 1, 1, 2, 2]
    found, pool = given / "f.parquet", given / "pool.jsonl"
    base = ["select", found, "--pool", pool, "--strategy", "random", "--budget-tokens", 30]
    code, out, _ = edjax_(*base, "--out", given / "t")
    assert code == 0 and out.startswith("7 of 30 rows by random") and "28 of 30 tokens" in out
    code, out, _ = edjax_(*base, "--out", given / "p", "--cost-by", "price", "--json")
    cost = sum(5 + int(i[1:]) % 7 for i in ids(given / "p"))
    assert json.loads(out)["cost"] == cost <= 30 and read_selection(given / "p").cost == cost


def test_gains_and_near_duplicates_are_written(edjax_, given):
    twice = pa.concat_tables([pq.read_table(given / "f.parquet").slice(0, N - 1), pq.read_table(given / "f.parquet")])
    twice = twice.slice(0, N).set_column(0, "id", pa.array(["=1", *(f"r{i}" for i in range(1, N))]))
    pq.write_table(twice, given / "f.parquet")
    rows = (given / "pool.jsonl").read_text().replace('"r0"', '"=1"')
    (given / "pool.jsonl").write_text(rows)
    code, _, err = edjax_(*command(given, "--near-duplicates", "0.99"))
    assert code == 0 and "edjax: note: 1 near-duplicate was left out, 29 rows stay" in err
    with open(given / "out" / "near_duplicates.csv", newline="") as f:
        assert list(csv.DictReader(f)) == [{"id": "r29", "kept": "'=1", "similarity": "1.0"}]
    assert [(r.id, r.kept) for r in read_selection(given / "out").removed] == [("r29", "=1")]
    picture = ElementTree.parse(given / "out" / "gains.svg").getroot()
    assert picture.tag == "{http://www.w3.org/2000/svg}svg" and picture.find(".//{*}path[@class='line']") is not None
    assert {"gains.svg", "near_duplicates.csv"} < set(read_json(given / "out" / "manifest.json")["files"])


def test_several_strategies_and_budgets_at_once(edjax_, fails, given):
    code, out, _ = edjax_(*command(given, out="all", strategy="k_center,random,worry", budget="3,6"))
    assert code == 0
    table = [line.split() for line in out.splitlines()]
    assert [row[:3] for row in table[1:-1]] == [
        [s, str(b), str(b)] for s in ("k_center", "random", "worry") for b in (3, 6)
    ]
    for strategy in ("k_center", "random", "worry"):
        for budget in (3, 6):
            name = f"{strategy}-{budget}"
            assert edjax_(*command(given, out=f"one-{name}", strategy=strategy, budget=budget))[0] == 0
            both = [given / "all" / name, given / f"one-{name}"]
            for file in ("selected.jsonl", "selection.csv", "plan.json"):
                assert (both[0] / file).read_bytes() == (both[1] / file).read_bytes()
    shared = len(set(ids(given / "all" / "k_center-6")) & set(ids(given / "all" / "worry-6"))) / 6
    assert table[-2][-1] == f"{shared:.0%}" and table[1][-1] == table[2][-1] == "100%"
    before = {p: p.stat().st_mtime_ns for p in (given / "all").rglob("*.*")}
    again = command(given, "--json", out="all", strategy="k_center,random,worry", budget="3,6")
    code, out, _ = edjax_(*again)
    record = json.loads(out)
    assert code == 0 and len(record["selections"]) == 6
    assert record["selections"][-1]["overlap_with_first"] == round(shared, 4)
    assert {p: p.stat().st_mtime_ns for p in (given / "all").rglob("*.*")} == before
    table = pq.read_table(given / "f.parquet").rename_columns(["id", "embedding", "n_prompt_tokens", "../../worry"])
    pq.write_table(table, given / "f.parquet")
    assert edjax_(*command(given, out="hostile", strategy="random,../../worry"))[0] == 0
    assert {p.name for p in (given / "hostile").iterdir()} == {"random-6", ".._.._worry-6"}
    one = command(given, out="one-random-3", strategy="random,k_center")
    assert "holds a single selection; choose another --out" in fails(2, *one)
    assert "holds other files" in fails(2, *command(given, out="all"))


# Before it is made


def test_a_dry_run_of_every_option(edjax_, fails, given):
    (given / "ids.txt").write_text("r1\nr2\n")
    base = ["select", "--embeddings", given / "x.npy", "--dry-run"]
    options = ["--labelled", given / "ids.txt", "--near-duplicates", 0.9, "--weight-by", "worry", "--group-by", "task"]
    code, out, _ = edjax_(*base, *options, "--strategy", "k_center,random", "--budget", "3,28")
    assert code == 0 and out.splitlines()[0].startswith("k_center (blocked) of 28 rows from 30 x 5: ")
    assert all("near-duplicates: up to" in line and "GB in all" in line for line in out.splitlines())
    code, out, _ = edjax_(*base, "--strategy", "k_center", "--budget-tokens", 100, "--json")
    record = json.loads(out)
    assert (record["rows"], record["features"]) == (30, 5) and record["bytes"][0] > 1e8
    assert "28 rows less 2" in fails(2, *base, *options, "--strategy", "random", "--budget", 29).replace("30", "28")
    assert "Missing option '--budget' (rows) or '--budget-tokens'" in fails(2, *base, "--strategy", "random")
    assert "strength -1.0" in fails(2, *base, "--strategy", "random", "--budget", 3, "--strength", -1)
    assert not (given / "out").exists()


def test_strategies_as_json(edjax_):
    from edjax.selection.strategies import STRATEGIES

    code, out, _ = edjax_("strategies", "--json")
    assert code == 0 and list(json.loads(out)) == list(STRATEGIES)
