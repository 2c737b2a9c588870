"""The command line: one verb a stage, thin over the function of the same name."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import click

from edjax.cli.lazy import LazyGroup
from edjax.keep.errors import EdjaxError
from edjax.keep.memory import exhausted
from edjax.lm import torchless

VERBS = {  # in the order of the road
    "demo": ("edjax.cli.run", "Walk the whole road on a pool that edjax makes itself."),
    "score": ("edjax.cli.score", "Embed every prompt of a pool and measure the model's uncertainty."),
    "select": ("edjax.cli.select", "Choose the rows worth labelling."),
    "strategies": ("edjax.cli.strategies", "List the strategies: what each needs and does."),
    "export": ("edjax.cli.handoff", "Hand the chosen rows to people who answer them, or to a trainer."),
    "import-labels": ("edjax.cli.handoff", "Join people's answers to the rows they belong to."),
    "finetune": ("edjax.cli.finetune", "Train a LoRA adapter on the responses of rows."),
    "generate": ("edjax.cli.generate", "Let the model answer rows: candidates, or drafts to correct."),
    "evaluate": ("edjax.cli.evaluate", "Score the model's answers, with or without an adapter."),
    "merge": ("edjax.cli.evaluate", "Fold an adapter into its base model and write a whole model."),
    "run": ("edjax.cli.run", "Run a recipe: strategies x budgets x seeds over one scored pool."),
    "report": ("edjax.cli.run", "Draw the page of a run, or of what the verbs wrote one by one."),
    "verify": ("edjax.cli.house", "Check what edjax wrote against its manifests."),
    "env": ("edjax.cli.house", "Say what a result here depends on: versions, devices, memory."),
    "doctor": ("edjax.cli.house", "Try edjax on this machine, within a minute, with remedies for what fails."),
    "completion": ("edjax.cli.house", "Print the script that completes verbs, options and strategies."),
}


@click.group(
    cls=LazyGroup, verbs=VERBS, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(package_name="edjax", prog_name="edjax")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Choose which prompts are worth annotating, before anyone annotates them; then finetune on them.

    \b
    A pool of prompts goes in; one pass of the base model scores it; a strategy orders it; you label the first k
    rows; LoRA finetunes the model on them; an evaluation says how many labels were saved.
    `edjax demo` walks the whole road on data it makes itself.
    """


class _Terminated(BaseException):
    pass


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise _Terminated

    old = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, old)


def main(argv: list[str] | None = None) -> int:
    """Run the command line and exit: 0 done, 2 usage, 3 bad data, 4 locked, 5 environment, 130 / 143 stopped."""
    if argv is None:
        argv = sys.argv[1:]
        torchless.ask()
    debug = "--debug" in argv
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # that torch is missing is no news: none is used
    code = 0
    try:
        with _signals():
            cli.main(args=argv, prog_name="edjax", standalone_mode=False)
    except click.exceptions.Exit as e:
        code = e.exit_code
    except click.UsageError as e:
        hint = f" (see: {e.ctx.command_path} --help)" if e.ctx else ""
        code = _fail(f"{e.format_message()}{hint}", 2)
    except click.ClickException as e:
        code = _fail(e.format_message(), 2)
    except EdjaxError as e:
        if debug:
            raise
        code = _fail(" ".join(str(e).split()), e.exit_code)
    except (KeyboardInterrupt, click.Abort):
        code = _fail("interrupted; the same command goes on from here", 130)
    except _Terminated:
        code = _fail("terminated; the same command goes on from here", 143)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    except Exception as e:
        if debug:
            raise
        asked = exhausted(e)
        if asked is not None:
            code = _fail(f"memory runs out{asked}; lower a batch size or max_length, or take dtype bfloat16", 5)
        else:
            code = _fail(f"unexpected {type(e).__name__}: {' '.join(str(e).split())[:500]}; --debug shows where", 1)
    sys.exit(code)


def _fail(text: str, code: int) -> int:
    click.echo(f"edjax: error: {text}", err=True)
    return code
