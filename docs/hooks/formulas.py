r"""Formulas as MathML, made when the site is built: a reader's browser draws them itself and fetches nothing.

`pymdownx.arithmatex` (generic) marks what stands between dollars as \(...\) or \[...\]; `latex2mathml` turns it into
MathML, which every current browser draws.
"""

import html
import re

from latex2mathml.converter import convert

MARKED = re.compile(r'<(span|div) class="arithmatex">(.*?)</\1>', re.S)


def on_page_content(content, **_):
    """Every marked formula of a page as MathML."""
    return MARKED.sub(lambda m: mathml(html.unescape(m[2])), content)


def mathml(tex: str) -> str:
    r"""The MathML of \(...\) or of \[...\].

    Raises:
        ValueError: a command that latex2mathml does not know, which it would print as its name.
    """
    tex = tex.strip()
    inner = tex[2:-2].strip()
    out = convert(inner, display="block" if tex.startswith(r"\[") else "inline")
    if unknown := re.findall(r"<m[io]>(\\[a-zA-Z]+)</m[io]>", out):
        raise ValueError(f"no MathML for {unknown} in the formula {inner}")
    return out
