"""The outcome of a run as a table on the terminal."""

from __future__ import annotations

from typing import Any


def results_table(results: dict[str, Any]) -> None:
    """Print one line a strategy and budget: every metric's mean over seeds, and the base model first."""
    import numpy as np
    from rich.console import Console
    from rich.table import Table

    metrics = list(results["base"]["scores"])
    table = Table(title=results["title"], title_justify="left", header_style="bold")
    table.add_column("strategy")
    table.add_column("labels", justify="right")
    table.add_column("seeds", justify="right")
    for name in metrics:
        star = " *" if name == results["metric"]["name"] else ""
        table.add_column(name.replace("_", " ") + star, justify="right")
    table.add_column("finetune s", justify="right")
    table.add_row("(before finetuning)", "0", "", *(f"{results['base']['scores'][m]:.4f}" for m in metrics), "")
    groups: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for cell in results["cells"]:
        groups.setdefault((cell["budget"], cell["strategy"]), []).append(cell)
    last = None
    for (budget, strategy), cells in groups.items():
        if budget != last:
            table.add_section()
        last = budget
        means = (f"{np.mean([c['scores'][m] for c in cells]):.4f}" for m in metrics)
        seconds = np.mean([c["seconds"]["finetune"] for c in cells])
        table.add_row(strategy, str(budget), str(len(cells)), *means, f"{seconds:.1f}")
    console = Console(width=None if Console().is_terminal else 110)
    console.print(table)
    parts = ", ".join(f"{s['name']} {s['seconds']:.1f} s" for s in results["stages"])
    share = results["overhead"]["select_share_of_finetune"]
    tail = "" if share is None else f"; choosing took {share:.1%} of the finetuning time"
    console.print(f"{parts}{tail}", highlight=False)
