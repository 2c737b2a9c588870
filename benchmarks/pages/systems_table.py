"""The methods for a target beside what people run in their place, and submodlib's gains beside ours."""

from __future__ import annotations

from typing import Any

from benchmarks.pages.words import Results, seconds, sections, shape, table, times

OURS = "edjax"


def systems(results: Results) -> str:
    """A line a side: the least seconds, ours at what ratio, and the bar."""

    def body(result: dict[str, Any]) -> str:
        lines = []
        for row in result["rows"]:
            for who, side in row["timed"].items():
                bar = row.get("bars", {}).get(who)
                ratio = row.get("ratios", {}).get(who)
                clock = row.get("bars_s", {}).get(who)
                said = "" if bar is None or ratio is None else verdict(f"{bar:g}x", ratio >= bar)
                said = said if clock is None else verdict(f"{clock:g} s at most", side["best_s"] <= clock)
                lines.append(
                    [
                        f"{row['job']}: {shape(row)}",
                        who,
                        seconds(side["best_s"]),
                        "" if ratio is None else times(ratio),
                        said,
                        f"{row['load'][0]:.1f} to {row['load_after'][0]:.1f}",
                    ]
                )
        return table(["job: rows x features, picks", "side", "least", "ratio", "bar", "load"], lines, "llrrlr")

    return sections("systems", results, body)


def verdict(bar: str, met: bool) -> str:
    return f"{bar}: met" if met else f"**{bar}: missed**"


def gains(results: Results) -> str:
    """A line a function: the largest differences, as shares of a problem's largest gain."""

    def body(result: dict[str, Any]) -> str:
        lines = [
            [
                row["job"],
                *(f"{row[key]:.0e}" for key in ("weighed", "said", "short")),
                f"{row['same_place']} of {row['picks']}",
            ]
            for row in result["rows"]
        ]
        head = ["function", "our picks, its gains", "its picks, our gains", "better pick missed", "same place"]
        return table(head, lines, "lrrrr")

    return sections("gains", results, body)


SECTIONS = {"systems": systems, "gains": gains}
