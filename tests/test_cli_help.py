"""Help under headings, made from the settings that the verbs' functions take."""

import dataclasses
import subprocess
import sys

import click
import pytest

import edjax.cli
from edjax.cli.grouped import RUNNING, sections
from edjax.evaluation.config import EvaluateConfig
from edjax.finetuning.config import FinetuneConfig
from edjax.keep.errors import UsageError
from edjax.lm.session import Session
from edjax.scoring.config import ScoreConfig
from edjax.selection.options import Options
from edjax.settings import check, setting


def found(verb):
    command = edjax.cli.cli.commands[verb]
    return sections(command, click.Context(command, info_name=verb))


SETTINGS = {"score": ScoreConfig, "select": Options, "finetune": FinetuneConfig, "evaluate": EvaluateConfig}


@pytest.mark.parametrize("verb", SETTINGS)
def test_every_setting_is_a_flag_under_its_heading(verb):
    """Or it is one that is taken and not shown, and what is shown has another form for it."""
    shown, taken = found(verb), {o for p in edjax.cli.cli.commands[verb].params for o in p.opts}
    of_the_model = [f for f in dataclasses.fields(Session) if f.metadata] if verb in ("score", "evaluate") else []
    for field in (*dataclasses.fields(SETTINGS[verb]), *of_the_model):
        said, flags = field.metadata, [flag.split()[0] for flag, _ in shown.get(field.metadata["section"], ())]
        flag = said["flag"] or "--" + field.name.replace("_", "-")
        if (verb, field.name) == ("score", "quantize"):
            assert flag not in taken
        elif said["within"]:
            assert flag in taken and flag not in flags
            assert said["within"].split()[0] in {f.split()[0] for records in shown.values() for f, _ in records}
        else:
            assert flag in flags, field.name
    assert list(shown)[-1] == RUNNING and len(shown) > 4
    assert all(about for records in shown.values() for _, about in records), "a flag without a word"


def test_the_headings_are_shown(capsys):
    with pytest.raises(SystemExit):
        edjax.cli.main(["select", "--help"])
    said = capsys.readouterr().out
    places = [said.index(f"\n{heading}:\n") for heading in found("select")]
    assert places == sorted(places)


def test_the_help_of_select_fits_a_screen():
    assert sum(len(records) for records in found("select").values()) <= 28  # 24, rows beside the pool, parts, and money


@pytest.mark.parametrize("verb", ["select", "finetune", "score", "evaluate"])
def test_asking_for_help_of_a_verb_loads_no_jax(verb):
    code = f"import sys, edjax.cli; edjax.cli.cli.commands[{verb!r}]; "
    code += "print(sorted({'jax', 'flax', 'transformers', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_asking_for_help_loads_no_jax():
    code = "import sys, edjax.cli; print(sorted({'jax', 'flax', 'transformers', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@dataclasses.dataclass(frozen=True)
class Some:
    rate: float = setting(0.5, "a rate", section="Some", above=0)
    share: float = setting(0.0, "a share", section="Some", least=0, below=1)
    rows: int = setting(3, "rows", section="Some", least=0)
    kind: str = setting("a", "a kind", section="Some", choices=("a", "b"))
    most: int | None = setting(None, "rows", section="Some", kind=int, least=1)
    other: str = "of no setting"

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
        ({"kind": "c"}, "kind 'c' is not one of a, b"),
        ({"most": 0}, "most is 0; it must be 1 or more"),
        ({"most": "5"}, "most holds '5', which is not a whole number"),
    ],
)
def test_a_bound_is_said_with_the_value(asked, said):
    with pytest.raises(UsageError) as e:
        Some(**asked)
    assert str(e.value) == said
