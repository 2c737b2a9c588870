"""The command line: exit codes, one line an error with its remedy, nothing half-written, and a fast start."""

import gzip
import json
import subprocess
import sys
import time

import numpy as np
import pytest

import edjax.cli
from edjax.keep.errors import EdjaxError
from edjax.keep.store import Lock, writing

VERBS = ("score", "select", "strategies", "export", "import-labels", "finetune", "evaluate", "merge", "run", "demo")
VERBS += ("report", "generate", "verify", "env", "doctor", "completion")


def pool_file(path, n=12, **change):
    rows = [{"id": f"r{i}", "prompt": f"Question {i}?", "response": f"Answer {i}."} | change for i in range(n)]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def features_file(path, n=12):
    import pyarrow as pa
    import pyarrow.parquet as pq

    x = np.random.Generator(np.random.PCG64(0)).normal(size=(n, 4)).tolist()
    pq.write_table(pa.table({"id": [f"r{i}" for i in range(n)], "embedding": x}), path)
    return path


def recipe_file(path, text=""):
    path.write_text(f"pool: pool.jsonl\nevaluation: pool.jsonl\nout: o\nbudgets: [4]\n{text}")
    return path


# Usage: 2


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["scrore", "x"], "No such command 'scrore'"),
        (["score"], "Missing argument 'POOL...'"),
        (["score", "x"], "Missing option '--out'"),
        (["score", "x", "--out", "o", "--bogus"], "No such option"),
        (["score", "x", "--out", "o", "--layer", "last"], "'last' is not a valid integer"),
        (["select", "x", "--out", "o", "--strategy", "random", "--budget", "2.5"], "'2.5' is not a valid integer"),
        (["--bogus"], "No such option"),
    ],
)
def test_the_call_itself_is_off(fails, argv, said):
    line = fails(2, *argv)
    assert said in line and "--help)" in line


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--strategy", "kcenter", "--budget", "3"], "unknown strategy 'kcenter'; did you mean k_center?"),
        (
            ["--strategy", "k_center", "--budget", "13"],
            "budget 13 is larger than the 12 rows to choose from; lower it or",
        ),
        (["--strategy", "random", "--budget", "-1"], "budget -1 is negative"),
        (["--strategy", "random", "--budget", "3", "--seed", "-1"], "seed -1 is negative"),
        (["--strategy", "k_center", "--budget", "3", "--normalise", "l3"], "normalise 'l3' is not one of"),
    ],
)
def test_a_selection_that_makes_no_sense(fails, tmp_path, options, said):
    pool, found = pool_file(tmp_path / "p.jsonl"), features_file(tmp_path / "f.parquet")
    assert said in fails(2, "select", found, "--pool", pool, "--out", tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("budgets: [13]\n", "budget 13 is larger than the pool (12 rows); lower it"),
        ("strategies: [kcenter]\n", "unknown strategy 'kcenter'; did you mean k_center?"),
        ("learning_rat: 1\n", "unknown key 'learning_rat'; did you mean learning_rate?"),
        ("lr_scheduler_type: step\n", "lr_scheduler_type 'step' is not one of cosine, linear, constant"),
        ("lora_target_modules: [q]\n", "lora_target_modules ['q'] are unknown"),
        ("strategies: [mean_nll]\nmax_new_tokens: 0\n", "mean_nll needs decoded tokens: set max_new_tokens to 1"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused_before_any_work(fails, tmp_path, text, said):
    pool_file(tmp_path / "pool.jsonl")
    line = fails(2, "run", recipe_file(tmp_path / "r.yaml", text), "--out", tmp_path / "out")
    assert said in line
    assert not (tmp_path / "out").exists()


def test_another_command_s_directory_is_refused_with_the_difference(fails, edjax_, tmp_path):
    pool, found, out = pool_file(tmp_path / "p.jsonl"), features_file(tmp_path / "f.parquet"), tmp_path / "out"
    command = ["select", found, "--pool", pool, "--strategy", "random", "--out", out]
    assert edjax_(*command, "--budget", 3)[0] == 0
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    line = fails(2, *command, "--budget", 4)
    assert "budget: 3 there, 4 now" in line and "or --overwrite to start again" in line
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    assert edjax_(*command, "--budget", 4, "--overwrite")[0] == 0
    assert len((out / "selected.jsonl").read_bytes().splitlines()) == 4


# Memory and cost of a selection


@pytest.mark.parametrize("strategy", ["k_center", "d_optimal", "facility_location", "random"])
def test_a_selection_that_does_not_fit_into_memory_reads_from_disk(edjax_, tmp_path, strategy):
    pool, found = pool_file(tmp_path / "p.jsonl"), features_file(tmp_path / "f.parquet")
    command = ["select", found, "--pool", pool, "--strategy", strategy, "--budget", 4, "--out"]
    assert edjax_(*command, tmp_path / "a")[0] == 0
    code, _, err = edjax_(*command, tmp_path / "b", "--memory", "100B")
    assert code == 0
    said = f"too large for --memory: {strategy} reads the embeddings from a scratch file of 0.0 GB beside {tmp_path}/b"
    assert (said in err) == (strategy in ("k_center", "d_optimal"))
    assert (tmp_path / "b" / "selected.jsonl").read_bytes() == (tmp_path / "a" / "selected.jsonl").read_bytes()
    assert edjax_(*command, tmp_path / "a", "--memory", "1kib")[0] == 0, "memory is no setting of the result"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["k_center", "--normalise", "l2"], "k_center (blocked) of 4 rows from 12 x 4: "),
        (["k_center", "--memory", "100B"], "k_center (streamed) of 4 rows from 12 x 3: "),
        (["facility_location", "--memory", "100B"], "facility_location (resident) of 4 rows from 12 x 3: "),
        (["random"], "random of 4 rows from 12: no kernel runs"),
    ],
)
def test_a_dry_run_says_the_cost_and_writes_nothing(edjax_, tmp_path, options, said):
    found = features_file(tmp_path / "f.parquet")
    code, out, _ = edjax_("select", found, "--budget", 4, "--dry-run", "--strategy", *options)
    assert code == 0 and said in out and len(out.splitlines()) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["f.parquet"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--strategy", "k_center", "--budget", 4], "Missing option '--out'"),
        (["--strategy", "k_center", "--budget", 13, "--dry-run"], "budget 13 is not between 0 and the pool's 12 rows"),
        (["--strategy", "kcenter", "--budget", 4, "--dry-run"], "did you mean k_center?"),
        (["--strategy", "k_center", "--budget", 4, "--dry-run", "--memory", "much"], "'much' is no size; write 4GiB"),
    ],
)
def test_a_dry_run_that_makes_no_sense(fails, tmp_path, options, said):
    assert said in fails(2, "select", features_file(tmp_path / "f.parquet"), *options)


