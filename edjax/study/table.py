"""The outcome of a run as a table on the terminal."""

from __future__ import annotations

from typing import Any


def results_table(results: dict[str, Any]) -> None:
    """Print one line a strategy and budget: every metric's mean over seeds, and the base model first."""
    import numpy as np
    from rich.console import Console
    from rich.table import Table

    metrics, by = list(results["base"]["scores"]), results["metric"].get("group_by")
    primary = results["metric"]["name"]

    def scores(scored: dict[str, Any]) -> list[float]:
        macro = [scored["macro"][primary]] if by else []
        return [*macro, *(scored["scores"][m] for m in metrics)]

    table = Table(title=results["title"], title_justify="left", header_style="bold")
    table.add_column("strategy")
    table.add_column("labels", justify="right")
    table.add_column("seeds", justify="right")
    if by:
        table.add_column(f"{primary.replace('_', ' ')} over {by} *", justify="right")
    for name in metrics:
        star = " *" if name == primary and not by else ""
        table.add_column(name.replace("_", " ") + star, justify="right")
    table.add_column("finetune s", justify="right")
    table.add_row("(before finetuning)", "0", "", *(f"{v:.4f}" for v in scores(results["base"])), "")
    groups: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for cell in results["cells"]:
        groups.setdefault((cell["budget"], cell["strategy"]), []).append(cell)
    last = None
    for (budget, strategy), cells in groups.items():
        if budget != last:
            table.add_section()
        last = budget
        means = (f"{v:.4f}" for v in np.mean([scores(c) for c in cells], axis=0))
        seconds = np.mean([c["seconds"]["finetune"] for c in cells])
        table.add_row(strategy, str(budget), str(len(cells)), *means, f"{seconds:.1f}")
    console = Console(width=None if Console().is_terminal else 110)
    console.print(table)
    parts = ", ".join(f"{s['name']} {s['seconds']:.1f} s" for s in results["stages"])
    share = results["overhead"]["select_share_of_finetune"]
    tail = "" if share is None else f"; choosing took {share:.1%} of the finetuning time"
    console.print(f"{parts}{tail}", highlight=False)
