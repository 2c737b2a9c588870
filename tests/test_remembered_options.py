"""The road of one pool, verb by verb: options that shape it are given once, and ids that it was given are kept."""

import dataclasses
import json
import shlex

import pytest

from edjax.data.features import read_features
from edjax.data.pool import read_pool
from edjax.handoff import read_chosen
from edjax.keep.store import read_manifest
from edjax.study.recipe import Recipe


def pool_file(path, rows, bad=b""):
    path.write_bytes(b"".join(json.dumps(r).encode() + b"\n" for r in rows) + bad)
    return path


def splits(path, **rows):
    import datasets

    datasets.disable_progress_bars()
    datasets.DatasetDict({k: datasets.Dataset.from_list(v) for k, v in rows.items()}).save_to_disk(path)
    datasets.enable_progress_bars()
    return path


@pytest.fixture
def road(edjax_, shared, tmp_path, monkeypatch):
    """Runs a command that must succeed, in the directory of the test; gives what it says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDJAX_TEST_MODEL", str(shared / "models" / "stories260k"))

    def call(line, *more):
        code, out, err = edjax_(*shlex.split(str(line)), *more)
        assert code == 0, err
        return out, err

    return call


SCORE = ["--max-new-tokens", "0", "--batch-size", "4", "--out", "f"]


def pasted(out, mark="next: edjax "):
    """The command of the line that begins so."""
    return next(line.removeprefix(mark) for line in out.splitlines() if line.startswith(mark))


CASES = {  # how the pool is stored, and the options that it needs
    "text column": (
        lambda p: pool_file(p / "q.jsonl", [{"ask": f"q{i}", "text": "no"} for i in range(6)]),
        "--text-column ask",
    ),
    "named columns": (
        lambda p: pool_file(
            p / "q.jsonl",
            [
                {"ask": f"q{i}", "about": "it", "gold": None, "text": "no", "kinds": ["a", "b"], "key": 1}
                for i in range(6)
            ],
        ),
        "--prompt-column ask --context-column about --response-column gold --choices-column kinds --answer-column key",
    ),
    "id column": (
        lambda p: pool_file(p / "q.jsonl", [{"uid": f"u{i}", "id": 7, "prompt": f"q{i}"} for i in range(6)]),
        "--id-column uid",
    ),
    "bad lines": (
        lambda p: pool_file(p / "my pool.jsonl", [{"prompt": f"q{i}"} for i in range(6)], b"no row\n"),
        "--skip-bad-lines",
    ),
    "split": (
        lambda p: splits(p / "d", train=[{"prompt": f"q{i}"} for i in range(6)], test=[{"prompt": "t"}]),
        "--split train",
    ),
    "all": (
        lambda p: splits(
            p / "d",
            a=[{"uid": i, "ask": f"q{i}", "prompt": "no"} for i in range(6)] + [{"uid": 6, "ask": ""}],
            b=[{"ask": "t"}],
        ),
        "--split a --text-column ask --id-column uid --skip-bad-lines",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_options_that_shape_the_pool_are_given_once(road, shared, tmp_path, case):
    """Every line that a verb prints to be pasted works as it stands."""
    make, options = CASES[case]
    pool, model = make(tmp_path), shared / "models" / "stories260k"
    out, _ = road(f"score {shlex.quote(str(pool))} --model {model} {options}", *SCORE)
    remembered = read_manifest(tmp_path / "f", "features")["reading"]
    assert len(remembered) == options.count("--")
    line = pasted(out).replace("--budget 10% --out DIR", "--strategy random --budget 3 --out chosen")
    road(line)
    assert read_manifest(tmp_path / "chosen", "selection")["reading"] == remembered
    road("select f --strategy random --budget 3 --out again")
    assert (tmp_path / "again" / "selected.jsonl").read_bytes() == (tmp_path / "chosen" / "selected.jsonl").read_bytes()
    road("report f chosen --out page.html")

    out, _ = road("export chosen --to jsonl --out to_do")
    rows = [json.loads(line) for line in (tmp_path / "to_do" / "rows.jsonl").read_text().splitlines()]
    pool_file(tmp_path / "answers.jsonl", [r | {"response": "An answer."} for r in rows])
    out, _ = road(pasted(out, "then: edjax ").replace("ANSWERS", "answers.jsonl"))
    done = pasted(out).split()
    road(f"evaluate {done[1]} --model {model} --metrics response_loss", *done[4:])
    road("select f --strategy random --budget 3 --labelled answered.jsonl --out round2")
    first, second = (read_chosen(tmp_path / d) for d in ("chosen", "round2"))
    assert not set(first.pool.ids) & set(second.pool.ids)
    assert first.prompt(0).startswith("q") and len({*first.pool.ids, *second.pool.ids}) == 6


def test_an_option_that_is_given_counts_before_one_that_is_remembered(road, shared, tmp_path, fails):
    pool = pool_file(
        tmp_path / "p.jsonl", [{"a": "one", "b": "two", "id": "x"}, {"a": "three", "b": "four", "id": "y"}]
    )
    road(f"score {pool} --model {shared / 'models' / 'stories260k'} --text-column a", *SCORE)
    select = "select f --strategy random --budget 2 --out"
    assert read_chosen(tmp_path / "one" if road(f"{select} one") else "").prompt(0) in ("one", "three")
    _, err = road(f"{select} two --text-column b")
    assert read_chosen(tmp_path / "two").prompt(0) in ("two", "four")
    assert "note: the rows of" in err and "changed after f was scored" in err
    assert read_chosen(tmp_path / "two", text_column="a").prompt(0) in ("one", "three")
    line = fails(2, "score", pool, "--model", shared / "models" / "stories260k", "--text-column", "b", *SCORE)
    assert "f was made with other settings (pool: " in line, "other prompts of the same lines"


def test_a_copy_of_the_pool_elsewhere(road, shared, tmp_path):
    """The split is of the directory that was scored; a file of the same rows has none."""
    rows = [{"id": f"r{i}", "ask": f"q{i}"} for i in range(4)]
    model = shared / "models" / "stories260k"
    road(f"score {splits(tmp_path / 'd', a=rows, b=rows[:1])} --model {model} --split a --text-column ask", *SCORE)
    pool_file(tmp_path / "copy.jsonl", rows)
    road("select f --pool copy.jsonl --strategy random --budget 2 --out chosen")
    assert read_manifest(tmp_path / "chosen", "selection")["reading"] == {"text_column": "ask"}
    road("report f chosen --pool copy.jsonl --out page.html")


def test_every_verb_that_reads_rows_takes_a_split(road, shared, tmp_path, fails):
    rows = [{"id": f"r{i}", "prompt": f"Once {i}", "response": f"there {i}"} for i in range(4)]
    d, model = splits(tmp_path / "d", train=rows, test=rows[:1]), f"--model {shared / 'models' / 'stories260k'}"
    assert "holds the splits train, test; choose one with --split" in fails(2, "export", d, "--to", "csv", "--out", "o")
    road("export d --split test --to csv --out o.csv")
    pool_file(tmp_path / "a.jsonl", [{"id": "r0", "response": "new"}])
    road("import-labels d a.jsonl --split test --out answered.jsonl")
    assert read_pool(tmp_path / "answered.jsonl").responses == ("new",)
    out, _ = road(f"evaluate d --split test {model} --metrics response_loss")
    assert "over 1 rows" in out
    tuned = "--max-steps 1 --lora-r 1 --lora-target-modules q_proj --save-steps 0"
    out, _ = road(f"finetune d --split test --validation d --validation-split-name train {model} {tuned} --out tuned")
    assert "1 steps on 1 rows" in out
    with open(tmp_path / "tuned" / "metrics.jsonl") as f:
        assert [json.loads(line).get("eval_rows") for line in f][-1] == 4
    line = fails(2, "finetune", d, "--split", "test", "--validation-split-name", "train", "--out", "x")
    assert "--validation-split-name needs --validation" in line
    vectors(tmp_path / "v.parquet", ["r0"])
    road("select v.parquet --pool d --split test --strategy random --budget 1 --out s")
    assert "choose one with --split" in fails(
        2, "select", "v.parquet", "--pool", "d", "--strategy", "random", "--budget", 1, "--out", "t"
    )


def vectors(path, ids):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"id": ids, "embedding": [[float(i), 1.0] for i in range(len(ids))]}), path)
    return path


def test_a_recipe_names_its_splits(tmp_path, fails, shared):
    rows = [{"id": f"r{i}", "prompt": f"Once {i}"} for i in range(4)]
    splits(tmp_path / "d", train=rows, test=rows[:1])
    lines = ["pool: d", "evaluation: d", "out: o", "budgets: [2]", f"model: {shared / 'models' / 'stories260k'}"]
    (tmp_path / "r.yaml").write_text("\n".join(lines))
    assert "choose one with --split (in a recipe: pool_split, evaluation_split)" in fails(2, "run", tmp_path / "r.yaml")
    said = fails(3, "run", tmp_path / "r.yaml", "pool_split=train", "evaluation_split=test")
    assert "a run buys labels from the pool's responses, and row 'r0' has none (4 such)" in said
    assert "there is no 'dev'" in fails(2, "run", tmp_path / "r.yaml", "pool_split=train", "evaluation_split=dev")
    assert "pool_split holds 3" in fails(2, "run", tmp_path / "r.yaml", "pool_split=3")
    assert {"pool_split", "evaluation_split"} <= {f.name for f in dataclasses.fields(Recipe)}


# Ids


@pytest.mark.parametrize("to", ["jsonl", "csv", "label-studio"])
def test_rows_without_ids_carry_the_ones_they_were_given(road, shared, tmp_path, to):
    """An answered row is known again in the next round, whatever tool it went through."""
    rows = [{"prompt": f"Question {i}?"} for i in range(10)] + [{"id": None, "prompt": "A"}, {"id": "x", "prompt": "B"}]
    pool_file(tmp_path / "p.jsonl", rows)
    road(f"score p.jsonl --model {shared / 'models' / 'stories260k'}", *SCORE)
    road("select f --strategy random --budget 12 --out chosen")
    road(f"export chosen --to {to} --out todo")
    ids = read_chosen(tmp_path / "chosen").pool.ids
    assert set(ids) == set(read_features(tmp_path / "f").ids) and "row-000011" in ids and "x" in ids
    if to == "jsonl":
        written = (tmp_path / "todo" / "rows.jsonl").read_text().splitlines()
        assert [json.loads(line, object_pairs_hook=pairs)["id"] for line in written] == list(ids)
    pool_file(tmp_path / "answers.jsonl", [{"id": i, "response": f"to {i}"} for i in ids[:6]])
    road("import-labels chosen answers.jsonl --partial --out answered.jsonl")
    back = read_pool(tmp_path / "answered.jsonl")
    assert back.ids == ids[:6] and back.responses == tuple(f"to {i}" for i in ids[:6])
    road("select f --strategy random --budget 6 --labelled answered.jsonl --out round2")
    assert set(read_chosen(tmp_path / "round2").pool.ids) == set(ids[6:])


def test_the_rows_of_a_selection_are_known_by_its_directory(road, shared, tmp_path):
    """selected.jsonl holds the rows untouched: named after their lines in it they would be other rows of the pool."""
    pool_file(tmp_path / "p.jsonl", [{"prompt": f"Question {i}?"} for i in range(8)])
    road(f"score p.jsonl --model {shared / 'models' / 'stories260k'}", *SCORE)
    road("select f --strategy random --budget 4 --out chosen")
    ids = read_chosen(tmp_path / "chosen").pool.ids
    assert (
        read_chosen(tmp_path / "chosen" / "selected.jsonl").pool.ids
        == ids
        != tuple(f"row-00000{i}" for i in range(1, 5))
    )
    road("select f --strategy random --budget 4 --labelled chosen/selected.jsonl --out round2")
    assert not set(read_chosen(tmp_path / "round2").pool.ids) & set(ids)


def pairs(items):
    assert len({k for k, _ in items}) == len(items), "a key twice"
    return dict(items)


def test_a_null_in_another_id_column(tmp_path, edjax_):
    rows = [{"uid": None, "id": 1, "prompt": "A"}, {"uid": 2.0, "id": 1, "prompt": "B"}]
    chosen = pool_file(tmp_path / "p.jsonl", rows)
    code, _, _ = edjax_("export", chosen, "--to", "jsonl", "--out", tmp_path / "o.jsonl", "--id-column", "uid")
    lines = (tmp_path / "o.jsonl").read_bytes().splitlines()
    assert code == 0 and json.loads(lines[0]) == {"uid": "row-000001", "id": 1, "prompt": "A"}
    assert lines[1] == chosen.read_bytes().splitlines()[1]
    assert read_pool(tmp_path / "o.jsonl", id_column="uid").ids == ("row-000001", "2")
    pool_file(tmp_path / "a.jsonl", [json.loads(line) | {"response": "x"} for line in lines])
    argv = ["import-labels", chosen, tmp_path / "a.jsonl", "--out", tmp_path / "done.jsonl", "--id-column", "uid"]
    assert edjax_(*argv)[0] == 0
    assert read_pool(tmp_path / "done.jsonl", id_column="uid").ids == ("row-000001", "2")