def test_sizes():
    from edjax.cli.options import Bytes

    sizes = {"4GiB": 4 << 30, "500MB": 500 * 10**6, "1e3": 1000, "1.5k": 1500, "2 TiB": 2 << 40, "7b": 7}
    assert {s: Bytes().convert(s, None, None) for s in sizes} == sizes


# Bad data: 3


def line_143(path, bad):
    lines = [json.dumps({"id": f"r{i}", "prompt": f"p{i}"}) for i in range(200)]
    lines[142] = bad
    path.write_text("\n".join(lines) + "\n")
    return path


BAD_POOLS = {
    "malformed line": (
        lambda p: line_143(p, '{"id": "r142", "prompt": "p'),
        ":143: ",
        "mend the line, or --skip-bad-lines",
    ),
    "array row": (lambda p: line_143(p, "[1, 2]"), ":143: ", "--skip-bad-lines"),
    "duplicate id": (lambda p: line_143(p, '{"id": "r7", "prompt": "p"}'), ":143: ", "make the ids unique"),
    "missing column": (lambda p: misnamed(p), "'promt' is near 'prompt'", "--text-column"),
    "empty": (lambda p: p.write_text(""), "holds no rows", "a pool needs at least one prompt"),
    "blank lines only": (lambda p: p.write_text("\n\n"), "holds no rows", "a pool needs at least one prompt"),
    "missing file": (lambda p: None, "does not exist", ""),
}


