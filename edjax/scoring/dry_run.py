"""What scoring a pool will take, from a probe of a few batches; nothing is written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from edjax.scoring.forward import Timed
    from edjax.scoring.job import Job

PROBES = 10


class Estimate(NamedTuple):
    """What a scoring pass comes to.

    Tokens: `prompt_tokens` of all distinct prompts and the shortest, mean and longest of them; `padded_tokens` as
    computed, padding included. `programs`: shapes to compile for. Bytes, of one device: `weight_bytes`, and
    `peak_bytes`, the weights, the cache and all else that the largest batch needs at once, as the compiler says; the
    host's own memory is not in it. Seconds: `load_s` the model (measured), `encode_s` the prompts (measured),
    `compile_s` (measured for the shapes probed, their mean for the others), `compute_s` (from the probe), and
    `total_s`.
    """

    rows: int
    distinct: int
    prompt_tokens: int
    shortest: int
    mean: float
    longest: int
    padded_tokens: int
    batches: int
    programs: int
    probed: int
    weight_bytes: int
    peak_bytes: int
    load_s: float
    encode_s: float
    compile_s: float
    compute_s: float
    total_s: float


def probe(job: Job, rows: int, load_s: float, encode_s: float, log: Any) -> Estimate:
    """Run up to ten batches, from the narrowest to the widest, the largest among them, and extrapolate.

    A batch of r rows of width w with s decoded steps is taken to last a + b r w + c r w^2 + d s, the four from a
    least-squares fit, none negative; where few tokens are decoded s is that of the batches probed, on average.
    """
    layout, forward = job.layout, job.forward
    every = list(layout.batches())
    shapes = [(forward.rows(b), b.width) for b in every]
    padded = np.array([rows * width for rows, width in shapes])
    spread = np.linspace(0, len(every) - 1, min(PROBES, len(every))).round().astype(int)
    where = np.unique([*spread[:-1], spread[-1] if len(every) <= PROBES else int(np.argmax(padded))])
    programs: dict[Any, Any] = {}
    runs: list[Timed] = []
    for i in where:
        if shapes[i] not in {shapes[j] for j in where[: len(runs)]}:
            log(f"probe {len(runs) + 1} of {len(where)}: {shapes[i][0]} x {shapes[i][1]} tokens")
        runs.append(forward.timed(*forward.padded(layout, every[i], job.prompts), programs))
    steps = np.array([int(r.got["n_new_tokens"].max()) if "n_new_tokens" in r.got else 0 for r in runs])
    widths = np.array([b.width for b in every])
    heights = np.array([rows for rows, _ in shapes])
    compute = extrapolate(widths[where], steps, np.array([r.run_s for r in runs]), widths, heights[where], heights)
    compile_s = sum(r.compile_s for r in runs) / len({shapes[i] for i in where}) * len(set(shapes))
    lengths = layout.lengths
    return Estimate(
        rows=rows,
        distinct=layout.distinct,
        prompt_tokens=int(lengths.sum()),
        shortest=int(lengths.min()),
        mean=float(lengths.mean()),
        longest=int(lengths.max()),
        padded_tokens=int(padded.sum()),
        batches=len(every),
        programs=len(set(shapes)),
        probed=len(where),
        weight_bytes=runs[-1].weights,
        peak_bytes=max(r.peak for r in runs),
        load_s=load_s,
        encode_s=encode_s,
        compile_s=compile_s,
        compute_s=compute,
        total_s=load_s + encode_s + compile_s + compute,
    )


def extrapolate(
    probed: np.ndarray,
    steps: np.ndarray,
    seconds: np.ndarray,
    widths: np.ndarray,
    probed_rows: np.ndarray | int = 1,
    rows: np.ndarray | int = 1,
) -> float:
    """Seconds of batches of all `widths` and `rows`, from the widths, decoded steps, seconds and rows of those
    probed."""
    from scipy.optimize import nnls

    def terms(width: np.ndarray, step: np.ndarray, height: np.ndarray | int) -> np.ndarray:
        return np.stack([np.ones(len(width)), height * width, height * width.astype(float) ** 2, step], axis=1)

    scale = np.maximum(terms(probed, steps, probed_rows).max(0), 1)
    fit = nnls(terms(probed, steps, probed_rows) / scale, seconds)[0]
    return float((terms(widths, np.full(len(widths), steps.mean()), rows) / scale @ fit).sum())


def describe(e: Estimate, out: Any) -> list[str]:
    """An estimate in words."""

    def gib(n: int) -> str:
        return f"{n / 2**30:.2f} GiB"

    waste = e.padded_tokens / max(e.prompt_tokens, 1) - 1
    return [
        f"{e.rows} prompts, {e.distinct} distinct; {e.shortest} to {e.longest} tokens, {e.mean:.0f} on average",
        f"{e.prompt_tokens} tokens, {e.padded_tokens} with padding (+{waste:.0%}), in {e.batches} batches of "
        f"{e.programs} shapes",
        f"memory of a device: {gib(e.peak_bytes)}, of which the model {gib(e.weight_bytes)}",
        f"time: {clock(e.total_s)} (model {clock(e.load_s)}, compiling {clock(e.compile_s)}, computing "
        f"{clock(e.compute_s)}), from {e.probed} batches",
        f"nothing was written to {out}",
    ]


def clock(seconds: float) -> str:
    """3.2 s, 4 min 10 s, 2 h 5 min."""
    if seconds < 100:
        return f"{seconds:.3g} s"
    if seconds < 6000:
        return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
    return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min"
