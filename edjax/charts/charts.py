"""The label-efficiency curves, the gain curves and the bars, as inline SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from edjax.charts.svg import Scale, Style, element, line, picture, spread, ticks
from edjax.charts.words import MetricWords, count, finite, minus, number, percent

WIDE, NARROW = 760, 360  # the page shows the one that fits
TOP, BOTTOM, LEFT, RIGHT = 16, 46, 66, 16
LABELS = 150  # room for the names at the right end of a wide chart
NEAR = 1.5  # the base model's line is in the picture if it lies within so many spans of the curves


class Frame(NamedTuple):
    """The plotting area and its two scales."""

    width: float
    height: float
    x: Scale
    y: Scale


def efficiency(
    curves: Mapping[str, Sequence[Mapping[str, Any]]],
    styles: Mapping[str, Style],
    metric: MetricWords,
    *,
    base: float | None = None,
    needed: tuple[str, float] | None = None,
    baseline: str = "random",
    width: int = WIDE,
) -> Markup | None:
    """Score against the number of labels, one line a strategy; None where no point has a number.

    The x axis is logarithmic once the largest budget is 6 times the smallest. The baseline carries a band, the others
    whiskers. `needed` draws the arrow of the saving: from the baseline's last score to where a strategy reaches it.
    """
    clean = {name: _points(points) for name, points in curves.items()}
    clean = {name: points for name, points in clean.items() if points}
    if not clean:
        return None
    budgets = sorted({p[0] for points in clean.values() for p in points})
    values = [v for points in clean.values() for p in points for v in p[1:4] if v is not None]
    low, high = min(values), max(values)
    span = (high - low) or abs(high) or 1.0
    show_base = base is not None and low - NEAR * span <= base <= high + NEAR * span
    if show_base and base is not None:
        low, high = min(low, base), max(high, base)
    pad = 0.06 * ((high - low) or abs(high) or 1.0)
    height = 400 if width > NARROW else 320
    right = width - (LABELS if width > NARROW else RIGHT)
    log = budgets[-1] >= 6 * budgets[0]
    frame = Frame(
        width,
        height,
        Scale(budgets[0], budgets[-1], LEFT + 12, right - 8, log),
        Scale(low - pad, high + pad, height - BOTTOM, TOP),
    )
    order = sorted(clean, key=lambda n: n != baseline)  # the baseline first, under the others
    better = "higher is better" if metric.higher_is_better else "lower is better"
    parts = [
        _y_axis(frame, right, metric, f"{metric.label}, {better}"),
        _x_axis(frame, right, budgets, "labelled prompts" + (" (logarithmic)" if log else "")),
    ]
    if show_base and base is not None:
        parts.append(_base_line(frame, right, base, metric))
    parts += [_saving(frame, clean, needed, baseline)] if needed else []
    parts += [_curve(frame, name, clean[name], styles[name], metric, band=name == baseline) for name in order]
    if width > NARROW:
        parts.append(_end_labels(frame, clean, styles, right))
    names = ", ".join(clean)
    label = f"{metric.label} against the number of labelled prompts for {names}; the table below holds the numbers"
    return picture(width, height, label, *parts, class_=_class(width))


def _points(points: Sequence[Mapping[str, Any]] | None) -> list[tuple[float, float, float | None, float | None, int]]:
    """(budget, mean, low, high, seeds) in order of budget, those with a mean and a budget above 0 only."""
    out = []
    for p in points or ():
        budget, mean = finite(p.get("budget")), finite(p.get("mean"))
        if budget is not None and budget > 0 and mean is not None:
            low, high = finite(p.get("low")), finite(p.get("high"))
            if low is None or high is None:
                low = high = None
            out.append((budget, mean, low, high, int(finite(p.get("n")) or 0)))
    return sorted(out, key=lambda p: p[0])


def _y_axis(frame: Frame, right: float, metric: MetricWords, title: str) -> Markup:
    parts = []
    for value, text in zip(*_tick_words(frame.y.low, frame.y.high, metric.share), strict=True):
        y = frame.y(value)
        parts.append(element("path", d=line([(LEFT, y), (right, y)]), class_="grid"))
        parts.append(element("text", text, x=LEFT - 7, y=y + 4, class_="tick end"))
    middle = (TOP + frame.height - BOTTOM) / 2
    turn = f"rotate(-90 12 {middle:.0f})"
    parts.append(element("text", title, x=12, y=middle, class_="axis mid", transform=turn))
    return element("g", *parts)


def _tick_words(low: float, high: float, share: bool) -> tuple[list[float], list[str]]:
    """Ticks and their text, all with as many decimals as the one that needs most."""
    values = ticks(low, high, 6)
    shown = [float(f"{100 * v:.12g}") if share else v for v in values]
    decimals = max(len(f"{v:.6f}".rstrip("0").partition(".")[2]) for v in shown)
    return values, [minus(f"{v:,.{decimals}f}") + (" %" if share else "") for v in shown]


def _x_axis(frame: Frame, right: float, values: Sequence[float], title: str, room: float = 34) -> Markup:
    y = frame.height - BOTTOM
    parts = [element("path", d=line([(LEFT, y), (right, y)]), class_="rule")]
    last = -1e9
    for value in values:
        x = frame.x(value)
        parts.append(element("path", d=line([(x, y), (x, y + 5)]), class_="rule"))
        if x - last >= room:
            parts.append(element("text", number(value), x=x, y=y + 19, class_="tick mid"))
            last = x
    parts.append(element("text", title, x=(LEFT + right) / 2, y=frame.height - 8, class_="axis mid"))
    return element("g", *parts)


def _base_line(frame: Frame, right: float, base: float, metric: MetricWords) -> Markup:
    y = frame.y(base)
    above = y - 6 if y > TOP + 18 else y + 15
    text = f"before finetuning: {metric.format(base)}"
    return element(
        "g",
        element("path", d=line([(LEFT, y), (right, y)]), class_="reference"),
        element("text", text, x=right - 4, y=above, class_="note end"),
    )


def _saving(frame: Frame, clean: Mapping[str, Any], needed: tuple[str, float], baseline: str) -> Markup:
    name, budget = needed
    points = clean.get(baseline)
    if not points or not clean.get(name) or not frame.x.low <= budget < points[-1][0]:
        return Markup("")
    x0, x1, y = frame.x(budget), frame.x(points[-1][0]), frame.y(points[-1][1])
    floor = frame.height - BOTTOM
    side, end = (6, "") if x1 - x0 > 60 else (-6, " end")  # clear of the names at the right
    says = f"{name} reaches at about {number(budget)} labels what {baseline} reaches at {number(points[-1][0])}"
    return element(
        "g",
        element("title", says),
        element("path", d=line([(x1, y), (x0, y), (x0, floor)]), class_="saving"),
        element(
            "path", d=f"M{x0 - 4:.1f} {floor - 8:.1f}L{x0:.1f} {floor:.1f}L{x0 + 4:.1f} {floor - 8:.1f}", class_="tip"
        ),
        element("text", f"≈ {number(budget)}", x=x0 + side, y=floor - 6, class_="note strong" + end),
    )


def _curve(
    frame: Frame,
    name: str,
    points: Sequence[tuple[float, float, float | None, float | None, int]],
    style: Style,
    metric: MetricWords,
    *,
    band: bool,
) -> Markup:
    parts = []
    spans = [
        (frame.x(b), frame.y(low), frame.y(high))
        for b, _, low, high, _ in points
        if low is not None and high is not None
    ]
    if band and len(spans) > 1:
        edge = [(x, high) for x, _, high in spans] + [(x, low) for x, low, _ in reversed(spans)]
        parts.append(element("path", d=line(edge) + "Z", class_="band"))
    else:
        whiskers = "".join(line([(x, low), (x, high)]) for x, low, high in spans)
        parts.append(element("path", d=whiskers, class_="whisker") if whiskers else Markup(""))
    path = line((frame.x(p[0]), frame.y(p[1])) for p in points)
    parts.append(element("path", d=path, class_="line", stroke_dasharray=style.dash or None))
    for budget, mean, low, high, n in points:
        says = f"{name}, {count(int(budget), 'label')}: {metric.format(mean)}"
        says += f" ({metric.format(low)} to {metric.format(high)})" if low is not None else ""
        says += f", {count(n, 'seed')}" if n else ""
        at = f"translate({frame.x(budget):.1f} {frame.y(mean):.1f})"
        parts.append(element("path", element("title", says), d=style.marker, class_="mark", transform=at))
    return element("g", *parts, class_=style.colour)


def _end_labels(frame: Frame, clean: Mapping[str, Any], styles: Mapping[str, Style], right: float) -> Markup:
    names = list(clean)
    ends = [frame.y(clean[n][-1][1]) for n in names]
    starts = [frame.x(clean[n][-1][0]) for n in names]
    places = spread(ends, 16, TOP + 4, frame.height - BOTTOM - 4)
    parts = []
    for name, x, y, place in zip(names, starts, ends, places, strict=True):
        short = name if len(name) <= 19 else name[:18] + "…"
        leader = element("path", d=line([(x + 7, y), (right + 8, place)]), class_="leader")
        text = element("text", short, x=right + 12, y=place + 4, class_="label")
        parts.append(element("g", leader, text, class_=styles[name].colour))
    return element("g", *parts)


def gain_curves(
    gains: Mapping[str, Sequence[float]], styles: Mapping[str, Style], *, width: int = WIDE
) -> Markup | None:
    """Gain of each pick as a share of the largest (see `picked.relative_gains`), one line a strategy."""
    longest = max((len(g) for g in gains.values()), default=0)
    if longest < 1:
        return None
    height = 300 if width > NARROW else 260
    right = width - RIGHT
    # The series start at the second pick: position i is pick i + 2.
    frame = Frame(width, height, Scale(2, longest + 1, LEFT, right), Scale(0, 1, height - BOTTOM, TOP))
    parts = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = frame.y(share)
        parts.append(element("path", d=line([(LEFT, y), (right, y)]), class_="grid"))
        parts.append(element("text", percent(share), x=LEFT - 7, y=y + 4, class_="tick end"))
    marks = [t for t in ticks(2, longest + 1, 6) if t == int(t) and t >= 2]
    parts.append(_x_axis(frame, right, marks, "pick, in the order taken"))
    middle = (TOP + height - BOTTOM) / 2
    turn = f"rotate(-90 12 {middle:.0f})"
    parts.append(element("text", "gain of the pick", x=12, y=middle, class_="axis mid", transform=turn))
    for name, series in gains.items():
        keep = (
            sorted({round(i * (len(series) - 1) / 199) for i in range(200)})
            if len(series) > 200
            else range(len(series))
        )
        places = [(frame.x(i + 2), frame.y(min(1.0, max(0.0, series[i])))) for i in keep]
        style = styles[name]
        drawn = [
            element("path", element("title", name), d=line(places), class_="line", stroke_dasharray=style.dash or None)
        ]
        for x, y in places[:: max(1, len(places) // 6)]:  # a few markers, for those who do not see the colour
            drawn.append(element("path", d=style.marker, class_="mark", transform=f"translate({x:.1f} {y:.1f})"))
        parts.append(element("g", *drawn, class_=style.colour))
    label = f"gain of each pick for {', '.join(gains)}"
    return picture(width, height, label, *parts, class_=_class(width))


def stacked_bar(parts: Sequence[tuple[str, float, str]], label: str) -> Markup:
    """One bar cut in proportion; each part is (name, value, words shown on hover)."""
    total = sum(value for _, value, _ in parts)
    width, height, at = 720.0, 34.0, 0.0
    drawn = []
    for i, (name, value, says) in enumerate(parts):
        wide = width * value / total if total else 0
        box = element(
            "rect",
            element("title", f"{name}: {says}"),
            x=at,
            y=0,
            width=max(wide - 1.5, 2),
            height=height,
            class_=f"s{i % 4}",
        )
        drawn.append(box)
        at += wide
    return picture(width, height, label, *drawn, class_="bar", stretch=True)


def meter(share: float | None, style: Style) -> Markup:
    """A small bar, filled up to `share`; decoration beside a number that is written out."""
    filled = 120 * min(1.0, max(0.0, share or 0.0))
    back = element("rect", x=0, y=0, width=120, height=10, class_="rail")
    fill = element("rect", x=0, y=0, width=filled, height=10, class_="fill")
    return Markup('<svg viewBox="0 0 120 10" class="meter {}" aria-hidden="true">{}{}</svg>').format(
        style.colour, back, fill
    )


def _class(width: int) -> str:
    return "chart wide" if width > NARROW else "chart narrow"
