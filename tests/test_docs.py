"""What README and docs/ say is so: Python runs, every `edjax` command line parses, and the marked ones are carried out.

Blocks of a page run in their order, in one directory with the files of `provided`:
  python         is run, with one namespace a page
  bash           each `edjax` line is parsed by the commands themselves: an unknown verb or option fails
  bash, marked   `<!-- run -->` on the line before: carried out, `edjax` in this process, the rest by bash
The model `smollm2` is there the tiny one of ../shared, and what `SMALLER` and `QUICKER` list is changed, for time.
"""

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import click
import pages
import pytest
import yaml
from pages import FENCE, QUICKER, SMALLER, edjax_lines

import edjax.cli
from edjax.demo import generate
from edjax.lm import smollm2
from edjax.selection.strategies import STRATEGIES
from edjax.study.recipe import make_recipe, read_recipe

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = ["README.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md"))]
LANGUAGES = {"python", "bash", "text", "json", "yaml", "csv"}


def blocks(page):
    return pages.blocks((ROOT / page).read_text(encoding="utf-8"))


@pytest.fixture
def any_path(monkeypatch):
    """Paths on a command line need not be there."""
    monkeypatch.setattr(click.Path, "convert", lambda self, value, param, ctx: value)


def parse(words):
    """Parses a command line as `edjax` would, and runs nothing; a `click.UsageError` names what is wrong."""
    cli, words = edjax.cli.cli, [re.sub(r"\$(\w+|\{[^}]*\})", "1", w) for w in words if w != "--debug"]
    top = click.Context(cli, info_name="edjax", **cli.context_settings)
    if words[:1] in (["--help"], ["--version"]):
        return None
    name, verb, rest = cli.resolve_command(top, words)
    return verb.make_context(name, rest, parent=top)


@pytest.fixture
def walk(tmp_path, monkeypatch, shared, capsys):
    """Runs a block of a page in a directory of the page's own."""
    provided(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(smollm2, "directory", lambda: shared / "models" / "stories260k")
    monkeypatch.setattr("edjax.cli.options.use_compilation_cache", lambda: None)
    namespace = {"__name__": "__main__"}

    def step(page, block):
        code, where = block.code, f"{page}:{block.line}"
        for long, short in SMALLER.items():
            code = code.replace(long, short)
        if block.language == "python":
            exec(compile(code, where, "exec"), namespace)
        elif block.mark == "run":
            for line in code.replace("\\\n", " ").splitlines():
                run_line(line, where)
        assert "Error" not in (said := capsys.readouterr()).err, said.err

    def run_line(line, where):
        words = next(iter(edjax_lines(line)), None)
        if words is None:
            subprocess.run(["bash", "-euc", line], check=True, capture_output=True)
            return
        with pytest.raises(SystemExit) as e:
            edjax.cli.main([*words, *QUICKER.get(words[0], ())])
        assert not e.value.code, f"{where}: edjax {shlex.join(words)}: {capsys.readouterr().err}"

    return step


def provided(directory):
    """The file that pages speak of: prompts.jsonl, 40 of them."""
    with (directory / "prompts.jsonl").open("w") as f:
        for row in generate(n=40, n_eval=0)[0]:
            f.write(json.dumps({name: row[name] for name in ("id", "prompt", "task")}) + "\n")


# What the blocks say


@pytest.mark.parametrize("page", PAGES)
def test_command_lines_parse(page, any_path):
    for block in blocks(page):
        assert block.language in LANGUAGES, f"{page}:{block.line}: a block names its language, one of {LANGUAGES}"
        if block.language == "yaml" and "--8<--" not in block.code:
            assert make_recipe(yaml.safe_load(block.code), ROOT, f"{page}:{block.line}").budgets
        if block.language == "bash":
            for words in edjax_lines(block.code):
                try:
                    context = parse(words)
                except click.UsageError as e:
                    pytest.fail(f"{page}:{block.line}: edjax {shlex.join(words)}: {e.format_message()}")
                if words[0] == "run" and (recipe := ROOT / words[1]).is_relative_to(ROOT / "recipes"):
                    read_recipe(recipe, context.params["overrides"])


@pytest.mark.parametrize(
    "page", [p for p in PAGES if any(b.language == "python" or b.mark == "run" for b in blocks(p))]
)
def test_blocks_run(page, walk):
    for block in blocks(page):
        walk(page, block)


def test_the_reader_of_blocks_finds_each_command():
    code = (
        "X=1 edjax a --b 'c d' > out.txt  # edjax no\n.venv/bin/edjax e \\\n  f | head && edjax g\n"
        "for n in 1 2; do edjax h $n; done\npip install 'edjax[demo]'\ncat edjax"
    )
    found = [["a", "--b", "c d"], ["e", "f"], ["g"], ["h", "$n"]]
    assert edjax_lines(code) == found


@pytest.mark.parametrize("wrong", ["scroe p --out o", "score p", "score p --out o --bogus", "select f --budget x"])
def test_a_wrong_command_line_is_found(wrong, any_path):
    with pytest.raises(click.UsageError):
        parse(wrong.split())


# README


def test_public_names_in_the_readme_exist():
    import edjax

    used = {
        n for b in blocks("README.md") for n in re.findall(r"\bedjax\.([a-zA-Z_]+)", b.code) if b.language == "python"
    }
    assert used - {"kernels"} and used - {"kernels"} <= set(edjax.__all__)


def test_every_verb_is_in_the_readme():
    verbs = {w[0] for b in blocks("README.md") if b.language == "bash" for w in edjax_lines(b.code)}
    table = set(re.findall(r"^\| `([a-z-]+)[ `]", README, re.M))
    assert {"demo", "score", "select", "finetune", "evaluate"} <= verbs
    assert set(edjax.cli.cli.commands) <= table, "a verb is missing from the table"


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    here = (ROOT / page).parent
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", FENCE.sub("", (ROOT / page).read_text(encoding="utf-8"))):
        assert target.startswith("http") or (here / target).exists(), f"{page}: {target}"


# The site and the recipes


def test_every_page_is_in_the_navigation():
    def leaves(node):
        if isinstance(node, str):
            return [node]
        return [leaf for part in (node.values() if isinstance(node, dict) else node) for leaf in leaves(part)]

    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    assert sorted(leaves(config["nav"])) == [p.removeprefix("docs/") for p in PAGES if p != "README.md"]


def test_every_strategy_is_in_the_methods():
    methods = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    assert [name for name in STRATEGIES if f"`{name}`" not in methods] == []


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").iterdir()), ids=lambda p: p.name)
def test_recipes_say_how_they_are_run_and_parse(path, any_path):
    text = path.read_text(encoding="utf-8")
    head = "".join(line for line in text.splitlines(True)[:12] if line.startswith("#"))
    assert f"recipes/{path.name}" in head and re.search(r"^# Time", head, re.M), (
        f"{path}: no command or time in its head"
    )
    assert re.search(r"Figures|figures|not measured", head) or "mean nothing" in head
    assert path.name in (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    if path.suffix == ".yaml":
        assert read_recipe(path).budgets
        return
    subprocess.run(["bash", "-n", path], check=True)
    assert os.access(path, os.X_OK) and "set -euo pipefail" in text
    for words in edjax_lines(text):
        parse(words)
