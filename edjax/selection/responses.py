"""What a choice among the responses to a prompt came to: whose were taken, of what length, and which were none."""

from __future__ import annotations

from typing import Any

import numpy as np

from edjax.data.features import Features
from edjax.data.rows import absent
from edjax.kernels import Method
from edjax.kernels.methods import Grape
from edjax.selection.groups import labels

SOURCES = ("source", "model")  # columns that say who answered; of candidates of `edjax generate`, the second

MOST = 6  # sources that are told; the manifest has all


def report(
    method: Method, features: Features, candidates: np.ndarray, labelled: np.ndarray, picks: np.ndarray
) -> dict[str, Any] | None:
    """Of a choice by `Grape`, for the prompts that got one; None of another method's.

    prompts: how many got one. tokens: mean length of the responses chosen and of those rejected, the candidates of the
    same prompts that were not chosen; None where there is none. dropped: rows without a token ("empty"), of fewer than
    min_tokens ("short"), of more than max_tokens ("long"). sources: for each name in the first of `SOURCES` that the
    facts hold, in how many of the prompts that it answered (prompts) another's response was chosen (changed), and what
    share that is: how often the choice changes against taking this source. Where more than one response of a prompt is
    chosen, the first decides.

    Args:
      candidates: (m,) rows that might have been picked. labelled: (p,) rows that were not to be.
      picks: (k,) rows that were, the best of each prompt first.
    """
    if not isinstance(method, Grape):
        return None
    held = features.facts | features.scores
    tokens = np.nan_to_num(np.asarray(held["n_response_tokens"], np.float64))
    prompt = labels(features, method.by)[0]
    answered = np.unique(prompt[picks])
    rejected = np.zeros(len(features), bool)
    rejected[candidates] = method.allowed(tokens[candidates]) & np.isin(prompt[candidates], answered)
    offered = np.flatnonzero(rejected)
    rejected[picks] = False
    free = np.delete(tokens, labelled)
    dropped = {"empty": free < 1, "short": (free >= 1) & (free < method.min_tokens)}
    dropped["long"] = free > (method.max_tokens or np.inf)
    found: dict[str, Any] = {
        "prompts": len(answered),
        "tokens": {"chosen": _mean(tokens[picks]), "rejected": _mean(tokens[rejected])},
        "dropped": {name: int(rows.sum()) for name, rows in dropped.items()},
    }
    column = next((name for name in SOURCES if name in features.facts), None)
    if column is None:
        return found
    who = [None if absent(v) else str(v) for v in features.facts[column]]
    best = {int(prompt[i]): who[i] for i in picks[::-1]}
    sources = {}
    for name in dict.fromkeys(who[i] for i in offered if who[i] is not None):
        own = {int(prompt[i]) for i in offered if who[i] == name}
        changed = sum(best[p] != name for p in own)
        sources[name] = {"prompts": len(own), "changed": changed, "share": round(changed / len(own), 4)}
    return {**found, "source": column, "sources": sources}


def told(found: dict[str, Any]) -> list[str]:
    """A report in a line or two."""
    chosen, rejected = (found["tokens"][k] for k in ("chosen", "rejected"))
    lengths = "" if chosen is None else f", {chosen:.1f} tokens on average"
    lengths += "" if rejected is None else f" (rejected: {rejected:.1f})"
    dropped = {"empty": "without tokens", "short": "too short", "long": "too long"}
    out = ", ".join(f"{found['dropped'][k]} {said}" for k, said in dropped.items() if found["dropped"][k])
    lines = [f"responses to {found['prompts']} prompts{lengths}{f'; left out: {out}' if out else ''}"]
    if found.get("sources"):
        changes = [f"{name} {of['share']:.0%} of {of['prompts']}" for name, of in found["sources"].items()]
        changes[MOST:] = ["..."] if len(changes) > MOST else []
        lines.append(f"prompts whose choice is another than of {found['source']} {', '.join(changes)}")
    return lines


def _mean(tokens: np.ndarray) -> float | None:
    return round(float(tokens.mean()), 2) if len(tokens) else None
