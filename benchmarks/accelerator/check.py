"""What the card gives, and whether what it computes is what a CPU computes."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.accelerator.places import model_of
from benchmarks.accelerator.stage import Stage
from benchmarks.harness import runner
from benchmarks.harness.data import mixture
from benchmarks.selectors import peers, roofline
from edjax.kernels import d_optimal, facility_location, k_center, reference

METHODS = {"k_center": k_center, "d_optimal": d_optimal, "facility_location": facility_location}
PROBLEMS = 5
TEXTS = ("Once upon a time", "The little dog ran to the", "Lily saw a big red ball in the park and")
GREEDY = 1e-4  # how far below the best gain a pick's may lie, as a share of it
WITHIN = 0.01  # of the other device's objective: docs/reliability.md, N2
PARITY = 1e-3


def run(stage: Stage) -> bool:
    s = stage.sizes
    facts = {
        "ceilings": lambda: roofline.ceilings(s.products, s.copied, 5),
        "greedy by the float64 twins": greedy,
        "stories260k": partial(parity, model_of(stage, "stories260k")),
        "N2": partial(both_devices, *s.agreed),
        "precision": partial(precisions, *s.agreed),
    }
    return stage.jobs(facts)


def greedy() -> dict[str, Any]:
    """Whether every pick is a greedy one in float64, over `PROBLEMS` pools a selector.

    Raises:
      AssertionError: one is not.
    """
    worst = {}
    for name, select in METHODS.items():
        twin, short = getattr(reference, name), 0.0
        for seed in range(PROBLEMS):
            x = mixture(200, 8, seed, centres=6)
            got = np.asarray(select(x, 20).indices)
            trace = twin(x, 20, follow=got)
            found = np.isfinite(trace.best) & (trace.best < 1e300)
            short = max(short, float(np.max(1 - trace.gains[found] / trace.best[found], initial=0)))
        worst[name] = short
        assert short <= GREEDY, f"{name}: a pick gains {short:.1e} of the best gain too little"
    return {"problems": PROBLEMS, "worst_shortfall": worst, "tolerance": GREEDY}


def parity(model: str) -> dict[str, Any]:
    """A trained Llama's hidden states here and on the CPU, and by transformers where torch is.

    Raises:
      AssertionError: they differ by more than `PARITY`.
    """
    from edjax.lm.encode import Encoder
    from edjax.lm.load import load

    loaded = load(model)
    encoder = Encoder.of(loaded, "plain", 128)
    rows = [encoder.prompt([{"role": "user", "content": text}]) for text in TEXTS]
    hidden = jax.jit(lambda m, t: m.hidden(t))

    def states(lm: Any) -> list[np.ndarray]:
        with jax.default_matmul_precision("highest"):
            return [np.asarray(hidden(lm, jnp.asarray([row]))[0], np.float32) for row in rows]

    here = states(loaded.model)
    cpu = jax.devices("cpu")[0]
    with jax.default_device(cpu):
        there = states(jax.device_put(loaded.model, cpu))
    found = {"cpu": max(float(np.abs(a - b).max()) for a, b in zip(here, there, strict=True))}
    try:
        import torch
        from transformers import AutoModel

        base = AutoModel.from_pretrained(model, dtype=torch.float32)
        with torch.inference_mode():
            theirs = [base(torch.tensor([row])).last_hidden_state[0].numpy() for row in rows]
        found["transformers"] = max(float(np.abs(a - b).max()) for a, b in zip(here, theirs, strict=True))
    except ImportError:
        pass
    assert max(found.values()) <= PARITY, f"hidden states differ: {found}"
    return {"worst_difference": found, "tolerance": PARITY}


def both_devices(n: int, d: int, k: int) -> dict[str, Any]:
    """The same problem on this device and on the CPU: the objective in float64 of both, and how many picks they share.

    Raises:
      AssertionError: an objective is worse than the CPU's by more than `WITHIN`.
    """
    x, cpu = mixture(n, d), jax.devices("cpu")[0]
    problem, found = peers.problem(x, k), {}
    for name, select in METHODS.items():
        here = np.asarray(select(jnp.asarray(x), k).indices)
        with jax.default_device(cpu):
            there = np.asarray(select(jax.device_put(x, cpu), k).indices)
        value = peers.VALUES[name][1]
        mine, other = value(problem, here), value(problem, there)
        found[name] = {
            "here": mine,
            "cpu": other,
            "same_picks": len(set(here.tolist()) & set(there.tolist())),
            "same_place": int((here == there).sum()),
            "of": k,
        }
        worse = mine / other - 1 if name == "k_center" else 1 - mine / other
        assert worse <= WITHIN, f"{name}: {found[name]}"
    return {"n": n, "d": d, "budget": k, "methods": found}


def precisions(n: int, d: int, k: int) -> dict[str, Any]:
    """Precision "highest" beside "fast": seconds, objectives, and the picks they share."""
    x = mixture(n, d)
    problem, on_device, found = peers.problem(x, k), jnp.asarray(x), {}
    for name, select in METHODS.items():
        sides = {p: (lambda p=p, select=select: select(on_device, k, precision=p)) for p in ("highest", "fast")}
        timed = runner.side_by_side(sides, 3)
        picks = {p: np.asarray(t.pop("result").indices) for p, t in timed.items()}
        found[name] = {p: {"median_s": t["median_s"]} for p, t in timed.items()}
        for p, rows in picks.items():
            found[name][p]["value"] = peers.VALUES[name][1](problem, rows)
        found[name]["same_picks"] = len(set(picks["highest"].tolist()) & set(picks["fast"].tolist()))
    return {"n": n, "d": d, "budget": k, "methods": found}
