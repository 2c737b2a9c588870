"""benchmarks.accelerator: what travels, what is never lost, and the whole way on a CPU."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from quick import XLA_FLAGS

sys.path.insert(0, str(Path(__file__).parent.parent))  # benchmarks/ is run from a checkout, not installed
from benchmarks.accelerator import go, kept, pack, tables, together, wheels
from benchmarks.accelerator.collect import collect
from benchmarks.accelerator.record import Record
from benchmarks.accelerator.select import order_for
from benchmarks.accelerator.sizes import STAGES
from benchmarks.accelerator.stage import END, Stage
from benchmarks.accelerator.together import Grid
from benchmarks.evidence import trials
from benchmarks.pages import trials_table
from edjax.data.features import SCORES
from edjax.data.pool import read_pool
from edjax.evaluation import Evaluation
from edjax.study.recipe import read_recipe
from edjax.study.warm import warm_rows

ROOT = Path(__file__).parent.parent


def test_a_row_cut_short_by_a_kill_is_passed_over(tmp_path):
    record = Record(tmp_path)
    record.add({"stage": "check", "job": "a", "device": "cpu"})
    with open(record.path, "ab") as f:
        f.write(b'{"stage": "check", "job": "b", "dev')
    record.add({"stage": "check", "job": "c", "device": "h100", "failed": "no memory"})
    record.add({"stage": "check", "job": "d", "device": "h100"})
    assert [r["job"] for r in record.rows()] == ["a", "c", "d"]
    assert set(record.done("check")) == {"a", "d"} and set(record.done("check", "h100")) == {"d"}
    with open(record.path, "ab") as f:
        f.write(b'{"stage": "check", "job": "e"')
    assert [r["job"] for r in record.rows()] == ["a", "c", "d"], "it has not ended yet"
    with open(record.path, "ab") as f:
        f.write(b', "device": "cpu"}')
    assert [r["job"] for r in record.rows()] == [r["job"] for r in record.rows()] == ["a", "c", "d", "e"]


def test_a_failure_is_a_row_and_is_tried_again(tmp_path, monkeypatch):
    stage = Stage("check", tmp_path, tmp_path, tmp_path, time.time() + 60)
    assert not stage.job("a", lambda: 1 / 0)
    assert Record(tmp_path).rows()[0]["failed"] == "ZeroDivisionError: division by zero"
    assert stage.job("a", lambda: {"value": 2})
    assert stage.job("a", lambda: pytest.fail("it was done"))
    assert stage.done()["a"]["value"] == 2


def scored(work, name, rows, x, pool="digest"):
    """What the stage score leaves: shards, and which of the pool's rows they hold."""
    folder = work / "score" / name / "features"
    folder.mkdir(parents=True)
    (folder.parent / "which.json").write_text(json.dumps({"rows": rows, "pool": pool, "dimensions": 3}))
    for i, part in enumerate(np.array_split(np.arange(len(rows)), 2)):
        columns = {name: np.asarray(rows, np.float32)[part] for name in SCORES}
        columns |= {name: np.asarray(rows, np.int32)[part] for name in kept.LENGTHS}
        embedding = pa.FixedSizeListArray.from_arrays(pa.array(x[part].ravel()), x.shape[1])
        table = pa.table({"row": part, "embedding": embedding, **columns})
        pq.write_table(table, folder / f"shard-{i:05d}.parquet")


