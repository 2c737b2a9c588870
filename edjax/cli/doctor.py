"""Whether edjax works on this machine: each part is tried on something small, and what fails has a remedy.

Nothing is fetched: the model of the road is made in place (`edjax.demo.tiny`), and the pool is generated.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from edjax.keep.errors import EdjaxError


class Failed(Exception):
    """What is wrong, and what to do."""

    def __init__(self, what: str, remedy: str):
        super().__init__(what)
        self.remedy = remedy


class Check(NamedTuple):
    """name: of the part. run: tries it, given the directory for results, and says what it saw, or raises.
    remedy: where it raises something that has none of its own."""

    name: str
    run: Callable[[Path], str]
    remedy: str


class Finding(NamedTuple):
    """name: of the check. ok: whether it held. detail: what was seen, or what is wrong. remedy: where it failed."""

    name: str
    ok: bool
    detail: str
    remedy: str | None
    seconds: float

    def line(self) -> str:
        """The finding for people."""
        said = f"{self.name:10} {'ok' if self.ok else 'failed'}: {self.detail}"
        return said if self.remedy is None else f"{said}; {self.remedy}"


def examine(out: Path) -> Iterator[Finding]:
    """Each check's finding as it is made; a check that fails does not keep the next from being tried."""
    for check in CHECKS:
        start = time.monotonic()
        ok, remedy = True, None
        try:
            detail = check.run(out)
        except Exception as e:  # drivers, package versions and disks raise what they like
            ok, detail = False, " ".join(str(e).split())[:300] or type(e).__name__
            if not isinstance(e, EdjaxError | Failed):
                detail = f"{type(e).__name__}: {detail}"
            remedy = getattr(e, "remedy", check.remedy)
        yield Finding(check.name, ok, detail, remedy, round(time.monotonic() - start, 2))


def packages(_: Path) -> str:
    """Every requirement of edjax without an extra is installed, in a version it asks for."""
    from packaging.requirements import Requirement

    try:
        wanted = [Requirement(line) for line in requires("edjax") or ()]
    except PackageNotFoundError:
        return "run from a source tree: versions are not compared"
    wanted = [r for r in wanted if r.marker is None or r.marker.evaluate({"extra": ""})]
    wrong = []
    for r in wanted:
        try:
            found = version(r.name)
        except PackageNotFoundError:
            wrong.append((r, "missing"))
            continue
        if not r.specifier.contains(found, prereleases=True):
            wrong.append((r, found))
    if wrong:
        said = ", ".join(f"{r.name} is {found} and must be {r.specifier}" for r, found in wrong)
        raise Failed(said, f"pip install {' '.join(repr(f'{r.name}{r.specifier}') for r, _ in wrong)}")
    return f"{len(wanted)} packages in range, Python {sys.version.split()[0]}"


def devices(_: Path) -> str:
    """JAX sees devices, and a compiled product of matrices of small integers is exact on each of this process."""
    import jax
    import numpy as np

    rng = np.random.default_rng(0)
    a, b = (rng.integers(-8, 9, (256, 256)).astype(np.float32) for _ in range(2))
    right = a.astype(np.float64) @ b.astype(np.float64)
    seen = jax.local_devices()
    for device in seen:
        got = jax.jit(lambda x, y: x @ y)(jax.device_put(a, device), jax.device_put(b, device))
        if not np.array_equal(np.asarray(got, np.float64), right):
            raise Failed(
                f"a product of matrices is wrong on {device}",
                "update its driver, or set JAX_PLATFORMS=cpu to leave it out",
            )
    kinds = [d.device_kind for d in seen]
    return ", ".join(f"{kinds.count(k)} x {k}" for k in dict.fromkeys(kinds)) + f", {jax.default_backend()}"


def kernels(_: Path) -> str:
    """Compiled kernels pick what their float64 twins pick."""
    import numpy as np

    from edjax import kernels
    from edjax.kernels import reference

    x = np.random.default_rng(0).normal(size=(150, 12)).astype(np.float32)
    names = ("k_center", "facility_location")
    for name in names:
        got = np.asarray(getattr(kernels, name)(x, 8).indices)
        twin = getattr(reference, name)(x, 8).indices
        if not np.array_equal(got, twin):
            raise Failed(
                f"{name} picks {got.tolist()} and its float64 twin {twin.tolist()}",
                "set JAX_PLATFORMS=cpu, and send this with the output of `edjax env` as a bug report",
            )
    return f"{', '.join(names)} pick what their float64 twins pick"