def misnamed(path):
    path.write_text(pool_file(path).read_text().replace('"prompt"', '"promt"'))


@pytest.mark.parametrize("verb", ["score", "finetune", "evaluate"])
@pytest.mark.parametrize("case", BAD_POOLS)
def test_a_pool_that_cannot_be_read(fails, tmp_path, case, verb):
    make, said, remedy = BAD_POOLS[case]
    path, out = tmp_path / "pool.jsonl", tmp_path / "out"
    make(path)
    line = fails(3, verb, path, "--model", tmp_path / "nowhere", "--out", out)
    assert str(path) in line and said in line and remedy in line
    assert not out.exists()


def test_a_column_that_was_named_and_is_not_there(fails, tmp_path):
    pool = pool_file(tmp_path / "p.jsonl")
    line = fails(3, "score", pool, "--text-column", "promt", "--out", tmp_path / "out")
    assert "no column 'promt'; did you mean 'prompt'? the columns are id, prompt, response" in line


def test_bad_lines_can_be_left_out_and_are_counted(edjax_, tmp_path):
    pool = line_143(tmp_path / "p.jsonl", "{")
    found = features_file(tmp_path / "f.parquet", 100)
    argv = ["select", found, "--pool", pool, "--strategy", "random", "--budget", 3, "--out", tmp_path / "o"]
    code, _, err = edjax_(*argv, "--skip-bad-lines")
    assert code == 0 and "edjax: note: 1 malformed line skipped: 143" in err


@pytest.mark.parametrize("verb", ["finetune", "evaluate"])
def test_rows_without_a_response_are_named(fails, tmp_path, shared, verb):
    pool = pool_file(tmp_path / "p.jsonl", response="")
    line = fails(3, verb, pool, "--model", shared / "models" / "stories260k", "--out", tmp_path / "out")
    assert "row 'r0' has no response" in line
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_run_over_a_pool_without_responses_is_refused_at_once(fails, tmp_path):
    pool_file(tmp_path / "pool.jsonl", response=None)
    line = fails(3, "run", recipe_file(tmp_path / "r.yaml"), "--out", tmp_path / "out")
    assert "row 'r0' has none (12 such); `edjax score` and `edjax select` need no responses" in line
    assert not (tmp_path / "out").exists()


def test_rows_that_are_not_finite(fails, edjax_, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pool, found = pool_file(tmp_path / "p.jsonl", 3), tmp_path / "f.parquet"
    pq.write_table(
        pa.table({"id": ["r0", "r1", "r2"], "embedding": [[0.0, 1.0], [float("nan"), 1.0], [2.0, 2.0]]}), found
    )
    argv = ["select", found, "--pool", pool, "--strategy", "k_center", "--budget", 2, "--out", tmp_path / "out"]
    line = fails(3, *argv)
    assert "1 row has NaN or infinite features (r1); mend them, or --allow invalid" in line
    assert not (tmp_path / "out").exists()
    code, _, err = edjax_(*argv, "--drop-invalid")
    assert code == 0 and "edjax: note: 1 row has NaN or infinite features (r1): left out" in err


def no_config(path):
    path.mkdir()


def broken_config(path):
    path.mkdir()
    (path / "config.json").write_text("{")


def broken_weights(path, shared):
    path.mkdir()
    for p in (shared / "models" / "stories260k").iterdir():
        (path / p.name).write_bytes(p.read_bytes())
    weights = path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])


def no_weights(path, shared):
    broken_weights(path, shared)
    (path / "model.safetensors").unlink()


