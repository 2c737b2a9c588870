"""The table of precision: of the rows chosen for a target, how many are of its data set."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.pages.words import Results, sections, table

MEANT = 0.8


def targets(results: Results) -> str:
    """An arm a line: mean precision over data sets and seeds, its least, and on how many sets it is `MEANT` or more."""

    def body(result: dict[str, Any]) -> str:
        rows, settings = result["rows"], result["settings"]
        said = (
            f"{settings['budget']} picks of {settings['pool']:,} rows for {settings['targets']} held-out prompts of a "
            f"data set; {len(rows)} data sets, {result['seeds']} draws of the target each. "
            + ", ".join(f"{row['job']} ({row['share']:.1%} of the pool)" for row in rows)
            + "."
        )
        ways = list(rows[0]["precision"])
        lines = []
        for arm in rows[0]["precision"][ways[0]]:
            cells = []
            for how in ways:
                means = [float(np.mean(row["precision"][how][arm])) for row in rows]
                worst = rows[int(np.argmin(means))]["job"]
                good = sum(mean >= MEANT for mean in means)
                cells += [f"{np.mean(means):.2f}", f"{min(means):.2f} ({worst})", f"{good} of {len(rows)}"]
            lines.append([f"`{arm}`", *cells])
        lines.append(["random inside the data set", *(["1.00", "1.00", f"{len(rows)} of {len(rows)}"] * len(ways))])
        head = ["choice", *(f"{word}, {how}" for how in ways for word in ("mean", "least", f"{MEANT:g} or more"))]
        return f"{said}\n\n{table(head, lines, 'l' + 'rrr' * len(ways))}"

    return sections("targets", results, body)


SECTIONS = {"targets": targets}
