"""The whole road with a real 260k-parameter model on real prompts, by commands, stopped and resumed."""

import gzip
import hashlib
import itertools
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SMALL = [
    "pool_rows=24",
    "evaluation_rows=8",
    "strategies=[random, k_center, mean_entropy]",
    "finetune_strategies=[random, k_center]",
    "budgets=[4, 8]",
    "metrics=[response_loss, exact_match]",
    "max_new_tokens=2",
    "evaluation_max_new_tokens=2",
    "score_batch_size=8",
    "evaluation_batch_size=8",
    "per_device_train_batch_size=4",
    "max_length=16",
    "save_steps=1",
]
SIX = ("mean_entropy", "max_entropy", "least_confidence", "mean_nll", "mean_margin", "min_margin")


class Edjax:
    """The command `edjax` in processes of its own, which share compiled programs."""

    def __init__(self, cwd):
        self.cwd = cwd
        cache = {"JAX_COMPILATION_CACHE_DIR": str(cwd / "xla"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        self.env = os.environ | cache | {"HF_HUB_OFFLINE": "1", "EDJAX_CACHE": str(cwd / "cache")}

    def start(self, *argv):
        # a shell's background jobs ignore SIGINT and hand that on
        code = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        code += "from edjax.cli import main\nmain()"
        command = [sys.executable, "-c", code, *(str(a) for a in argv)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=self.cwd, env=self.env, **pipes)

    def __call__(self, *argv, code=0):
        p = self.start(*argv)
        out, err = p.communicate(timeout=240)
        assert p.returncode == code, err + out
        assert "Traceback" not in err
        return out, err

    def run(self, out, *overrides, **kw):
        return self("run", ROOT / "recipes" / "ci_pool_stories260k.yaml", *SMALL, *overrides, "--out", out, **kw)

    def stop(self, out, when, how):
        """Start the run, send it a signal when a path that matches `when` is there, and return (code, stderr)."""
        p = self.start("run", ROOT / "recipes" / "ci_pool_stories260k.yaml", *SMALL, "--out", out)
        end = time.monotonic() + 120
        while not list(out.glob(when)):
            assert p.poll() is None and time.monotonic() < end, f"{when} never came: {p.communicate()}"
            time.sleep(0.005)
        p.send_signal(how)
        _, err = p.communicate(timeout=60)
        return p.returncode, err


@pytest.fixture(scope="module")
def edjax(shared, tmp_path_factory):
    return Edjax(tmp_path_factory.mktemp("road"))


@pytest.fixture(scope="module")
def done(edjax):
    """A finished run: its directory, what it printed, and results.json."""
    path = edjax.cwd / "done"
    out, err = edjax.run(path)
    return path, out, err, json.loads((path / "results.json").read_text())


def adapters(path):
    return {
        p.relative_to(path).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in path.glob("cells/*/adapter/*.safetensors")
    }


def outcome(path):
    """All of results.json that a stop must not change."""
    got = json.loads((path / "results.json").read_text())
    cells = [{k: c[k] for k in ("strategy", "budget", "seed", "scores", "train_loss")} for c in got["cells"]]
    picks = [(s["strategy"], s["seed"], s["ids"]) for s in got["selections"]]
    return (
        cells,
        picks,
        got["base"]["scores"],
        got["curves"],
        got["savings"],
        got["differences"],
        got["verdict"],
        got["hashes"],
    )


def times(path):
    return {p: p.stat().st_mtime_ns for p in path.rglob("*") if p.is_file()}


def test_results_hold_every_cell(done):
    path, _, _, got = done
    assert [(c["strategy"], c["budget"]) for c in got["cells"]] == [
        ("random", 4),
        ("k_center", 4),
        ("random", 8),
        ("k_center", 8),
    ]
    for scores in [got["base"]["scores"], *(c["scores"] for c in got["cells"])]:
        assert set(scores) == {"response_loss", "exact_match"} and scores["response_loss"] > 0
    losses = {c["scores"]["response_loss"] for c in got["cells"]}
    assert len(losses) == 4 and max(losses) < got["base"]["scores"]["response_loss"], "finetuning did nothing"
    assert [s["strategy"] for s in got["selections"]] == ["random", "k_center", "mean_entropy"]
    assert all(len(set(s["ids"])) == 8 for s in got["selections"])
    assert got["pool"]["rows"] == 24 and got["evaluation"]["rows"] == 8
    assert [s["name"] for s in got["stages"]] == ["score", "select", "finetune", "evaluate"]
    assert len(adapters(path)) == 4 and not list(path.glob("cells/*/adapter/checkpoints"))
    assert not list(path.rglob("*.tmp-*")) and not list(path.rglob(".lock"))


def test_table_verdict_and_page(done):
    path, out, err, got = done
    assert "(before" in out and out.count("k_center") >= 2 and "choosing took" in out
    assert got["verdict"] in out and f"page: {path / 'report.html'}" in out
    assert "cell 4 of 4: k_center, 8 labels, seed 0" in err
    page = (path / "report.html").read_text()
    assert "k_center" in page and page.count("<svg") >= 2
    assert "<script src" not in page and 'href="http' not in page, "the page is offline"


def test_the_chosen_rows_are_the_pool_s_bytes(done, shared):
    path = done[0]
    lines = set(gzip.decompress((shared / "data" / "ci_pool.jsonl.gz").read_bytes()).splitlines())
    for file in path.glob("selections/*/selected.jsonl"):
        rows = file.read_bytes().splitlines()
        assert len(rows) == 8 and set(rows) <= lines


def test_the_same_command_does_nothing(done, edjax):
    path = done[0]
    before, start = times(path), time.monotonic()
    out, err = edjax.run(path)
    assert times(path) == before and done[3]["verdict"] in out and "cell" not in err
    assert time.monotonic() - start < 30


def test_a_changed_setting_is_refused_with_the_difference(done, edjax):
    path = done[0]
    before = times(path)
    out, err = edjax.run(path, "learning_rate=0.5", code=2)
    assert out == "" and err.startswith("edjax: error: ") and err.count("\n") == 1
    assert "other settings (learning_rate: 0.001 there, 0.5 now); choose another --out, or --overwrite" in err
    assert times(path) == before


def test_more_budgets_and_strategies_only_add_cells(done, edjax):
    path = edjax.cwd / "more"
    shutil.copytree(done[0], path)
    before = {p: t for p, t in times(path).items() if p.suffix == ".safetensors" or "evaluation" in p.parts}
    _, err = edjax.run(path, "budgets=[4, 8, 12]", "finetune_strategies=[random, mean_entropy]")
    assert before == {p: t for p, t in times(path).items() if p in before}, "a finished cell was done again"
    got = json.loads((path / "results.json").read_text())
    assert [(c["strategy"], c["budget"]) for c in got["cells"]] == [
        (s, b) for b in (4, 8, 12) for s in ("random", "mean_entropy")
    ]
    old = {(c["strategy"], c["budget"]): c["scores"] for c in done[3]["cells"]}
    for c in got["cells"][:3:2]:
        assert c["scores"] == old[c["strategy"], c["budget"]]
    assert err.count("(done before)") == 2


def test_a_column_named_afterwards_weighs_what_was_measured(done, edjax, shared):
    path = edjax.cwd / "macro"
    shutil.copytree(done[0], path)
    out, err = edjax.run(path, "evaluation_group_by=task")
    assert err.count("(done before)") == 4, "no cell is done again for it"
    got = json.loads((path / "results.json").read_text())
    rows = [json.loads(r) for r in (path / "base" / "evaluation" / "rows.jsonl").read_text().splitlines()]
    with gzip.open(shared / "data" / "ci_eval.jsonl.gz") as f:
        task = {r["id"]: r["task"] for r in map(json.loads, f)}
    by_task = {}
    for r in rows:
        by_task.setdefault(task[r["id"]], []).append(r["response_loss"])
    macro = statistics.fmean(statistics.fmean(v) for v in by_task.values())
    assert got["base"]["macro"]["response_loss"] == pytest.approx(macro)
    assert got["base"]["scores"] == done[3]["base"]["scores"]
    assert got["metric"]["group_by"] == "task" and got["metric"]["groups"] == len(by_task)
    points = {(name, p["budget"]): p["mean"] for name, curve in got["curves"].items() for p in curve}
    for cell in got["cells"]:  # of one seed each
        assert points[cell["strategy"], cell["budget"]] == pytest.approx(cell["macro"]["response_loss"])
    assert got["by_rows"]["curves"] == done[3]["curves"]
    assert "(mean over task)" in got["verdict"] and "response loss over task" in " ".join(out.split())
    assert "macro; mean over rows" in err and "mean over task" in (path / "report.html").read_text()
    _, err = edjax.run(path, "evaluation_group_by=tsk", code=3)
    assert "tsk" in err and "Traceback" not in err


def test_a_run_of_an_earlier_version_is_said_anew(done, edjax):
    """Its savings came from another statistic: the same command works them out again, from the cells as they are."""
    path = edjax.cwd / "earlier"
    shutil.copytree(done[0], path)
    old = json.loads((path / "results.json").read_text())
    del old["metric"]["statistic"]
    old |= {"verdict": "k_center: 82% saved", "savings": [{"strategy": "k_center", "share_saved": 0.82}]}
    (path / "results.json").write_text(json.dumps(old))
    out, err = edjax("report", path, "--out", path.parent / "old.html")
    assert "82" not in out and "is of an earlier version: its savings were worked out anew" in err
    assert "82%" not in (path.parent / "old.html").read_text()
    manifest = json.loads((path / "manifest.json").read_text())
    del manifest["grid"]["statistic"]
    manifest["files"]["results.json"]["size"] = (path / "results.json").stat().st_size
    (path / "manifest.json").write_text(json.dumps(manifest))
    _, err = edjax.run(path)
    assert err.count("(done before)") == 4 and outcome(path) == outcome(done[0])


def test_a_page_that_was_deleted_comes_back(done, edjax):
    path = edjax.cwd / "page"
    shutil.copytree(done[0], path)
    (path / "report.html").unlink()
    edjax.run(path)
    assert (path / "report.html").exists() and outcome(path) == outcome(done[0])


def test_killed_and_stopped_at_every_stage_it_ends_in_the_same(done, edjax):
    """Two signals that ask and three kills, one after the other, in one directory; then the command to its end."""
    path = edjax.cwd / "stopped"
    code, _ = edjax.stop(path, "features/plan.json", signal.SIGKILL)
    assert code == -signal.SIGKILL and not (path / "features" / "manifest.json").exists()
    code, err = edjax.stop(path, "selections/*/plan.json", signal.SIGTERM)
    assert code == 143 and said(err) == ["edjax: error: terminated; the same command goes on from here"], err
    code, _ = edjax.stop(path, "cells/*/adapter/checkpoints/1", signal.SIGKILL)
    assert code == -signal.SIGKILL and not list(path.glob("cells/*/adapter/manifest.json"))
    code, err = edjax.stop(path, "cells/random-b8-s0/evaluation/plan.json", signal.SIGINT)
    assert code == 130 and said(err) == ["edjax: error: interrupted; the same command goes on from here"], err
    code, _ = edjax.stop(path, "cells/k_center-b8-s0/adapter/plan.json", signal.SIGKILL)
    assert code == -signal.SIGKILL
    _, err = edjax.run(path)
    assert err.count("(done before)") == 3
    assert adapters(path) == adapters(done[0])
    assert outcome(path) == outcome(done[0])
    assert not list(path.rglob("*.tmp-*")) and not list(path.rglob(".lock"))


@pytest.mark.long
def test_a_run_of_many_cells_killed_ten_times(edjax):
    """R3: ten kills in a row at random times; no start ends well before the last, and every cell is done once."""
    rng = random.Random(5)
    many = "seeds=[0, 1, 2, 3, 4, 5]"
    edjax.run(edjax.cwd / "straight", many)
    path, seen = edjax.cwd / "killed", []
    for _ in range(10):
        p = edjax.start("run", ROOT / "recipes" / "ci_pool_stories260k.yaml", *SMALL, many, "--out", path)
        time.sleep(rng.uniform(3, 5.5))  # the imports alone take about 3 s
        p.kill()
        assert p.wait() == -signal.SIGKILL
        seen.append({f.parent.parent.name for f in path.glob("cells/*/evaluation/manifest.json")})
        assert not (path / "manifest.json").exists()
    assert all(a <= b for a, b in itertools.pairwise(seen)), "a cell that was done was thrown away"
    _, err = edjax.run(path, many)
    assert len(list(path.glob("cells/*/evaluation/manifest.json"))) == 24 == err.count("edjax: cell ")
    assert err.count("(done before)") == len(seen[-1])
    assert adapters(path) == adapters(edjax.cwd / "straight")
    assert outcome(path) == outcome(edjax.cwd / "straight")


def said(err):
    """The lines of stderr that are no news of the run's progress."""
    assert "Traceback" not in err
    news = ("edjax: selected", "edjax: cell", "edjax: note", "score: ", "finetune: ", "evaluate: ")
    return [line for line in err.splitlines() if line and not line.startswith(news)]


def test_the_verbs_one_after_the_other(edjax, shared):
    """score, select, finetune, evaluate: each reads what the one before wrote."""
    import pyarrow.parquet as pq

    room = edjax.cwd / "verbs"
    room.mkdir()
    model = ["--model", shared / "models" / "stories260k"]
    for name, rows in (("pool", 16), ("eval", 8)):
        with gzip.open(shared / "data" / f"ci_{name}.jsonl.gz") as f:
            (room / f"{name}.jsonl").write_bytes(b"".join(f.readline() for _ in range(rows)))
    small = ["--max-length", 64, "--batch-size", 8, "--max-new-tokens", 2]

    out, _ = edjax("score", room / "pool.jsonl", *model, *small, "--out", room / "features")
    assert out.startswith("16 prompts x 64 features")
    table = pq.read_table(room / "features" / "shard-00000.parquet")
    assert {"id", "embedding", "generated", *SIX} <= set(table.column_names) and len(table) == 16

    out, err = edjax("select", room / "features", "--strategy", "k_center", "--budget", 6, "--out", room / "chosen")
    assert out.startswith("6 of 16 rows by k_center") and err == ""
    chosen = (room / "chosen" / "selected.jsonl").read_bytes().splitlines()
    assert len(chosen) == 6 and set(chosen) <= set((room / "pool.jsonl").read_bytes().splitlines())

    train = ["--max-length", 64, "--per-device-train-batch-size", 4, "--learning-rate", 0.01, "--num-train-epochs", 4]
    out, _ = edjax("finetune", room / "chosen" / "selected.jsonl", *model, *train, "--out", room / "adapter")
    assert out.startswith("8 steps on 6 rows")
    log = [json.loads(line) for line in (room / "adapter" / "metrics.jsonl").read_text().splitlines()]
    assert [e["step"] for e in log] == list(range(1, 9)) and log[-1]["loss"] < log[0]["loss"]
    assert json.loads((room / "adapter" / "adapter_config.json").read_text())["peft_type"] == "LORA"

    scores = []
    for extra in ([], ["--adapter", room / "adapter"]):
        argv = ["evaluate", room / "eval.jsonl", *model, *small, *extra, "--metrics", "response_loss"]
        out, _ = edjax(*argv, "--out", room / f"scores{len(extra)}")
        scores.append(json.loads((room / f"scores{len(extra)}" / "scores.json").read_text())["scores"]["response_loss"])
        assert f"response_loss    {scores[-1]:8.4f}  over 8 rows" in out
    assert scores[1] < scores[0], "the adapter changed nothing for the better"
