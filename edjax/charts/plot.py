"""A picture as a thing: a notebook shows it, and it can be written to a file."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True, repr=False)
class Plot:
    """`svg`: the picture, a whole SVG file with its own styles; `says`: in a line, what it shows."""

    svg: str
    says: str

    def __repr__(self) -> str:
        return f"Plot({self.says!r})"

    def _repr_svg_(self) -> str:
        return self.svg

    def _repr_html_(self) -> str:
        """As an image: styles of an SVG that stands in a page itself would be those of the page."""
        data = base64.b64encode(self.svg.encode()).decode()
        style = "width: 100%; max-width: 760px"
        return f'<img alt="{escape(self.says)}" style="{style}" src="data:image/svg+xml;base64,{data}">'


def standalone(drawn: str, css: str) -> str:
    """An inline `<svg>` as a file of its own with its style sheet."""
    head, _, rest = drawn.partition(">")
    return f'{head} xmlns="http://www.w3.org/2000/svg"><style>{css}</style>{rest}\n'