@pytest.mark.parametrize("damage", [None, no_config, broken_config, broken_weights, no_weights])
@pytest.mark.parametrize("verb", ["score", "finetune", "evaluate"])
def test_a_model_that_cannot_be_read(fails, tmp_path, request, damage, verb):
    model, out = tmp_path / "model", tmp_path / "out"
    if damage in (broken_weights, no_weights):
        damage(model, request.getfixturevalue("shared"))
    elif damage:
        damage(model)
    line = fails(3, verb, pool_file(tmp_path / "p.jsonl"), "--model", model, "--out", out)
    assert str(model) in line
    assert not (out / "manifest.json").exists() and not list(out.glob("*.parquet"))


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (
            ["select", "{}", "--strategy", "random", "--budget", "3", "--out", "{}/o"],
            "is not a directory that edjax wrote",
        ),
        (["select", "{}/f", "--strategy", "random", "--budget", "3", "--out", "{}/o"], "`edjax score POOL --out"),
        (["run", "{}/r.yaml"], "does not exist"),
        (["report", "{}"], "no finished features, selection, adapter or evaluation"),
    ],
)
def test_what_an_earlier_verb_should_have_left(fails, tmp_path, argv, said):
    assert said in fails(3, *(a.format(tmp_path) for a in argv))


def test_an_adapter_that_is_not_there(fails, tmp_path, shared):
    model = shared / "models" / "stories260k"
    line = fails(3, "evaluate", pool_file(tmp_path / "p.jsonl"), "--model", model, "--adapter", tmp_path / "none")
    assert str(tmp_path / "none") in line


# Locked: 4; environment: 5


def test_a_directory_that_another_process_writes(fails, tmp_path):
    pool, found, out = pool_file(tmp_path / "p.jsonl"), features_file(tmp_path / "f.parquet"), tmp_path / "out"
    out.mkdir()
    with Lock(out):
        line = fails(4, "select", found, "--pool", pool, "--strategy", "random", "--budget", 3, "--out", out)
        assert "is being written by process" in line and "choose another --out" in line
    assert list(out.iterdir()) == []


def test_a_hub_model_without_the_hub(fails, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    line = fails(
        5, "score", pool_file(tmp_path / "p.jsonl"), "--model", "nobody/no-such-model", "--out", tmp_path / "out"
    )
    assert "'nobody/no-such-model' is not a local directory and could not be fetched from the hub" in line
    assert not (tmp_path / "out").exists()


def test_out_is_a_file(fails, tmp_path):
    pool, found, out = pool_file(tmp_path / "p.jsonl"), features_file(tmp_path / "f.parquet"), tmp_path / "out"
    out.write_text("mine")
    line = fails(5, "select", found, "--pool", pool, "--strategy", "random", "--budget", 3, "--out", out)
    assert "a file is in the way; choose another --out" in line and out.read_text() == "mine"


# 1, 130, 143 and --debug


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "interrupted; the same command goes on from here"),
        (edjax.cli._Terminated(), 143, "terminated; the same command goes on from here"),
        (RuntimeError("two\nlines"), 1, "unexpected RuntimeError: two lines; --debug shows where"),
        (EdjaxError("two\n lines"), 1, "two lines"),
    ],
)
def test_what_ends_a_command(edjax_, monkeypatch, error, code, said):
    def end(*args, **kwargs):
        raise error

    monkeypatch.setattr("edjax.selection.strategies.STRATEGIES", type("Raises", (dict,), {"items": end})())
    got, out, err = edjax_("strategies")
    assert (got, out, err.strip()) == (code, "", f"edjax: error: {said}")


def test_debug_shows_the_traceback(monkeypatch, tmp_path):
    with pytest.raises(EdjaxError, match="does not exist"):
        edjax.cli.main(["--debug", "run", str(tmp_path / "r.yaml")])


# What goes well


def test_select_writes_and_does_nothing_the_second_time(edjax_, tmp_path):
    pool, found, out = pool_file(tmp_path / "p.jsonl"), features_file(tmp_path / "f.parquet"), tmp_path / "out"
    argv = ["select", found, "--pool", pool, "--strategy", "k_center", "--budget", 3, "--out", out]
    code, said, err = edjax_(*argv)
    assert (code, err) == (0, "") and said.startswith("3 of 12 rows by k_center")
    rows = (out / "selected.jsonl").read_bytes()
    assert len(rows.splitlines()) == 3 and set(rows.splitlines()) < set(pool.read_bytes().splitlines())
    before = {p: p.stat().st_mtime_ns for p in out.iterdir()}
    assert edjax_(*argv)[0] == 0
    assert {p: p.stat().st_mtime_ns for p in out.iterdir()} == before


