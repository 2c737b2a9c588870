"""The tables of what was measured on an accelerator."""

from __future__ import annotations

from typing import Any

from benchmarks.pages.words import Results, digits, seconds, sections, table, times

Row = dict[str, Any]


def accelerator(results: Results) -> str:
    """Every stage of every device."""

    def body(result: dict[str, Any]) -> str:
        parts = [f"Driver: {result['driver']}." if result.get("driver") else ""]
        parts += [of(rows_of(result, name)) for name, of in PARTS.items()]
        parts.append(failures(result["rows"]))
        return "\n\n".join(p for p in parts if p)

    return sections("accelerator", results, body)


def rows_of(result: dict[str, Any], stage: str) -> list[Row]:
    found = [r for r in result["rows"] if r["stage"] == stage and "failed" not in r]
    peak = next((r for r in result["rows"] if r["job"] == "check: ceilings" and "failed" not in r), None)
    return [r | {"ceilings": peak} for r in found]


def name_of(row: Row) -> str:
    return row["job"].partition(": ")[2]


def check(rows: list[Row]) -> str:
    """Ceilings in a sentence, then what was compared with a CPU."""
    said = []
    for r in rows:
        if name_of(r) == "ceilings":
            flops = ", ".join(f"{k} {digits(v['best'] / 1e12)} TFLOP/s" for k, v in r["matmul_flops_s"].items())
            copies = ", ".join(f"{k} {digits(v / 1e9)} GB/s" for k, v in r["copy_bytes_s"].items())
            said.append(f"- Ceilings: products {flops}; copies {copies}.")
        elif "worst_shortfall" in r:
            worst = max(r["worst_shortfall"].values())
            said.append(
                f"- Greedy in float64: no pick of {r['problems']} pools a selector falls short by over {worst:.0e}."
            )
        elif "worst_difference" in r:
            found = ", ".join(f"{v:.0e} from {k}" for k, v in r["worst_difference"].items())
            said.append(f"- Hidden states of stories260k: {found}.")
        elif name_of(r) == "N2":
            found = ", ".join(
                f"`{k}` {v['here'] / v['cpu']:.4f} ({v['same_picks']} of {v['of']} picks the same)"
                for k, v in r["methods"].items()
            )
            said.append(f"- Objective here over the CPU's, {r['n']:,} x {r['d']}: {found}.")
        elif name_of(r) == "precision":
            found = ", ".join(
                f"`{k}` {seconds(v['highest']['median_s'])} and {seconds(v['fast']['median_s'])} "
                f"({v['same_picks']} of {r['budget']} picks the same)"
                for k, v in r["methods"].items()
            )
            said.append(f'- Precision "highest" and "fast": {found}.')
    return "\n".join(said)


def selectors(rows: list[Row]) -> str:
    lines = []
    for r in rows:
        if "skipped" in r or "median_s" not in r:
            continue
        size = f"{r['n']:,} x {r['d']:,}, {r['budget']:,}"
        if "peer" in r:
            more = r["extrapolated"]
            said = f"{seconds(more['seconds'])} for {more['budget']:,}, extrapolated"
            lines.append([f"`{r['method']}`, {r['peer']}", size, seconds(r["median_s"]), "", "", said])
            continue
        peak = r["ceilings"] and r["ceilings"]["matmul_flops_s"]["float32"]["best"]
        share = f"{r['useful_flops_s'] / peak:.0%}" if peak else ""
        bar = f"{seconds(r['bar_s'])}: {'met' if r['met'] else '**missed**'}" if "bar_s" in r else ""
        rate = digits(r["useful_flops_s"] / 1e12)
        lines.append([f"`{r['method']}`", size, seconds(r["median_s"]), rate, share, bar])
    head = ["selector", "rows x features, picks", "median", "useful TFLOP/s", "of the product's ceiling", "bar"]
    return table(head, lines, "llrrrl") if lines else ""


def model(rows: list[Row]) -> str:
    lines = []
    for r in rows:
        if "skipped" in r:
            continue
        ours, other = r["timed"]["edjax"], r["timed"].get("torch")
        peak = r["ceilings"] and r["ceilings"]["matmul_flops_s"]["bfloat16"]["best"]
        share = f"{ours['flops_per_s'] / peak:.0%}" if peak and "flops_per_s" in ours else ""
        theirs = seconds(other["median_s"]) if other else ""
        ratio = times(r["ratio"]) if r["ratio"] else ""
        lines.append([name_of(r), seconds(ours["median_s"]), theirs, ratio, f"{ours['tokens_per_s']:,.0f}", share])
    head = ["job", "edjax", "torch", "ratio", "tokens/s", "of the product's ceiling"]
    return table(head, lines, "lrrrrr") if lines else ""


def score(rows: list[Row]) -> str:
    return "\n".join(
        f"Scored {r['rows']:,} prompts of {r['prompt_tokens']:,} tokens in {seconds(r['score_s'])}, "
        f"{r['prompts_per_s']:,.0f} a second."
        for r in rows
        if "score_s" in r
    )


def select(rows: list[Row]) -> str:
    lines = [[f"`{name_of(r)}`", seconds(r["select_s"])] for r in rows if "select_s" in r]
    return table(["order", "selected in, compiling included"], lines, "lr") if lines else ""


PARTS = {"check": check, "selectors": selectors, "model": model, "score": score, "select": select}


def failures(rows: list[Row]) -> str:
    said = [f"- {r['job']}: {r.get('failed') or r['skipped']}" for r in rows if "failed" in r or "skipped" in r]
    return "Not measured:\n\n" + "\n".join(said) if said else ""


SECTIONS = {"accelerator": accelerator}
