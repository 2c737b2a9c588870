"""The house stays as CONTRIBUTING and README say: what imports what, what is never called, what the README promises."""

import ast
import os
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import edjax

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*(ROOT / "edjax").rglob("*.py"), *(ROOT / "kernels").rglob("*.py")])
TREES = {p: ast.parse(p.read_text(encoding="utf-8")) for p in SOURCES}

BELOW = {"keep", "kernels", "charts", "settings", "data", "lm"}
ALLOWED = {  # a room of edjax/ -> the rooms it may use
    "kernels": set(),
    "keep": set(),
    "charts": set(),
    "settings": {"keep"},
    "data": {"keep", "settings"},
    "lm": {"keep", "kernels", "settings"},
    "scoring": BELOW - {"charts"},
    "selection": BELOW - {"lm"},
    "finetuning": BELOW - {"charts"},
    "evaluation": BELOW - {"charts", "kernels"},
    "handoff": {"keep", "data", "selection"},
    "study": {*BELOW, "scoring", "selection", "finetuning", "evaluation"},
    "demo": {"keep", "study"},
    "cli": {*BELOW, "scoring", "selection", "finetuning", "evaluation", "handoff", "study", "demo"},
}


def rooms_used(tree):
    """The rooms of edjax that a file imports anywhere in it, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{a.name}" if node.module == "edjax" else node.module for a in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] == "edjax":
                yield name.partition(".")[2].split(".")[0], node.lineno


def test_the_table_of_rooms_is_complete_and_one_way():
    rooms = {p.stem if p.is_file() else p.name for p in (ROOT / "edjax").iterdir() if p.suffix == ".py" or p.is_dir()}
    assert {r for r in rooms if not r.startswith("__")} | {"kernels"} == set(ALLOWED)
    list(TopologicalSorter(ALLOWED).static_order())  # raises CycleError


def test_imports_go_one_way():
    wrong = []
    for path, tree in TREES.items():
        room = (
            path.relative_to(ROOT / "edjax").parts[0].removesuffix(".py")
            if path.is_relative_to(ROOT / "edjax")
            else "kernels"
        )
        if room == "__init__":
            continue  # the public names, lazily
        for used, line in rooms_used(tree):
            if used != room and used not in ALLOWED[room]:
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {room} may not import edjax.{used}")
    assert not wrong, "\n".join(wrong)


def test_kernels_import_nothing_of_edjax_and_are_relative_inside():
    for path, tree in TREES.items():
        if path.is_relative_to(ROOT / "kernels"):
            assert not list(rooms_used(tree)), path
            for node in ast.walk(tree):
                if isinstance(node, (ast.Import, ast.ImportFrom)):
                    name = node.names[0].name if isinstance(node, ast.Import) else node.module or ""
                    assert getattr(node, "level", 0) or name.split(".")[0] != "kernels", f"{path}:{node.lineno}"


CODE = sorted(p for part in ("edjax", "kernels", "benchmarks") for p in (ROOT / part).rglob("*.py"))


def module(path):
    """Its dotted name; kernels/ is imported as edjax.kernels."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = ("edjax", *parts) if parts[0] == "kernels" else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def files_used(path, tree, known):
    """The files of this project that one imports anywhere in it, but for the type checker alone."""
    checked = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    package = module(path) if path.name == "__init__.py" else module(path).rpartition(".")[0]
    for node in ast.walk(tree):
        if id(node) in checked or not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name in known)
            continue
        above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
        base = ".".join([*above, *([node.module] if node.module else [])])
        yield from (
            name for a in node.names if (name := f"{base}.{a.name}" if f"{base}.{a.name}" in known else base) in known
        )


def test_no_file_imports_itself_by_way_of_others():
    known = {module(p): p for p in CODE}
    graph = {}
    for name, path in known.items():
        graph[name] = set(files_used(path, ast.parse(path.read_text(encoding="utf-8")), known)) - {name}
    list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


