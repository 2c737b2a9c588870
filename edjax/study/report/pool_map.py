"""The map of the pool: every prompt a dot coloured by its group, and the picks of each strategy on top of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from edjax.charts.svg import COLOURS, Scale, dots, element, picture
from edjax.charts.words import count, finite

WIDTH, HEIGHT, MARGIN = 720, 460, 14


class PoolMap(NamedTuple):
    """The drawing, the strategies in the order of their layers, and a legend of (colour class, group, prompts)."""

    svg: Markup
    strategies: list[str]
    counts: list[int]
    legend: list[tuple[str, str, int]]
    shown: int


def pool_map(data: Mapping[str, Any] | None, order: Sequence[str] = ()) -> PoolMap | None:
    """Draw the map; None where there is nothing to draw. The largest groups get a colour, the rest is grey.

    The layers of picks come in the `order` given, strategies not named there after it. Layer i carries the class
    `picks-i`; the page shows one of them at a time.
    """
    points = _finite_points((data or {}).get("points"))
    if data is None or not points:
        return None
    groups = data.get("groups") or []
    names = data.get("group_names") or []
    sizes = Counter(groups[i] for i in points if i < len(groups))
    largest = [g for g, _ in sorted(sizes.items(), key=lambda item: (-item[1], item[0]))]
    coloured = {g: f"c{j}" for j, g in enumerate(largest[: COLOURS - 1 if len(largest) > COLOURS else COLOURS])}

    place = _placement(points)
    colour = {i: coloured.get(groups[i], "c-base") if i < len(groups) else "c-base" for i in points}
    picks = {name: [i for i in chosen if i in points] for name, chosen in (data.get("picks") or {}).items()}
    picks = {name: picks[name] for name in dict.fromkeys([*order, *picks]) if name in picks}
    everyone = element("g", *_layer(points, place, colour), class_="everyone")
    layers = [
        element("g", *_halo(chosen, place), *_layer(chosen, place, colour), class_=f"picks picks-{n}")
        for n, chosen in enumerate(picks.values())
    ]
    label = f"Map of {count(len(points), 'prompt')}: near dots are alike to the model; the picks are larger and ringed"
    legend = [(coloured[g], _name(names, g), sizes[g]) for g in largest if g in coloured]
    rest = [g for g in largest if g not in coloured]
    if rest:
        legend.append(("c-base", f"{len(rest)} more", sum(sizes[g] for g in rest)))
    svg = picture(WIDTH, HEIGHT, label, everyone, *layers, class_="map")
    return PoolMap(svg, list(picks), [len(p) for p in picks.values()], legend, len(points))


def _finite_points(points: Any) -> dict[int, tuple[float, float]]:
    out = {}
    for i, p in enumerate(points or ()):
        x, y = (finite(p[0]), finite(p[1])) if len(p) == 2 else (None, None)
        if x is not None and y is not None:
            out[i] = (x, y)
    return out


def _placement(points: Mapping[int, tuple[float, float]]) -> dict[int, tuple[float, float]]:
    """Pixels for every point: one unit is as long across as it is up, and the cloud fills the picture."""
    xs, ys = [p[0] for p in points.values()], [p[1] for p in points.values()]
    wide, tall = max(xs) - min(xs), max(ys) - min(ys)
    unit = min((WIDTH - 2 * MARGIN) / (wide or 1e-9), (HEIGHT - 2 * MARGIN) / (tall or 1e-9))
    half_x, half_y = unit * wide / 2, unit * tall / 2
    x = Scale(min(xs), max(xs), WIDTH / 2 - half_x, WIDTH / 2 + half_x)
    y = Scale(min(ys), max(ys), HEIGHT / 2 + half_y, HEIGHT / 2 - half_y)
    return {i: (x(a), y(b)) for i, (a, b) in points.items()}


def _layer(chosen: Any, place: Mapping[int, tuple[float, float]], colour: Mapping[int, str]) -> list[Markup]:
    """One path a colour: thousands of dots cost a few bytes each. Grey lies lowest."""
    by_colour: dict[str, list[int]] = {}
    for i in chosen:
        by_colour.setdefault(colour[i], []).append(i)
    order = sorted(by_colour, key=lambda c: (c != "c-base", c))
    return [element("path", d=dots(place[i] for i in by_colour[c]), class_=f"dot {c}") for c in order]


def _halo(chosen: Sequence[int], place: Mapping[int, tuple[float, float]]) -> list[Markup]:
    """A dark ring and a light one under every pick, so that it stands out from any colour."""
    path = dots(place[i] for i in chosen)
    return [element("path", d=path, class_=ring) for ring in ("halo", "ring")] if chosen else []


def _name(names: Sequence[Any], group: Any) -> str:
    return str(names[group]) if isinstance(group, int) and 0 <= group < len(names) else f"group {group}"
