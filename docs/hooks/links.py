"""Links of pages that also read well in the repository: those that leave docs/ point at nothing in a built site."""

import re

OUTSIDE = re.compile(r"\[([^\]]+)\]\((?:\.\./)+(?!reference/|how-to/|\w+\.md)[^)]*\)")


def on_page_markdown(markdown, **_):
    """A link out of docs/ becomes its text."""
    return OUTSIDE.sub(r"\1", markdown)
