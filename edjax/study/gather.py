"""The page of somebody's own road: what the verbs wrote one by one, put together as results that a page can show.

`edjax run` measures strategies against each other and writes results.json. Who scores, selects, has people label,
finetunes and evaluates has no such file, only directories; each has a manifest that says what it is and of what.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edjax.data.features import Features, read_features
from edjax.data.names import piped
from edjax.data.pool import Named, Pool, Reading, called, read_as
from edjax.evaluation import HIGHER_IS_BETTER, METRICS, Evaluation, read_evaluation
from edjax.keep.errors import DataError
from edjax.keep.store import read_json, read_manifest, sha256_file, sha256_json, versions
from edjax.selection.selection import Selection, pool_rows, read_selection
from edjax.study.analysis import (
    INTERVAL,
    STATISTIC,
    Cell,
    against_baseline,
    analyse,
    interval_of_mean,
    values_of,
    verdict,
)
from edjax.study.portrait import portrait

KINDS = ("features", "selection", "adapter", "evaluation")


class Part(NamedTuple):
    """A directory that a verb wrote, and its manifest."""

    path: Path
    manifest: dict[str, Any]


class _By(NamedTuple):
    """A column whose values count alike, and each evaluation row's value."""

    column: str
    groups: tuple[str, ...]


def gather(
    directories: Iterable[str | Path],
    *,
    pool: Named | None = None,
    reading: Mapping[str, Any] | None = None,
    command: str = "",
) -> tuple[dict[str, Any], list[str]]:
    """What features, selections, adapters and evaluations say together, and notes on what was left out.

    An adapter belongs to the selection whose ids it was trained on; else it goes by the name of its directory. The
    evaluation of the model without an adapter is what the others are compared with, on the same rows. Intervals are
    those of `edjax.study.analysis`.

    Args:
      directories: each an artefact, or a directory with artefacts anywhere below it.
      pool: the pool the features are of; by default the one their manifest names.
      reading: options of `edjax.data.pool.read_pool` for it; None, and those that are None: as the manifest says.

    Returns:
      (results, notes); results as in `edjax.study.report.schema`, with the parts that were there.

    Raises:
      DataError: nothing to show; a damaged artefact; a selection of another pool.
    """
    parts = _parts(directories)
    notes: list[str] = []
    results: dict[str, Any] = {
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": command,
        "versions": versions(),
        "hashes": {},
    }
    selections = _selections(parts["selection"])
    results |= _of_the_pool(parts["features"], selections, pool, reading or {}, notes)
    results |= _of_the_models(parts, selections, notes)
    results["hashes"] |= {
        f"{p.path.name} ({kind})": sha256_json(p.manifest["files"]) for kind in KINDS for p in parts[kind]
    }
    models = [p.manifest["config"].get("model") for kind in ("features", "adapter") for p in parts[kind]]
    if any(models):
        results["model"] = next(m for m in models if m)
    results |= _times(parts)
    picked = max((len(s) for s in selections.values()), default=0)
    rows = results.get("pool", {}).get("rows")
    what = f"{results['pool']['source']}: " if rows else ""
    results["title"] = (
        f"{what}{picked} of {rows} prompts chosen" if rows and picked else f"{what}labels and what they bought"
    )
    return results, notes


def _parts(directories: Iterable[str | Path]) -> dict[str, list[Part]]:
    found: dict[str, list[Part]] = {kind: [] for kind in KINDS}
    asked = [Path(d) for d in directories]
    seen: set[Path] = set()
    for directory in asked:
        if not directory.is_dir():
            raise DataError(f"{directory} is not a directory; name directories that edjax's verbs wrote")
        for file in sorted(directory.rglob("manifest.json")):
            if file.resolve() in seen:
                continue
            seen.add(file.resolve())
            manifest = read_json(file)
            kind = manifest.get("kind") if isinstance(manifest, dict) else None
            if kind in found:
                found[kind].append(Part(file.parent, read_manifest(file.parent, kind)))
    if not any(found.values()):
        named = ", ".join(str(d) for d in asked)
        raise DataError(f"{named} holds no results.json, and no finished features, selection, adapter or evaluation")
    return found


def _selections(parts: Sequence[Part]) -> dict[str, Selection]:
    """By strategy; by strategy and directory where a strategy chose more than once."""
    read = [(p.path.name, read_selection(p.path)) for p in parts]
    often = [s.strategy for _, s in read]
    return {s.strategy if often.count(s.strategy) == 1 else f"{s.strategy} ({name})": s for name, s in read}


