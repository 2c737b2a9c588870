"""The worked example of docs/how-to/add-a-method.md, in a package of its own beside edjax: one file and one line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pages
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

PAGE = (Path(__file__).parents[1] / "docs" / "how-to" / "add-a-method.md").read_text(encoding="utf-8")


def package(home, source, line, name="their-methods"):
    """An installed distribution, without an installer: a module and its entry points."""
    home.mkdir(exist_ok=True)
    (home / "feature_coverage.py").write_text(source)
    info = home / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[edjax.methods]\n" + line)
    return home


@pytest.fixture
def example(tmp_path):
    found = pages.blocks(PAGE)
    source = next(b.code for b in found if b.language == "python")
    header, line = next(b.code for b in found if b.language == "text").strip().splitlines()
    assert header == '[project.entry-points."edjax.methods"]'
    return package(tmp_path / "site", source, line.replace('"', "") + "\n")


def edjax(home, *argv, code=0):
    """The command in a process of its own, which finds what is installed in `home`."""
    program = [sys.executable, "-c", "import edjax.cli; edjax.cli.main()", *map(str, argv)]
    env = os.environ | {"PYTHONPATH": str(home)}
    done = subprocess.run(program, capture_output=True, text=True, env=env, cwd=home.parent)
    assert done.returncode == code, done.stderr
    return done


SILENT = """
from edjax.kernels import Method, method


@method
class Silent(Method):
    name = "silent"
"""


def features(path):
    x = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    pq.write_table(pa.table({"id": [f"r{i}" for i in range(40)], "embedding": x.tolist()}), path)
    return x, path


def test_it_is_listed_and_chooses(example, tmp_path):
    said = json.loads(edjax(example, "strategies", "--json").stdout)["feature_coverage"]
    assert said["paper"].startswith("Wei") and [k["name"] for k in said["knobs"]] == ["power"]
    x, file = features(tmp_path / "f.parquet")
    argv = ("select", file, "--normalise", "none", "--budget", 5, "--strategy")
    done = edjax(example, *argv, "feature_coverage:power=0.3,random", "--out", tmp_path / "chosen", "--json")
    first = json.loads(done.stdout)["selections"][0]
    assert first["strategy"] == "feature_coverage:power=0.3"
    rows = [int(line.split(",")[2]) for line in (Path(first["out"]) / "selection.csv").read_text().splitlines()[1:]]
    held, taken = np.zeros(6), []
    for j in rows:
        gains = ((held + np.abs(x)) ** 0.3 - held**0.3).sum(1)
        gains[taken] = -np.inf
        assert j == int(np.argmax(gains))
        held, taken = held + np.abs(x[j]), [*taken, j]


def test_it_takes_part_in_a_dry_run_and_in_groups(example, tmp_path):
    _, file = features(tmp_path / "f.parquet")
    argv = ("select", file, "--budget", 5, "--strategy", "feature_coverage")
    assert "feature_coverage (blocked) of 5 rows from 40" in edjax(example, *argv, "--dry-run").stdout
    assert "5 of 40 rows by feature_coverage" in edjax(example, *argv, "--group-by", "cluster:3", "--out", "g").stdout
    wrong = edjax(example, *argv[:-1], "feature_coverage:powr=1", "--out", "w", code=2).stderr
    assert "feature_coverage has no knob 'powr'; did you mean power? (it has power)" in wrong


def test_a_recipe_takes_it(example, tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "pool: p.jsonl\nevaluation: e.jsonl\nout: o\nstrategies: [random, {feature_coverage: {power: 0.3}}]\n"
    )
    code = f"from edjax.study.recipe import read_recipe; print(read_recipe({str(recipe)!r}).strategies)"
    env = os.environ | {"PYTHONPATH": str(example)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert done.stdout.strip() == "('random', 'feature_coverage:power=0.3')"


@pytest.mark.parametrize(
    ("source", "line", "said"),
    [
        ("import nowhere_to_be_found\n", "lost = feature_coverage:Lost\n", "ModuleNotFoundError"),
        ("Thing = 3\n", "thing = feature_coverage:Thing\n", "is no edjax.kernels.Method"),
        ("from edjax.kernels import KCenter\n", "mine = feature_coverage:KCenter\n", "the method 'k_center'"),
        ("from edjax.kernels import KCenter\n", "k_center = feature_coverage:KCenter\n", "the name is taken"),
        (SILENT, "silent = feature_coverage:Silent\n", "silent has no summary"),
    ],
)
def test_a_package_that_is_broken_is_named_and_breaks_nothing_else(tmp_path, source, line, said):
    home = package(tmp_path / "site", source, line)
    done = edjax(home, "strategies")
    name = line.split()[0]
    assert done.stdout.startswith("random")
    assert f"strategy {name!r} of the package their-methods cannot be used" in done.stderr
    assert said in done.stderr
    if name != "k_center":
        _, file = features(tmp_path / "f.parquet")
        argv = ("select", file, "--budget", 5, "--strategy", name, "--out", "o")
        assert "cannot be used" in edjax(home, *argv, code=5).stderr
