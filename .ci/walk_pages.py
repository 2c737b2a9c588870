"""Carries out every command of README and the tutorial where nothing but the wheel is installed.

Called by .ci/fresh_install with the Python of an empty environment, in an empty directory outside the repository:

    python walk_pages.py REPOSITORY PAGES [MODEL]

Bash blocks run as they stand, by bash, with `edjax` the installed command; Python blocks run in this process, one
namespace a page. PAGES are names below the repository, README.md first. For time, MODEL (a directory in Hugging Face
layout) stands in for smollm2, and what tests/pages.py lists as SMALLER and QUICKER is changed. A command that fails, or
that leaves a traceback, ends the walk.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

repository, pages = Path(sys.argv[1]).resolve(), sys.argv[2].split()
model = [Path(m).resolve() for m in sys.argv[3:4]]
sys.path.append(str(repository / "tests"))
from pages import QUICKER, SMALLER, blocks, edjax_lines  # noqa: E402
from quick import XLA_FLAGS  # noqa: E402

sys.path.remove(str(repository / "tests"))
INSTALLS = ("tests",)  # marks of blocks that this is not the place for: the tests have a check of their own
IN_TABLES = {
    "generate": "generate test.jsonl --out drafts.jsonl --max-new-tokens 2",
    "merge": "merge --adapter adapter --out merged",
    "verify": "verify .",
    "completion": "completion bash",
}
WRAPPER = """#!{python}
import os, sys
quicker, words = {quicker!r}, sys.argv[1:]
os.execv({edjax!r}, ["edjax", *words, *quicker.get(words[0] if words else "", ())])
"""


def main() -> None:
    """Walk the pages, then the verbs that none has a command line of."""
    assert find_spec("torch") is None, "this environment has torch, which edjax does not ask for"
    site = Path(find_spec("edjax").submodule_search_locations[0]).resolve()
    assert not site.is_relative_to(repository), f"edjax is imported from {site}, which is not the wheel"
    tools(Path("bin").resolve())
    ran = set().union(*map(walk, pages))
    import edjax.cli

    os.chdir("README.md")
    for verb in sorted(set(edjax.cli.cli.commands) - ran):  # those that the pages name in their tables only
        bash(f"edjax {IN_TABLES.get(verb, verb)}", "the table of verbs in README.md")


def tools(folder: Path) -> None:
    """Put an `edjax` that adds what makes it quick first on PATH, and MODEL where smollm2 is kept."""
    folder.mkdir()
    installed = Path(sys.executable).parent / "edjax"
    wrapper = folder / "edjax"
    wrapper.write_text(WRAPPER.format(python=sys.executable, quicker=QUICKER, edjax=str(installed)))
    wrapper.chmod(0o755)
    os.environ["PATH"] = f"{folder}:{installed.parent}:{os.environ['PATH']}"
    os.environ.setdefault("XLA_FLAGS", XLA_FLAGS)
    from edjax.keep.compiled import compiled_programs

    kept = (
        Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edjax-tests"
    )  # as tests/conftest.py has it
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(compiled_programs(kept))
    if model:
        from edjax.lm import smollm2

        os.environ["EDJAX_CACHE"] = str(Path("cache").resolve())
        shutil.copytree(model[0], Path("cache/models") / f"{smollm2.NAME}-{smollm2.WHEEL_SHA256[:12]}")


def walk(page: str) -> set[str]:
    """Carry out the blocks of a page in their order; the verbs that were called."""
    text = (repository / page).read_text(encoding="utf-8")
    here = Path(page.replace("/", "-")).resolve()
    here.mkdir()
    os.chdir(here)
    provide()
    namespace, verbs = {"__name__": "__main__"}, set()
    for block in blocks(text):
        if block.mark in INSTALLS or block.language not in ("bash", "python", "yaml"):
            continue
        code, where = smaller(block.code), f"{page}:{block.line}"
        if block.language == "yaml":
            names = re.findall(r"as `(\S+\.yaml)`", text)
            Path(names[0]).write_text(code)
        elif block.language == "python":
            exec(compile(code, where, "exec"), namespace)
        else:
            lines = edjax_lines(code)
            verbs |= {words[0] for words in lines}
            if block.mark == "demo":  # its first half installs, which has been done
                code = "edjax demo"
            for line in code.replace("\\\n", " ").splitlines():
                bash(line, where)
    for line in re.findall(r"`(edjax run [^`]+)`", text):
        verbs.add("run")
        bash(smaller(line), page)
    os.chdir("..")
    return verbs


def smaller(code: str) -> str:
    """The same with what tests/pages.py lists made small."""
    for long, short in SMALLER.items():
        code = code.replace(long, short)
    return code


def bash(line: str, where: str) -> None:
    """One line of a block; its seconds, or the end of the walk with all it said."""
    if not line.split("#")[0].strip():
        return
    start = time.monotonic()
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", line], capture_output=True, text=True)
    print(f"{time.monotonic() - start:6.1f} s  {line}", flush=True)
    if done.returncode or "Traceback" in done.stderr or "unexpected" in done.stderr:
        sys.exit(f"{where}: {line}\nexit {done.returncode}\n{done.stdout}\n{done.stderr}")
    answer_tasks()


def provide() -> None:
    """The files that README speaks of: a pool, a test set, and the recipes with the data beside the repository."""
    from edjax.demo import generate

    pool, test = generate(n=240, n_eval=12)
    for name, rows, columns in (
        ("prompts.jsonl", pool, ("id", "prompt")),
        ("test.jsonl", test, ("prompt", "response")),
    ):
        with open(name, "w") as f:
            f.writelines(json.dumps({c: row[c] for c in columns}) + "\n" for row in rows)
    shutil.copytree(repository / "recipes", "recipes")
    if (shared := repository.parent / "shared").exists() and not (link := Path("../../shared")).exists():
        link.symlink_to(shared.resolve())


def answer_tasks() -> None:
    """Once tasks for Label Studio lie there: what it exports after people have answered every one."""
    tasks = Path("tasks")
    if (tasks / "tasks.json").exists() and not Path("answers.json").exists():
        rows = json.loads((tasks / "tasks.json").read_text())
        for number, task in enumerate(rows, 1):
            value = {"text": [f"answer {number}"]}
            made = {"from_name": "response", "to_name": "prompt", "type": "textarea", "value": value}
            task |= {"id": number, "annotations": [{"id": number, "was_cancelled": False, "result": [made]}]}
        Path("answers.json").write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