def test_features_are_kept_in_small_parts_over_several_slices(tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "ROWS", 12)
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(50, 3)) @ rng.normal(size=(3, 8)) + 5).astype(np.float32)  # three dimensions hold it all
    out, work = tmp_path / "out", tmp_path / "work"
    out.mkdir()
    assert kept.keep(out, work) == 0 and kept.read(out) is None
    scored(work, "0", list(range(49, 19, -1)), x[49:19:-1])
    assert kept.keep(out, work, whole=False) == 24 and kept.keep(out, work, whole=False) == 24
    first = {p.name: p.read_bytes() for p in out.glob("features-*.npz")}
    assert kept.keep(out, work) == 30 and kept.keep(out, work) == 30
    basis = (out / "basis.npz").read_bytes()
    scored(tmp_path / "elsewhere", "30", list(range(20)), x[:20])  # another machine, which has what came back
    assert kept.keep(out, tmp_path / "elsewhere") == 50
    found, fitted = kept.read(out), np.load(out / "basis.npz")
    assert (out / "basis.npz").read_bytes() == basis
    assert found.rows.tolist() == list(range(50)) and found.pool == "digest"
    assert found.columns["mean_nll"].tolist() == list(range(50))
    back = found.x.astype(np.float32) @ fitted["components"].T + fitted["mean"]
    np.testing.assert_allclose(back, x, atol=0.02)
    assert len(list(out.glob("features-*.npz"))) == 5
    assert all((out / name).read_bytes() == data for name, data in first.items()), "a file was written twice"
    shutil.copyfile(out / "features-0.npz", out / "features-9.npz")
    assert kept.read(out).rows.tolist() == list(range(50)), "a row counts once"


def test_every_beginning_of_the_cells_is_an_experiment(tmp_path):
    recipe = read_recipe(ROOT / "recipes" / "label_efficiency.yaml")
    groups = together.planned(recipe)
    assert sum(len(g) for g in groups) == 4 * (3 * 11 + 5)
    assert [g[0][1:] for g in groups[:5]] == [(250, 0), (500, 0), (1000, 0), (2000, 0), (250, 1)]
    assert {s for s, *_ in groups[0]} == set(recipe.strategies)
    assert groups[-1] == [("random", 2000, 4)]


def test_cells_that_do_not_fit_together_are_trained_in_halves(tmp_path, monkeypatch):
    """Memory does for two; one of the five fails by itself, and the others are kept."""
    recipe = read_recipe(ROOT / "recipes" / "label_efficiency.yaml", ["budgets=[3]", "cells_at_once=5"])
    cells = [(name, 3, 1) for name in recipe.strategies[:5]]
    orders = {order_for(recipe, c)[0]: {"picks": [7, 8, 9, 10]} for c in cells}
    taken, at_once = [], []

    class Rows:
        def take(self, rows):
            taken.append(rows)
            return rows

    def together_(jobs, *_, **__):
        if len(jobs) > 2:
            raise MemoryError("no room")
        if any(cells[1][0] in str(job.out) for job in jobs):
            raise ValueError("its own fault")
        at_once.append(len(jobs))
        return [SimpleNamespace(train_loss=1.0, response_tokens=11, seconds=0.1) for _ in jobs]

    monkeypatch.setattr(sys.modules["edjax.finetuning"], "finetune_together", together_)
    monkeypatch.setattr(Grid, "_evaluated", lambda self, adapters: [Evaluation({}, {}, [], 0.1) for _ in adapters])
    monkeypatch.setattr(Grid, "warm_tokens", 2)
    stage = Stage("trials", tmp_path, tmp_path, tmp_path, time.time() + 60)
    grid = Grid(stage, recipe, Rows(), None, None, "small: ", (1, 2))
    assert not grid.train(cells, orders)
    done = stage.done()
    assert set(done) == {f"small: {s}-b3-s1" for s, *_ in cells} - {f"small: {cells[1][0]}-b3-s1"}
    assert {r["response_tokens"] for r in done.values()} == {9}, "the warm start's tokens are nobody's own"
    assert all(rows == [1, 2, 7, 8, 9] for rows in taken)
    assert sum(at_once) == 4
    assert not grid.train(cells, orders) and sum(at_once) == 4, "what is done is not done again"


