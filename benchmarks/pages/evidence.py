"""The tables of docs/evidence.md: what choosing saved, why, and what it cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.pages.words import EMPTY, Results, seconds, sections, table, times
from edjax.study.analysis import shares

LOSS, SET = "response_loss", "pool_val"


def grids(results: Results, body: Callable[[dict[str, Any]], str]) -> str:
    """`body` of every grid, under the embeddings it chose by where there are several."""
    several = sum(name.split("-")[0] == "label_efficiency" for name in results) > 1

    def named(result: dict[str, Any]) -> str:
        text = body(result)
        return f"**{embedding(result)}**\n\n{text}" if several and text else text

    return sections("label_efficiency", results, named)


def embedding(result: dict[str, Any]) -> str:
    recipe = result["recipe"]
    pooled = {"mean": "mean of the prompt's tokens", "last": "last token of the prompt"}
    return f"Embeddings: layer {recipe['layer']}, {pooled.get(recipe['pooling'], recipe['pooling'])}"


def of_grid(result: dict[str, Any]) -> str:
    """What a caption says of a grid; nothing of other results."""
    return f" ({embedding(result)[0].lower()}{embedding(result)[1:]})" if "sets" in result else ""


def label_efficiency(results: Results) -> str:
    """The grid's loss at every budget, and how far each strategy is from random there."""

    def body(result: dict[str, Any]) -> str:
        found = result["sets"][SET][LOSS]
        curves = by_last(found)
        budgets = [p["budget"] for p in next(iter(curves.values()))]
        against = {(d["strategy"], d["budget"]): d for d in found["differences"]}
        lines = []
        for strategy, points in curves.items():
            cells = [f"{p['mean']:.3f}" + difference(against.get((strategy, p["budget"]))) for p in points]
            lines.append([f"`{strategy}`", *cells])
        return "\n\n".join(
            [
                grid_in_words(result),
                table(["strategy", *(f"{b} labels" for b in budgets)], lines, "l" + "r" * len(budgets)),
            ]
        )

    return grids(results, body)


