"""`edjax verify`, `edjax env` and `edjax completion`: about what is there, not about a pool."""

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
    from edjax.errors import DataError
    from edjax.verify import verify as run_verify

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