def test_every_task_counts_alike_in_macro(tmp_path):
    rows = [{"id": str(i), "prompt": "?", "response": "!", "task": task} for i, task in enumerate("aab")]
    (tmp_path / "held.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    recipe = read_recipe(ROOT / "recipes" / "label_efficiency.yaml", ["evaluation_group_by=task"])
    found = Evaluation({"response_loss": 3.0}, {}, [{"response_loss": v} for v in (1.0, 2.0, 6.0)], 0.1)
    grid = Grid(None, recipe, None, read_pool(str(tmp_path / "held.jsonl")), None)
    assert grid._measured(found)["macro"] == {"response_loss": pytest.approx(3.75)}
    assert "macro" not in Grid(
        None, read_recipe(ROOT / "recipes" / "label_efficiency.yaml"), None, None, None
    )._measured(found)


@pytest.fixture
def packed(tmp_path, shared, monkeypatch):
    """A packed folder with a made-up model of 5 MB in parts of 28 MB, and no wheels."""
    monkeypatch.setattr(wheels, "fetch", lambda folder: [])
    monkeypatch.setattr(pack, "PART", 20_000_000)
    data = np.random.default_rng(0).bytes(25_000_000)
    monkeypatch.setattr(pack, "_smollm2", lambda out: data)
    return tmp_path / "packed", pack.pack(tmp_path / "packed", shared), data


def test_parts_travel_one_a_call_and_come_together_again(packed, tmp_path):
    folder, parts, data = packed
    assert len(parts) == 3 and all(p.stat().st_size <= pack.PART for p in parts)
    there = tmp_path / "there"
    there.mkdir()
    for i, part in enumerate(reversed(parts)):
        assert pack.joined(there) is None, f"{i} of 3 parts are there"
        with tarfile.open(part) as tar:
            tar.extractall(there, filter="data")
    assert pack.joined(there).read_bytes() == data
    assert (there / "data" / "pool.parquet").exists() and (there / "models/stories260k/config.json").exists()
    said = pack.calls(folder, parts).splitlines()
    carried = [json.loads(line[line.index("[") : line.index("]") + 1]) for line in said if line.startswith("call ")]
    assert sorted(c for some in carried for c in some) == sorted(str(p) for p in parts)
    assert all(len(some) <= 1 for some in carried)
    commands = [said[i + 1] for i, line in enumerate(said) if line.startswith("call ")]
    assert all(len(c) < 2000 for c in commands)
    assert "--stages check,selectors,model --out" in commands[-2] and "--mirror $OUT" in commands[-2]
    assert "--stages score,select,cells --out" in commands[-1]
    at = next(i for i, line in enumerate(said) if line.startswith(f"For the trials, each call from call {len(parts)}"))
    assert "--stages score,trials --out" in said[at + 1] and len(said[at + 1]) < 2000
    assert said[at + 3].startswith("  dose_s10: 90 cells, about ")


def test_wheels_of_what_is_missing_there(tmp_path, monkeypatch):
    assert {r.name for r in wheels.needed()} == {"datasets", "rich", "rouge-score", "gguf"}
    asked = []

    def fetched(folder, requirement):
        asked.append(requirement.name)
        path = folder / f"{requirement.name.replace('-', '_')}-1.0-py3-none-any.whl"
        needs = {"datasets": ["numpy", "dill<2", "pywin32; sys_platform == 'win32'", "apache-beam; extra == 'beam'"]}
        lines = "".join(f"Requires-Dist: {n}\n" for n in needs.get(requirement.name, []))
        with zipfile.ZipFile(path, "w") as z:
            z.writestr("x-1.0.dist-info/METADATA", f"Name: x\nVersion: 1.0\n{lines}")
        return path

    monkeypatch.setattr(wheels, "_fetched", fetched)
    monkeypatch.setattr(wheels, "needed", lambda: [wheels.Requirement("datasets")])
    (tmp_path / "old-1.0-py3-none-any.whl").write_bytes(b"")
    found = [p.name.split("-")[0] for p in wheels.fetch(tmp_path)]
    assert found == ["datasets", "dill"] and asked == ["datasets", "dill"]
    assert not (tmp_path / "old-1.0-py3-none-any.whl").exists()


def walk(out, work, *more):
    """`go --dry` in processes of its own, as it is called there."""
    command = [sys.executable, "-m", "benchmarks.accelerator", "go", "--dry", "--minutes", "12", *more]
    command += ["--from", str(work / "nothing"), "--out", str(out), "--work", str(work)]
    environment = os.environ | {"XLA_FLAGS": os.environ.get("XLA_FLAGS", XLA_FLAGS)}
    environment |= {"EDJAX_CACHE": str(work / "cache")}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_killed_in_every_stage_nothing_finished_is_lost(tmp_path, shared):
    """Each stage dies after its first row, as with the machine; the next call goes on, and does nothing twice."""
    out, work = tmp_path / "out", tmp_path / "work"
    record, before = Record(out), []
    for stage in STAGES:
        died = walk(out, work, "--die-in", stage)
        assert died.returncode == -9, f"{stage}: {died.stdout}{died.stderr}"
        rows = record.rows()
        assert rows[: len(before)] == before and rows[-1]["stage"] == stage
        before = rows
        wait_until_alone(out)
    mirror = tmp_path / "mirror"
    ended = walk(out, work, "--mirror", str(mirror))
    assert ended.returncode == 0, ended.stdout + ended.stderr + (out / "log.txt").read_text()[-4000:]
    rows = record.rows()
    assert rows[: len(before)] == before
    assert {p.name: p.read_bytes() for p in mirror.iterdir()} == {p.name: p.read_bytes() for p in out.iterdir()}
    assert not [r for r in rows if "failed" in r]
    jobs = [(r["stage"], r["job"]) for r in rows if r["stage"] != "machine"]
    assert len(set(jobs)) == len(jobs), "a job that was done was done again"
    assert [r["stage"] for r in rows if r["job"] == END] == list(STAGES)
    again = walk(out, work)
    assert again.returncode == 0 and record.rows() == rows and again.stdout.count("done before") == len(STAGES)

    files = {p.stem: json.loads(p.read_text()) for p in collect(out, tmp_path / "results", dry=True)}
    settings = {"trials-dose_s10-cpu", "trials-flan_whole-cpu"}
    assert set(files) == {"accelerator-cpu", "label_efficiency-cpu", *settings}
    for name in settings:
        assert not trials.again(tmp_path / "results" / f"{name}.json"), "its results are those of its cells"
        assert f"| `{files[name]['recipe']['strategies'][1]}` |" in trials_table.one(files[name])
    done = {r["job"]: r for r in rows if r["stage"] == "trials"}
    for name in settings:
        check_cells(files[name], done, work / "trials")
    grid = files["label_efficiency-cpu"]
    assert len(grid["rows"]) == 8 and grid["reduction"] == "" and len(grid["chosen"]) == 8
    assert grid["sets"]["pool_val"]["response_loss"]["rows"] == 12
    page = tables.accelerator(files)
    for said in ("Ceilings", "`k_center`", "tiny: hidden 2 x 16", "Scored 96 prompts", "`mean_entropy-b8-s0`"):
        assert said in page


def check_cells(file, rows, adapters):
    """A setting's file holds its cells; a warm start's rows are in each and chosen in none."""
    setting, recipe = file["setting"], file["recipe"]
    assert len(file["rows"]) == len(recipe["strategies"]) * len(recipe["budgets"])
    assert len(rows[f"{setting}: base"]["values"]["response_loss"]) == file["evaluation"]["rows"]
    for cell in file["rows"]:
        values = rows[f"{setting}: {cell['job']}"]["values"]["response_loss"]
        assert cell["scores"]["response_loss"] == pytest.approx(np.mean(values), abs=1e-4)
        adapter = json.loads((adapters / setting / cell["job"] / "adapter" / "manifest.json").read_text())
        assert (adapter["response_tokens"] > cell["response_tokens"]) == bool(recipe["warm_start"])
    warm = warm_rows(range(file["pool"]["rows"]), SimpleNamespace(**recipe))
    orders = [r["picks"] for job, r in rows.items() if job.startswith(f"{setting}: order ")]
    assert len(warm) == (recipe["warm_start"] or 0) and not set(warm) & {i for picks in orders for i in picks}


def wait_until_alone(out: Path) -> None:
    """Until no process of a walk that was killed writes there any more."""
    for _ in range(100):
        done = subprocess.run(["pgrep", "-f", str(out)], capture_output=True, check=False)
        if done.returncode:
            return
        time.sleep(0.1)
    raise AssertionError("a stage outlived the walk that began it")


def test_a_walk_ends_when_its_time_is_up(tmp_path, shared):
    start = time.time()
    said = []
    places = {"data": tmp_path, "out": tmp_path / "out", "work": tmp_path / "work"}
    whole = go.go(["check", "selectors"], minutes=(go.SPARE + 9.5) / 60, **places, dry=True, say=said.append)
    assert not whole and time.time() - start < go.SPARE + 9.5
    assert "its time was up" in said[0] and said[1] == "selectors: no time left"