def disk(out: Path) -> str:
    """Files can be written and renamed in place where models are kept and where results go."""
    from edjax.lm.smollm2 import cache_dir

    said = []
    for place, remedy in ((cache_dir(), "set EDJAX_CACHE to a directory of yours"), (out, "choose another --out")):
        free = _writable(place, remedy)
        said.append(f"{place} ({free / 1e9:.1f} GB free)")
    return "writable: " + ", ".join(said)


def _writable(place: Path, remedy: str) -> int:
    import shutil

    from edjax.keep.store import atomic_write

    made = [p for p in (place, *place.parents) if not p.exists()]
    try:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".edjax-doctor-", dir=place) as home:
            file = Path(home) / "file"
            for text in ("first", "second"):
                with atomic_write(file, "w") as f:
                    f.write(text)
                if file.read_text() != text:
                    raise Failed(f"a file in {place} does not hold what was just renamed there", remedy)
        return shutil.disk_usage(place).free
    except (OSError, EdjaxError) as e:
        raise Failed(f"{place} cannot be written ({e})", f"free space, or {remedy}") from e
    finally:
        for p in made:
            with contextlib.suppress(OSError):  # somebody else's by now, or never made
                p.rmdir()


def road(_: Path) -> str:
    """score, select, finetune and evaluate of a small generated pool, by a model that is made in place: what is learnt
    lowers the loss on its own rows."""
    import json
    import math

    from edjax.data.pool import read_pool
    from edjax.demo import generate
    from edjax.demo.tiny import write_tiny_model
    from edjax.evaluation import evaluate
    from edjax.finetuning import FinetuneConfig, finetune
    from edjax.lm.load import load
    from edjax.scoring import score
    from edjax.selection.choose import select

    with tempfile.TemporaryDirectory(prefix="edjax-doctor-") as home:
        rows = Path(home) / "pool.jsonl"
        rows.write_text("".join(json.dumps(row) + "\n" for row in generate(24, 0)[0]), encoding="utf-8")
        pool = read_pool(str(rows))
        loaded = load(str(write_tiny_model(Path(home) / "model")))
        quiet: dict[str, Any] = {"loaded": loaded, "show_progress": False}
        features = score(pool, loaded.name, max_new_tokens=2, **quiet)
        chosen = select(features, "k_center", 8)
        bought = pool.take(chosen.indices)
        config = FinetuneConfig(max_steps=6, learning_rate=0.02)
        finetune(bought, loaded.name, out=Path(home) / "adapter", config=config, **quiet)
        losses = [
            evaluate(bought, loaded.name, adapter=adapter, metrics=["response_loss"], **quiet).scores["response_loss"]
            for adapter in (None, Path(home) / "adapter")
        ]
    if not all(map(math.isfinite, losses)) or losses[1] >= losses[0]:
        raise Failed(
            f"six steps of training took the loss on its own rows from {losses[0]:.3f} to {losses[1]:.3f}",
            "set JAX_PLATFORMS=cpu, and send this with the output of `edjax env` as a bug report",
        )
    return f"score, select, finetune, evaluate: loss on 8 rows from {losses[0]:.2f} to {losses[1]:.2f} in 6 steps"


def torch(_: Path) -> str:
    """Nothing needs torch; whether it came along is a fact, no fault."""
    if "torch" in sys.modules:
        return "not needed; another package imported it, and a start takes longer"
    return "not needed, and " + ("left out although it is installed" if find_spec("torch") else "not installed")


REPORT = "run `edjax --debug doctor` and send its output with that of `edjax env` as a bug report"
CHECKS = (
    Check("packages", packages, "pip install --upgrade edjax"),
    Check("devices", devices, "pip install --upgrade 'edjax[gpu]' for an NVIDIA GPU, or set JAX_PLATFORMS=cpu"),
    Check("kernels", kernels, REPORT),
    Check("disk", disk, "free space, or choose another --out"),
    Check("road", road, REPORT),
    Check("torch", torch, REPORT),
)
