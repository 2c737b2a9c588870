"""What a run found, as a notebook shows it."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from edjax.charts.plot import Plot, standalone
from edjax.keep import notebook
from edjax.keep.errors import DataError


class RunResults(dict[str, Any]):
    """The results of a run: the mapping of `edjax.study.report.schema.Results`, which results.json holds.

    In a notebook it shows the verdict and a table of the primary metric; `plot` draws its curves.
    """

    def _repr_html_(self) -> str:
        metric = str(self.get("metric", {}).get("name", "")).replace("_", " ")
        points = [(name, p) for name, of in (self.get("curves") or {}).items() for p in of]
        rows = [(name, p["budget"], p["mean"], p.get("low"), p.get("high"), p.get("n")) for name, p in points]
        head = ("strategy", "labels", metric, "low", "high", "seeds")
        return notebook.table(str(self.get("title", "Run")), head, rows, len(rows), str(self.get("verdict") or ""))

    def plot(self) -> Plot:
        """The label-efficiency curves: the primary metric against the number of labels, as the page draws them.

        Raises:
          DataError: no point of a curve has a number.
        """
        from edjax.charts.svg import styles
        from edjax.study.analysis import restated
        from edjax.study.report.reading import BASELINE, strategies
        from edjax.study.report.scores import curve
        from edjax.study.report.view import metric_of

        results, metric = restated(self), metric_of(self)
        drawn = curve(results, styles(strategies(results), BASELINE), metric)
        if drawn is None:
            raise DataError("these results have no curve: no strategy was evaluated at any budget")
        says = f"{metric.label} against the number of labels: {self.get('verdict')}"
        return Plot(standalone(str(drawn["wide"]), _css()), says)


def _css() -> str:
    """The page's colours, and its rules for charts; not those that hide a picture on a narrow screen."""
    css = files("edjax.study.report").joinpath("page.css").read_text("utf-8")
    colours = css[css.index(":root {") : css.index("* { box-sizing")]
    return colours + "svg { background: var(--bg) }\n" + css[css.index("svg {") : css.index(".narrow {")]