def test_files_are_small():
    lines = {p: len(p.read_text(encoding="utf-8").splitlines()) for p in CODE}
    assert max(lines.values()) <= 400, [str(p) for p, n in lines.items() if n > 400]
    assert sorted(lines.values())[len(lines) // 2] <= 130


def test_kernels_cost_jax_alone(tmp_path):
    code = "import sys, edjax.kernels; print(*sorted({'flax', 'transformers', 'datasets', 'optax'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr + done.stdout


# What is never called

MODULES = {"pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"}
CALLS = {
    "eval",
    "exec",
    "torch.load",
    "os.system",
    "os.popen",
    "subprocess.getoutput",
    "subprocess.getstatusoutput",
    "pd.read_pickle",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "jsonpickle.decode",
}


def unsafe(tree):
    """(line, what) of every call that could run what it reads."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, a.name) for a in node.names if a.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom):
            if (node.module or "").split(".")[0] in MODULES:
                yield node.lineno, node.module
            yield from (
                (node.lineno, f"{node.module}.{a.name}") for a in node.names if f"{node.module}.{a.name}" in CALLS
            )
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in CALLS:
                yield node.lineno, name
            for k in node.keywords:
                true = isinstance(k.value, ast.Constant) and k.value.value is True
                if k.arg in ("allow_pickle", "trust_remote_code", "shell") and (
                    true or not isinstance(k.value, ast.Constant)
                ):
                    yield node.lineno, f"{name}({k.arg}={ast.unparse(k.value)})"


def test_nothing_that_runs_what_it_reads():
    found = [f"{p.relative_to(ROOT)}:{line}: {what}" for p, t in TREES.items() for line, what in unsafe(t)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from pickle import loads",
        "import torch; torch.load(f)",
        "from torch import load",
        "import numpy as np; np.load(f, allow_pickle=True)",
        "np.load(f, allow_pickle=flag)",
        "eval(x)",
        "def f():\n    exec(x)",
        "yaml.load(f)",
        "from yaml import unsafe_load",
        "AutoModel.from_pretrained(d, trust_remote_code=True)",
        "subprocess.run(x, shell=True)",
        "subprocess.getoutput(x)",
        "import os; os.popen(x)",
    ],
)
def test_the_search_for_it_finds_each(code):
    assert list(unsafe(ast.parse(code)))


# Packaging


def test_every_package_is_listed_in_pyproject():
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = {".".join(p.parent.relative_to(ROOT).parts) for p in (ROOT / "edjax").rglob("__init__.py")}
    inside = {p.parent.relative_to(ROOT) for p in (ROOT / "kernels").rglob("__init__.py")}
    mapped = {".".join(("edjax", *path.parts)): path.as_posix() for path in inside}
    assert found | set(mapped) == set(config["packages"])
    assert config["package-dir"] == mapped
    for p in (ROOT / "edjax").rglob("*.py"):
        assert (p.parent / "__init__.py").exists(), f"{p.parent} has modules and no __init__.py"
    for package in ("edjax", "kernels"):
        assert (ROOT / package / "py.typed").exists()


def test_transformers_does_not_take_our_kernels_for_the_package_of_that_name(shared):
    """transformers probes for a package `kernels`; started in the repository's root, Python finds this directory."""
    code = f"""
from transformers import AutoConfig, AutoTokenizer
d = {str(shared / "models" / "stories260k")!r}
tokens = AutoTokenizer.from_pretrained(d)("Once upon a time").input_ids
print(AutoConfig.from_pretrained(d).num_hidden_layers, len(tokens))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    layers, tokens = map(int, done.stdout.split())
    assert layers == 5 and 3 < tokens < 12


def test_files_stay_small():
    """One idea a file, none over a few hundred lines."""
    long = {str(p.relative_to(ROOT)): n for p in SOURCES if (n := p.read_text(encoding="utf-8").count("\n")) > 450}
    assert not long, long


# The repository


def test_the_repository_holds_no_model_or_data():
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=ROOT)
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in listed.stdout.splitlines():
        assert not name.endswith((".safetensors", ".gguf", ".bin", ".parquet", ".pt", ".ckpt")), name
        assert not (ROOT / name).exists() or os.path.getsize(ROOT / name) < 1_000_000, name


def test_no_module_has_the_name_of_a_public_function():
    """`import edjax.scoring` would otherwise put a module in the function's place."""
    code = (
        "import edjax, edjax.study.run, edjax.selection.choose, edjax.finetuning.order\n"
        "print(all(callable(getattr(edjax, n)) for n in edjax.__all__ if n[0].islower()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "True", done.stderr
    rooms = {p.stem for p in (ROOT / "edjax").iterdir()}
    assert not rooms & set(edjax.__all__)
