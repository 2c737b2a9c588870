"""transformers without torch: 3 s of every start, for what edjax does not use.

transformers imports torch wherever it is installed. Its own answer to "is torch there" is remembered; where that
answer is no, it does without, and no other package of the process (scipy, datasets, a tracker) sees any difference.
Only a process that is edjax's own may do so, which is why the command line asks for it and a library call never does.
"""

from __future__ import annotations

import contextlib

_asked = False


def ask() -> None:
    """From now on edjax's first import of transformers leaves torch out."""
    global _asked
    _asked = True


def apply() -> None:
    """Before an import from transformers: have it find no torch, if that was asked for.

    What is patched is private to transformers: where a version lacks it, torch is imported as ever.
    """
    if not _asked:
        return
    from transformers.utils import import_utils

    with contextlib.suppress(AttributeError):
        known, find = import_utils.is_torch_available, import_utils._is_package_available
        known.cache_clear()
        import_utils._is_package_available = lambda name, *a, **k: (
            (False, "N/A") if name == "torch" else find(name, *a, **k)
        )
        try:
            known()
        finally:
            import_utils._is_package_available = find
