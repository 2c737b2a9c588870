"""The adapters of a run's way: which updates leave one, where it lies, and all of them in the order of the updates."""

from __future__ import annotations

import re
from pathlib import Path

from edjax.keep.errors import DataError, UsageError
from edjax.keep.store import read_manifest
from edjax.lm.peft import CONFIG, WEIGHTS

TRAJECTORY = "trajectory"  # below the directory of the run
_NUMBERED = re.compile(r"(?:.*\D)?(\d+)")


def kept_steps(steps: int, count: int) -> tuple[int, ...]:
    """The `count` updates of a run of `steps` that leave an adapter: evenly spaced, the last among them.

    >>> kept_steps(10, 3), kept_steps(10, 0)
    ((3, 7, 10), ())

    Raises:
      UsageError: there are fewer updates.
    """
    if count > steps:
        raise UsageError(f"keep_checkpoints is {count}, and the run has {steps} updates; keep no more than these")
    return tuple((2 * i * steps + count) // (2 * count) for i in range(1, count + 1))


def place_of(out: Path, step: int, steps: int) -> Path:
    """Where the adapter after update `step` of `steps` lies; the names of a run sort as the updates do.

    >>> place_of(Path("a"), 70, 200).as_posix()
    'a/trajectory/step-000070'
    """
    return out / TRAJECTORY / f"step-{step:0{max(6, len(str(steps)))}}"


def adapters_along(directory: str | Path) -> list[Path]:
    """The adapters that a run left on its way, by the number that each directory's name ends in.

    Args:
      directory: of `edjax finetune --keep-checkpoints`, or one whose directories are PEFT adapters with numbers,
        "checkpoint-500", as trainers leave them. Directories without a number that hold no adapter are passed over.

    Raises:
      DataError: no such adapters; an incomplete run, or one whose files are not all there as they were written; a
        directory that holds half an adapter, or an adapter without a number or with another's.
    """
    directory = Path(directory)
    run = directory.parent if directory.name == TRAJECTORY else directory
    if any((run / name).is_file() for name in ("plan.json", "manifest.json")):
        read_manifest(run, "adapter")
        if not (run / TRAJECTORY).is_dir():
            raise DataError(f"{run} holds an adapter and none of its way; train it with --keep-checkpoints N")
        directory = run / TRAJECTORY
    if not directory.is_dir():
        raise DataError(f"checkpoints {directory} are not a directory; `edjax finetune --keep-checkpoints N` makes one")
    found: dict[int, Path] = {}
    for path in sorted(p for p in directory.iterdir() if p.is_dir()):
        number, half = _NUMBERED.fullmatch(path.name), [n for n in (CONFIG, WEIGHTS) if not (path / n).is_file()]
        if number is None and len(half) == 2:
            continue
        if number is None:
            raise DataError(f"{path} holds an adapter, and its name no number to say when it was left; rename it")
        if half:
            raise DataError(f"{path} is a checkpoint without {' and '.join(half)}; all of them are needed")
        if (other := found.setdefault(int(number[1]), path)) != path:
            raise DataError(f"{other} and {path} have one number, which is to say when each was left; rename one")
    if not found:
        raise DataError(f"{directory} holds no adapters of a run's way; `edjax finetune --keep-checkpoints N` does")
    return [found[step] for step in sorted(found)]
