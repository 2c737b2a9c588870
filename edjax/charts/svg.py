"""The few pieces a chart is made of: escaped elements, scales, ticks, paths, markers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

Point = tuple[float, float]


def element(name: str, *children: str | Markup, **attributes: str | float | None) -> Markup:
    """An element; children that are not Markup are escaped, `_` in attribute names becomes `-`, None is left out."""
    attrs = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), coord(v) if isinstance(v, int | float) else v)
        for key, v in attributes.items()
        if v is not None
    )
    inner = Markup("").join(escape(child) for child in children)
    return Markup(f"<{name}{attrs}>{inner}</{name}>") if inner else Markup(f"<{name}{attrs}/>")


def coord(value: float) -> str:
    """A coordinate to a tenth of a pixel, without trailing zeros.

    >>> coord(12.04), coord(3), coord(-0.01)
    ('12', '3', '0')
    """
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


def picture(
    width: float, height: float, label: str, *children: str | Markup, class_: str = "", stretch: bool = False
) -> Markup:
    """A whole inline SVG, read out as one image named `label`; it keeps its proportions unless `stretch` is set."""
    return element(
        "svg",
        *children,
        viewBox=f"0 0 {coord(width)} {coord(height)}",
        class_=class_,
        role="img",
        aria_label=label,
        preserveAspectRatio="none" if stretch else None,
    )


class Scale(NamedTuple):
    """From data to pixels, linearly or in the logarithm. One value alone lands in the middle."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of a value; values outside land outside."""
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        v = math.log(value) if self.log else value
        share = (v - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.end - self.start)


def ticks(low: float, high: float, target: int = 5) -> list[float]:
    """Round values (1, 2, 2.5 or 5 times a power of ten apart) inside [low, high], about `target` of them.

    >>> ticks(1.8, 2.4, 4)
    [1.8, 2.0, 2.2, 2.4]
    """
    if not high > low:
        return [low]
    rough = (high - low) / max(1, target - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((m * power for m in (1, 2, 2.5, 5, 10)), key=lambda s: abs(s - rough))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def line(points: Iterable[Point]) -> str:
    """Path data through the points.

    >>> line([(0, 1), (2.5, 3)])
    'M0 1L2.5 3'
    """
    return "".join(f"{'L' if i else 'M'}{coord(x)} {coord(y)}" for i, (x, y) in enumerate(points))


def dots(points: Iterable[Point]) -> str:
    """Path data that a round line cap turns into one dot a point."""
    return "".join(f"M{coord(x)} {coord(y)}h0" for x, y in points)


def _polygon(n: int, radius: float, turn: float) -> str:
    corners = ((radius * math.sin(a), -radius * math.cos(a)) for a in (turn + 2 * math.pi * i / n for i in range(n)))
    return line(corners) + "Z"


MARKERS = (
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0Z",  # circle
    "M-3.8 -3.8h7.6v7.6h-7.6Z",  # square
    _polygon(3, 5.2, 0),  # triangle
    _polygon(4, 5.2, 0),  # diamond
    _polygon(3, 5.2, math.pi),  # triangle, point down
    "M-4.5 -1.5h3v-3h3v3h3v3h-3v3h-3v-3h-3Z",  # plus
    _polygon(5, 5, 0),  # pentagon
)
DASHES = ("", "9 4", "2.5 3", "9 3 2 3")


class Style(NamedTuple):
    """How a strategy looks everywhere on the page: colour class, marker and dash, so that colour is never alone."""

    colour: str
    marker: str
    dash: str


def styles(names: Sequence[str], baseline: str = "random") -> dict[str, Style]:
    """One style a name, in the order given; the baseline is grey and dashed and uses up no colour."""
    out = {}
    others = [n for n in dict.fromkeys(names) if n != baseline]
    for i, name in enumerate(others):
        dash = DASHES[(i // COLOURS) % len(DASHES)]
        out[name] = Style(f"c{i % COLOURS}", MARKERS[(i + 1) % len(MARKERS)], dash)
    if baseline in names:
        out[baseline] = Style("c-base", MARKERS[0], "5 4")
    return out


COLOURS = 6  # c0 ... c5 in page.css


def swatch(style: Style) -> Markup:
    """The short line with a marker that stands before a name in legends and tables."""
    stroke = element("path", d="M0 7H30", class_="line", stroke_dasharray=style.dash or None)
    mark = element("path", d=style.marker, class_="mark", transform="translate(15 7)")
    return Markup('<svg viewBox="0 0 30 14" class="swatch {}" aria-hidden="true">{}{}</svg>').format(
        style.colour, stroke, mark
    )


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions at least `gap` apart, in the order wanted, close to those wanted and inside [low, high] if they fit.

    >>> spread([10, 11, 50], 10, 0, 100)
    [5.5, 15.5, 50.0]
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    blocks: list[tuple[float, int]] = []  # (centre, size): neighbours that touch move as one
    for i in order:
        centre, size = _inside(wanted[i], 1, gap, low, high), 1
        while blocks and centre - (size - 1) * gap / 2 < blocks[-1][0] + (blocks[-1][1] - 1) * gap / 2 + gap:
            c, s = blocks.pop()
            centre = _inside((c * s + centre * size) / (s + size), s + size, gap, low, high)
            size += s
        blocks.append((centre, size))
    flat = [c + (j - (s - 1) / 2) * gap for c, s in blocks for j in range(s)]
    out = [0.0] * len(wanted)
    for place, i in zip(flat, order, strict=True):
        out[i] = place
    return out


def _inside(centre: float, size: int, gap: float, low: float, high: float) -> float:
    half = (size - 1) * gap / 2
    return max(min(centre, high - half), low + half)
