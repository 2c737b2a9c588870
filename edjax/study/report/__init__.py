"""The page: one offline HTML file that says what was saved and how sure that is.

    results.json --> view (text, charts) --> page.html + page.css --> one file

No script, no font, no image and no request: the Content-Security-Policy in the file allows its own style sheet, by
hash, and nothing else. Whatever stands in a prompt is text there. The shape of `results` is `schema.Results`.
Savings that an earlier version wrote are worked out anew from the cells first, see `edjax.study.analysis.restated`.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from edjax.study.report.schema import Results

__all__ = ["Results", "render", "write"]


def render(results: Mapping[str, Any]) -> str:
    """The page as text. Missing keys and numbers that are None, NaN or infinite are left out or said to be missing.

    Args:
      results: as `schema.Results`; a loaded results.json.
    """
    from jinja2 import Environment, FunctionLoader, StrictUndefined
    from markupsafe import Markup

    from edjax.study.analysis import restated
    from edjax.study.report.view import view

    here = files(__package__)
    env = Environment(
        loader=FunctionLoader(lambda name: here.joinpath(name).read_text("utf-8")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    context = view(restated(results))
    css = here.joinpath("page.css").read_text("utf-8") + _map_rules(context["map"])
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    page = env.get_template("page.html").render(**context, css=Markup(css), css_hash=digest)
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", page)


def write(results: Mapping[str, Any], path: str | Path) -> Path:
    """Render the page and write it whole, or not at all.

    Raises:
      EnvError: the path cannot be written.
    """
    from edjax.keep.store import atomic_write

    text = render(results)
    with atomic_write(path, "wb") as f:
        f.write(text.encode())
    return Path(path)


# Control characters and lone surrogates a prompt may hold: no browser shows them, and HTML does not allow them.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


def _map_rules(map_: Any) -> str:
    """One rule that shows the picks of the strategy whose button is chosen: a selector without a script."""
    if map_ is None or not map_.strategies:
        return ""
    chosen = ",\n".join(f"#map-{i}:checked ~ .plot .picks-{i}" for i in range(len(map_.strategies)))
    return f"{chosen} {{ display: inline; }}\n"
