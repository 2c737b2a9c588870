"""`edjax strategies`."""

from __future__ import annotations

from typing import Any

import click

from edjax.cli import options

TARGET = {"none": "", "taken": " [--target]", "needed": " --target"}


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
    from edjax.selection.strategies import BROKEN, STRATEGIES, described

    said = {name: described(method) for name, method in STRATEGIES.items()}
    wide = max(len(name) for name in said)
    needs = {name: _needs(STRATEGIES[name]) + TARGET[of["target"]] for name, of in said.items()}
    room = max(map(len, needs.values()))
    lines = []
    for name, of in said.items():
        own = ", ".join(k["name"] if k["default"] is None else f"{k['name']}={k['default']}" for k in of["knobs"])
        lines.append(f"{name:{wide}}  needs {needs[name]:{room}}  {of['summary']}{f' ({own})' if own else ''}")
    for why in BROKEN.values():
        options.note(why)
    options.tell(said, *lines)


def _needs(method: Any) -> str:
    """The columns that a method reads, the scores of decoded tokens as one, each probe behind what it makes."""
    from edjax.data.features import SCORES
    from edjax.scoring.probes import PROBES
    from edjax.selection.strategies import reads_embeddings, scores_of

    read = [name for name in scores_of(method) if name not in SCORES]
    said = ["embeddings"] * reads_embeddings(method) + ["decoded tokens"] * (len(read) < len(scores_of(method)))
    for probe, of in PROBES.items():
        if of.of and (made := [name for name in read if name in of.columns]):
            said.append(f"{', '.join(made)} (--probe {probe})")
            read = [name for name in read if name not in made]
    return ", ".join([*said, *read]) or "nothing"