def _of_the_pool(
    parts: Sequence[Part],
    selections: dict[str, Selection],
    source: Named | None,
    reading: Mapping[str, Any],
    notes: list[str],
) -> dict[str, Any]:
    if not parts or not selections:
        return {}
    if len(parts) > 1:
        notes.append(f"the map is of {parts[0].path}; {len(parts) - 1} more with features left out")
    source = source or parts[0].manifest.get("pool")
    if source is None or piped(source):
        notes.append(f"{parts[0].path} does not say which pool it is of; --pool names it, for the map and the prompts")
        return {}
    how = Reading.of(reading, parts[0].manifest.get("reading"), source)
    pool: Pool = read_as(source, how)
    features: Features = read_features(parts[0].path)
    for name, chosen in selections.items():
        pool_rows(chosen, pool)
        if any(features.ids[row] != id_ for row, id_ in zip(chosen.indices, chosen.ids, strict=True)):
            raise DataError(f"the selection {name} is of other features than {parts[0].path}; gather them apart")
    return {
        "pool": {"source": pool.source, "rows": len(pool), "digest": pool.digest},
        **portrait(pool, features, {(name, 0): s for name, s in selections.items()}, "l2"),
    }


def _of_the_models(parts: dict[str, list[Part]], selections: dict[str, Selection], notes: list[str]) -> dict[str, Any]:
    """Scores before and after, their differences with intervals, and a sentence."""
    if not parts["evaluation"]:
        return {"verdict": "No model was evaluated on rows held back, so what these labels bought is not known yet."}
    pools = [p.manifest["inputs"]["pool"] for p in parts["evaluation"]]
    most = max(dict.fromkeys(pools), key=pools.count)
    same = [p for p, pool in zip(parts["evaluation"], pools, strict=True) if pool == most]
    if len(same) < len(pools):
        notes.append(f"{len(pools) - len(same)} evaluations on other rows left out")
    done = [(p, read_evaluation(p.path)) for p in same]
    base = next(((p, e) for p, e in done if p.manifest["inputs"].get("adapter") is None), None)
    adapters = {sha256_file(p.path / "adapter_model.safetensors"): p for p in parts["adapter"]}
    names = _names(parts["adapter"], selections)
    cells: list[dict[str, Any]] = []
    values: list[Cell] = []
    metric = next((m for m in METRICS if all(m in e.scores for _, e in done)), None)
    if metric is None:
        notes.append("the evaluations share no metric: none is compared")
        return {}
    seeds: dict[tuple[str, int], int] = {}
    for part, evaluation in done:
        sha = part.manifest["inputs"].get("adapter")
        if sha is None:
            continue
        adapter = adapters.get(sha)
        if adapter is None:
            notes.append(f"{part.path} is of an adapter that is not here; it goes by that name")
        name = names[adapter.path] if adapter else part.path.name
        facts = adapter.manifest if adapter else {}
        budget = int(facts.get("rows") or 0)
        seed = seeds[name, budget] = seeds.get((name, budget), -1) + 1
        seconds = {"finetune": facts.get("seconds"), "evaluate": evaluation.seconds}
        cells.append(
            {
                "strategy": name,
                "budget": budget,
                "seed": seed,
                "scores": evaluation.scores,
                **_macro(evaluation),
                "response_tokens": facts.get("response_tokens"),
                "seconds": seconds,
            }
        )
        values.append(Cell(name, budget, seed, values_of(evaluation.rows, metric)))
    better = HIGHER_IS_BETTER[metric]
    by = _grouped(done)
    weighed = {} if by is None else {"group_by": by.column, "groups": len(set(by.groups))}
    results: dict[str, Any] = {
        "metric": {
            "name": metric,
            "higher_is_better": better,
            "interval": INTERVAL,
            "statistic": STATISTIC,
            **weighed,
        },
        "evaluation": {"source": called(done[0][0].manifest["pool"]), "rows": len(done[0][1].rows), "digest": most},
        "cells": cells,
    }
    if base is None:
        notes.append("the model without an adapter was not evaluated: `edjax evaluate ROWS --out DIR` does it")
        return results | {
            "verdict": "The model was not evaluated before finetuning, so what the labels bought is not known."
        }
    results["base"] = {"scores": base[1].scores, **_macro(base[1]), "seconds": base[1].seconds}
    if not values:
        return results | {"verdict": "Only the model before finetuning was evaluated so far."}
    before = values_of(base[1].rows, metric)
    found = analyse(values, before, higher_is_better=better, groups=by and by.groups)
    said = _bought(values, before, metric, better, by)
    column = by and by.column
    if any(len(points) > 1 for points in found["curves"].values()) and "random" in found["curves"]:
        said = f"{verdict(found, metric, better, group_by=column)} {said}"
    elif found["differences"]:
        found["savings"] = []  # one budget is no curve
        said = f"{against_baseline(found['differences'], better)} {said}"
    else:
        said += " No model was trained on as many random prompts, so what choosing them was worth is not measured."
    return results | found | {"verdict": said}


