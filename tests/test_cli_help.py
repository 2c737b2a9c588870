"""Help under headings, made from the settings that the verbs' functions take."""

import dataclasses
import subprocess
import sys

import click
import pytest

import edjax.cli
from edjax.cli.grouped import RUNNING, sections
from edjax.finetuning.config import FinetuneConfig
from edjax.keep.errors import UsageError
from edjax.selection.options import Options
from edjax.settings import check, setting


def found(verb):
    command = edjax.cli.cli.commands[verb]
    return sections(command, click.Context(command, info_name=verb))


@pytest.mark.parametrize(("verb", "settings"), [("select", Options), ("finetune", FinetuneConfig)])
def test_every_setting_is_a_flag_under_its_heading(verb, settings):
    shown = found(verb)
    for field in dataclasses.fields(settings):
        flags = [flag for flag, _ in shown[field.metadata["section"]]]
        assert any(flag.split()[0] == "--" + field.name.replace("_", "-") for flag in flags), field.name
    assert list(shown)[-1] == RUNNING and len(shown) > 5
    assert all(about for records in shown.values() for _, about in records), "a flag without a word"


def test_the_headings_are_shown(capsys):
    with pytest.raises(SystemExit):
        edjax.cli.main(["select", "--help"])
    said = capsys.readouterr().out
    places = [said.index(f"\n{heading}:\n") for heading in found("select")]
    assert places == sorted(places)


def test_asking_for_help_loads_no_jax():
    code = "import sys, edjax.cli; print(sorted({'jax', 'flax', 'transformers', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@dataclasses.dataclass(frozen=True)
class Some:
    rate: float = setting(0.5, "a rate", section="Some", above=0)
    share: float = setting(0.0, "a share", section="Some", least=0, below=1)
    rows: int = setting(3, "rows", section="Some", least=0)

    def __post_init__(self):
        check(self)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"rate": 0}, "rate is 0; it must be above 0"),
        ({"share": 1.0}, "share is 1.0; it must be at least 0 and below 1"),
        ({"share": -0.1}, "share is -0.1; it must be at least 0 and below 1"),
        ({"rows": -1}, "rows is -1; it must be 0 or more"),
        ({"rows": 1.5}, "rows holds 1.5, which is not a whole number"),
        ({"rate": float("nan")}, "rate is nan; it must be finite"),
    ],
)
def test_a_bound_is_said_with_the_value(asked, said):
    with pytest.raises(UsageError) as e:
        Some(**asked)
    assert str(e.value) == said