def by_last(found: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The curves, random first, then from the lowest loss at the largest budget up."""
    curves = found["curves"]
    order = sorted(curves, key=lambda s: (s != "random", curves[s][-1]["mean"]))
    return {s: curves[s] for s in order}


def difference(d: dict[str, Any] | None) -> str:
    """ " (-0.120, -0.18 to -0.06)", in bold where the interval leaves zero out; the mean alone where there is none."""
    if d is None:
        return ""
    if d["low"] is None:
        return f" ({d['mean']:+.3f})"
    text = f"{d['mean']:+.3f}, {d['low']:+.2f} to {d['high']:+.2f}"
    return f" (**{text}**)" if d["low"] > 0 or d["high"] < 0 else f" ({text})"


def grid_in_words(result: dict[str, Any]) -> str:
    recipe, found = result["recipe"], result["sets"][SET][LOSS]
    seeds = f"{len(recipe['seeds'])} seeds, random {len(recipe['random_seeds'] or recipe['seeds'])}"
    cut = f" Reduced: {result['reduction']}." if result["reduction"] else ""
    size = f"{len(recipe['strategies'])} strategies, {len(recipe['budgets'])} budgets, {seeds}"
    return (
        f"{len(result['rows'])} cells: {size}. Pool: {result['pool']['rows']:,} prompts. Mean response loss (nats a "
        f"token) on {found['rows']} held-out rows, {found['base']:.3f} before finetuning; in brackets the difference "
        f"from random at the same budget with its interval, {result['interval']}, bold where zero is outside.{cut}"
    )


def savings(results: Results) -> str:
    """How far each strategy's curve is from random's along labels and along response tokens, random's own first."""

    def body(result: dict[str, Any]) -> str:
        found = result["sets"][SET][LOSS]
        tokens = {s["strategy"]: s for s in found.get("token_savings", [])}
        ordered = sorted(found["savings"], key=lambda s: (s["share_saved"] is None, -(s["share_saved"] or 0)))
        largest = max(result["recipe"]["budgets"])
        head = ["strategy", f"labels for random's loss at {largest}", "labels saved", "response tokens saved", "seeds"]
        null = [kind[0].get("null") if kind else None for kind in (ordered, list(tokens.values()))]
        lines = [["`random` against itself", "", *map(halves, null), str(ordered[0]["baseline_seeds"])]]
        for s in ordered:
            needed = "" if s["budget_needed"] is None else f"{s['budget_needed']:.0f}"
            lines.append([f"`{s['strategy']}`", needed, saved(s), saved(tokens.get(s["strategy"])), str(s["seeds"])])
        return table(head, lines, "lrrrr")

    return grids(results, body)


def saved(s: dict[str, Any] | None) -> str:
    """ "43 % (12 % to 60 %)", in bold where the interval leaves zero out; an end that no budget bounds is open."""
    if s is None:
        return ""
    if s["share_saved"] is None:
        return s.get("note", "beyond what was measured")
    if not shares.has_interval(s):
        return f"{shares.percent(s['share_saved'])} (no interval)"
    text = f"{shares.percent(s['share_saved'])} ({shares.ends(s)})"
    clear = (s["low"] is not None and s["low"] > 0) or (s["high"] is not None and s["high"] < 0)
    return f"**{text}**" if clear else text


def halves(null: dict[str, Any] | None) -> str:
    """What random saves against itself: the central 95 % over the splits of its seeds."""
    return f"{shares.ends(null)} in {null['splits']} splits" if null else "not known"


def held_out(results: Results) -> str:
    """Every other set and metric."""

    def body(result: dict[str, Any]) -> str:
        columns = [
            (name, metric, found)
            for name, metrics in result["sets"].items()
            for metric, found in metrics.items()
            if (name, metric) != (SET, LOSS)
        ]
        if not columns:
            return ""
        head = ["strategy", *(f"{n} {m.replace('_', ' ')}" for n, m, _ in columns)]
        rows = [["rows", *(str(f["rows"]) for _, _, f in columns)]]
        rows.append(["before finetuning", *(f"{f['base']:.3f}" for _, _, f in columns)])
        for strategy in by_last(result["sets"][SET][LOSS]):
            cells = []
            for _, _, f in columns:
                point = f["curves"].get(strategy, [None])[-1]
                against = next((d for d in reversed(f["differences"]) if d["strategy"] == strategy), None)
                cells.append("" if point is None else f"{point['mean']:.3f}{difference(against)}")
            rows.append([f"`{strategy}`", *cells])
        return table(head, rows, "l" + "r" * len(columns))

    return grids(results, body)


CHOSEN = {
    "tasks": "tasks",
    "effective_tasks": "effective tasks",
    "datasets": "data sets",
    "redundancy": "redundancy",
    "radius": "radius",
    "mean_distance": "mean distance",
    "prompt_tokens": "prompt tokens",
    "response_characters": "response characters",
}


def chosen(results: Results) -> str:
    """What each strategy chose at the largest budget; seeds of random averaged."""

    def body(result: dict[str, Any]) -> str:
        largest = max(result["recipe"]["budgets"])
        lines = []
        for strategy in by_last(result["sets"][SET][LOSS]):
            rows = [c for c in result["chosen"] if c["strategy"] == strategy and c["budget"] == largest]
            if not rows:
                continue
            tokens = [c["response_tokens"] / largest for c in result["rows"] if is_at(c, strategy, largest)]
            values = [number(sum(c[key] for c in rows) / len(rows)) for key in CHOSEN]
            top = ", ".join(f"{task} {share:.0%}" for task, share in rows[0]["top_tasks"])
            lines.append([f"`{strategy}`", *values, f"{sum(tokens) / len(tokens):.1f}", top])
        head = ["strategy", *CHOSEN.values(), "response tokens", "most frequent tasks"]
        return table(head, lines, "l" + "r" * (len(CHOSEN) + 1) + "l") if lines else ""

    return grids(results, body)


def is_at(cell: dict[str, Any], strategy: str, budget: int) -> bool:
    return cell["strategy"] == strategy and cell["budget"] == budget


def number(value: float) -> str:
    return f"{value:.0f}" if value >= 20 else f"{value:.2f}".rstrip("0").rstrip(".")


def ablation_coverage(results: Results) -> str:
    """Tasks covered by layer, pooling and scaling; then by bandwidth and ridge."""

    def body(result: dict[str, Any]) -> str:
        rows = [r for r in result["rows"] if r["job"].startswith("coverage ")]
        if not rows:
            return ""
        head = ["choice", "tasks", "effective tasks", "data sets", "redundancy", "mean distance", "prompt tokens"]
        keys = ["tasks", "effective_tasks", "datasets", "redundancy", "mean_distance", "prompt_tokens"]
        lines = [[f"`{r['job'].partition(' ')[2]}`", *(number(r[k]) for k in keys)] for r in rows]
        return f"{rows[0]['budget']} picks.\n\n{table(head, lines, 'l' + 'r' * len(keys))}"

    return sections("ablation", results, body)


def ablation_loss(results: Results) -> str:
    """The loss after finetuning on what each way chose, on rows the grid does not use."""

    def body(result: dict[str, Any]) -> str:
        rows = [r for r in result["rows"] if r["job"].startswith("loss ")]
        if not rows:
            return ""
        lines = []
        for r in sorted(rows, key=lambda r: r["score"]["mean"]):
            name, point = r["job"].partition(" ")[2], r["score"]
            lines.append([f"`{name}`", f"{point['mean']:.3f}", difference(r["against_random"])[2:-1], str(point["n"])])
        one = rows[0]
        said = f"{one['budget']} labels, {one['rows']} rows; {one['base']:.3f} before finetuning."
        return f"{said}\n\n{table(['choice', 'loss', 'less random', 'seeds'], lines, 'lrrr')}"

    return sections("ablation", results, body)


def overhead(results: Results) -> str:
    """Wall time of every stage and selection's share, by job."""

    def body(result: dict[str, Any]) -> str:
        lines, notes = [], []
        for r in measured(result):
            for i, (strategy, t) in enumerate(r["select"].items()):
                s, share = r["seconds"], r["shares"][strategy]
                first = [r["job"], *(seconds(s[k]) for k in ("score", "finetune", "evaluate"))] if i == 0 else [""] * 4
                lines.append(
                    [
                        *first,
                        f"`{strategy}`",
                        f"{seconds(t['again_s'])} ({seconds(t['first_s'])})",
                        f"{share['select_share_of_finetune']:.2%} ({share['with_compiling']:.2%})",
                        f"{share['score_and_select_share']:.0%}",
                    ]
                )
            notes += [f"- {r['job']}: {k}: {v}" for k, v in r.get("scaled", {}).items()]
        head = ["model, prompts", "score", "finetune", "evaluate", "strategy", "select (first call)"]
        head += ["of finetuning (first call)", "score + select of finetuning"]
        return "\n\n".join(p for p in (table(head, lines, "lrrrlrrr"), "\n".join(notes)) if p) if lines else ""

    return sections("overhead", results, body)


def measured(result: dict[str, Any]) -> list[dict[str, Any]]:
    return [r for r in result["rows"] if r["job"] != "peers"]


def overhead_peers(results: Results) -> str:
    """The same scoring and selection by what a person would otherwise use."""

    def body(result: dict[str, Any]) -> str:
        lines = []
        for r in result["rows"]:
            if r["job"] != "peers":
                continue
            s = r["score"]
            sides = {k: v for k, v in s.items() if k not in ("rows", "new_tokens")}
            rows = {f"score {s['rows']} prompts, {s['new_tokens']} new tokens": sides}
            for strategy, t in r["select"].items():
                rows[f"`{strategy}` of {r['budget']} from {r['n']:,}"] = t["seconds"]
            for what, took in rows.items():
                for i, (who, value) in enumerate(took.items()):
                    ratio = "" if who == "edjax" else times(value / took["edjax"])
                    lines.append([what if i == 0 else "", who, seconds(value), ratio])
        return table(["work", "by", "time", "ratio"], lines, "llrr") if lines else ""

    return sections("overhead", results, body)


def overhead_paper(results: Results) -> str:
    """What the cost model foretells for a 7B model and 100,000 prompts on one H100."""
    for name, result in results.items():
        if name.split("-")[0] == "overhead" and result.get("paper"):
            lines = []
            for r in result["paper"]:
                s = r["seconds"]
                lines.append(
                    [
                        f"{r['budget']:,}",
                        f"`{r['strategy']}`",
                        *(seconds(s[k]) for k in ("score", "select", "finetune", "evaluate")),
                        f"{r['select_share_of_finetune']:.3%}",
                        f"{r['score_and_select_share']:.0%}",
                    ]
                )
            head = ["labels", "strategy", "score", "select", "finetune", "evaluate", "select of finetuning"]
            return table([*head, "score + select of finetuning"], lines, "rlrrrrrr")
    return EMPTY


def overhead_predictions(results: Results) -> str:
    """Foretold over measured, every stage of every job."""

    def body(result: dict[str, Any]) -> str:
        lines = []
        for p in result.get("predictions", []):
            ratios = [f"{p['foretold_over_measured'][k]:.2f}" for k in ("score", "select", "finetune", "evaluate")]
            share = f"{p['select_share']['foretold']:.2%} / {p['select_share']['measured']:.2%}"
            lines.append([p["job"], f"`{p['strategy']}`", *ratios, share])
        head = ["job", "strategy", "score", "select", "finetune", "evaluate", "share of select: foretold / measured"]
        return table(head, lines, "llrrrrr") if lines else ""

    return sections("overhead", results, body)


SECTIONS = {
    "label-efficiency": label_efficiency,
    "savings": savings,
    "held-out": held_out,
    "chosen": chosen,
    "ablation-coverage": ablation_coverage,
    "ablation-loss": ablation_loss,
    "overhead": overhead,
    "overhead-peers": overhead_peers,
    "overhead-paper": overhead_paper,
    "overhead-predictions": overhead_predictions,
}