def _grouped(done: Sequence[tuple[Part, Evaluation]]) -> _By | None:
    """The column that every one of the evaluations was grouped by, and each row's value in it."""
    columns = {p.manifest["config"].get("group_by") for p, _ in done}
    column = columns.pop()
    if columns or column is None:
        return None
    return _By(column, tuple(row["group"] for row in done[0][1].rows))


def _macro(evaluation: Evaluation) -> dict[str, Any]:
    return {"macro": evaluation.macro} if evaluation.macro else {}


def _names(adapters: Sequence[Part], selections: dict[str, Selection]) -> dict[Path, str]:
    by_ids = {sha256_json(sorted(s.ids)): name for name, s in selections.items()}
    return {p.path: by_ids.get(p.manifest.get("ids", ""), p.path.name) for p in adapters}


def _bought(cells: Sequence[Cell], before: np.ndarray, metric: str, higher_is_better: bool, by: _By | None) -> str:
    """The best adapters against the model before them, paired, by Student's t over the rows, or over the groups' means:
    how these very adapters would do on other rows."""
    values: dict[tuple[str, int], list[np.ndarray]] = {}
    for c in cells:
        values.setdefault((c.strategy, c.budget), []).append(c.values)
    rows = np.flatnonzero(np.isfinite(np.stack([before, *(v for group in values.values() for v in group)])).all(axis=0))
    if not len(rows):
        return "No evaluation row has a score of every model."
    of = np.arange(len(rows)) if by is None else np.unique([by.groups[i] for i in rows], return_inverse=True)[1]

    def means(v: np.ndarray) -> np.ndarray:
        return np.bincount(of, v[rows]) / np.bincount(of)

    sign = 1 if higher_is_better else -1
    gains = {key: means(np.mean(group, axis=0) - before) for key, group in values.items()}
    (strategy, budget), best = max(gains.items(), key=lambda item: sign * item[1].mean())
    gain, start = float(best.mean()), float(means(before).mean())
    found, unit = interval_of_mean(best), "rows" if by is None else f"values of {by.column}"
    if found["low"] is None or found["high"] is None:
        interval = f"{len(best)} {unit}, too few for an interval"
    else:
        sure = min(sign * found["low"], sign * found["high"]) > 0
        tail = "" if sure else ", which leaves no change possible"
        interval = f"95 % interval {found['low']:+.3f} to {found['high']:+.3f} over {len(best)} {unit}{tail}"
    return (
        f"Finetuning on {budget} labels ({strategy}) took {metric.replace('_', ' ')} from {start:.3f} to "
        f"{start + gain:.3f}: {gain:+.3f}, {interval}."
    )


def _times(parts: dict[str, list[Part]]) -> dict[str, Any]:
    evaluations = sum(read_json(p.path / "scores.json")["seconds"] for p in parts["evaluation"])
    seconds = {
        name: sum(float(p.manifest.get("seconds") or 0) for p in parts[kind])
        for name, kind in (("score", "features"), ("select", "selection"), ("finetune", "adapter"))
    } | {"evaluate": evaluations}
    there = {name: s for name, s in seconds.items() if s > 0}
    train, choose = seconds["finetune"], seconds["select"]
    return {
        "stages": [{"name": k, "seconds": round(v, 3)} for k, v in there.items()],
        "overhead": {
            "select_share_of_finetune": choose / train if train and choose else None,
            "score_and_select_share": (seconds["score"] + choose) / train if train and seconds["score"] else None,
        },
    }
