"""`edjax strategies`."""

from __future__ import annotations

import click

from edjax.cli import options


@click.command()
@options.JSON
def strategies() -> None:
    """List the strategies: name, what it needs, what it does, and the knobs that may follow its name.

    \b
    --probe: what `edjax score` must be asked for, to make the columns it needs.
    A knob follows a colon:  --strategy facility_location:bandwidth=0.5
    A score of the features is a strategy too: the largest first.
    --target: it chooses for the prompts of `edjax select --target FEATURES`; in brackets where it can do without.
    """
    from edjax.data.features import SCORES
    from edjax.scoring.probes import PROBES
    from edjax.selection.strategies import BROKEN, STRATEGIES, described, scores_of

    said = {name: described(method) for name, method in STRATEGIES.items()}
    wide = max(len(name) for name in said)
    lines = []
    for name, of in said.items():
        read = scores_of(STRATEGIES[name])
        needs = "decoded tokens" if read and set(read) <= set(SCORES) else of["needs"]
        probes = [p for p in PROBES if PROBES[p].of and set(PROBES[p].columns) & set(read)]
        needs += f" (--probe {', '.join(probes)})" if probes else ""
        needs += {"none": "", "taken": " [--target]", "needed": " --target"}[of["target"]]
        own = ", ".join(k["name"] if k["default"] is None else f"{k['name']}={k['default']}" for k in of["knobs"])
        lines.append(f"{name:{wide}}  needs {needs:21}  {of['summary']}{f' ({own})' if own else ''}")
    for why in BROKEN.values():
        options.note(why)
    options.tell(said, *lines)
