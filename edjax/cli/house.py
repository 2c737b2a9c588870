"""`edjax verify`, `edjax env`, `edjax doctor` and `edjax completion`: about what is there, not about a pool."""

from __future__ import annotations

from pathlib import Path

import click

from edjax.cli import options


@click.command()
@click.argument("directories", nargs=-1, required=True, type=click.Path(path_type=Path))
@options.JSON
def verify(directories: tuple[Path, ...]) -> None:
    """Check what edjax wrote: every artefact at and below DIRECTORIES against its manifest.

    \b
    Reads   every file of every artefact: its size and sha256, and what it was made from
    Writes  nothing; a line a fault that names the file, and exit code 3 if there is one
    """
    from edjax.keep.errors import DataError
    from edjax.keep.verify import verify as run_verify

    found = run_verify(directories)
    for text in found.notes:
        options.note(text)
    faults = [{"path": str(f.path), "fault": f.what} for f in found.faults]
    record = {"sound": not faults, "faults": faults, "notes": found.notes, "files": found.files}
    record["artefacts"] = [{"path": str(d), "kind": kind} for d, kind in found.artefacts.items()]
    sound = f"{options.count(len(found.artefacts), 'artefacts')} sound, {options.count(found.files, 'files')} read"
    options.tell(record, *(map(str, found.faults) if faults else (sound,)))
    if faults:
        raise DataError(f"{options.count(len(faults), 'faults')} found below {', '.join(map(str, directories))}")


@click.command()
@options.JSON
def env() -> None:
    """Say what a result here depends on: versions, devices, memory, the cache. Paste it into an issue.

    \b
    Reads   nothing but this machine; no network
    Writes  nothing
    """
    from edjax.cli.environment import environment, lines

    facts = environment()
    options.tell(facts, *lines(facts))


@click.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("."),
    show_default=True,
    help="Where results will be written: whether it can be is tried.",
)
@options.JSON
def doctor(out: Path) -> None:
    """Try edjax on this machine, within a minute: `edjax env`, then each part on something small.

    \b
    Tries   versions, every device, kernels against float64, the disk, and score, select, finetune and evaluate of a
            generated pool with a model made in place; no network
    Writes  nothing that stays; a line a check, with the remedy for what failed, and exit code 1 if something did
    """
    from edjax.cli.doctor import examine
    from edjax.cli.environment import environment, lines
    from edjax.keep.errors import EdjaxError

    facts = environment()
    if not options.wants_json():
        click.echo("\n".join([*lines(facts), ""]))
    found = []
    for finding in examine(out):
        found.append(finding)
        if not options.wants_json():
            click.echo(finding.line())
    faults = [f.name for f in found if not f.ok]
    record = {"sound": not faults, "checks": [f._asdict() for f in found], "environment": facts}
    seconds = sum(f.seconds for f in found)
    options.tell(record, *([] if faults else [f"all is well ({seconds:.0f} s)"]))
    if faults:
        raise EdjaxError(f"{', '.join(faults)} failed; the remedy stands in the line of each")


SHELLS = {  # where each shell looks for it
    "bash": "edjax completion bash > ~/.local/share/bash-completion/completions/edjax",
    "zsh": "edjax completion zsh > ~/.zfunc/_edjax   (a directory of your fpath, before compinit)",
    "fish": "edjax completion fish > ~/.config/fish/completions/edjax.fish",
}


@click.command()
@click.argument("shell", type=click.Choice(tuple(SHELLS)))
@options.JSON
def completion(shell: str) -> None:
    """Print the script that lets SHELL complete verbs, options and strategies.

    \b
    bash   edjax completion bash > ~/.local/share/bash-completion/completions/edjax
    zsh    edjax completion zsh > ~/.zfunc/_edjax   (a directory of your fpath, before compinit)
    fish   edjax completion fish > ~/.config/fish/completions/edjax.fish
    """
    from click.shell_completion import get_completion_class

    root = click.get_current_context().find_root().command
    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(root, {}, "edjax", "_EDJAX_COMPLETE").source()
    options.tell({"shell": shell, "script": script, "install": SHELLS[shell]}, script.rstrip("\n"))
