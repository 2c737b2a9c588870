"""What came back from an accelerator, as results files."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accelerator.places import held_out_of, pool_of, recipe_of
from benchmarks.accelerator.record import Record, Row
from benchmarks.accelerator.select import features_of
from benchmarks.accelerator.stage import ANYWHERE, END, MACHINE, Stage
from benchmarks.accelerator.together import BASE, picks_of, planned
from benchmarks.accelerator.trials import DRAWN, ORDER, recipe_for
from benchmarks.evidence import label_efficiency
from benchmarks.evidence.chosen import describe
from benchmarks.evidence.trials import filed
from benchmarks.evidence.trials_settings import SETTINGS
from benchmarks.harness.runner import RESULTS
from edjax.evaluation import Evaluation
from edjax.selection.prepared import prepare
from edjax.study.analysis import INTERVAL, STATISTIC

LONG = ("picks", "gains", "first", "values")  # what no table needs; it stays in the folder


def collect(folder: Path, out: Path | None = None, dry: bool = False, data: Path | None = None) -> list[Path]:
    """Write accelerator-DEVICE.json of every device the folder has rows of, and label_efficiency-DEVICE.json where
    there are cells, and trials-SETTING-DEVICE.json where there are trials.

    Args:
      data: what was packed, where the pool is not beside the checkout.

    Raises:
      SystemExit: the folder holds no rows.
    """
    out = out or RESULTS
    rows = Record(folder).rows()
    machines = [r for r in rows if r["stage"] == MACHINE]
    if not machines:
        raise SystemExit(f"{folder} holds no rows.jsonl of a run")
    made = []
    latest = machines[-1]["device"]  # which is given what any device may have done
    for device in dict.fromkeys(r["device"] for r in machines):
        some = [r for r in rows if r["stage"] != MACHINE and r["job"] != END]
        of_device = [r for r in some if device == (latest if r["stage"] in ANYWHERE else r["device"])]
        last = {(r["stage"], r["job"]): r for r in of_device}  # one that failed may have been done later
        facts = _facts([m for m in machines if m["device"] == device], of_device)
        short = [{k: v for k, v in r.items() if k not in (*LONG, "device")} for r in last.values()]
        jobs = [r | {"job": f"{r['stage']}: {r['job']}"} for r in short]
        made.append(_written(out / f"accelerator-{device}.json", {**facts, "rows": jobs}))
        stage = Stage("collect", data or folder, folder, folder, 0.0, dry)
        for name, found in trials_of(stage, last).items():
            made.append(_written(out / f"trials-{name}-{device}.json", {**facts, **found}))
        if any(key[0] == "cells" and "strategy" in r for key, r in last.items()):
            grid = grid_of(stage, [r for (name, _), r in last.items() if name == "cells"])
            if grid:
                made.append(_written(out / f"label_efficiency-{device}.json", {**facts, "grid": "gpu", **grid}))
    return made


def _facts(machines: list[Row], rows: list[Row]) -> dict[str, Any]:
    """The head of a results file: that of the last start, with the commits of all."""
    now = machines[-1]
    times = [r["at"] for r in rows if "at" in r]
    return {
        "command": "python -m benchmarks.accelerator collect",
        "commit": now["commit"],
        "devices": sorted({r["device"] for r in rows}),
        "commits": list(dict.fromkeys(m["commit"] for m in machines)),
        "date": time.strftime("%Y-%m-%d", time.gmtime(max(times, default=time.time()))),
        "machine": now["on"],
        "driver": now["driver"],
        "versions": now["versions"],
    }


def grid_of(stage: Stage, rows: list[Row]) -> dict[str, Any] | None:
    """The cells in the form of `benchmarks.evidence.label_efficiency`, or None before the model's own score is
    there."""
    recipe = recipe_of(stage)
    base = next((r for r in rows if r["job"] == BASE and "failed" not in r), None)
    done = [r for r in rows if "strategy" in r]
    if base is None or not done:
        return None
    held_out = held_out_of(stage, recipe)
    found = {(r["strategy"], r["budget"], r["seed"], r["response_tokens"]): _evaluation(r, held_out.ids) for r in done}
    sets = {"pool_val": label_efficiency.compared(found, _evaluation(base, held_out.ids), recipe.metrics)}
    names = tuple(dict.fromkeys(r["strategy"] for r in done))
    settings = {k: getattr(recipe, k) for k in ("metrics", "layer", "pooling", "random_seeds", "evaluation_rows")}
    whole = sum(len(group) for group in planned(recipe))
    return {
        "recipe": settings
        | {
            "strategies": names,
            "budgets": sorted({r["budget"] for r in done}),
            "seeds": sorted({r["seed"] for r in done if r["strategy"] != "random"}),
            "random_seeds": sorted({r["seed"] for r in done if r["strategy"] == "random"}),
        },
        "reduction": "" if len(done) == whole else f"{len(done)} of {whole} cells so far",
        "interval": INTERVAL,
        "statistic": STATISTIC,
        "base": base["scores"],
        "sets": sets,
        "chosen": chosen(stage, recipe, done),
        "pool": {"source": "pool.parquet", "rows": len(pool_of(stage))},
        "rows": [_cell(r) for r in done],
    }


def trials_of(stage: Stage, last: dict[tuple[str, str], Row]) -> dict[str, dict[str, Any]]:
    """By setting, its cells in the form of `benchmarks.evidence.trials`, where the model's own score and cells are
    there."""
    made = {}
    for name in stage.sizes.trials:
        start = f"{name}: "
        rows = {job.removeprefix(start): r for (of, job), r in last.items() if of == "trials" and job.startswith(start)}
        done = [r for r in rows.values() if "strategy" in r]
        if not done or not {BASE, DRAWN} <= {job for job, r in rows.items() if "failed" not in r}:
            continue
        recipe = asdict(recipe_for(stage, SETTINGS[name]))
        took = {"score": sum(r.get("score_s", 0) for (of, _), r in last.items() if of == "score")}
        took |= {"select": sum(r.get("select_s", 0) for job, r in rows.items() if job.startswith(ORDER))}
        took |= {k: sum(r[f"{k}_s"] for r in done) for k in ("finetune", "evaluate")}
        made[name] = filed(
            SETTINGS[name],
            json.loads(json.dumps(recipe)),
            rows[BASE],
            [_cell(r) for r in done],
            **{k: rows[DRAWN][k] for k in ("pool", "evaluation")},
            stages=[{"name": k, "seconds": round(v, 3)} for k, v in took.items()],
        )
    return made


def _cell(row: Row) -> Row:
    """A cell's row as results files hold it."""
    kept = {k: v for k, v in row.items() if k not in (*LONG, "device", "stage", "at", "seconds")}
    return kept | {"seconds": {"finetune": row["finetune_s"], "evaluate": row["evaluate_s"]}}


def _evaluation(row: Row, ids: tuple[str, ...]) -> Evaluation:
    values = row["values"]
    rows = [{"id": name, **{m: v[i] for m, v in values.items()}} for i, name in enumerate(ids)]
    counts = {m: sum(v is not None for v in of_all) for m, of_all in values.items()}
    return Evaluation(row["scores"], counts, rows, row["evaluate_s"])


def chosen(stage: Stage, recipe: Any, done: list[Row]) -> list[dict[str, Any]]:
    """What the trained selections look like, on the features that came back; nothing without them."""
    features, orders = features_of(stage), stage.record.done("select")
    if features is None:
        return []
    pool, x = pool_of(stage), prepare(np.asarray(features.embeddings), recipe.normalise)
    made, seen = [], set()
    for r in done:
        cell = (r["strategy"], r["budget"], r["seed"] if r["strategy"] == "random" else 0)
        if cell in seen:
            continue
        seen.add(cell)
        facts = describe(np.asarray(picks_of(recipe, orders, cell)), pool, features, x)
        made.append({"strategy": cell[0], "seed": cell[2], "budget": cell[1], **facts})
    return made


def _written(path: Path, value: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1) + "\n")
    return path