def test_select_takes_the_pool_that_was_scored(edjax_, tmp_path):
    pool = pool_file(tmp_path / "p.jsonl")
    packed = tmp_path / "p.jsonl.gz"
    packed.write_bytes(gzip.compress(pool.read_bytes()))
    with writing(tmp_path / "f", kind="features", config={}, inputs={}) as artifact:
        features_file(tmp_path / "f" / "shard-00000.parquet")
        artifact.finish(pool=str(packed))
    out = tmp_path / "out"
    assert edjax_("select", tmp_path / "f", "--strategy", "random", "--budget", 2, "--out", out)[0] == 0
    assert len((out / "selected.jsonl").read_bytes().splitlines()) == 2


def test_exhausted_gains_are_a_note(edjax_, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pool, found = pool_file(tmp_path / "p.jsonl", 6), tmp_path / "f.parquet"
    pq.write_table(pa.table({"id": [f"r{i}" for i in range(6)], "embedding": [[0.0, 1.0], [1.0, 0.0]] * 3}), found)
    argv = ["select", found, "--pool", pool, "--strategy", "k_center", "--budget", 4, "--out", tmp_path / "o"]
    code, _, err = edjax_(*argv)
    assert code == 0 and err.startswith("edjax: note: the gains ran out after 2 of 4 picks")


def test_strategies_are_listed(edjax_):
    from edjax.selection.strategies import STRATEGIES

    code, out, _ = edjax_("strategies")
    assert code == 0 and [line.split()[0] for line in out.splitlines()] == list(STRATEGIES)


@pytest.mark.parametrize("argv", [["--help"], ["-h"], ["--version"], *([v, "--help"] for v in VERBS)])
def test_help_and_version(edjax_, argv):
    code, out, err = edjax_(*argv)
    assert (code, err) == (0, "")
    assert out.startswith(
        "edjax, version 0." if argv == ["--version"] else f"Usage: {' '.join(['edjax', *argv[:-1]])} "
    )


def test_every_verb_is_tested_here(edjax_):
    assert sorted(edjax.cli.cli.commands) == sorted(VERBS)
    listed = edjax_("--help")[1]
    assert all(f"  {v} " in listed for v in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_is_loaded_from_its_place_and_its_summary_is_the_beginning_of_its_help(verb):
    command = edjax.cli.cli.commands[verb]
    assert command.name == verb and command.help
    _, summary = edjax.cli.VERBS[verb]
    assert summary.split()[0] == command.help.split()[0] and summary.endswith(".") and len(summary) <= 80


# A fast start

HEAVY = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax",
    "transformers",
    "datasets",
    "pyarrow",
    "torch",
    "rich",
    "rouge_score",
)
START = {
    "import edjax": ("import edjax", ("numpy", "click", *HEAVY)),
    "edjax --help": (
        "import edjax.cli\ntry: edjax.cli.main(['--help'])\nexcept SystemExit as e: assert not e.code",
        ("numpy", *HEAVY),
    ),
}


@pytest.mark.parametrize("case", START)
def test_the_start_is_fast_and_light(case, tmp_path):
    code, forbidden = START[case]
    code += f"\nimport sys\nsys.stderr.write(' '.join(sorted(set({forbidden!r}) & set(sys.modules))))"
    times = []
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
        times.append(time.perf_counter() - start)
        assert done.returncode == 0 and done.stderr == "", f"loaded for nothing: {done.stderr}"
    assert min(times) < 0.5, times


def test_every_public_name_is_there_and_no_other():
    done = subprocess.run(
        [sys.executable, "-c", "import edjax\nfor n in edjax.__all__: assert getattr(edjax, n) and n in dir(edjax), n"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = edjax.nonsense
